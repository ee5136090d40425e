"""The training of a student, from interactions to the arrays that are served, in one function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from hashlgn.config import Config
from hashlgn.data import Interactions
from hashlgn.errors import choose
from hashlgn.evaluation.metrics import METRICS
from hashlgn.training.checkpoint import Checkpoint, identity
from hashlgn.training.resolve import check_data, resolve_device
from hashlgn.training.stages import seeded, use_threads
from hashlgn.training.student import plan
from hashlgn.training.student.coding import coded
from hashlgn.training.student.forms import Side, Start, Vectors
from hashlgn.training.student.loop import Labels
from hashlgn.training.student.mixtures import check_named, mixture
from hashlgn.training.student.run import Run, TrainedStudent
from hashlgn.training.student.start import Spectrum, singular_vectors, start_vectors
from hashlgn.training.student.teachers import FloatStudent, Teacher
from hashlgn.utils.progress import Progress

__all__ = ["train_student"]


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
    towards the float student, or in a training that starts from a model, towards the mixture; (4) ``histories``: the
    same for ``p``, whose codes then stay, while codewords and scales of the answers settle at a low rate. A mixture
    that the configuration names takes the place of that of (2), whatever it is worth, after its encoders have been
    trained.

    Args:
        data: the interactions to learn from; a validation slice is cut from them.
        config: its section ``student`` says how; defaults where None.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: processor threads; all of PyTorch's default where None.
        checkpoint: file to write after every stage, and to go on from where it exists. It is bound to data,
            configuration and versions, and stays: whoever has saved the model deletes it. A training that goes on ends
            in the same bits, on the CPU.
        report: called after every step.
        start: vectors and codes of all items, of a model. The float student of a mixture starts from the vectors, and
            codes from the codes, but for answers where labels are the only teacher. A checkpoint is not bound to it.
            Default: none.

    Raises:
        ArgumentError: the configuration breaks a rule, the start does not fit it, the data lacks weights or times that
            it names, or the checkpoint belongs to another training.
        DataError: there are fewer than two users or two items, or no interaction.
    """
    config = plan.resolved(config or Config(), data.n_items)
    where = resolve_device(device)
    choose("train.monitor", config.train.monitor, METRICS)
    check_data(data, config)
    check_named(config.student, data.n_items)
    with seeded(config.train.seed, where), use_threads(threads):
        saved = Checkpoint(checkpoint, identity(data, config, _aligned(data)) if checkpoint else {})
        run = Run(config, data, where, saved, report)
        model = None if start is None else start.checked(data.n_items, plan.some(config.model.dim), where)
        student, teacher = _float_student(run, model)
        return run.outcome(*_into_bits(run, student, teacher, model))


def _float_student(run: Run, model: Start | None) -> tuple[FloatStudent, Teacher]:
    """The student of the labels, or the one of a mixture with another teacher; and the teacher of the codes. The
    student of a mixture starts from the model, where there is one.

    Labels start anew all the same. A student that has learned from labels alone before would learn these people by
    heart. And a mixture gains by how much its teachers differ, where the model has learned from both.

    A student is a better teacher of codes than the mixture that it has learned from. But one that starts from a model
    has few epochs, and has not learned all of it.
    """
    settings, student = run.config.student, None
    anew, spectrum = _anew(run)
    begin = anew if settings.epochs else model or anew
    if settings.teachers == plan.LABELS or not settings.distillation_epochs:
        student = _labels(run, begin)
        return student, student
    if run.named is None or "labels" in run.named:
        student = _labels(run, begin)
    found = mixture(run, student, spectrum)
    if found is None:
        assert student is not None  # only ``auto`` finds none
        return student, student
    taught = _distilled(run, model, anew, student, found)
    return taught, taught if model is None or taught is student else found[1]


