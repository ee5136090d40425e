from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import clusters
from hashlgn.config import Config, load_config
from hashlgn.errors import ArgumentError
from hashlgn.estimators import HashLGN, LightGCN
from hashlgn.experiments.studies import tune as module
from hashlgn.experiments.studies.tune import SPACE, tune, varied

optuna = pytest.importorskip("optuna", reason="the extra 'tune' is not installed")

SMALL = Config().updated(
    {
        "model.kind": "float",
        "model.dim": 8,
        "train.pretrain_epochs": 2,
        "train.joint_epochs": 2,
        "train.validate_every": 1,
        "train.monitor_k": 5,
        "train.init": "random",
        "train.batch_users": 16,
    }
)
FIXED = ("train.user_weight", "model.layers")
STUDENT = [f"student.{name}" for name in ("lr", "code_lr", "temperature", "hidden", "user_weight", "ease_penalty")]


def values(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in result["rows"]]


@pytest.fixture(autouse=True)
def undrawn(monkeypatch) -> None:
    """Only the search that all tests share draws its plots, which takes longer than its trials."""
    monkeypatch.setattr(module, "_plot", lambda *arguments: None)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("searched")
    return out, tune(clusters(), out, SMALL, fixed=FIXED, trials=4)


def test_the_best_configuration_trains_to_the_value_it_was_chosen_for(searched) -> None:
    out, result = searched
    assert len(result["rows"]) == 4
    assert result["best"]["value"] == max(row["value"] for row in result["rows"] if row["value"] is not None)
    config = load_config(out / "best.toml")
    assert config.train.lr == result["best"]["train.lr"]
    model = LightGCN(config=config).fit(clusters())
    assert list(model.model.metrics["validation"].values())[-1] == result["best"]["value"]


def test_the_base_is_the_first_trial_and_what_is_fixed_stays(searched) -> None:
    out, result = searched
    base = module._resolved(SMALL, 48)
    assert result["rows"][0]["train.lr"] == base.train.lr
    assert list(result["setting"]["space"]) == ["train.lr", "train.temperature"]
    best = load_config(out / "best.toml")
    drawn = {"lr": base.train.lr, "temperature": base.train.temperature}
    assert replace(best, train=replace(best.train, **drawn)) == base


