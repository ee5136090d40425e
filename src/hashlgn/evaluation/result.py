"""What an evaluation found: by cutoff, by group of users and of items, and how far probabilities can be trusted."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.data import Dropped
from hashlgn.errors import ArgumentError, choose, counted
from hashlgn.evaluation.calibration import Reliability
from hashlgn.evaluation.metrics import BEYOND, METRICS, bootstrap_interval, f1_of_means
from hashlgn.evaluation.tables import html_table, text_table

__all__ = ["Cutoff", "Evaluation", "Group"]

_OF_HITS = ("recall", "precision", "hit_rate", "ndcg")  # each is 0 where, and only where, there is no hit


@dataclass(frozen=True, eq=False, repr=False)
class Cutoff:
    """One way of cutting the answers: the k best, or all over a threshold.

    Attributes:
        k: number of items, or None.
        threshold: score to exceed, or None.
        per_user: one value per user by metric, ``(users,)`` float64 each.
        coverage: share of the catalogue that appears in any answer; None where the catalogue is not known.
        gini: how unequally the answers are spread over the catalogue, 0 for equally; None where it is not known.
        seconds: wall time of the search for all users: scoring, exclusion and ordering. One search, at the largest k,
            serves all of them.
    """

    k: int | None
    threshold: float | None
    per_user: dict[str, npt.NDArray[np.float64]]
    coverage: float | None
    gini: float | None
    seconds: float

    @property
    def name(self) -> str:
        """``@50`` for the 50 best, ``> 0.5`` for a threshold."""
        return f"@{self.k}" if self.k is not None else f"> {self.threshold:g}"

    def mean(self, metric: str) -> float:
        """Mean over users.

        Raises:
            ArgumentError: the evaluation was not asked for this metric.
        """
        values: npt.NDArray[np.float64] = choose("metric", metric, self.per_user)
        return float(values.mean())

    def __repr__(self) -> str:
        means = ", ".join(f"{name} {self.mean(name):.4f}" for name in self.per_user)
        return f"Cutoff({self.name}: {means})"

    def interval(self, metric: str, *, seed: int = 0) -> tuple[float, float]:
        """Bootstrap 95% interval of the mean over users."""
        return bootstrap_interval(self.per_user[metric], seed=seed)

    def to_dict(self) -> dict[str, Any]:
        """As ``Evaluation.to_dict`` has it."""
        metrics: dict[str, dict[str, Any]] = {
            name: {"mean": self.mean(name), "interval_95": list(self.interval(name))} for name in self.per_user
        }
        if {"precision", "recall"} <= self.per_user.keys():
            metrics["f1_of_means"] = {"mean": f1_of_means(self.per_user["precision"], self.per_user["recall"])}
        return {
            **({"k": self.k} if self.k is not None else {"threshold": self.threshold}),
            "metrics": metrics,
            "coverage": self.coverage,
            "gini": self.gini,
            "search_seconds": self.seconds,
        }


@dataclass(frozen=True, eq=False)
class Group:
    """A third of the evaluated users by the length of their history, or of the items by the number of their users.

    Equal numbers are in one group, so groups may differ in size.

    Attributes:
        name: ``few``, ``middle`` or ``many`` of users; ``rare``, ``middle`` or ``popular`` of items.
        low: fewest training interactions of a member.
        high: most of them.
        size: number of members.
        interactions: test interactions of its users, or with its items.
        means: by name of the cutoff, then by metric. Of users the means of all metrics asked for. Of items ``recall``:
            of the test interactions with the group's items, over the users who have any; and ``share``: the part of
            all answers that is of the group.
    """

    name: str
    low: int
    high: int
    size: int
    interactions: int
    means: dict[str, dict[str, float]]


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """How good a model's answers are.

    Attributes:
        users: external ids of the users evaluated, those with at least one test interaction that can be answered.
        interactions: test interactions evaluated.
        dropped: test users, items and interactions left out because the training does not know them.
        seen: test interactions left out because the training has them: they are masked, so nobody could hit them.
        cutoffs: by ascending k, then by threshold as given.
        user_groups: users by the length of their history; empty where it is not known.
        item_groups: items by their popularity; empty where it is not known.
        reliability: how the probabilities compare with what happened; None for a model without a calibration.
    """

    users: npt.NDArray[Any]
    interactions: int
    dropped: Dropped
    seen: int
    cutoffs: tuple[Cutoff, ...]
    user_groups: tuple[Group, ...] = ()
    item_groups: tuple[Group, ...] = ()
    reliability: Reliability | None = None

    def at(self, k: int) -> Cutoff:
        """The cutoff at the k best.

        Raises:
            ArgumentError: the evaluation was not asked for this k.
        """
        for cutoff in self.cutoffs:
            if cutoff.k == k:
                return cutoff
        held = ", ".join(str(cutoff.k) for cutoff in self.cutoffs if cutoff.k is not None)
        raise ArgumentError(f"k must be one that was evaluated, {held} (got {k})")

    def to_dict(self) -> dict[str, Any]:
        """Means, their bootstrap 95% intervals, coverage and search time, groups and calibration, ready for JSON."""
        return {
            "users": len(self.users),
            "interactions": self.interactions,
            "left_out": {
                "unknown_users": self.dropped.users,
                "unknown_items": self.dropped.items,
                "unknown_interactions": self.dropped.interactions,
                "seen_in_training": self.seen,
            },
            "cutoffs": [cutoff.to_dict() for cutoff in self.cutoffs],
            "user_groups": [vars(group) for group in self.user_groups],
            "item_groups": [vars(group) for group in self.item_groups],
            "calibration": None if self.reliability is None else self.reliability.to_dict(),
        }

    def no_hit(self) -> bool:
        """Whether no metric of any cutoff that counts hits found one."""
        hits = [cutoff.per_user[name] for cutoff in self.cutoffs for name in _OF_HITS if name in cutoff.per_user]
        return bool(hits) and not any(values.any() for values in hits)

    def group_rows(self) -> list[list[str]]:
        """The groups as a table of text, its head first: a row per group and cutoff."""
        sides = {"users": self.user_groups, "items": self.item_groups}
        found = {name for groups in sides.values() for group in groups for m in group.means.values() for name in m}
        names = [name for name in (*METRICS, *BEYOND, "share") if name in found]
        rows = [["group", "in training", "size", "", *names]]
        for side, groups in sides.items():
            for group in groups:
                for cutoff, means in group.means.items():
                    head = [f"{side}, {group.name}", f"{group.low} … {group.high}", f"{group.size:,}", cutoff]
                    rows.append([*head, *(f"{means[name]:.4f}" if name in means else "" for name in names)])
        return rows

    def _rows(self) -> list[list[str]]:
        """Names and means as text, a row per cutoff."""
        names = [name for name in (*METRICS, *BEYOND) if any(name in cutoff.per_user for cutoff in self.cutoffs)]
        rows = [["", *names, "coverage", "gini"]]
        for cutoff in self.cutoffs:
            values = [cutoff.mean(name) if name in cutoff.per_user else None for name in names]
            rows.append(
                [cutoff.name, *("" if v is None else f"{v:.4f}" for v in (*values, cutoff.coverage, cutoff.gini))]
            )
        return rows

    def _notes(self) -> list[str]:
        tested = counted(self.interactions, "test interaction")
        notes = [f"means over {counted(len(self.users), 'user')}, {tested}"]
        return notes if self.reliability is None else [*notes, self.reliability.note()]

    def __repr__(self) -> str:
        return "\n".join([text_table(self._rows()), *self._notes()])

    def _repr_html_(self) -> str:
        parts = [html_table(self._rows()), *(f"<p>{html.escape(note)}</p>" for note in self._notes())]
        more: dict[str, Sequence[Sequence[str]]] = {"Groups of users and items": self.group_rows()}
        if self.reliability is not None:
            more["Probabilities"] = self.reliability.rows()
        for title, rows in more.items():
            if len(rows) > 1:
                parts.append(f"<details><summary>{title}</summary>{html_table(rows)}</details>")
        return "".join(parts)
