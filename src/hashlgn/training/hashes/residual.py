"""Codes of 4-bit sub-codes: additive quantization of the embeddings in the directions that queries ask for."""

from __future__ import annotations

from typing import ClassVar

import faiss
import numpy as np
import torch
from torch import Tensor, nn

from hashlgn.scoring.codes import pack_subcodes, unpack_signs, unpack_subcodes
from hashlgn.scoring.decoders import Floats
from hashlgn.training.hashes.base import Hash, Start

__all__ = ["Residual", "refine", "whitening"]

_AXES = 256  # principal axes on which sub-codes are first found
_FEW = 10_000  # items
_SAMPLE = 50_000  # items that decide the codewords
_UNIFORM_SHARE = 0.1  # of the queries' second moment: the part that is made the same in all directions


class Residual(Hash):
    """Codes as additive quantization of the embedding: ``o ≈ Σ_m C_m[k_m]``, each 4-bit sub-code ``k_m`` one of sixteen
    codewords.

    ``start`` learns codewords C and sub-codes by residual quantization (Chen et al., *Approximate nearest neighbor
    search by residual vector quantization*, Sensors 2010; beam search as in Babenko and Lempitsky, CVPR 2014), and
    brings both closer by local search. The codewords become the decoder's and are trained there. The sub-codes stay.
    """

    has_sign: ClassVar[bool] = False
    per_item: ClassVar[bool] = True
    decoder: ClassVar[str | None] = "codebook"

    def __init__(self, n_items: int, dim: int, bits: int, beam: int = 4) -> None:
        super().__init__()
        self.dim, self.beam = dim, beam
        self.codes: Tensor
        self.register_buffer("codes", torch.ones(n_items, bits))

    def start(self, items: Tensor, weights: Tensor | None = None, queries: Tensor | None = None) -> Start:
        """Learn codewords and sub-codes: residual quantization of the leading axes, then ``refine`` on all of them;
        after the whitening transform of the queries, where there are any.
        """
        turn, back = whitening(queries) if queries is not None else (torch.eye(self.dim).to(items),) * 2
        items = items @ turn
        axes = torch.linalg.svd(items.T @ items).U[:, :_AXES] if self.dim > _AXES else torch.eye(self.dim).to(items)
        leading = np.ascontiguousarray((items @ axes).detach().cpu().numpy(), np.float32)
        quantizer = self._quantizer(leading.shape[1])
        # Codewords are learned greedily: less error than by a beam, in less time.
        quantizer.max_beam_size = 1
        quantizer.train(_enough(leading))
        found = torch.from_numpy(faiss.vector_to_array(quantizer.codebooks)).to(items).view(-1, 16, leading.shape[1])
        codewords = found @ axes.T
        # Few items leave codewords that fit greedy sub-codes alone; of many, a beam finds closer ones.
        subcodes = min(
            (self._closest(quantizer, leading, beam).to(items.device) for beam in (1, self.beam)),
            key=lambda rows: _error(items, codewords, rows, weights),
        )
        codewords, subcodes = refine(items, codewords, subcodes, weights, 3 if self._few else 4)
        self.codes.copy_(_signs(subcodes))
        return Start(codewords=codewords @ back)

    def forward(self, items: Tensor) -> Tensor:
        """The codes found at the start, ``(n_items, bits)``, without gradient."""
        return self.codes

    @property
    def _few(self) -> bool:
        """Whether half of the passes suffice: the error grows by less than 2%, and they are a fifth of a training."""
        return len(self.codes) < _FEW

    def _closest(self, quantizer: faiss.ResidualQuantizer, vectors: Floats, beam: int) -> Tensor:
        """Sub-codes by a beam search, ``(n, M)``."""
        # Distances from tables: the same codes, three times as fast.
        quantizer.max_beam_size, quantizer.use_beam_LUT = beam, 1
        quantizer.compute_codebook_tables()  # type: ignore[attr-defined]  # Faiss's stub lacks it
        return torch.from_numpy(unpack_subcodes(quantizer.compute_codes(vectors))).long()

    def _quantizer(self, dim: int) -> faiss.ResidualQuantizer:
        quantizer = faiss.ResidualQuantizer(dim, self.codes.shape[1] // 4, 4)
        quantizer.cp.min_points_per_centroid = 1  # else Faiss writes warnings for small catalogues to stderr
        # With a PCA per sub-code, in ten steps of growing dimension, the error stays the same and the time doubles.
        quantizer.cp.apply_pca = False
        quantizer.cp.progressive_dim_steps, quantizer.cp.niter = (3, 8) if self._few else (5, 10)
        return quantizer


def _signs(subcodes: Tensor) -> Tensor:
    """Sub-codes ``(n, M)`` as codes of ±1, ``(n, 4 M)``."""
    return torch.from_numpy(unpack_signs(pack_subcodes(subcodes.cpu().numpy().astype(np.uint8))))


def _error(items: Tensor, codewords: Tensor, subcodes: Tensor, weights: Tensor | None) -> float:
    """``Σ_i w_i ‖o_i − Σ_m C_m[k_im]‖²``; see ``refine``."""
    rows = subcodes + 16 * torch.arange(subcodes.shape[1], device=subcodes.device)
    squares = (items - nn.functional.embedding_bag(rows, codewords.flatten(0, 1), mode="sum")).square().sum(dim=1)
    return float(squares.sum() if weights is None else weights @ squares)


def whitening(queries: Tensor) -> tuple[Tensor, Tensor]:
    """``A = M^1/2`` and its inverse, ``(dim, dim)``, for ``M`` the second moment of the queries.

    ``‖A (o − g)‖²`` is the mean square of the errors ``q · (o − g)`` of the scores. A tenth of M is made the same in
    all directions: some queries ask for directions that are rare among all.
    """
    moment = queries.T @ queries / len(queries)
    values, axes = torch.linalg.eigh(moment)
    values = (1 - _UNIFORM_SHARE) * values + _UNIFORM_SHARE * values.mean()
    return axes * values.sqrt() @ axes.T, axes * values.rsqrt() @ axes.T


def refine(
    items: Tensor, codewords: Tensor, subcodes: Tensor, weights: Tensor | None = None, rounds: int = 4
) -> tuple[Tensor, Tensor]:
    """Lower the error ``Σ_i w_i ‖o_i − Σ_m C_m[k_im]‖²`` of codewords C and sub-codes k.

    Each round has two steps. First the codewords are fitted by least squares; where no item uses a codeword, it stays.
    Then each sub-code of each item is set to its best value while the others stay, twice (iterated conditional modes,
    as in Babenko and Lempitsky, *Additive Quantization*, CVPR 2014). The second step needs inner products alone, so its
    time does not grow with the dimension. In a catalogue of more than 50,000 items a sample decides the codewords.

    Args:
        items: ``(n, dim)``.
        codewords: ``(M, 16, dim)``.
        subcodes: ``(n, M)``, 0 … 15.
        weights: w, ``(n,)``, at least 0; 1 where None.
        rounds: number of rounds; the error never grows.

    Returns:
        Codewords and sub-codes, shaped as given.
    """
    flat, rows = codewords.flatten(0, 1), subcodes + 16 * torch.arange(subcodes.shape[1], device=subcodes.device)
    chosen = torch.arange(len(items), device=subcodes.device)
    if len(items) > _SAMPLE:
        chosen = torch.randperm(len(items), device=subcodes.device)[:_SAMPLE]
    sample, taken = items[chosen], rows[chosen]
    weights = items.new_ones(len(items)) if weights is None else weights
    shares = (weights[chosen] / weights[chosen].mean().clamp(min=1e-12))[:, None]
    for _ in range(rounds):
        used = items.new_zeros(len(sample), len(flat)).scatter_(1, taken, 1.0)  # (sample, 16 M)
        gram = used.T @ (shares * used)
        gram.diagonal().add_(1e-3 * len(sample) / 16)
        wanted = used.T @ (shares * (sample - nn.functional.embedding_bag(taken, flat, mode="sum")))
        flat = flat + torch.cholesky_solve(wanted, torch.linalg.cholesky(gram))
        taken = _conditional_modes(sample, flat, taken)
    rows[chosen] = taken
    if len(sample) < len(items):
        for start in range(0, len(items), _SAMPLE):
            part = slice(start, start + _SAMPLE)
            rows[part] = _conditional_modes(items[part], flat, rows[part])
    return flat.view_as(codewords), rows % 16


def _conditional_modes(items: Tensor, flat: Tensor, rows: Tensor, rounds: int = 2) -> Tensor:
    """Set each sub-code in turn to the best beside the others: the one with the least ``‖c‖² + 2 c · (Σ − o)``, where
    Σ is the sum of the other codewords. ``flat`` are all codewords, ``(16 M, dim)``, of which ``rows``, ``(n, M)``, are
    those that the sub-codes select.

    Returns:
        Rows, shaped as given.
    """
    gram, rows = flat @ flat.T, rows.clone()
    away = nn.functional.embedding_bag(rows, gram, mode="sum") - items @ flat.T  # c · (Σ − o), own codeword included
    squares = gram.diagonal()
    for _ in range(rounds):
        for m in range(rows.shape[1]):
            block = slice(16 * m, 16 * m + 16)
            old = rows[:, m]
            new = (2 * (away[:, block] - gram[:, block].index_select(0, old)) + squares[block]).argmin(dim=1) + 16 * m
            moved = (new != old).nonzero()[:, 0]
            change = gram.index_select(0, new[moved]).sub_(gram.index_select(0, old[moved]))
            away.index_add_(0, moved, change)
            rows[:, m] = new
    return rows


def _enough(vectors: Floats) -> Floats:
    """The vectors, repeated with a little noise where they are too few for Faiss to cluster in their dimension."""
    wanted = max(256, 4 * vectors.shape[1])
    if len(vectors) >= wanted:
        return vectors
    noise = 1e-3 * np.random.default_rng(0).standard_normal((wanted, vectors.shape[1]))
    return (np.resize(vectors, noise.shape) + noise).astype(np.float32)
