"""Results by thirds: of the users by the length of their history, and of the items by the number of their users."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from hashlgn.data import Interactions
from hashlgn.evaluation.metrics import Recommended
from hashlgn.evaluation.result import Cutoff, Group

__all__ = ["item_groups", "thirds", "user_groups"]

Ints = npt.NDArray[np.int64]
_USERS = ("few", "middle", "many")
_ITEMS = ("rare", "middle", "popular")


def thirds(values: Ints) -> Ints:
    """The third of each value among all, 0, 1 or 2, ``(n,)``; equal values are in one third, the lower one."""
    ordered = np.sort(values)
    bounds = ordered[[max(-(-len(values) * part // 3) - 1, 0) for part in (1, 2)]]
    return np.searchsorted(bounds, values, side="left").astype(np.int64)


def user_groups(lengths: Ints, test: Interactions, users: Ints, cutoffs: Sequence[Cutoff]) -> tuple[Group, ...]:
    """Means of all metrics by group of the evaluated users, whose histories have these lengths."""
    tested = np.diff(test.indptr)[users]
    return tuple(
        Group(
            name,
            int(lengths[mask].min()),
            int(lengths[mask].max()),
            int(mask.sum()),
            int(tested[mask].sum()),
            {c.name: {name: float(values[mask].mean()) for name, values in c.per_user.items()} for c in cutoffs},
        )
        for name, mask in _members(_USERS, thirds(lengths))
    )


def item_groups(
    counts: Ints, test: Interactions, users: Ints, found: Sequence[tuple[Cutoff, Recommended]]
) -> tuple[Group, ...]:
    """Recall of the test interactions with the items of each group, and the group's share of all answers, by the users
    of each item in training, and the numbers of the evaluated users in the test.
    """
    row = np.searchsorted(users, test.rows)
    groups = []
    for name, mask in _members(_ITEMS, thirds(counts)):
        targets = np.bincount(row[mask[test.indices]], minlength=len(users))
        means = {}
        for cutoff, answers in found:
            within = answers.within(cutoff.k)
            ours = within & answers.of(mask, 0.0).astype(np.bool_)
            hits = np.bincount(answers.rows[ours & answers.relevant], minlength=len(users))
            recall = hits[targets > 0] / targets[targets > 0]
            share = float(ours.sum() / max(within.sum(), 1))
            means[cutoff.name] = {"recall": float(recall.mean()) if len(recall) else 0.0, "share": share}
        low, high = int(counts[mask].min()), int(counts[mask].max())
        groups.append(Group(name, low, high, int(mask.sum()), int(targets.sum()), means))
    return tuple(groups)


def _members(names: Sequence[str], third: Ints) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """The groups that have a member."""
    for number, name in enumerate(names):
        mask = third == number
        if mask.any():
            yield name, mask