def _anew(run: Run) -> tuple[Start, Spectrum]:
    """Where a training without a model starts, and the singular vectors that this is made from."""
    width, seed = plan.some(run.config.model.dim), run.config.train.seed
    spectrum = run.timed("start", lambda: singular_vectors(run.data.interactions, run.spectrum_dim, seed))
    vectors = start_vectors(spectrum[1], width, seed).to(run.device)
    return Start(vectors, vectors), spectrum


def _fresh(run: Run, start: Start) -> FloatStudent:
    """A student at its start."""
    sides = Vectors(start.histories.clone()), Vectors(start.answers.clone())
    return FloatStudent(*sides, run.config.student.temperature)


def _labels(run: Run, start: Start) -> FloatStudent:
    """The float student that learns from interactions alone."""
    settings, student = run.config.student, _fresh(run, start)
    objective = Labels(settings.temperature, plan.some(settings.hidden), settings.user_weight)
    data, rate = replace(run.data, chances=run.beside_labels), (settings.label_lr or settings.lr,)
    run.stage("labels", objective, student, settings.epochs, rate, rate, data)
    run.choose_strength(student)
    return student


def _distilled(
    run: Run, model: Start | None, anew: Start, student: FloatStudent | None, found: tuple[str, Teacher]
) -> FloatStudent:
    """The float student that learns from a mixture of teachers; that of the labels where ``auto`` finds that it
    validates no better.
    """
    settings, (name, teacher) = run.config.student, found
    # Of a large catalogue there are few epochs: they go further from where the labels led than anew.
    further = student if model is None and run.large else None
    distilled = _fresh(run, model or anew) if further is None else further.copy()
    objective = run.towards(teacher)
    data = run.data if objective.likely is None else replace(run.data, chances=run.fewer)
    run.stage("distillation", objective, distilled, settings.distillation_epochs, (settings.lr,), (settings.lr,), data)
    if student and run.named is None and run.metrics.get("distillation", 1.0) <= run.metrics.get("labels", 0.0):
        return student
    run.teacher = name
    return distilled


def _into_bits(run: Run, student: FloatStudent, teacher: Teacher, known: Start | None) -> tuple[Side, Side]:
    """Both sides of a student in the form that the configuration names, trained towards a teacher."""
    model, settings, tau = run.config.model, run.config.student, run.config.student.temperature
    histories, answers = student.histories, student.answers
    if model.kind != "hashlgn" or "codes" not in (model.answers, model.histories):
        return histories, answers
    objective = run.towards(teacher)
    if model.answers == "codes":
        o, queries = answers.vectors(), run.queries(histories.vectors())
        # Labels alone lead from a new start to somewhere else, and an answer has too few sub-codes to follow.
        elsewhere = teacher is student and settings.epochs > 0
        kept, weights = known.answer_codes if known and not elsewhere else None, run.degree.sqrt()
        answers = run.timed("coding answers", lambda: coded(o, model.bits, queries, weights, kept))
        histories, rate = Vectors(histories.vectors().clone()), settings.code_lr
        run.stage("codes", objective, FloatStudent(histories, answers, tau), settings.code_epochs, (rate,), (rate,) * 2)
    if model.histories == "codes":
        p, targets = histories.vectors(), answers.vectors()
        kept, weights = known.history_codes if known else None, run.degree
        bits = plan.some(model.history_bits)
        # Their codes are long, and more rounds of local search bring nothing.
        histories = run.timed("coding histories", lambda: coded(p, bits, targets, weights, kept, rounds=1))
        answers = Vectors(answers.vectors().clone()) if isinstance(answers, Vectors) else answers
        own = (settings.settle_lr,) * len(answers.tables)
        run.stage("histories", objective, FloatStudent(histories, answers, tau), settings.settle_epochs, (), own)
    return histories, answers


def _aligned(data: Interactions) -> dict[str, npt.NDArray[Any]]:
    """What a checkpoint is bound to beside the pairs."""
    return {name: part for name, part in (("weights", data.weights), ("times", data.times)) if part is not None}
