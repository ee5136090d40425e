"""The training of a model with an encoder: resolve, make the encoder, train the stages."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hashlgn.config import Config
from hashlgn.data import Interactions
from hashlgn.training.allocator import kept_memory
from hashlgn.training.checkpoint import Checkpoint, identity
from hashlgn.training.graph import Graph
from hashlgn.training.model import Model
from hashlgn.training.resolve import check_data, resolve, resolve_device
from hashlgn.training.stages import Run, plan_stages, seeded, train_stage, use_threads
from hashlgn.training.start import Parameters, make_encoder
from hashlgn.training.validation import cut_slice
from hashlgn.utils.progress import Progress

__all__ = ["Trained", "train"]


@dataclass(frozen=True)
class Trained:
    """The outcome: the model with its best weights, the graph of all interactions, and how it went."""

    model: Model  # in evaluation mode
    graph: Graph  # of all interactions given, the validation slice included
    config: Config  # as trained, with every automatic choice filled in
    # Best validation value by stage, ``{"encoder": …, "joint": …}``; empty without validation
    metrics: dict[str, float]
    device: str  # where it was trained
    threads: int  # processor threads it was given
    seconds: float  # wall time

    @property
    def told(self) -> dict[str, Any]:
        """What the provenance says beside the usual."""
        return {}

    def parts(self, graph: Graph | None = None) -> dict[str, Any]:
        """The arrays that are served, by attribute of ``ServedModel``.

        Args:
            graph: what the embeddings are propagated over; ``self.graph`` where None.
        """
        queries, items, fold_in = self.model.export(self.graph if graph is None else graph)
        encoder = self.model.get_submodule("encoder")
        state = {name: value.cpu().numpy() for name, value in encoder.state_dict().items()}
        return {
            "items": items,
            "histories": fold_in,
            "users": queries.numpy(),
            "encoder_state": state if self.config.model.kind == "float" else None,
        }


def train(
    data: Interactions,
    config: Config | None = None,
    *,
    device: str = "auto",
    threads: int | None = None,
    checkpoint: str | Path | None = None,
    start: Parameters | None = None,
    report: Callable[[Progress], None] | None = None,
) -> Trained:
    """Train a model with an encoder, which has a vector for each user of the training.

    Args:
        data: the interactions to learn from; a validation slice is cut from them.
        config: defaults where None.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: processor threads; all of PyTorch's default where None.
        checkpoint: file to write after every epoch, and to go on from where it exists. It is bound to data,
            configuration, ``start`` and versions, and stays: whoever has saved the model deletes it.
        start: the encoder's parameters from a float model of the same users and items, in place of ``train.init``; the
            pre-training, which comes first where there are codes, is then skipped.
        report: called after every step.

    Raises:
        ArgumentError: the configuration breaks a rule, or the checkpoint belongs to another training.
        DataError: there is nothing to learn from: fewer than two users or two items.
    """
    config = resolve(config or Config())
    settings, where = config.train, resolve_device(device)
    check_data(data, config)
    began = time.perf_counter()
    with seeded(settings.seed, where), use_threads(threads), kept_memory():
        saved = Checkpoint(checkpoint, identity(data, config, start) if checkpoint else {})
        state = saved.load()
        fit, held_out = cut_slice(data, settings)
        graph = Graph(fit, where)
        if state:
            config = Config.from_dict(state["config"])
        config, encoder = make_encoder(graph, config, fit, held_out, start)
        model = Model(encoder, data.n_items, config.model).to(where)
        stages = plan_stages(config, encoder, fit, started=start is not None)
        run = Run(config, model, graph, fit, held_out, stages, saved, report, began)
        if state:
            run.metrics, run.began = dict(state["metrics"]), began - state["seconds"]
        for stage in stages[state["stage"] if state else 0 :]:
            train_stage(run, stage, state)
            state = None  # it was of the first of them
        model.eval()
        # The held-out interactions come back for serving: propagation over them needs no training.
        full_graph = graph if held_out is None else Graph(data, where)
        threads_used = torch.get_num_threads()
        return Trained(model, full_graph, config, run.metrics, str(where), threads_used, run.seconds)
