from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import clusters
from hashlgn.config import Config
from hashlgn.data import random_ratio
from hashlgn.errors import ArgumentError
from hashlgn.experiments.baselines.quantizers import QUANTISERS
from hashlgn.experiments.studies.grid import grid, grid_rows
from hashlgn.training.encoders import ENCODERS
from hashlgn.training.hashes import HASHES
from hashlgn.training.model import checked

FAST = {"model.dim": 16, "train.epochs": 3, "train.batch_users": 16, "train.monitor_k": 5}
TRAIN, TEST = random_ratio(clusters(), 0.3, seed=0)


def test_the_product_is_run_a_cell_at_a_time(tmp_path: Path) -> None:
    names = {
        "encoders": ["lightgcn"],
        "hashes": ["float", "mlp3", "itq-hamming", "product"],
        "losses": ["softmax", "bpr"],
    }
    result = grid(TRAIN, TEST, tmp_path, **names, bits=16, changes=FAST, seeds=1, k=5, threads=1)
    assert [row["row"] for row in result["rows"]] == list(grid_rows(**names))
    assert {row["row"].split(", ")[1]: row["bytes/item"] for row in result["rows"]} == {
        "float": 64.0,
        "mlp3": 4.0,
        "itq-hamming": 2.0,  # of distances there is no scale
        "product": 4.0,
    }
    cells = list((tmp_path / "cells").iterdir())
    assert len(cells) == 8
    written = {path: path.stat().st_mtime_ns for path in cells}
    lost = cells[0]
    lost.unlink()
    again = grid(TRAIN, TEST, tmp_path, **names, bits=16, changes=FAST, seeds=1, k=5, threads=1)
    assert [(row["row"], row["recall@5"]) for row in again["rows"]] == [
        (row["row"], row["recall@5"]) for row in result["rows"]
    ]
    changed = [path for path in cells if path.stat().st_mtime_ns != written[path]]
    assert changed == [lost]
    assert json.loads((tmp_path / "grid.json").read_text())["rows"] == again["rows"]
    assert (tmp_path / "grid.md").read_text().startswith("| row |")


def test_rows_of_every_encoder_share_its_own_training(tmp_path: Path) -> None:
    names = {"encoders": list(ENCODERS), "hashes": ["float", "tanh", "residual"], "losses": ["hashgnn"]}
    longer = FAST | {"train.epochs": 8}
    result = grid(TRAIN, TEST, tmp_path, **names, bits=16, changes=longer, seeds=1, k=5, threads=1)
    assert all(row["recall@5"] > 0.2 for row in result["rows"])
    assert len(list((tmp_path / "starts").iterdir())) == len(ENCODERS) - 1  # the closed form has nothing to share


@pytest.mark.parametrize("name", ["float", *HASHES, *QUANTISERS])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_combination_is_a_configuration(encoder: str, name: str) -> None:
    (row,) = grid_rows([encoder], [name], ["softmax"]).values()
    row.pop("quantiser", None)
    checked(Config().updated(row))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((["cnn"], ["mlp3"], ["bpr"]), "encoders must be one of"),
        ((["lightgcn"], ["md5"], ["bpr"]), "hashes must be one of 'float'"),
        ((["lightgcn"], ["mlp3"], ["hinge"]), "losses must be one of"),
        ((["lightgcn"], [], ["bpr"]), "hashes must name at least one"),
    ],
)
def test_bad_names(names: tuple[list[str], list[str], list[str]], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        grid_rows(*names)
