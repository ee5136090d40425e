"""The user-item graph as a sparse operator: the symmetrically normalised bipartite adjacency.

With R the ``(n_users, n_items)`` 0/1 interaction matrix and D the diagonal degree matrices,

    S = D_u^-1/2 R D_i^-1/2,        A = [[0, S], [Sᵀ, 0]]

one propagation step is ``A E``: users receive ``S E_items`` and items receive ``Sᵀ E_users`` (He et al., *LightGCN*,
SIGIR 2020, equation 7). A is symmetric and fixed, so the gradient of a step is the same product. Nothing here is
ever dense.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from scipy.linalg import eigh
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor, nn

from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError, positive_int

__all__ = ["Graph", "Rows"]

_LANCZOS = 256  # singular vectors up to which Lanczos is the faster
_DENSE = 4  # times as many columns as vectors, up to which the Gram matrix is small
_ROUNDS = 4
_CHUNK = 16_384  # edges whose inner products are formed at a time: what they are formed from stays in the cache


class Graph:
    """The normalised adjacency of a set of interactions, on one device.

    Args:
        data: the interactions; users and items without any keep a row of zeros.
        device: where the products run.

    Attributes:
        n_users: number of users.
        n_items: number of items.
        device: where the products run.
        user_degree: interactions of each user, ``(n_users,)``.
        item_degree: interactions of each item, ``(n_items,)``.
        normalised: ``S`` as SciPy CSR, ``(n_users, n_items)`` float32.
        to_users: the edges into users, by user, with the values of ``S``.
        to_items: the edges into items, by item, with the values of ``Sᵀ``.
    """

    def __init__(self, data: Interactions, device: torch.device | str = "cpu") -> None:
        self.n_users, self.n_items, self.device = data.n_users, data.n_items, torch.device(device)
        self.user_degree = np.diff(data.indptr)
        self.item_degree = np.bincount(data.indices, minlength=data.n_items)
        user_weight = 1 / np.sqrt(np.maximum(self.user_degree, 1))
        item_weight = 1 / np.sqrt(np.maximum(self.item_degree, 1))
        weights = np.repeat(user_weight, self.user_degree) * item_weight[data.indices]
        self.normalised = sparse.csr_matrix(
            (weights.astype(np.float32), data.indices, data.indptr), shape=(data.n_users, data.n_items)
        )
        self.to_users = Rows.of(self.normalised, device)
        self.to_items = Rows.of(self.normalised.T.tocsr(), device)

    def propagate(
        self, users: Tensor, items: Tensor, weights: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """One step: ``(S items, Sᵀ users)``, shapes ``(n_users, dim)`` and ``(n_items, dim)``, differentiable.

        Args:
            users: ``(n_users, dim)``.
            items: ``(n_items, dim)``.
            weights: in place of the values of ``to_users`` and of ``to_items``, one per edge, each in its own order and
                without a gradient.
        """
        to_users, to_items = self.to_users, self.to_items
        if weights is None:
            return _multiply(to_users, to_items, items), _multiply(to_items, to_users, users)
        by_item, by_user = self._orders
        into_users, into_items = weights
        return (
            _multiply(to_users._replace(values=into_users), to_items._replace(values=into_users[by_item]), items),
            _multiply(to_items._replace(values=into_items), to_users._replace(values=into_items[by_user]), users),
        )

    @cached_property
    def _orders(self) -> tuple[Tensor, Tensor]:
        """For each edge of ``to_items`` its position in ``to_users``, and the other way round."""
        by_item = torch.argsort(self.to_users.columns, stable=True)
        by_user = torch.empty_like(by_item)
        by_user[by_item] = torch.arange(len(by_item), device=by_item.device)
        return by_item, by_user

    def singular_vectors(self, dim: int, seed: int = 0) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The ``dim`` largest singular values of S and their right vectors: ``(dim,)`` and ``(n_items, dim)``.

        Largest first; each vector's largest entry is positive, so that the answer does not depend on the solver's
        signs.
        ``torch.svd_lowrank`` is faster and not as good: on MovieLens 100K, 128 vectors after eight iterations, its
        values are off by up to 1e-3, those of Lanczos by 1e-7.

        Raises:
            ArgumentError: ``dim`` is not positive, or not smaller than the number of users and of items.
        """
        limit = min(self.n_users, self.n_items)
        if positive_int("dim", dim) >= limit:
            raise ArgumentError(f"dim must be smaller than the number of users and of items, {limit} (got {dim})")
        rng = np.random.default_rng(seed)
        active = np.flatnonzero(np.diff(self.normalised.indptr))  # in a sample, most users have nothing
        rows = self.normalised[active] if len(active) > dim else self.normalised
        tall = rows if self.n_items <= rows.shape[0] else rows.T.tocsr()
        basis, _ = _orthonormal(_leading(tall, dim, rng) if dim <= _LANCZOS else _subspace(tall, dim, rng))
        image, small = _orthonormal(tall @ basis)
        left, values, turn = np.linalg.svd(small)
        vectors = np.ascontiguousarray(basis @ turn.T if tall is rows else image @ left, np.float32)
        vectors *= np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(dim)])
        return values.astype(np.float32), vectors


