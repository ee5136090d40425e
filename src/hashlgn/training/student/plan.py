"""What a training of a student will do at most, known before its first step."""

from __future__ import annotations

from hashlgn.config import Config
from hashlgn.training.student.teachers import EASE_ITEMS

__all__ = ["bounded", "ease_bytes", "planned_steps"]

_MOST_STEPS, _FEWEST_EPOCHS = 720, 4  # of a stage


def bounded(epochs: int, steps: int) -> int:
    """Epochs of a stage of ``steps`` steps each: large data take fewer, as many as make 720 steps, but at least 4."""
    return min(epochs, max(_FEWEST_EPOCHS, -(-_MOST_STEPS // steps)))


def planned_steps(config: Config, n_items: int, steps: int) -> dict[str, int]:
    """Steps of every stage, at most, in order. A teacher that does not validate better saves its stage.

    Args:
        config: the whole configuration.
        n_items: items of the catalogue.
        steps: steps of an epoch.
    """
    settings, coded = config.student, config.model.kind == "hashlgn"
    epochs = {
        "labels": settings.epochs,
        "distillation": settings.distillation_epochs if _has_ease(config, n_items) else 0,
        "codes": settings.code_epochs if coded and config.model.answers == "codes" else 0,
        "histories": settings.settle_epochs if coded and config.model.histories == "codes" else 0,
    }
    return {name: bounded(number, steps) * steps for name, number in epochs.items()}


def ease_bytes(config: Config, n_items: int) -> int:
    """Memory of EASE while it is computed, beside all else: the Gram matrix, its factor and the inverse."""
    return 3 * 4 * n_items**2 if _has_ease(config, n_items) else 0


def _has_ease(config: Config, n_items: int) -> bool:
    return config.student.teacher != "labels" and n_items <= EASE_ITEMS
