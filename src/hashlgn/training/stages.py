"""The stages of a training: first the encoder alone, on its float embeddings, then all parts together.

Every random draw comes from (seed, stage, epoch), so that a run that was stopped and resumed equals one that was not.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from hashlgn.config import Config
from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError, positive_int
from hashlgn.training.checkpoint import Best, Checkpoint
from hashlgn.training.encoders import Encoder
from hashlgn.training.graph import Graph
from hashlgn.training.hashes import HASHES
from hashlgn.training.losses import LOSSES, Loss
from hashlgn.training.model import Model
from hashlgn.training.schedules import SCHEDULES, guidance
from hashlgn.training.validation import validation_metric
from hashlgn.utils.progress import Progress, peak_memory

__all__ = ["Run", "Stage", "epoch_seed", "plan_stages", "seeded", "train_stage", "use_threads"]


@dataclass(frozen=True)
class Stage:
    """One stage."""

    name: str  # ``encoder`` or ``joint``
    number: int  # fixes the draws of the stage
    epochs: int  # at most
    steps: int  # per epoch
    loss: Loss  # what is minimized

    @property
    def rates(self) -> str:
        """The learning rates of the stage, for messages."""
        return "train.joint_lr and train.code_lr" if self.name == "joint" else "train.lr"


@dataclass
class Run:
    """What the stages of one training share."""

    config: Config  # with everything filled in
    model: Model  # what is trained
    graph: Graph  # of ``fit``
    fit: Interactions  # the interactions to learn from
    held_out: Interactions | None  # the validation slice; None without validation
    stages: list[Stage]  # all stages, in order
    checkpoint: Checkpoint = field(default_factory=lambda: Checkpoint(None))  # where the state is kept after each epoch
    report: Callable[[Progress], None] | None = None  # called after every step
    # Time by ``time.perf_counter`` at which the training began, earlier runs of a resumed one included
    began: float = field(default_factory=time.perf_counter)
    metrics: dict[str, float] = field(default_factory=dict)  # best validation value by stage

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return time.perf_counter() - self.began

    def validate(self) -> float | None:
        """The metric on the validation slice, or None without one."""
        if self.held_out is None:
            return None
        return validation_metric(self.model, self.graph, self.fit, self.held_out, self.config)

    def tell(self, stage: Stage, epoch: int, done: int, loss: float, metric: float | None = None) -> None:
        """Report that ``epoch`` epochs of a stage are complete, and ``done`` steps of the next one."""
        if self.report is None:
            return
        earlier = sum(other.epochs * other.steps for other in self.stages if other.number < stage.number)
        step, steps = earlier + stage.steps * epoch + done, sum(s.epochs * s.steps for s in self.stages)
        told = stage.name, epoch, stage.epochs, step, steps, loss, metric, done == 0, self.seconds
        self.report(Progress(*told, memory=peak_memory()))

    def save(self, stage: Stage, epoch: int, optimizer: torch.optim.Optimizer, best: Best) -> None:
        """Keep the state after ``epoch`` epochs of a stage."""
        if self.checkpoint.path is None:
            return
        parts = {"model": self.model.state_dict(), "optimizer": optimizer.state_dict(), "best": best.state()}
        where = {"stage": stage.number, "epoch": epoch, "loss": stage.loss.state(), "metrics": self.metrics}
        how = {"config": self.config.to_dict(), "seconds": self.seconds}
        self.checkpoint.save(parts | where | how)


def plan_stages(config: Config, encoder: Encoder, fit: Interactions, *, started: bool) -> list[Stage]:
    """The stages of a training; it is ``started`` where the encoder comes from a float model that was trained before.

    Raises:
        ArgumentError: the joint loss needs a teacher, and there is no float model to be one.
    """
    model, settings = config.model, config.train
    if model.kind == "float":
        names = [("encoder", settings.pretrain_epochs + settings.joint_epochs if encoder.trainable else 0)]
    else:
        # Codes of a closed form are closed themselves: training would only move them from the scores they stand for.
        closed = not encoder.trainable and not HASHES[model.hash].has_sign
        pretrain = settings.pretrain_epochs if encoder.trainable and not started else 0
        names = [("encoder", pretrain), ("joint", 0 if closed else settings.joint_epochs)]
    stages: list[Stage] = []
    for number, (name, epochs) in enumerate(names):
        loss_name = settings.joint_loss if name == "joint" else settings.loss
        loss = LOSSES[loss_name or settings.loss](settings, model.similarity or encoder.similarity)
        if loss.needs_teacher and encoder.trainable and not started and not stages[0].epochs:
            raise ArgumentError(
                f"train.joint_loss must not be {loss_name!r} where no float model is trained before the codes join "
                f"(got it, with train.pretrain_epochs {settings.pretrain_epochs})"
            )
        stages.append(Stage(name, number, epochs, loss.steps(fit), loss))
    return stages


def train_stage(run: Run, stage: Stage, state: dict[str, Any] | None = None) -> None:
    """Train one stage, or go on from a checkpoint's state; leave the model its best weights, the start's included.

    Raises:
        ArgumentError: the loss or the embeddings are no longer finite.
    """
    model, best = run.model, Best(run.config.train.patience)
    if state is not None:
        stage.loss.restore(tuple(part.to(run.graph.device) for part in state["loss"]))
        model.coding = stage.name == "joint"
    else:
        stage.loss.prepare(model, run.graph)
        if stage.name == "joint":
            model.start_codes(run.graph)
        best.offer(run.validate(), model)
    if stage.epochs:
        _train_epochs(run, stage, best, state)
    best.load_into(model)
    if best.value is not None:
        run.metrics[stage.name] = best.value
    with torch.no_grad():  # no loss follows the last step that would tell
        if not all(part.isfinite().all() for part in model.eval()(run.graph)):
            raise ArgumentError(f"{stage.rates} must be smaller (the embeddings are no longer finite)")
    model.guide(0.0)


def _train_epochs(run: Run, stage: Stage, best: Best, state: dict[str, Any] | None) -> None:
    """Train epoch by epoch, until the last one or until ``best`` has waited long enough."""
    model, settings, first = run.model, run.config.train, 0
    optimizer = make_optimizer(model, run.config, joint=stage.name == "joint")
    if state is not None:
        first = state["epoch"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        best.restore(state["best"])
    for epoch in range(first, stage.epochs):
        if best.exhausted:
            break
        loss = _train_epoch(run, stage, optimizer, epoch)
        metric = None
        if (epoch + 1) % settings.validate_every == 0 or epoch + 1 == stage.epochs:
            metric = run.validate()
            best.offer(metric, model)
        run.save(stage, epoch + 1, optimizer, best)
        run.tell(stage, epoch + 1, 0, loss, metric)


def _train_epoch(run: Run, stage: Stage, optimizer: torch.optim.Optimizer, epoch: int) -> float:
    """One pass over the data; the mean loss of its steps."""
    model, settings, loss = run.model, run.config.train, stage.loss
    schedule = SCHEDULES[settings.schedule]
    rng = np.random.default_rng([settings.seed, stage.number, epoch])
    total, done = 0.0, 0
    model.train()
    # PyTorch's generator draws neighbours, and rows that are guided.
    with seeded(epoch_seed(settings.seed, stage.number, epoch), run.graph.device):
        for batch in loss.batches(run.fit, rng):
            progress = (epoch + done / stage.steps) / stage.epochs
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * schedule(progress)
            guided = guidance(epoch * stage.steps + done, stage.epochs * stage.steps)
            model.guide(guided if run.config.model.guidance else 0.0)
            queries, items, penalty = model(run.graph)
            value = loss(queries, items, batch) + penalty + loss.regularize(model.encoder, batch)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            total, done = total + value.item(), done + 1
            if not math.isfinite(total):
                raise ArgumentError(f"{stage.rates} must be smaller (the loss became {total} in epoch {epoch + 1})")
            if done < stage.steps:
                run.tell(stage, epoch, done, total / done)
    return total / max(done, 1)


def make_optimizer(model: Model, config: Config, *, joint: bool) -> torch.optim.Optimizer:
    """Adam over the encoder, and in the joint training over the other parts too, each group with its ``base_lr``."""
    settings, encoder = config.train, list(model.encoder.parameters())
    own = {id(parameter) for parameter in encoder}
    groups = [(encoder, settings.joint_lr if joint else settings.lr)]
    if joint:
        groups.append(([parameter for parameter in model.parameters() if id(parameter) not in own], settings.code_lr))
    return torch.optim.Adam(
        [{"params": parameters, "lr": rate, "base_lr": rate} for parameters, rate in groups if parameters]
    )


def epoch_seed(seed: int, stage: int, epoch: int) -> int:
    """Seed of PyTorch's generator for an epoch."""
    return int(np.random.default_rng([seed, stage, epoch, 1]).integers(2**63))


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed PyTorch's generators for this block alone."""
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def use_threads(count: int | None) -> Iterator[None]:
    """Have PyTorch use this many threads within this block; as many as before where None.

    Raises:
        ArgumentError: ``count`` is not positive.
    """
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(positive_int("threads", count))
    try:
        yield
    finally:
        torch.set_num_threads(before)
