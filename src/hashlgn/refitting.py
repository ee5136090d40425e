"""A training that starts from a model which is served: a fraction of the time, and ids keep their numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hashlgn.config import Config
from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError, need, shown, thread_count, threshold_value
from hashlgn.estimators import served_model
from hashlgn.inference.live import Live, live_of
from hashlgn.inference.model import ServedModel
from hashlgn.inference.people import living_histories
from hashlgn.inference.recommender import Recommender
from hashlgn.utils.pages import Pages

if TYPE_CHECKING:
    from hashlgn.utils.progress import Progress

__all__ = ["Overlap", "check_refit", "overlaps", "refit"]

_TOP = 20  # answers that are compared
_GROUP = 2000  # users of a group who are compared, at most
# What multiplies the share of the epochs that is asked for, by stage. A student of few labels is a bad teacher. All
# that the float student of the mixture does is to decide sub-codes: codes learn from the mixture itself. They are near
# their end already, so that their rates are lower.
_EPOCHS = {"epochs": 4 / 3, "distillation_epochs": 0.5, "code_epochs": 0.75, "settle_epochs": 1.0}
_CODE_RATES = 0.5
_LABEL_RATE = 2.0  # at most: labels start anew, and the fewer their epochs are, the higher is their rate
# A step hides a part of each history, so that a student does not learn these people by heart in many epochs. In few
# epochs, it learns more where less is hidden. What multiplies the hidden part, at least: of a label student beside
# other teachers, and of students that learn from teachers.
_HIDDEN, _THINNING = 0.6, 1 / 3


@dataclass(frozen=True)
class Overlap:
    """How much answers moved.

    Attributes:
        group: which users.
        users: how many of them were asked.
        share: of the 20 best items before that are among the 20 best after, the mean over users.
    """

    group: str
    users: int
    share: float


def refit(
    model: Recommender,
    interactions: Any = None,
    *,
    epochs: float = 0.25,
    device: str = "auto",
    threads: int | None = None,
    report: Callable[[Progress], None] | None = None,
    **reading: Any,
) -> Recommender:
    """Train a model anew on all that it knows, in a part of the time.

    The training has the stages of a new one, with a part of the epochs. The label student starts anew. A float
    student that learns from a mixture of teachers starts from the vectors of the model, and codes learn from the
    mixture, too. All codes start from those of the model, items that were added included; but where labels are the only
    teacher, codes of answers start anew. Ids keep their numbers, removed items stay removed. There is no validation
    slice, since the model was trained on what would be in it: all interactions are trained on, and the calibration
    stays that of the model.

    Args:
        model: a model whose users are their histories; it stays as it is.
        interactions: what is taken in before, as by ``Recommender.update`` with a budget of 0. Default: nothing.
        epochs: share of the epochs of a new training, over 0 and at most 1. Labels take a third more than that share,
            the distillation half of it, codes three quarters.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: processor threads; all where None.
        report: called after every step.
        reading: options of ``read_interactions``.

    Raises:
        ArgumentError: the users of the model are not their histories, or an argument breaks its rule.
        DataError: the interactions cannot be read.
        MissingExtraError: PyTorch is not installed.
    """
    check_refit(model, epochs=epochs, device=device, threads=threads)
    from hashlgn.training.student import train_student
    from hashlgn.training.student.forms import Start

    state = Recommender(model.model)
    if interactions is not None:
        state.update(interactions, budget=0, **reading)  # new items alone: the others are trained from where they are
    old = state.model
    histories = living_histories(old)
    config = Config.from_dict(old.config)
    strength = config.model.strength or ("one" if old.strengths is None else "weight")
    data = _everything(old)
    whole = Config(replace(config.model, strength=strength), replace(config.train, validation_users=0), config.student)
    quick = _shortened(whole, data, epochs)
    trained = train_student(
        data,
        quick,
        device=device,
        threads=threads,
        report=report,
        start=Start.of(histories, old.items),
    )
    made = served_model(replace(trained, config=config), data)
    gone, live = live_of(old).removed, None
    if gone is not None:
        counts = np.bincount(data.indices, minlength=data.n_items).astype(np.int32)
        live = Live(None, Pages.of(counts), data.n_items, gone)
    how = made.provenance | {"refit": {"epochs": epochs, "of": old.provenance.get("created")}}
    made = replace(made, calibration=old.calibration or made.calibration, provenance=how, live=live)
    return Recommender(made, engine=model.engine, threads=model.threads)


def _shortened(config: Config, data: Interactions, share: float) -> Config:
    """A part of the epochs that a new training would take of these data."""
    from hashlgn.training.student.plan import LABELS, bounded, resolved, some, step_users, steps_of

    config = resolved(config, data.n_items)
    settings, users = config.student, int(np.count_nonzero(np.diff(data.indptr)))
    steps = steps_of(users, step_users(users, settings.batch_users))
    whole = {name: bounded(getattr(settings, name), steps, len(data)) for name in _EPOCHS}
    epochs = {name: _part(count, _EPOCHS[name] * share) for name, count in whole.items()}
    parts = {name: epochs[name] / max(count, 1) for name, count in whole.items()}
    hidden, alone = some(settings.hidden), settings.teachers == LABELS or not epochs["distillation_epochs"]
    changes: dict[str, Any] = {
        **epochs,
        "label_lr": (settings.label_lr or settings.lr) * min(_LABEL_RATE, 1 / (parts["epochs"] or 1)),
        "code_lr": _CODE_RATES * settings.code_lr,
        "settle_lr": _CODE_RATES * settings.settle_lr,
        "hidden": hidden if alone else hidden * max(_HIDDEN, parts["epochs"]),
        "thinning": settings.thinning * max(_THINNING, parts["code_epochs"]),
    }
    return replace(config, student=replace(settings, **changes))


def _part(count: int, share: float) -> int:
    """A share of some epochs: one at least where there are any."""
    part = math.ceil(round(share * count, 6))  # 0.15 times 20 is a little more than 3
    return min(count, max(1, part))


def check_refit(model: Recommender, *, epochs: float, device: str, threads: int | None = None) -> None:
    """Refuse what ``refit`` would refuse, before data are read and taken in.

    Raises:
        ArgumentError: as ``refit``.
        MissingExtraError: PyTorch is not installed.
    """
    need("torch", "train", "training")
    from hashlgn.training.resolve import resolve_device

    if not isinstance(model, Recommender):
        raise ArgumentError(f"model must be a Recommender, as load gives it (got {shown(model)})")
    resolve_device(device)
    thread_count("threads", threads)
    if not 0 < threshold_value("epochs", epochs) <= 1:
        raise ArgumentError(f"epochs must be a share over 0 and at most 1 (got {shown(epochs)})")
    living_histories(model.model)


def overlaps(before: Recommender, after: Recommender, seed: int = 0) -> list[Overlap]:
    """How much the 20 best items of users moved, by group: users with and without interactions that are newer than the
    training of ``before``, and users who are new since.

    Args:
        before: a model that has taken in what ``after`` was trained on.
        after: of the same users.
        seed: of the sample of a large group.
    """
    model = before.model
    indptr = model.seen[0]
    newer = np.concatenate(([0], np.cumsum(model.stored.newer)))
    fresh, counts = newer[indptr[1:]] - newer[indptr[:-1]], np.diff(indptr)
    groups = {
        "users with nothing new": (fresh == 0) & (counts > 0),
        "users with new interactions": (fresh > 0) & (fresh < counts),
        "new users": (fresh == counts) & (counts > 0),
    }
    rng, found = np.random.default_rng(seed), []
    for name, mask in groups.items():
        users = np.flatnonzero(mask)
        users = np.sort(rng.choice(users, min(_GROUP, len(users)), replace=False))
        if not len(users):
            continue
        ids = model.user_ids.decode(users)
        tops = [_pairs(each.recommend(ids, _TOP, titles=False)) for each in (before, after)]
        found.append(Overlap(name, len(users), len(tops[0] & tops[1]) / max(len(tops[0]), 1)))
    return found


def _pairs(table: Any) -> set[tuple[Any, Any]]:
    return set(zip(table["user"].tolist(), table["item"].tolist(), strict=True))


def _everything(model: ServedModel) -> Interactions:
    """The histories of a model as interactions, with its numbers."""
    return Interactions(
        model.user_ids,
        model.item_ids,
        np.array(model.seen[0]),
        np.array(model.seen[1]),  # a training needs arrays of its own, not mapped ones
        times=model.times,
        titles=model.titles,
        genres=model.genres,
        weights=None if model.strengths is None else np.asarray(model.strengths),
    )
