"""Odd values at the edge of a model: accepted where they are harmless, one error of the project where not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import hashlgn
from hashlgn.data import Ids, read_interactions
from hashlgn.errors import ArgumentError, ArtifactError, shown
from hashlgn.inference.model import ServedModel
from hashlgn.inference.stored import Stored
from hashlgn.scoring.histories import FloatHistories
from hashlgn.scoring.items import FloatItems

MODEL = hashlgn.Recommender(
    ServedModel(
        kind="hashlgn",
        config={},
        user_ids=Ids(["a", "b"]),
        item_ids=Ids([11, 12]),
        items=FloatItems(np.eye(2, dtype=np.float32)),
        histories=FloatHistories(np.eye(2, dtype=np.float32)),
        stored=Stored.of(np.array([0, 1, 2]), np.array([0, 1], np.int32)),
    )
)


@pytest.mark.parametrize("strength", ["x", None, 1e300, 1e-300, 10**400, float("nan"), True, [1.0], 0, -1])
def test_a_strength_that_is_no_positive_number_is_named(strength: object) -> None:
    with pytest.raises(ArgumentError, match="a strength in history must be from 1e-6 to 1e12"):
        MODEL.recommend(history={"ann": {11: strength}}, k=1)


def test_allow_lists_may_be_iterators() -> None:
    found = MODEL.recommend(["a", "b"], 5, allow=[iter([11]), iter([12])], filter_seen=False)
    assert found["item"].tolist() == [11, 12]
    with pytest.raises(ArtifactError, match="null byte"):
        MODEL.save("a\0b")


def test_a_bound_beyond_all_floats_is_refused() -> None:
    table = {"user": [1], "item": [2], "rating": [3.0]}
    with pytest.raises(ArgumentError, match="min_rating must be a finite number"):
        read_interactions(pa.table(table), min_rating=2**1030)


@pytest.mark.parametrize(
    "options",
    [
        *({"encoding": value} for value in ("nope", "hex", "", 5, b"utf-8", ["utf-8"], "a\0b")),
        *({"delimiter": value} for value in ("", "ab", "\n", "é", 5, b",", [","])),
        {"k_core": (1, 2, 3)},
    ],
)
def test_an_odd_option_of_reading_is_named(options: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,item\n1,2\n")
    with pytest.raises(ArgumentError, match="must be"):
        read_interactions(tmp_path / "a.csv", **options)


def test_a_model_prints_short() -> None:
    assert repr(MODEL.model) == "ServedModel(hashlgn, 2 users, 2 items)"


@pytest.mark.parametrize("value", [np.int64(5), np.float32(-1.5), np.bool_(True), [np.int64(5)], {"a": np.str_("b")}])
def test_messages_show_plain_values(value: object) -> None:
    assert "np." not in shown(value) and "numpy" not in shown(value)
    with pytest.raises(ArgumentError, match=r"k must be a positive integer \(got 0\)"):
        MODEL.recommend(k=np.int64(0))
