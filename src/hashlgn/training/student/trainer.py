"""The training of a student, from interactions to the arrays that are served, in one function."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hashlgn.config import Config
from hashlgn.data import Interactions
from hashlgn.data.strengths import strengths_of
from hashlgn.errors import choose
from hashlgn.evaluation.calibration import fit_calibration
from hashlgn.evaluation.metrics import METRICS
from hashlgn.scoring.calibration import Calibration
from hashlgn.scoring.decoders import CodebookDecoder
from hashlgn.scoring.histories import CodedHistories, FloatHistories
from hashlgn.scoring.items import CodedItems, FloatItems
from hashlgn.training.allocator import kept_memory
from hashlgn.training.checkpoint import Checkpoint, identity
from hashlgn.training.graph import Graph
from hashlgn.training.resolve import check_data, resolve_device
from hashlgn.training.stages import seeded, use_threads
from hashlgn.training.student import plan
from hashlgn.training.student.batches import sampling_chances, users_at_once
from hashlgn.training.student.coding import coded
from hashlgn.training.student.forms import Codes, Side, Start, Vectors, few_levels
from hashlgn.training.student.graph_filter import GraphFilter, filter_dim
from hashlgn.training.student.loop import Data, Distillation, Labels, Objective, fit
from hashlgn.training.student.start import Spectrum, singular_vectors, start_vectors
from hashlgn.training.student.teachers import EASE_ITEMS, Ease, FloatStudent, Mixture, Teacher, best_items
from hashlgn.training.student.validation import Validation
from hashlgn.training.validation import cut_slice
from hashlgn.utils.progress import Progress, peak_memory

__all__ = ["TrainedStudent", "train_student"]

_T = TypeVar("_T")

_EASE_SHARES = (0.1, 0.2, 0.3, 0.5)  # weights of EASE that are tried beside the label student
_ALIKE = 1e-3  # of the metric: what the draw of the validation slice alone makes
_FILTER_SHARES = (0.3, 0.5, 0.7, 1.0)  # and of the graph filter
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
    costs: dict[str, float]  # seconds of each stage and choice
    device: str  # where it was trained
    threads: int  # processor threads
    seconds: float  # wall time

    @property
    def told(self) -> dict[str, Any]:
        """What the provenance says beside the usual."""
        costs = {name: round(seconds, 3) for name, seconds in self.costs.items()}
        return {"teachers": self.choice, "stages": costs}

    def parts(self, graph: Graph | None = None) -> dict[str, Any]:
        """The arrays that are served, by attribute of ``ServedModel``; a student has no graph."""
        return {
            "items": self.answers,
            "histories": self.histories,
            "calibration": self.calibration,
        }


def train_student(
    data: Interactions,
    config: Config | None = None,
    *,
    device: str = "auto",
    threads: int | None = None,
    checkpoint: str | Path | None = None,
    report: Callable[[Progress], None] | None = None,
    start: Start | None = None,
) -> TrainedStudent:
    """Train item vectors ``o`` and ``p`` with ``score(u, i) = q_u · o_i``, ``q_u = normalise(Σ_{j∈H_u} a_uj p_j)``, and
    bring them into bits.

    Stages: (1) ``labels``: a float student by softmax on hidden parts of the histories, from the singular vectors; (2)
    ``distillation``, where a mixture of (1) and EASE, or the graph filter where the catalogue is too large for EASE,
    validates better: another float student from the scores of the mixture, which replaces (1) where it validates
    better; (3) ``codes``: sub-codes of the answers by residual quantization, codewords, scales and ``p`` trained
    towards the float student; (4) ``histories``: the same for ``p``, whose codes then stay, while codewords and scales
    of the answers settle at a low rate.

    Args:
        data: the interactions to learn from; a validation slice is cut from them.
        config: its section ``student`` says how; defaults where None.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: processor threads; all of PyTorch's default where None.
        checkpoint: file to write after every stage, and to go on from where it exists. It is bound to data,
            configuration and versions, and stays: whoever has saved the model deletes it. A training that goes on ends
            in the same bits, on the CPU.
        report: called after every step.
        start: vectors and codes of all items, of a model. The last stage of the floats and the codes start from them. A
            checkpoint is not bound to it. Default: none.

    Raises:
        ArgumentError: the configuration breaks a rule, the start does not fit it, the data lacks weights or times that
            it names, or the checkpoint belongs to another training.
        DataError: there are fewer than two users or two items, or no interaction.
    """
    config = plan.resolved(config or Config(), data.n_items)
    where = resolve_device(device)
    choose("train.monitor", config.train.monitor, METRICS)
    check_data(data, config)
    with seeded(config.train.seed, where), use_threads(threads):
        saved = Checkpoint(checkpoint, identity(data, config, _aligned(data)) if checkpoint else {})
        run = _Run(config, data, where, saved, report)
        model = None if start is None else start.checked(data.n_items, plan.some(config.model.dim), where)
        student = _float_student(run, model)
        return run.outcome(*_into_bits(run, student, model))


def _float_student(run: _Run, model: Start | None) -> FloatStudent:
    """The student of the labels, or the one of a mixture with another teacher. The one that it ends with starts from
    the model, where there is one.

    Labels before a mixture start anew all the same: a mixture gains by how much its teachers differ, and the model has
    learned from the other one.
    """
    settings = run.config.student
    if settings.teacher == "labels" or not settings.distillation_epochs:
        return _labels(run, model or _anew(run)[0])
    anew, spectrum = _anew(run)
    student = _labels(run, anew if settings.epochs else model or anew)
    return _distilled(run, model, anew, student, spectrum)


def _anew(run: _Run) -> tuple[Start, Spectrum]:
    """Where a training without a model starts, and the singular vectors that this is made from."""
    width, seed = plan.some(run.config.model.dim), run.config.train.seed
    spectrum = run.timed("start", lambda: singular_vectors(run.data.interactions, run.spectrum_dim, seed))
    vectors = start_vectors(spectrum[1], width, seed).to(run.device)
    return Start(vectors, vectors), spectrum


def _fresh(run: _Run, start: Start) -> FloatStudent:
    """A student at its start."""
    sides = Vectors(start.histories.clone()), Vectors(start.answers.clone())
    return FloatStudent(*sides, run.config.student.temperature)


def _labels(run: _Run, start: Start) -> FloatStudent:
    """The float student that learns from interactions alone."""
    settings, student = run.config.student, _fresh(run, start)
    objective = Labels(settings.temperature, settings.hidden, settings.user_weight)
    data, rate = replace(run.data, chances=run.beside_labels), (settings.label_lr or settings.lr,)
    run.stage("labels", objective, student, settings.epochs, rate, rate, data)
    run.choose_strength(student)
    return student


def _distilled(run: _Run, model: Start | None, anew: Start, student: FloatStudent, spectrum: Spectrum) -> FloatStudent:
    """The float student that learns from a mixture of teachers; that of the labels where it does not validate worse."""
    settings = run.config.student
    mixture = run.timed("teachers", lambda: _mixture(run, student, spectrum))
    if mixture is None:
        return student
    # Of a large catalogue there are few epochs: they go further from where the labels led than anew.
    distilled = student.copy() if model is None and run.large else _fresh(run, model or anew)
    objective = run.towards(mixture)
    data = run.data if objective.likely is None else replace(run.data, chances=run.fewer)
    run.stage("distillation", objective, distilled, settings.distillation_epochs, (settings.lr,), (settings.lr,), data)
    return distilled if run.metrics.get("distillation", 1.0) > run.metrics.get("labels", 0.0) else student


def _into_bits(run: _Run, student: FloatStudent, known: Start | None) -> tuple[Side, Side]:
    """Both sides in the form that the configuration names."""
    model, settings, tau = run.config.model, run.config.student, run.config.student.temperature
    histories, answers = student.histories, student.answers
    if model.kind != "hashlgn" or "codes" not in (model.answers, model.histories):
        return histories, answers
    objective = run.towards(student)
    if model.answers == "codes":
        o, queries = answers.vectors(), run.queries(histories.vectors())
        kept, weights = known.answer_codes if known else None, run.degree.sqrt()
        answers = run.timed("coding answers", lambda: coded(o, model.bits, queries, weights, kept))
        histories, rate = Vectors(histories.vectors().clone()), settings.code_lr
        run.stage("codes", objective, FloatStudent(histories, answers, tau), settings.code_epochs, (rate,), (rate,) * 2)
    if model.histories == "codes":
        p, targets = histories.vectors(), answers.vectors()
        kept, weights = known.history_codes if known else None, run.degree
        histories = run.timed(
            "coding histories", lambda: coded(p, plan.some(model.history_bits), targets, weights, kept)
        )
        answers = Vectors(answers.vectors().clone()) if isinstance(answers, Vectors) else answers
        own = (settings.settle_lr,) * len(answers.tables)
        run.stage("histories", objective, FloatStudent(histories, answers, tau), settings.settle_epochs, (), own)
    return histories, answers


def _mixture(run: _Run, student: FloatStudent, spectrum: Spectrum) -> Mixture | None:
    """The mixture of a label student and another teacher that validates best; None where none is better than the
    student. The other one is EASE, or the graph filter where the catalogue is too large for EASE. Of shares that
    validate alike it gets the largest: it is in closed form, and owes nothing to the draws of a training.
    """
    settings, data = run.config.student, run.data
    other: Teacher
    if run.large:
        name, shares = "filter", _FILTER_SHARES
        other = GraphFilter(data.interactions, *spectrum, data.device)
    else:
        name, shares = "EASE", _EASE_SHARES
        other = Ease(data.interactions, settings.ease_penalty, data.device)
    # The filter's scores are logarithms of chances, as the student's own are, and need no standard.
    ways = {share: Mixture((student, other), (1 - share, share), standard=not run.large) for share in shares}
    if run.validation is None:
        return ways[shares[1]]
    values = {share: run.validation.metric(mixture) for share, mixture in ways.items()}
    run.choice.update({"labels": run.metrics["labels"], **{f"labels + {x:g} {name}": v for x, v in values.items()}})
    best = max(share for share, value in values.items() if value >= (1 - _ALIKE) * max(values.values()))
    return ways[best] if values[best] > run.metrics["labels"] else None


def _aligned(data: Interactions) -> dict[str, npt.NDArray[Any]]:
    """What a checkpoint is bound to beside the pairs."""
    return {name: part for name, part in (("weights", data.weights), ("times", data.times)) if part is not None}


@dataclass
class _Run:
    """What the stages of one training share: data, clock, validation, progress."""

    config: Config
    everything: Interactions
    device: torch.device
    checkpoint: Checkpoint
    report: Callable[[Progress], None] | None
    metrics: dict[str, float] = field(default_factory=dict)
    choice: dict[str, float] = field(default_factory=dict)
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
        labels = int((1 - torch.exp(-settings.hidden * size / max(users, 1) * self.degree)).sum())
        self.beside_labels = sampling_chances(self.degree, max(1, width // 8, min(width, 2 * width - labels)))
        self.data = Data(part, strengths, size, chances, self.device, train.seed)
        self.plan = plan.planned_steps(self.config, self.data.steps, len(part))
        if held_out is not None:
            self.validation = Validation(self.data, held_out, train.monitor, train.monitor_k)

    @property
    def large(self) -> bool:
        """Whether the catalogue is too large for EASE."""
        return self.everything.n_items > EASE_ITEMS

    @property
    def spectrum_dim(self) -> int:
        """Singular vectors that the start and the teachers need."""
        width, wide = plan.some(self.config.model.dim), self.large and self.config.student.teacher == "auto"
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
        steps, before = self.data.steps, list(self.plan)[: list(self.plan).index(name)]
        earlier, total = sum(self.plan[stage] for stage in before), sum(self.plan.values())
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
            self.costs,
            str(self.device),
            torch.get_num_threads(),
            time.perf_counter() - self.began,
        )
