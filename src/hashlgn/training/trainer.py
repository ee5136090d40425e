"""The training loop, from interactions to a trained model, in one function.

Two stages, one loop: first the encoder alone, on its float embeddings, then encoder, hash, decoder and compression
together. A float model has the first stage only. Every random draw comes from (seed, stage, epoch), so a run that
was stopped and resumed equals one that was not.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hashlgn.config import Config, TrainConfig
from hashlgn.data import Interactions, validation_slice
from hashlgn.errors import ArgumentError, DataError, choose, positive_int
from hashlgn.training.allocator import kept_memory
from hashlgn.training.checkpoint import Best, Checkpoint
from hashlgn.training.encoders import ENCODERS, FreeEmbeddings, Spectral
from hashlgn.training.graph import Graph
from hashlgn.training.hashes import guidance
from hashlgn.training.losses import LOSSES, Distillation, Loss
from hashlgn.training.model import Model, checked
from hashlgn.training.validation import near_best, ranking_values, validation_metric
from hashlgn.utils.progress import Progress

__all__ = ["Progress", "Trained", "chosen", "resolve_device", "train"]

# Share of the learning rate that is left after a share of a stage
_SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "constant": lambda progress: 1.0,
}
# What the spectral encoder is tried with, as far as the widest embeddings stay within half a gigabyte
_POWERS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
_DIMS = (128, 256, 512, 1024)
_FLOATS = 2**27
# LightGCN is compared after this share of its own training, and may be behind by so much, which the rest brings
_TRIAL, _BEHIND = 0.25, 0.03


@dataclass(frozen=True)
class Trained:
    """The outcome: the model with its best weights, the graph of all interactions, and how it went.

    Attributes:
        model: in evaluation mode.
        graph: of all interactions given, the validation slice included.
        config: as trained, with every automatic choice filled in.
        metrics: best validation value by stage, ``{"encoder": …, "joint": …}``; empty without validation.
        choice: validation value of each encoder that was tried, where ``model.encoder`` was left to be chosen.
        device: where it was trained.
        threads: processor threads it was given.
        seconds: wall time.
    """

    model: Model
    graph: Graph
    config: Config
    metrics: dict[str, float]
    choice: dict[str, float]
    device: str
    threads: int
    seconds: float

    @property
    def monitor(self) -> str:
        """Name of the validation metric."""
        return f"{self.config.train.monitor}@{self.config.train.monitor_k}"


def train(
    data: Interactions,
    config: Config | None = None,
    *,
    device: str = "auto",
    threads: int | None = None,
    checkpoint: str | Path | None = None,
    start: dict[str, np.ndarray[Any, Any]] | None = None,
    report: Callable[[Progress], None] | None = None,
) -> Trained:
    """Train a model.

    Args:
        data: the interactions to learn from; a validation slice is cut from them.
        config: defaults where None.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: processor threads; all of PyTorch's default where None.
        checkpoint: file to write after every epoch, and to go on from where it exists. It is bound to data,
            configuration, ``start`` and versions, and stays: whoever has saved the model deletes it.
        start: the encoder's parameters from a float model of the same users and items, in place of ``train.init``; the
            encoder's training alone, which comes first where there are codes, is then skipped.
        report: called after every step.

    Raises:
        ArgumentError: the configuration breaks a rule, or the checkpoint belongs to another training.
        DataError: there is nothing to learn from: fewer than two users or two items.
    """
    config = checked(config or Config())
    settings = config.train
    where = resolve_device(device)
    if data.n_users < 2 or data.n_items < 2 or not len(data):
        raise DataError(
            f"training needs at least 2 users and 2 items (got {data.n_users} users, {data.n_items} items, "
            f"{len(data)} interactions)"
        )
    began = time.perf_counter()
    with _seeded(settings.seed, where), _threads(threads), contextlib.ExitStack() as held:
        saved = Checkpoint(checkpoint, _identity(data, config, start) if checkpoint else {})
        state = saved.load()
        choice: dict[str, float] = {}
        fit, held_out = _slice(data, settings)
        if state:
            config, choice = Config.from_dict(state["config"]), state["choice"]
        elif start is not None and config.model.encoder == "auto":
            config = checked(config.updated({"model.encoder": "lightgcn"}))
        else:
            config, choice = chosen(data, config, device=device, report=report)
        held.enter_context(kept_memory())
        graph = Graph(fit, where)
        config, encoder = _encoder(graph, config, held_out, fit, start)
        model = Model(encoder, data.n_items, config.model).to(where)
        stages = _stages(config, encoder, skip_warmup=start is not None)
        losses = [_loss(config, stage) for stage, _ in stages]
        if isinstance(losses[-1], Distillation) and start is None and not stages[0][1] and _trainable(encoder):
            raise ArgumentError(
                "train.joint_loss must not be 'distillation' where no float model is trained before the codes join "
                f"(got it, with train.warmup {settings.warmup} of {settings.epochs} epochs)"
            )
        counts = [loss.steps(fit) for loss in losses]
        all_steps = sum(count * epochs for count, (_, epochs) in zip(counts, stages, strict=True))
        metrics: dict[str, float] = dict(state["metrics"]) if state else {}
        before = state["seconds"] if state else 0.0

        for number, (stage, epochs) in enumerate(stages):
            if state and number < state["stage"]:
                continue
            loss, steps = losses[number], counts[number]
            if isinstance(loss, Distillation):
                loss.teacher = tuple(part.to(where) for part in state["teacher"]) if state else _teacher(model, graph)
            if stage == "joint" and not state:
                model.start_codes(graph)
            model.coding = stage == "joint"
            optimizer, rates = _optimizer(model, config, stage)
            best = Best(settings.patience)
            first_epoch = 0
            if state:
                first_epoch = state["epoch"]
                model.load_state_dict(state["model"])
                optimizer.load_state_dict(state["optimizer"])
                best.restore(state["best"])
                state = None
            elif held_out is not None:  # the start is a candidate too: training must not end worse than it began
                best.offer(validation_metric(model, graph, fit, held_out, config), model)

            def tell(epoch: int, done: int, total: float, metric: float | None = None) -> None:
                if report:
                    earlier = sum(n * count for n, (_, count) in zip(counts[:number], stages[:number], strict=True))  # noqa: B023
                    here = earlier + steps * epoch + done  # noqa: B023
                    seconds = before + time.perf_counter() - began
                    report(Progress(stage, epoch, epochs, here, all_steps, total, metric, done == 0, seconds))  # noqa: B023

            for epoch in range(first_epoch, epochs):
                if best.exhausted:
                    break
                rng = np.random.default_rng([settings.seed, number, epoch])
                total, done = 0.0, 0
                model.train()
                with _seeded(_draws(settings.seed, number, epoch), where):  # of neighbours, and of rows that are guided
                    for batch in loss.batches(fit, rng):
                        progress = (epoch + done / steps) / epochs
                        for group, rate in zip(optimizer.param_groups, rates, strict=True):
                            group["lr"] = rate * _SCHEDULES[settings.schedule](progress)
                        if model.coding:
                            model.hash.progress = progress
                        if model.coding and config.model.guidance:
                            model.hash.guided = guidance(epoch * steps + done, epochs * steps)
                        queries, items, penalty = model(graph)
                        value = loss(queries, items, batch) + penalty + loss.regularise(encoder, batch)
                        optimizer.zero_grad(set_to_none=True)
                        value.backward()
                        optimizer.step()
                        total, done = total + value.item(), done + 1
                        if not math.isfinite(total):
                            raise ArgumentError(
                                f"{_rates(stage)} must be smaller (the loss became {total} in epoch {epoch + 1})"
                            )
                        if done < steps:
                            tell(epoch, done, total / done)
                metric = None
                if held_out is not None and ((epoch + 1) % settings.validate_every == 0 or epoch + 1 == epochs):
                    metric = validation_metric(model, graph, fit, held_out, config)
                    best.offer(metric, model)
                if checkpoint:
                    parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "best": best.state()}
                    seconds = before + time.perf_counter() - began
                    place = {"stage": number, "epoch": epoch + 1, "metrics": metrics, "seconds": seconds}
                    place["teacher"] = loss.teacher if isinstance(loss, Distillation) else None
                    saved.save(place | parts | {"config": config.to_dict(), "choice": choice})
                tell(epoch + 1, 0, total / max(done, 1), metric)

            if best.value is not None and best.weights is not None:
                model.load_state_dict(best.weights)
                metrics[stage] = best.value
            with torch.no_grad():  # the last step has no loss after it to tell
                if not all(part.isfinite().all() for part in model.eval()(graph)):
                    raise ArgumentError(f"{_rates(stage)} must be smaller (the embeddings are no longer finite)")
        model.eval()
        if model.coding:
            model.hash.progress, model.hash.guided = 1.0, 0.0
        # The held-out interactions come back for serving: propagation over them needs no training.
        full_graph = graph if held_out is None else Graph(data, where)
        seconds = before + time.perf_counter() - began
        return Trained(model, full_graph, config, metrics, choice, str(where), torch.get_num_threads(), seconds)


def resolve_device(device: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU.

    Raises:
        ArgumentError: an unknown name, or ``cuda`` where there is none.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ArgumentError(f"device must be 'auto', 'cpu' or 'cuda' (got {device!r})")
    if device == "cuda" and not torch.cuda.is_available():
        raise ArgumentError("device must be 'cpu' or 'auto' on a machine without CUDA (got 'cuda')")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def chosen(
    data: Interactions, config: Config, *, device: str = "auto", report: Callable[[Progress], None] | None = None
) -> tuple[Config, dict[str, float]]:
    """The configuration with an encoder in place of ``auto``, and the validation value of each that was tried.

    It is the one that validates better as a float model: the spectral encoder in closed form, or LightGCN after a
    quarter of its own training, for which it may be 3% behind: the rest brings more. Where there is no validation
    slice, it is LightGCN, and none is tried.
    """
    if config.model.encoder != "auto":
        return config, {}
    candidates = {name: checked(config.updated({"model.encoder": name})) for name in ("lightgcn", "spectral")}
    if _slice(data, config.train)[1] is None:
        return candidates["lightgcn"], {}
    values, epochs = {}, math.ceil(_TRIAL * config.train.warmup * config.train.epochs)
    for name, candidate in candidates.items():
        trial = candidate.updated({"model.kind": "lightgcn", "train.epochs": epochs})
        done = train(data, trial, device=device, report=report and (lambda step: report(replace(step, stage="trial"))))
        values[name] = done.metrics["encoder"]
        found = {f"model.{key}": getattr(done.config.model, key) for key in ("dim", "power")}
        candidates[name] = candidate.updated(found)
    return candidates["lightgcn" if values["lightgcn"] >= (1 - _BEHIND) * values["spectral"] else "spectral"], values


def _slice(data: Interactions, settings: TrainConfig) -> tuple[Interactions, Interactions | None]:
    """Cut (fit, held out); (data, None) where no slice is wanted or nobody has five interactions to give one of."""
    if not settings.validation_users:
        return data, None
    fit, held_out = validation_slice(
        data, settings.validation_share, seed=settings.seed, max_users=settings.validation_users
    )
    return (fit, held_out) if len(held_out) else (data, None)


def _encoder(
    graph: Graph,
    config: Config,
    held_out: Interactions | None,
    fit: Interactions,
    start: dict[str, np.ndarray[Any, Any]] | None,
) -> tuple[Config, nn.Module]:
    model, settings, dims = config.model, config.train, [config.model.dim]
    if not model.dim:  # the spectral encoder's alone may still be open
        largest = min(min(graph.n_users, graph.n_items) // 4, _FLOATS // (graph.n_users + graph.n_items))
        dims = sorted({max(1, min(dim, largest)) for dim in _DIMS})
    encoder = ENCODERS[model.encoder].create(graph, replace(model, dim=dims[-1]), settings.seed).to(graph.device)
    if isinstance(encoder, Spectral):
        if start is not None:
            raise ArgumentError("start needs an encoder with parameters (got model.encoder 'spectral')")
        made = [(dim, power) for dim in dims for power in ((model.power,) if model.power >= 0 else _POWERS)]
        dim, power = made[0]
        if held_out is not None and len(made) > 1:
            values = [ranking_values(*encoder.cut(*way).forward(graph), fit, held_out, config) for way in made]
            # A random slice is closer to what was fitted than what people do next: the simplest of those as good
            dim, power = min((made[way] for way in near_best(np.array(values))), key=lambda way: (way[0], -way[1]))
        return replace(config, model=replace(model, dim=dim, power=power)), encoder.cut(dim, power)
    if start is not None:
        shapes = {name: tuple(value.shape) for name, value in start.items()}
        wanted = {name: tuple(value.shape) for name, value in encoder.state_dict().items()}
        if shapes != wanted:
            raise ArgumentError(f"start must hold the encoder's parameters {wanted} (got {shapes})")
        if not all(np.isfinite(value).all() for value in start.values()):
            raise ArgumentError("start must be finite")
        encoder.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in start.items()})
    elif settings.init == "svd":
        if not isinstance(encoder, FreeEmbeddings):
            raise ArgumentError(f"train.init must be 'random' for encoder {model.encoder!r} (got 'svd')")
        # A catalogue smaller than the embedding has fewer singular vectors than dimensions: then the start stays
        # random.
        if encoder.users.shape[1] < min(graph.n_users, graph.n_items):
            encoder.start_from_svd(graph, settings.seed)
    elif settings.init != "random":
        raise ArgumentError(
            "train.init must be 'svd', 'random' or the folder of a float model, whose parameters train() takes as "
            f"start (got {settings.init!r})"
        )
    return config, encoder


def _identity(data: Interactions, config: Config, start: dict[str, np.ndarray[Any, Any]] | None) -> dict[str, str]:
    """What makes a training this one, for its checkpoint."""
    digest = hashlib.sha256()
    for name, value in sorted((start or {}).items()):
        digest.update(name.encode() + np.ascontiguousarray(value, np.float32).tobytes())
    versions = f"hashlgn {version('hashlgn')}, torch {torch.__version__}"
    start_digest = digest.hexdigest() if start else ""
    return {
        "config": repr(config),
        "data": data.fingerprint(numbered=True),
        "start": start_digest,
        "versions": versions,
    }


def _loss(config: Config, stage: str) -> Loss:
    """The loss of a stage."""
    name, similarity = config.train.joint_loss if stage == "joint" else config.train.loss, config.model.similarity
    if name == "distillation":
        return Distillation(config.train, similarity)
    loss: Loss = choose("loss", name, LOSSES)(config.train, similarity)
    return loss


@torch.no_grad()
def _teacher(model: Model, graph: Graph) -> tuple[torch.Tensor, torch.Tensor]:
    """The float model as it stands before the codes join."""
    model.eval()
    return model.embeddings(graph)


def _rates(stage: str) -> str:
    return "train.lr" if stage == "encoder" else "train.joint_lr and train.code_lr"


def _trainable(encoder: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in encoder.parameters())


def _stages(config: Config, encoder: nn.Module, *, skip_warmup: bool) -> list[tuple[str, int]]:
    """Names and epochs of the stages."""
    epochs, trainable = config.train.epochs, _trainable(encoder)
    if config.model.kind == "lightgcn":
        return [("encoder", epochs if trainable else 0)]
    warmup = int(config.train.warmup * epochs)
    # The codes of a closed form are closed themselves: the softmax would only move them from the scores they stand for.
    closed = not trainable and config.model.hash == "residual"
    return [("encoder", 0 if skip_warmup or not trainable else warmup), ("joint", 0 if closed else epochs - warmup)]


def _optimizer(model: Model, config: Config, stage: str) -> tuple[torch.optim.Optimizer, list[float]]:
    settings = config.train
    encoder = list(model.encoder.parameters())  # type: ignore[attr-defined]
    own = {id(parameter) for parameter in encoder}
    coding = [parameter for parameter in model.parameters() if id(parameter) not in own]
    groups = [(encoder, settings.lr if stage == "encoder" else settings.joint_lr)]
    if stage == "joint":
        groups.append((coding, settings.code_lr))
    groups = [(parameters, rate) for parameters, rate in groups if parameters]
    if not groups:  # a closed-form float model: no step will be taken
        groups = [([nn.Parameter(torch.zeros(1))], 0.0)]
    optimizer = torch.optim.Adam([{"params": parameters, "lr": rate} for parameters, rate in groups])
    return optimizer, [rate for _, rate in groups]


def _draws(seed: int, stage: int, epoch: int) -> int:
    """Seed of PyTorch's generator for an epoch."""
    return int(np.random.default_rng([seed, stage, epoch, 1]).integers(2**63))


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed PyTorch's generators for this block alone."""
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(positive_int("threads", count))
    try:
        yield
    finally:
        torch.set_num_threads(before)
