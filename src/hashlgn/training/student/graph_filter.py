"""A graph filter over all frequencies as a teacher, for catalogues that are too large for EASE."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from hashlgn.data import Interactions
from hashlgn.training.student.batches import Batch, Candidates, History
from hashlgn.training.student.teachers import logarithm

__all__ = ["GraphFilter", "filter_dim", "filter_neighbours", "neighbours"]

_DIM, _FLOATS = 512, 2**26  # singular vectors, fewer where they would take more than a quarter of a gigabyte
_IN, _OUT, _POWER = 0.4, 0.5, 0.5  # exponents of the items' degrees and of the singular values
_NEIGHBOURS, _ENTRIES = 300, 2**25  # of an item, and of all
_PRODUCTS = 2_000_000_000  # of pairs within histories, at most: of more, a sample of users decides
_ADDED = 2**22  # entries of neighbours that are added at a time
_BLOCK = 512  # items whose neighbours are found at a time


def filter_dim(n_items: int) -> int:
    """How many singular vectors the filter takes."""
    return min(_DIM, max(1, _FLOATS // n_items))


def filter_neighbours(n_items: int) -> int:
    """How many neighbours of each item the filter takes."""
    return min(_NEIGHBOURS, max(1, _ENTRIES // n_items))


class GraphFilter:
    """The logarithm of a linear graph filter, a teacher whose softmax has the perplexity of people's choices.

        s_u = R_u D_i^-0.4 (V σ^½ Vᵀ + N) D_i^½,        score_ui = 2 ln(max(s_ui, 0) / deviation(s_u) + 0.1)

    V and σ are the leading singular vectors and values (the largest is 1) of ``S = D_u^-½ R D_i^-½``, and N has the
    300 largest entries of each row of ``SᵀS``: the vectors know what most people share, the neighbours know the
    items that few people have. ``s_ui`` grows with the chance of an interaction, not with its logarithm, which is what
    a softmax takes.

    Source: the sum of both parts is that of Shen et al., *How Powerful is Graph Convolution for Recommendation?*,
    CIKM 2021; there with the exponents ½, the ideal low pass and all neighbours, and without the logarithm.
    """

    logarithmic = True

    def __init__(
        self,
        data: Interactions,
        values: npt.NDArray[np.float32],
        vectors: npt.NDArray[np.float32],
        device: torch.device,
    ) -> None:
        degree = np.maximum(np.bincount(data.indices, minlength=data.n_items), 1).astype(np.float32)
        inward, outward = degree**-_IN, degree**_OUT
        near = neighbours(data, filter_neighbours(data.n_items))
        low = (values / max(values[0], 1e-12)) ** _POWER
        self._project = torch.from_numpy(np.ascontiguousarray(vectors * inward[:, None])).to(device)
        self._answers = torch.from_numpy(np.ascontiguousarray(vectors * low * outward[:, None])).to(device)
        self._near = (sparse.diags(inward) @ near @ sparse.diags(outward)).tocsr().astype(np.float32)
        self._table = None if device.type == "cpu" else [part.to(device) for part in _table(self._near)]

    def scores(self, batch: Batch, among: Candidates) -> Tensor:
        """See ``Teacher``."""
        history = batch.history._replace(strengths=torch.ones_like(batch.history.strengths))
        answers = self._answers if among.items is None else self._answers.index_select(0, among.items)
        near = self._by_rows(history, among) if self._table is None else self._by_entries(history, among, *self._table)
        linear = torch.addmm(near, history.sums(self._project), answers.T)
        return logarithm(linear)

    def _by_rows(self, history: History, among: Candidates) -> Tensor:
        """``R_u N``, ``(b, n)``, on the processor, where SciPy is many times faster than sums by entry."""
        bounds, items = np.searchsorted(history.rows.numpy(), np.arange(history.size + 1)), history.items.numpy()
        own = sparse.csr_matrix((history.strengths.numpy(), items, bounds), shape=(history.size, len(self._answers)))
        near = own @ self._near
        return torch.from_numpy((near if among.items is None else near[:, among.items.numpy()]).toarray())

    def _by_entries(self, history: History, among: Candidates, items: Tensor, values: Tensor) -> Tensor:
        """The same on another device."""
        columns, width = torch.arange(len(items), device=items.device), len(items)
        if among.items is not None:
            width = len(among.items)
            # What is not a candidate is added up in one more column, which is then left out.
            columns = torch.full_like(columns, width).index_copy_(0, among.items, columns[:width])
        near = values.new_zeros(history.size, width + 1)
        step = max(1, _ADDED // items.shape[1])
        for rows, known in zip(torch.split(history.rows, step), torch.split(history.items, step), strict=True):
            places = rows[:, None] * (width + 1) + columns[items[known].long()]
            near.view(-1).index_add_(0, places.flatten(), values[known].flatten())
        return near[:, :width]


def _table(near: sparse.csr_matrix) -> tuple[Tensor, Tensor]:
    """Columns and values of the entries of each row, ``(n_items, most)`` int32 and float32, filled up with zeros."""
    counts = np.diff(near.indptr)
    rows, shape = np.repeat(np.arange(len(counts)), counts), (len(counts), max(1, int(counts.max(initial=0))))
    places = np.arange(near.nnz) - near.indptr[rows]
    items, values = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    items[rows, places], values[rows, places] = near.indices, near.data
    return torch.from_numpy(items), torch.from_numpy(values)


def neighbours(data: Interactions, count: int) -> sparse.csr_matrix:
    """The ``count`` largest entries of each row of ``SᵀS``, ``(n_items, n_items)`` float32; ties go either way.

    Where the histories hold too many pairs, those of a random sample of users are counted.
    """
    lengths = np.diff(data.indptr)
    share = _PRODUCTS / max(float(np.square(lengths, dtype=np.float64).sum()), 1.0)
    if share < 1:
        chosen = np.random.default_rng(0).random(data.n_users) < share
        data = data.select(np.repeat(chosen, lengths))
        lengths = np.diff(data.indptr)
    degree = np.maximum(np.bincount(data.indices, minlength=data.n_items), 1)
    weights = np.repeat(np.maximum(lengths, 1) ** -0.5, lengths) * (degree**-0.5)[data.indices]
    shape = data.n_users, data.n_items
    s = sparse.csr_matrix((weights.astype(np.float32), data.indices, data.indptr), shape=shape)
    columns = s.T.tocsr()
    parts = []
    for start in range(0, data.n_items, _BLOCK):
        block = (columns[start : start + _BLOCK] @ s).tocsr()
        smallest = np.zeros(block.shape[0], np.float32)
        for row in np.flatnonzero(np.diff(block.indptr) > count):
            values = block.data[block.indptr[row] : block.indptr[row + 1]]
            smallest[row] = np.partition(values, -count)[-count]
        block.data[block.data < np.repeat(smallest, np.diff(block.indptr))] = 0
        block.eliminate_zeros()
        parts.append(block)
    return sparse.vstack(parts, format="csr")
