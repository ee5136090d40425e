"""The spectral encoder: a low-pass filter of the user-item graph, in closed form. Nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from hashlgn.config import ModelConfig
from hashlgn.errors import ArgumentError, shown
from hashlgn.evaluation.metrics import Floats
from hashlgn.training.encoders.base import Encoder
from hashlgn.training.graph import Graph
from hashlgn.training.validation import near_best

__all__ = ["Spectral"]

# What is tried on validation. The widest embeddings stay within half a gigabyte.
_POWERS = (2.0, 1.5, 1.0, 0.75, 0.5, 0.25, 0.0)
_DIMS = (128, 256, 512, 1024)
_FLOATS = 2**27


class Spectral(Encoder):
    """Users ``S V σ^-1``, items ``D_i^1/2 V σ^(power + 1)`` for the top singular vectors V and values σ of S =
    D_u^-1/2 R D_i^-1/2.

    The inner product of the two is the linear filter ``D_u^-1/2 R D_i^-1/2 V h(σ) Vᵀ D_i^1/2`` of GF-CF (Shen et
    al., *How Powerful is Graph Convolution for Recommendation?*, CIKM 2021) with ``h(σ) = σ^power``; the factor
    ``D_u^-1/2`` changes no user's ranking. The factor σ stands with the items: users are then the left singular
    vectors, with orthonormal columns, and the distance between an item and its code is the error of its scores.

    Args:
        vectors: V, ``(n_items, dim)``.
        values: σ, ``(dim,)``, scaled so that the largest is 1.
        power: exponent of the filter; 0 is the ideal low-pass filter.
    """

    trainable: ClassVar[bool] = False
    similarity: ClassVar[str] = "inner"
    dims: ClassVar[Mapping[str, int] | None] = None
    has_layers: ClassVar[bool] = False

    def __init__(self, vectors: Tensor, values: Tensor, power: float = 0.0) -> None:
        super().__init__()
        if not 0 <= power <= 8:
            raise ArgumentError(f"power must lie in 0 … 8 (got {shown(power)})")
        self.dim, self.power = vectors.shape[1], float(power)
        self.vectors: Tensor
        self.values: Tensor
        self.register_buffer("vectors", vectors)
        self.register_buffer("values", values)

    @classmethod
    def create(cls, graph: Graph, config: ModelConfig, seed: int = 0) -> Spectral:
        """The encoder of this graph: 128 vectors where ``dim`` is None, a power of 0 where that is None."""
        dim = _widths(graph)[0] if config.dim is None else config.dim
        values, vectors = graph.singular_vectors(dim, seed)
        power = 0.0 if config.power is None else config.power
        return cls(torch.from_numpy(vectors), torch.from_numpy(values / values[0]), power)

    @classmethod
    def select(
        cls, graph: Graph, config: ModelConfig, seed: int, evaluate: Callable[[Encoder], Floats] | None
    ) -> Spectral:
        """The simplest of those that validate as well as any: the narrowest, then the filter that falls the most. (A
        random slice is closer to what was fitted than what people do next.)
        """
        widths = _widths(graph) if config.dim is None else [config.dim]
        powers = _POWERS if config.power is None else (config.power,)
        ways = [(dim, power) for dim in widths for power in powers]  # simplest first
        if evaluate is None or len(ways) == 1:
            return cls.create(graph, config, seed).to(graph.device)
        widest = cls.create(graph, replace(config, dim=widths[-1]), seed).to(graph.device)
        values = [evaluate(widest.cut(*way)) for way in ways]
        return widest.cut(*ways[near_best(np.array(values))[0]])

    def settings(self) -> dict[str, Any]:
        """Width and power."""
        return {"dim": self.dim, "power": self.power}

    def cut(self, dim: int, power: float) -> Spectral:
        """The same encoder with the first ``dim`` vectors alone, and another filter."""
        return Spectral(self.vectors[:, :dim].contiguous(), self.values[:dim], power)

    def forward(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Embeddings of users ``(n_users, dim)`` and items ``(n_items, dim)``."""
        users, _ = graph.propagate(self.vectors.new_zeros(graph.n_users, self.dim), self.vectors)
        degree = torch.from_numpy(graph.item_degree).to(self.vectors)
        return users * self._inverse(), degree.sqrt()[:, None] * self.vectors * self.values ** (self.power + 1)

    def fold_in(self, graph: Graph) -> Tensor:
        """``p_i = d_i^-1/2 V_i σ^-1``, ``(n_items, dim)``."""
        degree = torch.from_numpy(graph.item_degree).to(self.vectors).clamp(min=1)
        return self.vectors * self._inverse() / degree.sqrt()[:, None]

    def _inverse(self) -> Tensor:
        """``σ^-1``, and 0 for vectors without any user."""
        return torch.where(self.values > 1e-4, 1 / self.values, 0.0)


def _widths(graph: Graph) -> list[int]:
    """Numbers of vectors to try, ascending: no more than a quarter of what the graph has."""
    largest = min(min(graph.n_users, graph.n_items) // 4, _FLOATS // (graph.n_users + graph.n_items))
    return sorted({max(1, min(dim, largest)) for dim in _DIMS})
