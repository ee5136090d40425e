from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import clusters
from hashlgn.data import random_ratio
from hashlgn.errors import ArgumentError
from hashlgn.experiments.baselines.quantizers import QUANTIZERS
from hashlgn.experiments.studies.grid import grid, grid_runs
from hashlgn.training.encoders import ENCODERS
from hashlgn.training.hashes import HASHES

FAST = {
    "model.dim": 16,
    "train.pretrain_epochs": 2,
    "train.joint_epochs": 1,
    "train.batch_users": 16,
    "train.monitor_k": 5,
}
TRAIN, TEST = random_ratio(clusters(), 0.3, seed=0)


def test_each_run_of_the_product_is_a_file(tmp_path: Path) -> None:
    names = {
        "encoders": ["lightgcn"],
        "hashes": ["float", "mlp3", "itq-hamming", "product"],
        "losses": ["softmax", "bpr"],
        "baselines": ["popularity", "ease"],
    }
    result = grid(TRAIN, TEST, tmp_path, **names, bits=16, changes=FAST, seeds=1, k=5, threads=1)
    assert [row["row"] for row in result["rows"]] == [run.name for run in grid_runs(**names)]
    assert {row["row"].split(", ")[-2:][0]: row["bytes/answer"] for row in result["rows"]} == {
        "float": 64.0,
        "mlp3": 4.0,
        "itq-hamming": 2.0,  # of distances there is no scale
        "product": 4.0,
        "popularity": 4.0,
        "ease": 4.0 * TRAIN.n_items,
    }
    files = list((tmp_path / "runs").iterdir())
    assert len(files) == 10
    written = {path: path.stat().st_mtime_ns for path in files}
    lost = files[0]
    lost.unlink()
    again = grid(TRAIN, TEST, tmp_path, **names, bits=16, changes=FAST, seeds=1, k=5, threads=1)
    assert [(row["row"], row["recall@5"]) for row in again["rows"]] == [
        (row["row"], row["recall@5"]) for row in result["rows"]
    ]
    changed = [path for path in files if path.stat().st_mtime_ns != written[path]]
    assert changed == [lost]
    assert json.loads((tmp_path / "grid.json").read_text())["rows"] == again["rows"]
    assert (tmp_path / "grid.md").read_text().startswith("| row |")


def test_rows_of_every_encoder_share_its_own_training(tmp_path: Path) -> None:
    names = {"encoders": list(ENCODERS), "hashes": ["float", "residual"], "losses": ["hashgnn"]}
    longer = FAST | {"train.pretrain_epochs": 12, "train.joint_epochs": 3}
    result = grid(TRAIN, TEST, tmp_path, **names, bits=16, changes=longer, seeds=1, k=5, threads=1)
    assert all(row["recall@5"] > 0.4 for row in result["rows"])
    assert len(list((tmp_path / "models").iterdir())) == len(ENCODERS) - 1  # the closed form has nothing to share


@pytest.mark.parametrize("name", ["float", *HASHES, *QUANTIZERS])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_combination_is_a_configuration(encoder: str, name: str) -> None:
    (run,) = grid_runs([encoder], [name], ["softmax"])
    assert run.config().model.encoder == encoder
    assert run.quantizer == (name if name in QUANTIZERS else None)


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
        grid_runs(*names)