def test_what_is_written(searched) -> None:
    out, result = searched
    for name in ("history", "trials"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    held = json.loads((out / "trials.json").read_text())
    assert held["rows"] == result["rows"]
    assert held["setting"]["data"] == clusters().fingerprint()


@pytest.mark.parametrize("last", [1, 3])
def test_a_search_that_was_killed_ends_as_one_that_was_not(last: int, searched, tmp_path: Path, monkeypatch) -> None:
    real, calls = LightGCN.fit, 0

    def killed(self: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        fitted = real(self, *arguments, **options)
        if calls == last:
            raise KeyboardInterrupt
        return fitted

    with monkeypatch.context() as patch:
        patch.setattr(LightGCN, "fit", killed)
        with pytest.raises(KeyboardInterrupt):
            tune(clusters(), tmp_path, SMALL, fixed=FIXED, trials=4)
    if last > 1:
        assert len(json.loads((tmp_path / "trials.json").read_text())["rows"]) == last - 1
    result = tune(clusters(), tmp_path, SMALL, fixed=FIXED, trials=4)
    assert values(result) == values(searched[1])
    again = tune(clusters(), tmp_path, SMALL, fixed=FIXED, trials=4)  # nothing left to do
    assert again["rows"] == result["rows"]


def test_a_search_killed_before_its_first_trial_begins_with_it(searched, tmp_path: Path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(optuna.study.Study, "ask", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tune(clusters(), tmp_path, SMALL, fixed=FIXED, trials=4)
    result = tune(clusters(), tmp_path, SMALL, fixed=FIXED, trials=2)
    assert values(result) == values(searched[1])[:2]


def test_a_trial_below_the_median_is_given_up(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "_STARTUP", 1)
    result = tune(clusters(), tmp_path, SMALL.updated({"train.lr": 0.1}), fixed=FIXED, trials=8)
    assert "given up" in {row["state"] for row in result["rows"]}
    study = optuna.load_study(study_name="hashlgn", storage=f"sqlite:///{tmp_path / 'study.db'}")
    complete: list[Any] = []
    for trial in study.trials:
        if trial.state.name == "PRUNED":
            last = max(trial.intermediate_values)
            others = [t.intermediate_values[last] for t in complete if last in t.intermediate_values]
            assert max(trial.intermediate_values.values()) < np.median(others)
        elif trial.state.name == "COMPLETE":
            complete.append(trial)


def test_trainings_that_explode_do_not_end_the_search(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(SPACE, "train.lr", replace(SPACE["train.lr"], high=1e30))
    base = SMALL.updated({"model.similarity": "inner"})  # lengths of 1 would not grow
    result = tune(clusters(), tmp_path, base, fixed=(*FIXED, "train.temperature"), trials=4)
    assert [row["value"] is None for row in result["rows"]] == [row["state"] == "exploded" for row in result["rows"]]
    assert "exploded" in {row["state"] for row in result["rows"]}
    with pytest.raises(ArgumentError, match="must be smaller"):  # but a base that cannot be trained is told at once
        tune(clusters(), tmp_path / "base", base.updated({"train.lr": 1e30}), fixed=FIXED, trials=4)


def test_students_are_searched_too(tmp_path: Path) -> None:
    epochs = {f"student.{name}": 1 for name in ("epochs", "distillation_epochs", "code_epochs", "settle_epochs")}
    base = Config().updated({**epochs, "model.dim": 8, "model.bits": 16, "model.history_bits": 16})
    result = tune(clusters(), tmp_path, base, trials=2, fixed=STUDENT[3:])
    assert list(result["setting"]["space"]) == STUDENT[:3]
    model = HashLGN(config=load_config(tmp_path / "best.toml")).fit(clusters())
    assert model.model.users is None
    assert model.model.metrics["validation"]["histories"] == result["best"]["value"]


def test_codes_are_searched_too(tmp_path: Path) -> None:
    changes = {"model.kind": "hashlgn", "model.encoder": "lightgcn", "model.bits": 16}
    base = SMALL.updated(changes)
    result = tune(clusters(), tmp_path, base, trials=2, fixed=FIXED, timeout=60)
    config = load_config(tmp_path / "best.toml")
    model = HashLGN(config=config).fit(clusters())
    assert model.model.metrics["validation"]["joint"] == result["best"]["value"]


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, STUDENT),
        ({"student.teacher": "labels"}, STUDENT[:-1]),
        (
            {"model.answers": "floats", "model.histories": "floats", "train.loss": "bpr"},
            [STUDENT[0], *STUDENT[2:]],
        ),
        (
            {"model.encoder": "lightgcn"},
            ["train.lr", "train.joint_lr", "train.code_lr", "train.temperature", "train.user_weight", "model.layers"],
        ),
        ({"model.encoder": "spectral"}, []),
        (
            {"model.encoder": "spectral", "model.hash": "mlp3"},
            ["train.code_lr", "train.temperature", "train.user_weight"],
        ),
        (
            {"model.kind": "float", "train.loss": "bpr", "model.similarity": "inner"},
            ["train.lr", "train.l2", "model.layers"],
        ),
        ({"model.kind": "float", "model.encoder": "spectral", "model.similarity": "inner"}, []),
    ],
)
def test_only_what_matters_is_varied(changes: dict[str, Any], names: list[str]) -> None:
    assert list(varied(module._resolved(Config().updated(changes), 100))) == names


def test_bad_arguments_and_folders_of_something_else(searched, tmp_path: Path) -> None:
    out, _ = searched
    for options, message in (
        ({"trials": 0}, "trials must be a positive integer"),
        ({"timeout": 0.0}, "timeout must be a positive number of seconds"),
        ({"base": SMALL.updated({"train.validation_users": 0})}, "train.validation_users must be a positive integer"),
        ({"fixed": SPACE}, "fixed must leave something to vary"),
        ({"base": SMALL.updated({"train.seed": 1}), "fixed": FIXED, "out": out}, "differs in base"),
        ({"data": clusters(seed=1), "fixed": FIXED, "out": out}, "differs in data"),
        ({"out": out}, "differs in space"),
        ({"out": tmp_path / "what?"}, "without '\\?' in its path"),
    ):
        with pytest.raises(ArgumentError, match=message):
            tune(**({"data": clusters(), "out": tmp_path / "new", "base": SMALL} | options))
    assert not (tmp_path / "new").exists()
    (tmp_path / "study.db").write_text("nothing of the kind")
    with pytest.raises(ArgumentError, match="damaged"):
        tune(clusters(), tmp_path, SMALL)
