"""What the stages of one training of a student share: data, clock, checkpoint, validation; and its outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hashlgn.config import Config
from hashlgn.data import Interactions
from hashlgn.data.strengths import strengths_of
from hashlgn.evaluation.calibration import fit_calibration
from hashlgn.scoring.calibration import Calibration
from hashlgn.scoring.decoders import CodebookDecoder
from hashlgn.scoring.histories import CodedHistories, FloatHistories
from hashlgn.scoring.items import CodedItems, FloatItems
from hashlgn.training.allocator import kept_memory
from hashlgn.training.checkpoint import Checkpoint
from hashlgn.training.graph import Graph
from hashlgn.training.student import plan
from hashlgn.training.student.batches import sampling_chances, users_at_once
from hashlgn.training.student.forms import Codes, Side, Vectors, few_levels
from hashlgn.training.student.graph_filter import filter_dim
from hashlgn.training.student.loop import Data, Distillation, Objective, fit
from hashlgn.training.student.teachers import EASE_ITEMS, FloatStudent, Teacher, best_items
from hashlgn.training.student.validation import Validation
from hashlgn.training.validation import cut_slice
from hashlgn.utils.progress import Progress, peak_memory

__all__ = ["Run", "TrainedStudent"]

_T = TypeVar("_T")

_QUERIES = 20_000  # users whose queries are the metric of the codes
_LIKELY, _LIKELY_PAIRS = 20, 2**32  # best items of each user that are scored for certain; of users times items, at most


@dataclass(frozen=True)
class TrainedStudent:
    """The outcome in NumPy alone, and how it went."""

    answers: CodedItems | FloatItems  # items as answers, ``o``
    histories: CodedHistories | FloatHistories  # items as they count in histories, ``p``
    calibration: Calibration | None  # the map from scores to probabilities; None without a validation slice
    strengths: npt.NDArray[np.float32] | None  # ``a_ui`` of all interactions that were given; 1 where None
    config: Config  # as trained
    metrics: dict[str, float]  # metric on the validation slice after each stage; empty without a slice
    choice: dict[str, float]  # the same of each teacher that was tried
    teacher: str  # the one that the float student has learned from
    costs: dict[str, float]  # seconds of each stage and choice
    device: str  # where it was trained
    threads: int  # processor threads
    seconds: float  # wall time

    @property
    def told(self) -> dict[str, Any]:
        """What the provenance says beside the usual."""
        costs = {name: round(seconds, 3) for name, seconds in self.costs.items()}
        return {"teachers": self.choice, "teacher": self.teacher, "stages": costs}

    def parts(self, graph: Graph | None = None) -> dict[str, Any]:
        """The arrays that are served, by attribute of ``ServedModel``; a student has no graph."""
        return {
            "items": self.answers,
            "histories": self.histories,
            "calibration": self.calibration,
        }


@dataclass
class Run:
    """What the stages of one training share: data, clock, validation, progress."""

    config: Config
    everything: Interactions
    device: torch.device
    checkpoint: Checkpoint
    report: Callable[[Progress], None] | None
    metrics: dict[str, float] = field(default_factory=dict)
    choice: dict[str, float] = field(default_factory=dict)
    teacher: str = "labels"
    costs: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings, train = self.config.student, self.config.train
        self.began = time.perf_counter()
        self.validation: Validation | None = None
        self.likely: Tensor | None = None
        self.state = self.checkpoint.load() or {"stages": {}}
        part, held_out = cut_slice(self.everything, train)
        self.strength = self.config.model.strength or "one"
        strengths = strengths_of(part, self.strength, self.config.model.half_life)
        users = int(np.count_nonzero(np.diff(part.indptr)))
        size = plan.step_users(users, settings.batch_users)
        width = plan.bounded_candidates(settings.candidates, len(part), users)
        self.degree = torch.bincount(torch.from_numpy(part.indices), minlength=part.n_items).clamp(min=1).float()
        self.degree = self.degree.to(self.device)
        chances = sampling_chances(self.degree, width)
        self.fewer = sampling_chances(self.degree, max(1, width // 2))
        # Labels are scored beside the sample, and each stands against the others: of very many, the sample is smaller.
        labels = int((1 - torch.exp(-plan.some(settings.hidden) * size / max(users, 1) * self.degree)).sum())
        self.beside_labels = sampling_chances(self.degree, max(1, width // 8, min(width, 2 * width - labels)))
        self.data = Data(part, strengths, size, chances, self.device, train.seed)
        self.named = None if settings.teachers == plan.LABELS else settings.teachers
        shapes = {name: plan.encoder_epochs(self.config, name, part) for name in plan.encoders_of(self.config)}
        self.epochs = {name: epochs for name, (epochs, _) in shapes.items()}
        planned = {name: epochs * each for name, (epochs, each) in shapes.items()}
        self.plan = plan.planned_steps(self.config, self.data.steps, len(part), planned)
        if held_out is not None:
            self.validation = Validation(self.data, held_out, train.monitor, train.monitor_k)

    @property
    def large(self) -> bool:
        """Whether the catalogue is too large for EASE."""
        return self.everything.n_items > EASE_ITEMS

    @property
    def spectrum_dim(self) -> int:
        """Singular vectors that the start and the teachers need."""
        width, teachers = plan.some(self.config.model.dim), self.config.student.teachers
        wide = self.large if teachers is None else "filter" in teachers
        return max(width, filter_dim(self.everything.n_items)) if wide else width

    def timed(self, name: str, work: Callable[[], _T]) -> _T:
        """Do something and note its seconds."""
        began = time.perf_counter()
        result = work()
        self.costs[name] = time.perf_counter() - began
        return result

    def stage(
        self,
        name: str,
        objective: Objective,
        student: FloatStudent,
        epochs: int,
        history_rates: Sequence[float],
        answer_rates: Sequence[float],
        data: Data | None = None,
    ) -> None:
        """Train both sides of a student by an objective, and validate; or take both from the checkpoint."""
        data = data or self.data
        epochs = plan.bounded(epochs, data.steps, len(data.interactions))
        tables, stages = [*student.histories.tables, *student.answers.tables], self.state["stages"]
        if name in stages:
            for table, kept in zip(tables, stages[name]["tables"], strict=True):
                table.copy_(kept)
            self.metrics.update(stages[name]["metrics"])
            return
        steps, earlier, total = self.data.steps, self._before(name), sum(self.plan.values())
        ahead = plan.teacher_bytes(self.config, self.data.interactions.n_items) if name == "labels" else 0

        def tell(epoch: int, done: int, loss: float, metric: float | None = None) -> None:
            if self.report:
                here, seconds = earlier + epoch * steps + done, time.perf_counter() - self.began
                ended = metric is not None or done == steps
                told = name, epoch + ended, epochs, here, total, loss, metric, ended, seconds
                self.report(Progress(*told, memory=peak_memory(ahead)))

        rates = tuple(history_rates), tuple(answer_rates)
        # Around the steps alone: a singular value decomposition under it leaves holes of gigabytes.
        with kept_memory():
            sides = student.histories, student.answers
            self.timed(name, lambda: fit(data, objective, *sides, epochs, rates, tell, self._setting(name)))
        if self.validation is not None:
            fixed = FloatStudent(Vectors(student.histories.vectors()), Vectors(student.answers.vectors()), 1.0)
            self.metrics[name] = self.validation.metric(fixed)
        # Copies: a later stage trains some of these tables on, and the next file has the earlier stages again.
        kept = [table.clone() for table in tables]
        stages[name] = {"tables": kept, "metrics": {key: self.metrics[key] for key in self.metrics if key == name}}
        self.checkpoint.save({"stages": stages})

    def kept(self, name: str, work: Callable[[], list[Tensor]]) -> list[Tensor]:
        """What some work comes to, or what the checkpoint has of it."""
        stages = self.state["stages"]
        if name not in stages:
            stages[name] = {"tables": work(), "metrics": {}}
            self.checkpoint.save({"stages": stages})
        return [table.to(self.device) for table in stages[name]["tables"]]

    def progress(self, stage: str) -> Callable[[Progress], None]:
        """What reports the training of an encoder as a stage of this one."""
        earlier, total = self._before(stage), sum(self.plan.values())

        def tell(inner: Progress) -> None:
            if self.report:
                step, seconds = earlier + inner.step, time.perf_counter() - self.began
                self.report(replace(inner, stage=stage, step=step, steps=total, seconds=seconds))

        return tell

    def _before(self, stage: str) -> int:
        """Steps of the stages before one."""
        return sum(self.plan[earlier] for earlier in list(self.plan)[: list(self.plan).index(stage)])

    def _setting(self, stage: str) -> str:
        """What the rates of a stage are called."""
        labels = "lr" if self.config.student.label_lr is None else "label_lr"
        return "student." + {"labels": labels, "codes": "code_lr", "histories": "settle_lr"}.get(stage, "lr")

    def towards(self, teacher: Teacher) -> Distillation:
        """What a student of this teacher is trained by. What is likely is found once: the teachers of later stages have
        learned from the first.
        """
        settings, data = self.config.student, self.data
        n_users, n_items = data.interactions.n_users, data.interactions.n_items
        if data.chances is not None and self.likely is None and n_users * n_items <= _LIKELY_PAIRS:
            active = np.flatnonzero(np.diff(data.interactions.indptr))
            parts = np.array_split(active, -(-len(active) // users_at_once(n_items)))
            batches = (data.batch(users) for users in parts)
            self.likely = self.timed(
                "likely items", lambda: best_items(teacher, batches, n_users, n_items, min(_LIKELY, n_items))
            )
        return Distillation(settings.temperature, teacher, settings.thinning, self.likely)

    def choose_strength(self, student: FloatStudent) -> None:
        """Let validation say whether the interactions' own weights count, where there are any and nothing is named."""
        weights = self.data.interactions.weights
        if self.config.model.strength is not None or weights is None or self.validation is None:
            return
        weighted = replace(self.data, strengths=weights)
        validation = replace(self.validation, data=weighted)
        values = {"strength one": self.validation.metric(student), "strength weight": validation.metric(student)}
        self.choice.update(values)
        if values["strength weight"] > values["strength one"]:
            self.strength, self.data, self.validation = "weight", weighted, validation

    def queries(self, vectors: Tensor) -> Tensor:
        """Queries of some users, ``(n, dim)``."""
        active = np.flatnonzero(np.diff(self.data.interactions.indptr))
        rng = np.random.default_rng(self.config.train.seed)
        return self.data.batch(np.sort(rng.permutation(active)[:_QUERIES])).history.queries(vectors)

    def outcome(self, histories: Side, answers: Side) -> TrainedStudent:
        """Everything in NumPy."""
        if isinstance(answers, Codes):
            packed, codewords, scale = answers.exported()
            items: CodedItems | FloatItems = CodedItems(packed, CodebookDecoder(codewords), scale)
        else:
            items = FloatItems(answers.vectors().cpu().numpy())
        known = None
        if isinstance(histories, Codes):
            packed, codewords, weight = histories.exported()
            known = CodedHistories(packed, codewords, few_levels(weight))
        calibration = None
        if self.validation is not None:
            fixed = FloatStudent(Vectors(histories.vectors()), Vectors(answers.vectors()), 1.0)
            calibration = fit_calibration(*self.validation.pairs(fixed), self.config.train.validation_share)
        return TrainedStudent(
            items,
            known or FloatHistories(histories.vectors().cpu().numpy()),
            calibration,
            strengths_of(self.everything, self.strength, self.config.model.half_life),
            self.config,
            self.metrics,
            self.choice,
            self.teacher,
            self.costs,
            str(self.device),
            torch.get_num_threads(),
            time.perf_counter() - self.began,
        )