def _leading(tall: sparse.csr_matrix, dim: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """The leading right singular vectors, ``(columns, dim)``: of a small matrix by the eigenvectors of its Gram matrix,
    else by the implicitly restarted Lanczos method.
    """
    limit = tall.shape[1]
    if limit <= _DENSE * dim:
        basis: npt.NDArray[np.float32] = eigh((tall.T @ tall).toarray(), subset_by_index=[limit - dim, limit - 1])[1]
        return basis
    start = rng.standard_normal(limit).astype(np.float32)
    flat = tall.T.tocsr()
    # The Gram matrix of the smaller side halves the length of the Lanczos vectors. Where fewer than dim values
    # are above 0, Lanczos starts anew from random vectors: SciPy's svds would draw those differently every time.
    gram = LinearOperator((limit, limit), matvec=lambda x: flat @ (tall @ x), dtype=np.float32)
    try:
        basis = eigsh(gram, k=dim, v0=start, rng=rng)[1]
    except ArpackNoConvergence as error:
        raise ArgumentError(f"dim must be smaller for the SVD to converge (got {dim}; or train.init=random)") from error
    return basis


def _subspace(tall: sparse.csr_matrix, dim: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """About the same space by subspace iteration on ``TᵀT`` with a quarter more columns, ``(columns, dim)``. Lanczos's
    time grows with the square of dim; this takes a few products with wide matrices, and what it misses lies among
    values close to the smallest kept. Source: Halko, Martinsson, Tropp: *Finding structure with randomness*, SIAM
    Review 2011, algorithm 4.4.
    """
    flat = tall.T.tocsr()
    width = min(tall.shape[1], dim + dim // 4)
    basis = rng.standard_normal((tall.shape[1], width), dtype=np.float32)
    for _ in range(_ROUNDS):
        basis, _ = _orthonormal(flat @ (tall @ (flat @ (tall @ basis))))
    image = tall @ basis
    _, turn = np.linalg.eigh(image.T @ image)
    leading: npt.NDArray[np.float32] = basis @ turn[:, ::-1][:, :dim]
    return leading


def _orthonormal(columns: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """``columns = Q R``, with an orthonormal basis Q; PyTorch takes a third of NumPy's time."""
    basis, rest = torch.linalg.qr(torch.from_numpy(np.ascontiguousarray(columns)))
    return basis.numpy(), rest.numpy()


class Rows(NamedTuple):
    """A sparse matrix by rows, on a device: row r has ``values[k]`` in column ``columns[k]``, ``bounds[r] ≤ k <
    bounds[r + 1]``.
    """

    bounds: Tensor
    columns: Tensor
    values: Tensor

    @classmethod
    def of(cls, matrix: sparse.csr_matrix, device: torch.device | str) -> Rows:
        """The rows of a SciPy matrix."""
        arrays = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.data
        return cls(*(torch.from_numpy(array).to(device) for array in arrays))

    def times(self, x: Tensor) -> Tensor:
        """The product with a dense matrix: a weighted sum of its rows for each row. (As a bag of embeddings it takes a
        quarter of the time of PyTorch's CSR product, and adds in the same order on any number of threads.)
        """
        product: Tensor = nn.functional.embedding_bag(
            self.columns, x, self.bounds, mode="sum", per_sample_weights=self.values, include_last_offset=True
        )
        return product

    def mean(self, x: Tensor, fan_out: int | None = None) -> Tensor:
        """The mean of the rows of x, ``(columns, dim)``, that each row names; zeros where it names none.

        Args:
            x: a vector for each column.
            fan_out: of so many names, drawn with replacement by PyTorch's generator; of all where None.
        """
        if fan_out is None:
            whole: Tensor = nn.functional.embedding_bag(
                self.columns, x, self.bounds, mode="mean", include_last_offset=True
            )
            return whole
        first, last = self.bounds[:-1, None], self.bounds[1:, None] - 1
        drawn = first + (torch.rand(len(first), fan_out, device=x.device) * (last - first + 1)).long()
        # Rounding may give one too many; a row that names nothing draws anything, and is made 0 below.
        drawn = torch.minimum(drawn, last).clamp(min=0)
        means: Tensor = nn.functional.embedding_bag(self.columns[drawn], x, mode="mean")
        return means * (last >= first)

    def inner(self, own: Tensor, others: Tensor) -> Tensor:
        """For each entry the inner product of its row's and its column's vector, ``(entries,)``.

        Args:
            own: a vector for each row.
            others: a vector for each column.
        """
        rows = torch.repeat_interleave(self.bounds.diff())
        parts = (slice(start, start + _CHUNK) for start in range(0, len(rows), _CHUNK))
        return torch.cat([(own[rows[part]] * others[self.columns[part]]).sum(dim=1) for part in parts])


class _Multiply(torch.autograd.Function):
    """``matrix @ x`` for a constant sparse matrix whose transpose is at hand: the gradient is a product by rows too."""

    @staticmethod
    def forward(ctx: Any, matrix: Rows, transpose: Rows, x: Tensor) -> Tensor:
        ctx.transpose = transpose
        return matrix.times(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:
        return None, None, ctx.transpose.times(gradient.contiguous())


_multiply: Callable[[Rows, Rows, Tensor], Tensor] = _Multiply.apply  # PyTorch leaves it untyped
