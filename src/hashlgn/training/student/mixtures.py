"""Which teachers a student learns from: mixtures that validation chooses among, or the one that is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from hashlgn.config import Config, StudentConfig
from hashlgn.errors import ArgumentError, shown
from hashlgn.training.encoders import ENCODERS
from hashlgn.training.student.graph_filter import GraphFilter
from hashlgn.training.student.run import Run
from hashlgn.training.student.start import Spectrum
from hashlgn.training.student.teachers import EASE_ITEMS, Ease, Embeddings, FloatStudent, Mixture, Popularity, Teacher
from hashlgn.training.trainer import train
from hashlgn.training.validation import surely_better

__all__ = ["check_named", "mixture"]

_TEACHERS = ("labels", "ease", "filter", "popularity")  # and the keys of ``ENCODERS``
_EASE_SHARES = (0.2, 0.1, 0.3, 0.5)  # that are tried beside the label student, the usual one first
_FILTER_SHARES = (0.5, 0.3, 0.7, 1.0)  # and of the graph filter

Shares = Mapping[str, float]


def mixture(run: Run, student: FloatStudent | None, spectrum: Spectrum) -> tuple[str, Mixture] | None:
    """Name and scores of the mixture to learn from: the one that is named, or the usual one where no other is surely
    better. None where ``auto`` finds that it validates no better than the label student.

    A validation slice says little of mixtures that differ little, and the best of some noisy numbers is the luckiest.

    Args:
        run: the training; it is told what each mixture is worth.
        student: of the labels; None where the mixture that is named has none.
        spectrum: singular values and vectors.
    """
    ways = [run.named] if run.named else _ways(run)
    names = dict.fromkeys(name for shares in ways for name in shares)
    teachers = {name: _teacher(run, name, student, spectrum) for name in names}
    taken = ways[0]
    if not run.named and run.validation is not None:
        taken, value = run.timed("mixtures", lambda: _chosen(run, teachers, ways))
        if value <= run.metrics["labels"]:
            return None
    return _written(taken), _mixed(teachers, taken)


def check_named(settings: StudentConfig, n_items: int = 0) -> None:
    """Check that teachers are known, and can be computed for a catalogue, where its size is known.

    Raises:
        ArgumentError: they are not.
    """
    for name in settings.teachers or ():
        if name in ENCODERS and ENCODERS[name].trainable and not settings.encoder_epochs:
            raise ArgumentError(
                f"student.encoder_epochs must be positive where student.teacher names an encoder (got 0, with {name!r})"
            )
        if name not in _TEACHERS and name not in ENCODERS:
            known = ", ".join(sorted((*_TEACHERS, *ENCODERS)))
            raise ArgumentError(f"student.teacher must name teachers of {known} (got {shown(name)})")
        if name == "ease" and n_items > EASE_ITEMS:
            raise ArgumentError(
                f"student.teacher must not have 'ease' beyond {EASE_ITEMS:,} items, where its inverse takes too long "
                f"(got it, with {n_items:,} items)"
            )


def _ways(run: Run) -> list[Shares]:
    """What ``auto`` tries, the usual mixture first."""
    name, shares = ("filter", _FILTER_SHARES) if run.large else ("ease", _EASE_SHARES)
    return [{"labels": 1 - share, name: share} for share in shares]


def _chosen(run: Run, teachers: Mapping[str, Teacher], ways: Sequence[Shares]) -> tuple[Shares, float]:
    """The first of some mixtures, or the best one where it is surely better, and what it is worth on validation."""
    assert run.validation is not None
    run.choice["labels"] = run.metrics["labels"]
    values = [run.validation.values(_mixed(teachers, shares)) for shares in ways]
    means = [float(value.mean()) for value in values]
    run.choice.update({_written(shares): mean for shares, mean in zip(ways, means, strict=True)})
    best = max(range(len(ways)), key=means.__getitem__)
    taken = best if surely_better(values[best], values[0]) else 0
    return ways[taken], means[taken]


def _mixed(teachers: Mapping[str, Teacher], shares: Shares) -> Mixture:
    """The weighted sum of their scores, which need no standard where all are logarithms of chances."""
    chosen = [teachers[name] for name in shares]
    return Mixture(chosen, [*shares.values()], standard=not all(teacher.logarithmic for teacher in chosen))


def _written(shares: Shares) -> str:
    """As the configuration writes it."""
    return " + ".join(f"{share:.4g} {name}" for name, share in shares.items() if share)


def _teacher(run: Run, name: str, student: FloatStudent | None, spectrum: Spectrum) -> Teacher:
    """A teacher by name."""
    data = run.data.interactions
    if name == "labels":
        assert student is not None
        return student
    if name in ENCODERS:
        return _encoder(run, name)
    if name == "filter":
        return run.timed("filter", lambda: GraphFilter(data, *spectrum, run.device))
    if name == "popularity":
        return Popularity(run.degree.log())
    return run.timed("ease", lambda: Ease(data, run.config.student.ease_penalty, run.device))


def _encoder(run: Run, name: str) -> Embeddings:
    """The float model of an encoder, trained on the same interactions; from the checkpoint where it is there."""

    def work() -> list[torch.Tensor]:
        epochs = run.epochs[name]
        settings = replace(run.config.train, validation_users=0, pretrain_epochs=epochs, joint_epochs=0)
        model = replace(run.config.model, kind="float", encoder=name, dim=None)
        how = Config(model, settings)
        trained = train(run.data.interactions, how, device=run.device.type, report=run.progress(name))
        with torch.no_grad():
            return [part.contiguous() for part in trained.model.embeddings(trained.graph)]

    kind, settings = ENCODERS[name], run.config.train
    similarity = run.config.model.similarity or kind.similarity
    temperature = settings.temperature if similarity == "cosine" else 1.0
    q, o = run.kept(name, lambda: run.timed(name, work))
    return Embeddings(q, o, temperature if kind.trainable else None)
