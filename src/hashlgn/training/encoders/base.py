"""What an encoder is, and what encoders of free embeddings share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from hashlgn.config import ModelConfig
from hashlgn.errors import ArgumentError, positive_int, shown
from hashlgn.evaluation.metrics import Floats
from hashlgn.training.graph import Graph

__all__ = ["Encoder", "FreeEmbeddings"]

_RIDGE = 1e-5  # of the mean square along an axis: what keeps the fit definite where axes are alike


class Encoder(nn.Module):
    """Maps a graph to embeddings of users and items. It holds parameters and buffers, and no data.

    Attributes:
        trainable: whether it has parameters that a loss trains; a closed form has none.
        similarity: of queries and items where the configuration names none: ``cosine`` or ``inner``.
        dims: length of an embedding where the configuration names none, by ``model.kind``. None: validation chooses.
        has_layers: whether ``model.layers`` matters.
        has_layer_weights: whether ``model.layer_weights`` may be set.
        dim: length of an embedding.
    """

    trainable: ClassVar[bool] = True
    similarity: ClassVar[str] = "cosine"
    dims: ClassVar[Mapping[str, int] | None] = {"float": 64, "hashlgn": 128}
    has_layers: ClassVar[bool] = True
    has_layer_weights: ClassVar[bool] = False
    dim: int

    @classmethod
    def create(cls, graph: Graph, config: ModelConfig, seed: int = 0) -> Self:
        """An encoder for this graph; what it draws is fixed by PyTorch's generator or by ``seed``."""
        raise NotImplementedError

    @classmethod
    def select(
        cls, graph: Graph, config: ModelConfig, seed: int, evaluate: Callable[[Encoder], Floats] | None
    ) -> Encoder:
        """An encoder for this graph, with the settings that validation may choose chosen; most encoders have none.

        Args:
            graph: what it is created for.
            config: settings that are None are open.
            seed: fixes what it draws.
            evaluate: the validation metric of an encoder, one value per user; None without validation.
        """
        return cls.create(graph, config, seed)

    def settings(self) -> dict[str, Any]:
        """What it was made with: values of ``model`` in the configuration."""
        return {"dim": self.dim}

    def forward(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Embeddings of users ``(n_users, dim)`` and items ``(n_items, dim)``."""
        raise NotImplementedError

    def fold_in(self, graph: Graph) -> Tensor:
        """``p``, ``(n_items, dim)``: a user known by a history H alone has ``|H|^-1/2 Σ_{i∈H} p_i``."""
        raise NotImplementedError

    def start_from_svd(self, graph: Graph, seed: int = 0) -> None:
        """Let the parameters start from singular vectors of the graph.

        Raises:
            ArgumentError: this encoder has no such start.
        """
        raise ArgumentError(f"train.init must be 'random' for encoder {type(self).__name__} (got 'svd')")


class FreeEmbeddings(Encoder):
    """A learned vector ``e^(0)`` for every user and item; what is made of them over the graph, ``forward`` says.

    Args:
        n_users: number of users.
        n_items: number of items.
        dim: length of the final embedding.
        layers: propagation steps.
        concatenated: whether the final embedding is ``e^(0)`` and the outputs of all layers after one another, each of
            length ``dim / (layers + 1)``, rounded down, so that ``e^(0)`` takes what is left. Else all have length
            ``dim``.

    Attributes:
        width: length of a layer's output.
        users: ``E^(0)`` of the users, a row each, drawn from N(0, 0.1²) by PyTorch's generator.
        items: ``E^(0)`` of the items.

    Raises:
        ArgumentError: a number is out of range, or ``dim`` too small for its parts.
    """

    def __init__(self, n_users: int, n_items: int, dim: int, layers: int, *, concatenated: bool = False) -> None:
        super().__init__()
        if isinstance(layers, bool) or not isinstance(layers, int) or layers < 0:
            raise ArgumentError(f"layers must be an integer of at least 0 (got {shown(layers)})")
        self.dim, self.layers = positive_int("dim", dim), layers
        if concatenated and dim <= layers:
            raise ArgumentError(f"dim must be more than layers, {layers}, whose outputs are its parts (got {dim})")
        self.width = dim // (layers + 1) if concatenated else dim
        start = dim - layers * self.width if concatenated else dim
        self.users = nn.Parameter(torch.empty(n_users, start))
        self.items = nn.Parameter(torch.empty(n_items, start))
        nn.init.normal_(self.users, std=0.1)
        nn.init.normal_(self.items, std=0.1)

    @classmethod
    def create(cls, graph: Graph, config: ModelConfig, seed: int = 0) -> Self:
        """An encoder for this graph, its parameters drawn by PyTorch's generator."""
        return cls(graph.n_users, graph.n_items, positive_int("dim", config.dim), config.layers)

    def start_from_svd(self, graph: Graph, seed: int = 0) -> None:
        """Set ``E^(0)`` to the rows of ``R D^-1/2 V`` and ``D^1/2 V``, normalised, V the top right singular vectors
        of S.

        On rows of unit length Adam's first steps are small against the embeddings; from shorter ones they would undo
        the start. A catalogue smaller than the embedding has fewer singular vectors than dimensions: then the start
        stays random.
        """
        if self.users.shape[1] >= min(graph.n_users, graph.n_items):
            return
        _, vectors = graph.singular_vectors(self.users.shape[1], seed)
        users, items = graph.normalised @ vectors, vectors  # a positive factor a row does not survive normalisation
        with torch.no_grad():
            self.users.copy_(nn.functional.normalize(torch.from_numpy(users)))
            self.items.copy_(nn.functional.normalize(torch.from_numpy(items)))

    def fold_in(self, graph: Graph) -> Tensor:
        """``p_i = d_i^-1/2 B o_i``, ``(n_items, dim)``, an approximation: what a layer with a nonlinearity makes of a
        history is no sum over its items.

        B is the linear map that comes closest, in squares over the users of the graph, to the embeddings they have:
        ``Σ_u ‖q_u − B Σ_{i∈H_u} (d_u d_i)^-1/2 o_i‖²`` plus a small ridge. So it also brings what a user's own
        ``e^(0)``, which somebody new does not have, adds on average.
        """
        users, items = self(graph)
        sent, _ = graph.propagate(users, items)
        x, q = sent.detach().double(), users.detach().double()
        gram = x.T @ x
        gram.diagonal().add_(_RIDGE * gram.diagonal().mean() + 1e-12)
        turn = torch.linalg.solve(gram, x.T @ q).to(items)  # Bᵀ
        degree = torch.from_numpy(graph.item_degree).to(items).clamp(min=1)
        folded: Tensor = (items / degree.sqrt()[:, None]) @ turn
        return folded
