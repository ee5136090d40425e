"""The demonstration on small data: what it writes, and that its probabilities are compared with what happened."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import hashlgn
from conftest import clusters
from hashlgn.data import random_ratio
from hashlgn.data.synthetic import write_lightgcn
from hashlgn.evaluation.full_ranking import evaluate
from hashlgn.experiments import demo as module
from hashlgn.experiments.common.runs import FLOATS, Run
from hashlgn.experiments.demo import demo

pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")

SMALL = {"model.dim": 16, "model.bits": 16, "model.history_bits": 32, "train.monitor_k": 5}
SMALL |= {"train.pretrain_epochs": 2, "train.joint_epochs": 2}
SMALL |= {f"student.{name}": 2 for name in ("epochs", "distillation_epochs", "code_epochs", "settle_epochs")}


def test_the_page_shows_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = random_ratio(clusters(400, 160, groups=8), 0.2, seed=0)
    write_lightgcn(tmp_path / "data" / "ml-1m", train, test)
    monkeypatch.setenv("HASHLGN_DATA", str(tmp_path / "data"))
    named = {"LightGCN, floats": {**FLOATS}, "the paper's": {"model.bits": 8}, "HashLGN, floats": {**FLOATS}}
    monkeypatch.setattr(module, "RUNS", [Run(name, SMALL | c) for name, c in (named | {"HashLGN, bits": {}}).items()])
    result = demo(tmp_path / "out", threads=1, quiet=True)
    assert [row["model"] for row in result["models"]] == [*named, "HashLGN, bits"]
    held = json.loads((tmp_path / "out" / "results.json").read_text())
    assert held["models"] == result["models"]
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert page.count("data:image/svg+xml") == 3 and "Probabilities" in page

    read = module.find_data()
    model = hashlgn.load(next((tmp_path / "out" / "models").glob("HashLGN-bits-*")) / "whole")
    cut = evaluate(model, read[1], 50).at(50)
    assert held["models"][-1]["recall@50"] == round(cut.mean("recall"), 4)
    # By the table that a user gets: bins of equal numbers of rows, in the order of their probabilities.
    users = read[0].user_ids.decode(np.flatnonzero(np.diff(read[1].indptr)))
    table = model.recommend(users, 160, calibrated=True)
    pairs = set(zip(read[1].rows.tolist(), read[1].indices.tolist(), strict=True))
    rows, items = read[0].user_ids.encode(table["user"]), read[0].item_ids.encode(table["item"])
    hit = np.array([pair in pairs for pair in zip(rows.tolist(), items.tolist(), strict=True)])
    order = np.argsort(table["probability"], kind="stable")
    error = sum(
        abs(float(table["probability"][part].mean()) - hit[part].mean()) * len(part)
        for part in np.array_split(order, 15)
    )
    assert held["calibration_error"] == pytest.approx(error / len(order), abs=2e-4)
