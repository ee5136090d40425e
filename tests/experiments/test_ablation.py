from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import clusters
from hashlgn.config import Config, load_config
from hashlgn.data import random_ratio
from hashlgn.data.synthetic import write_lightgcn
from hashlgn.errors import ArgumentError
from hashlgn.estimators import HashLGN, LightGCN
from hashlgn.evaluation.full_ranking import evaluate
from hashlgn.experiments.studies import ablation as room
from hashlgn.experiments.studies.ablation import QUANTISER, ROWS, ablation, read_parts
from hashlgn.scoring.items import CodedItems
from hashlgn.training.encoders import ENCODERS
from hashlgn.training.model import checked

FAST = {"model.dim": 16, "model.bits": 16, "train.epochs": "4", "train.batch_users": 16, "train.monitor_k": 5}
SOME = ("default", "mlp3 + reweight", "codes not trained", "float, 64")
TRAIN, TEST = random_ratio(clusters(), 0.3, seed=0)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("ablation")
    return out, ablation(TRAIN, TEST, out, rows=SOME, seeds=2, k=5, changes=FAST, threads=1)


def test_every_cell_is_its_own_training_judged_on_the_test_part(done) -> None:
    _, result = done
    assert [(cell["row"], cell["config"]["train"]["seed"]) for cell in result["cells"]] == [
        (name, seed) for seed in range(2) for name in SOME
    ]
    for cell in result["cells"][:4]:
        config = Config.from_dict(cell["config"])
        model = (LightGCN if config.model.kind == "lightgcn" else HashLGN)(config=config, threads=1).fit(TRAIN)
        cut = evaluate(model, TEST, 5).at(5)
        assert (cell["recall"], cell["ndcg"]) == (cut.mean("recall"), cut.mean("ndcg"))


def test_an_encoder_is_trained_once_for_the_rows_that_share_it(done) -> None:
    out, _ = done
    assert len(list((out / "starts").iterdir())) == 4  # of 67% and of 100% of the epochs, under two seeds


@pytest.mark.parametrize("encoder", [name for name in ENCODERS if name != "spectral"])
def test_an_encoder_shared_by_rows_gives_what_each_would_have_trained(encoder: str, tmp_path: Path) -> None:
    config = checked(Config().updated({"model.encoder": encoder} | FAST | ROWS["mlp3 + reweight"]))
    alone = room._encoder_alone(config)
    assert alone is not None and alone.train.epochs == 2
    LightGCN(config=alone).fit(TRAIN).save(tmp_path / "start")
    shared = HashLGN(config=config.updated({"train.init": str(tmp_path / "start")})).fit(TRAIN).model
    own = HashLGN(config=config).fit(TRAIN).model
    assert isinstance(shared.items, CodedItems) and isinstance(own.items, CodedItems)
    np.testing.assert_array_equal(shared.items.packed, own.items.packed)
    np.testing.assert_array_equal(shared.users, own.users)


def test_the_table_is_of_the_cells(done) -> None:
    out, result = done
    for row in result["rows"]:
        values = [cell["recall"] for cell in result["cells"] if cell["row"] == row["row"]]
        assert row["recall@5"] == round(float(np.mean(values)), 4)
        # 12.706: the 97.5% point of Student's t with one degree of freedom
        assert row["±"] == pytest.approx(12.706 * np.std(values, ddof=1) / np.sqrt(2), abs=1e-4)
    text = (out / "ablation.md").read_text()
    assert text.count("\n| ") == 1 + len(SOME) and "hashlgn train DATA" in text


def test_the_command_of_a_row_is_the_configuration_of_its_cell(done) -> None:
    _, result = done
    for cell in result["cells"][: len(SOME)]:
        words = shlex.split(result["commands"][cell["row"]])
        settings = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        flags = {"train.seed": words[words.index("--seed") + 1]}
        assert checked(load_config(None, flags, settings)).to_dict() == cell["config"]


def test_a_finished_cell_is_never_run_twice(done, monkeypatch) -> None:
    out, result = done
    trained: list[str] = []
    real = room._run

    def counted(train: Any, test: Any, config: Config, *arguments: Any, **options: Any) -> Any:
        trained.append(config.model.hash)
        return real(train, test, config, *arguments, **options)

    monkeypatch.setattr(room, "_run", counted)
    lost = next(
        path for path in (out / "cells").iterdir() if json.loads(path.read_text())["config"]["model"]["hash"] == "mlp3"
    )
    lost.unlink()
    again = ablation(TRAIN, TEST, out, rows=SOME, seeds=2, k=5, changes=FAST, threads=1)
    assert trained == ["mlp3"]
    for old, new in zip(result["cells"], again["cells"], strict=True):
        assert (old["recall"], old["ndcg"]) == (new["recall"], new["ndcg"])


@pytest.mark.parametrize("name", [name for name in ROWS if name != "default"])
def test_every_row_is_a_configuration_of_its_own(name: str) -> None:
    def made(changes: dict[str, Any]) -> tuple[Config, str | None]:
        own = dict(changes)
        quantiser = own.pop(QUANTISER, None)
        return checked(Config().updated(own)), quantiser

    assert [made(changes) for changes in ROWS.values()].count(made(ROWS[name])) == 1


def test_parts_are_given_or_cut(tmp_path: Path) -> None:
    write_lightgcn(tmp_path / "given", TRAIN, TEST)
    train, test, folder = read_parts(tmp_path / "given", tmp_path / "out")
    assert (len(train), len(test), folder) == (len(TRAIN), len(TEST), tmp_path / "given")
    (tmp_path / "whole.csv").write_text("user,item\n" + "".join(f"{u},{i}\n" for u in range(5) for i in range(10)))
    train, test, folder = read_parts(tmp_path / "whole.csv", tmp_path / "out")
    assert (len(train), len(test)) == (40, 10)
    assert read_parts(folder, tmp_path / "other")[0].fingerprint() == train.fingerprint()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": ("everything",)}, "rows must be one of 'default'"),
        ({"rows": ()}, "rows must name at least one"),
        ({"seeds": 0}, "seeds must be a positive integer"),
        ({"k": 0}, "k must be a positive integer"),
        ({"changes": {"model.bits": 12}}, "bits must be a positive multiple of 8"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=message):
        ablation(TRAIN, TEST, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_quantisers_of_one_float_model_share_it_and_have_the_bytes_of_our_codes(tmp_path: Path) -> None:
    names = [name for name in ROWS if "product" in name and name.startswith(("64", "80"))]
    assert len(names) == 2
    held = {"model.encoder": "lightgcn", "train.epochs": 2, "train.batch_users": 16, "train.monitor_k": 5}
    result = ablation(TRAIN, TEST, tmp_path, rows=names, seeds=1, k=5, changes=held, threads=1)
    assert [row["bytes/item"] for row in result["rows"]] == [10, 10]
    assert len(list((tmp_path / "starts").iterdir())) == 1
    assert all(row["recall@5"] > 0.15 for row in result["rows"])
