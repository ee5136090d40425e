"""What a training of a student will do at most, known before its first step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from hashlgn.config import Config
from hashlgn.data import Interactions
from hashlgn.training.encoders import ENCODERS
from hashlgn.training.losses import LOSSES
from hashlgn.training.student.graph_filter import filter_dim, filter_neighbours
from hashlgn.training.student.teachers import EASE_ITEMS

__all__ = [
    "LABELS",
    "bounded",
    "bounded_candidates",
    "encoder_epochs",
    "encoders_of",
    "planned_steps",
    "resolved",
    "some",
    "step_users",
    "steps_of",
    "teacher_bytes",
    "tried",
]

_Number = TypeVar("_Number", int, float)

LABELS = {"labels": 1.0}  # the mixture that is none
_DIM, _LARGE_DIM, _HISTORY_BITS = 256, 192, 320  # the second where EASE is too large, and bits are few
_HIDDEN, _LARGE_HIDDEN = 0.7, 0.5  # the second where EASE is too large
_STEPS = 8  # in an epoch, at least: few users are split into smaller batches
_MOST_STEPS, _FEWEST_EPOCHS = 480, 4  # of a stage
_PER_STEP = 1_000  # interactions, where large data take more steps than that
_FEWEST_CANDIDATES = 2_048
_PER_INTERACTION = 1_300  # candidates times users per interaction, at most
_PAIRS = 2**32  # candidates times users in a stage, at most


def resolved(config: Config, n_items: int) -> Config:
    """The configuration with what "choose for me" means for a student of a catalogue."""
    model, student, large = config.model, config.student, n_items > EASE_ITEMS
    dim = max(_LARGE_DIM, min(model.bits, _DIM)) if large else _DIM
    bits = max(min(4 * model.bits, _HISTORY_BITS), 2 * model.bits if large else 0)
    hidden = student.hidden or (_LARGE_HIDDEN if large else _HIDDEN)
    model = replace(model, dim=model.dim or dim, history_bits=model.history_bits or bits)
    return replace(config, model=model, student=replace(student, hidden=hidden))


def some(number: _Number | None) -> _Number:
    """A number that ``resolved`` has filled in."""
    assert number is not None
    return number


def step_users(users: int, wanted: int) -> int:
    """Users per step: as many as wanted, but an epoch has at least 8 steps."""
    return min(wanted, -(-users // _STEPS))


def steps_of(users: int, batch_users: int) -> int:
    """Steps in an epoch."""
    return max(1, round(users / max(batch_users, 1)))


def bounded_candidates(wanted: int, interactions: int, users: int) -> int:
    """Items per step: fewer where histories are short, so that the cost per interaction is bounded, and where users are
    many: then more steps see the same catalogue.
    """
    affordable = min(_PER_INTERACTION * interactions, _PAIRS // _FEWEST_EPOCHS) // max(users, 1)
    return min(wanted, max(_FEWEST_CANDIDATES, affordable))


def bounded(epochs: int, steps: int, interactions: int) -> int:
    """Epochs of a stage of ``steps`` steps each: large data take fewer, as many as make 480 steps, but at least 4; and
    at least 2, where users have so few interactions that 4 epochs make more than a step for every 1,000 of them.
    """
    affordable = interactions // (_PER_STEP * steps)
    return min(epochs, max(-(-_MOST_STEPS // steps), min(_FEWEST_EPOCHS, max(2, affordable))))


def encoders_of(config: Config) -> list[str]:
    """The encoders among the teachers that are named. ``auto`` has none: an encoder has vectors of the users of the
    training, and new users lose by what it teaches.
    """
    return [name for name in config.student.teachers or () if name in ENCODERS]


def encoder_epochs(config: Config, name: str, data: Interactions) -> tuple[int, int]:
    """Epochs of an encoder among the teachers, and the steps of each: about 480 steps at most, each over the whole
    graph.
    """
    if not ENCODERS[name].trainable:
        return 0, 1
    steps = LOSSES[config.train.loss](config.train, config.model.similarity or ENCODERS[name].similarity).steps(data)
    return max(1, min(config.student.encoder_epochs, _MOST_STEPS // steps)), steps


def planned_steps(
    config: Config, steps: int, interactions: int, encoders: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Steps of every stage, at most, in order. A teacher that does not validate better saves its stage.

    Args:
        config: with everything filled in.
        steps: per epoch of the student.
        interactions: number of interactions.
        encoders: steps of each encoder among the teachers.
    """
    settings, coded = config.student, config.model.kind == "hashlgn"
    named = settings.teachers
    epochs = {
        "labels": settings.epochs if named is None or "labels" in named else 0,
        "distillation": settings.distillation_epochs if named != LABELS else 0,
        "codes": settings.code_epochs if coded and config.model.answers == "codes" else 0,
        "histories": settings.settle_epochs if coded and config.model.histories == "codes" else 0,
    }
    planned = {name: bounded(number, steps, interactions) * steps for name, number in epochs.items()}
    return {"labels": planned.pop("labels"), **(encoders or {}), **planned}


def tried(config: Config, n_items: int) -> str:
    """What a training will try, in words."""
    settings = config.student
    if settings.teachers == LABELS or not settings.distillation_epochs:
        return "labels alone"
    if settings.teachers is not None:
        return f"what {settings.teacher} teaches"
    return f"labels alone, and mixtures with {'EASE' if n_items <= EASE_ITEMS else 'the graph filter'}"


def teacher_bytes(config: Config, n_items: int) -> int:
    """Memory of the second teacher while it is computed, beside all else: of EASE the Gram matrix, its factor and the
    inverse; of the filter the vectors twice and the neighbours twice, with 8 bytes for each of those.
    """
    named = config.student.teachers or {"ease" if n_items <= EASE_ITEMS else "filter": 1.0}
    ease = 3 * 4 * n_items**2 if "ease" in named else 0
    parts = 2 * 4 * filter_dim(n_items) + 2 * 8 * filter_neighbours(n_items)
    return ease + (n_items * parts if "filter" in named else 0)
