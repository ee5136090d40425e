from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import clusters
from hashlgn.cli.main import app
from hashlgn.config import Config, load_config
from hashlgn.data import random_ratio
from hashlgn.data.synthetic import write_lightgcn
from hashlgn.errors import ArgumentError
from hashlgn.estimators import HashLGN, LightGCN
from hashlgn.evaluation.full_ranking import evaluate
from hashlgn.experiments.baselines import recommenders
from hashlgn.experiments.common.runs import Run, Runner
from hashlgn.experiments.demo import find_data
from hashlgn.experiments.studies import study as module
from hashlgn.experiments.studies.ablation import ROWS, ablation
from hashlgn.experiments.studies.study import SPLITS, read_parts
from hashlgn.scoring.items import CodedItems
from hashlgn.training.encoders import ENCODERS
from hashlgn.training.resolve import resolve
from hashlgn.utils.console import exit_code

FAST = {
    "model.dim": 16,
    "model.bits": 16,
    "train.pretrain_epochs": 2,
    "train.joint_epochs": 2,
    "train.batch_users": 16,
    "train.monitor_k": 5,
    "student.epochs": 2,
    "student.distillation_epochs": 1,
    "student.code_epochs": 1,
    "student.settle_epochs": 1,
    "model.history_bits": 32,
}
CODES, PAPER = "LightGCN, 128 bits", "LightGCN, 128 bits, mlp3 + reweight"
SOME = ("default", "float student", "codes not trained", PAPER, CODES, "LightGCN, 128 floats")
TRAIN, TEST = random_ratio(clusters(), 0.3, seed=0)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("ablation")
    return out, ablation(TRAIN, TEST, out, rows=SOME, seeds=2, k=5, changes=FAST, threads=1)


def test_every_result_is_its_own_training_evaluated_on_the_test_part(done) -> None:
    _, result = done
    assert sorted((one["name"], one["seed"]) for one in result["runs"]) == sorted(
        (name, seed) for seed in range(2) for name in SOME
    )
    for one in (one for one in result["runs"] if one["seed"] == 0):
        config = Config.from_dict(one["config"])
        model = (LightGCN if config.model.kind == "float" else HashLGN)(config=config, threads=1).fit(TRAIN)
        assert (model.model.users is None) == (not one["name"].startswith("LightGCN"))
        cut = evaluate(model, TEST, 5).at(5)
        assert (one["recall"], one["ndcg"]) == (cut.mean("recall"), cut.mean("ndcg"))


def test_an_encoder_is_trained_once_for_the_rows_that_share_it(done) -> None:
    out, _ = done
    assert len(list((out / "models").iterdir())) == 2  # of two rows, under two seeds


@pytest.mark.parametrize("encoder", [name for name, encoder in ENCODERS.items() if encoder.trainable])
def test_an_encoder_shared_by_rows_gives_what_each_would_have_trained(encoder: str, tmp_path: Path) -> None:
    run = Run("codes", {**FAST, **ROWS[PAPER].changes, "model.encoder": encoder})
    start = module._started(run).start
    assert start is not None and (start.config().train.pretrain_epochs, start.config().train.joint_epochs) == (2, 0)
    shared = Runner(TRAIN, tmp_path).model(module._started(run), 0).whole
    own = HashLGN(config=run.config()).fit(TRAIN).model
    assert isinstance(shared.items, CodedItems) and isinstance(own.items, CodedItems)
    np.testing.assert_array_equal(shared.items.packed, own.items.packed)
    np.testing.assert_array_equal(shared.users, own.users)


def test_the_table_is_of_the_results(done) -> None:
    out, result = done
    for row in result["rows"]:
        values = [cell["recall"] for cell in result["runs"] if cell["name"] == row["row"]]
        assert row["recall@5"] == round(float(np.mean(values)), 4)
        # 12.706: the 97.5% point of Student's t with one degree of freedom
        assert row["±"] == pytest.approx(12.706 * np.std(values, ddof=1) / np.sqrt(2), abs=1e-4)
    text = (out / "ablation.md").read_text()
    assert text.count("\n| ") == 1 + len(SOME) and "hashlgn train DATA" in text


def test_the_command_of_a_row_is_the_configuration_of_its_result(done) -> None:
    _, result = done
    for cell in (one for one in result["runs"] if one["seed"] == 0):
        words = shlex.split(result["commands"][cell["name"]])
        settings = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        flags = {"train.seed": words[words.index("--seed") + 1]}
        config = load_config(None, flags, settings)
        assert (config if config.model.encoder is None else resolve(config)).to_dict() == cell["config"]


def test_a_finished_result_is_never_computed_twice(done, monkeypatch) -> None:
    out, result = done
    trained: list[str] = []
    real = Runner.model

    def counted(self: Runner, run: Run, *arguments: Any, **options: Any) -> Any:
        trained.append(run.name)
        return real(self, run, *arguments, **options)

    monkeypatch.setattr(Runner, "model", counted)
    files = [path for path in (out / "runs").iterdir() if '"mlp3"' in path.read_text()]
    files[0].unlink()
    again = ablation(TRAIN, TEST, out, rows=SOME, seeds=2, k=5, changes=FAST, threads=1)
    assert trained == [PAPER, "encoder"]
    for old, new in zip(result["runs"], again["runs"], strict=True):
        assert (old["name"], old["recall"], old["ndcg"]) == (new["name"], new["recall"], new["ndcg"])


def test_every_row_is_a_run_of_its_own() -> None:
    identities = [json.dumps(run.identity(0), sort_keys=True) for run in ROWS.values()]
    assert len(set(identities)) == len(ROWS) and all(name == run.name for name, run in ROWS.items())


def test_a_baseline_that_cannot_be_computed_is_left_out_with_a_line(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(recommenders, "_LARGEST", 1000)
    said: list[str] = []
    result = ablation(TRAIN, TEST, tmp_path, rows=("popularity", "ease"), seeds=1, k=5, say=said.append)
    assert [row["row"] for row in result["rows"]] == ["popularity"] == list(result["commands"])
    assert said[1].startswith("left out: ease (EASE and SLIM hold dense matrices")


def test_every_command_of_a_grid_makes_its_row_again(tmp_path: Path, monkeypatch, capsys) -> None:
    write_lightgcn(tmp_path / "my data", TRAIN, TEST)
    monkeypatch.chdir(tmp_path)
    settings = [
        f"--set={key}={value}" for key, value in (FAST | {"train.pretrain_epochs": 1, "train.joint_epochs": 1}).items()
    ]
    line = "experiment grid --out grid --encoders lightgcn --hashes float,residual,mlp3,product,itq-hamming --quiet"
    line += " --losses softmax --baselines popularity,ease --bits 16 --seeds 1 --k 5 --threads 1"
    assert exit_code(app, [*line.split(), "--data", "my data", *settings]) == 0
    result = json.loads((tmp_path / "grid" / "grid.json").read_text())
    assert len(result["commands"]) == len(result["rows"]) == 7
    for row in result["rows"]:
        capsys.readouterr()
        folder = tmp_path / f"again {row['row']}"
        folder.mkdir()
        monkeypatch.chdir(folder)
        (folder / "my data").symlink_to(tmp_path / "my data")
        for command in result["commands"][row["row"]].split(" && "):
            assert exit_code(app, shlex.split(command)[1:]) == 0
        text = capsys.readouterr().out
        if "evaluate" in result["commands"][row["row"]]:
            assert f"{row['recall@5']:.4f}" in text and f"{row['ndcg@5']:.4f}" in text
        else:
            assert json.loads((folder / "OUT" / "grid.json").read_text())["rows"][0]["recall@5"] == row["recall@5"]


def test_published_data_are_found_by_name(tmp_path: Path, monkeypatch) -> None:
    write_lightgcn(tmp_path / "ml-1m", TRAIN, TEST)
    monkeypatch.setenv("HASHLGN_DATA", str(tmp_path))
    train, test, source = read_parts("ml-1m", tmp_path / "out")
    assert (len(train), len(test), source) == (len(TRAIN), len(TEST), str(tmp_path / "ml-1m"))
    found = find_data()
    assert [len(part) for part in found[:2]] == [len(TRAIN), len(TEST)]
    assert found[2] == f"MovieLens 1M ({tmp_path / 'ml-1m'}), its given split"


def test_parts_are_given_or_cut(tmp_path: Path) -> None:
    write_lightgcn(tmp_path / "given", TRAIN, TEST)
    train, test, source = read_parts(tmp_path / "given", tmp_path / "out")
    assert (len(train), len(test), source) == (len(TRAIN), len(TEST), str(tmp_path / "given"))
    rows = [f"{user},{item},{100 * user + item}\n" for user in range(5) for item in range(10)]
    (tmp_path / "whole.csv").write_text("user,item,timestamp\n" + "".join(rows))
    sizes = {"ratio": (40, 10), "leave-last": (45, 5), "time": (40, 10)}
    for split in SPLITS:
        train, test, source = read_parts(tmp_path / "whole.csv", tmp_path / "out", split)
        assert (len(train), len(test)) == sizes[split]
        assert read_parts(source, tmp_path / "other")[0].fingerprint() == train.fingerprint()
    assert set(test.user_ids.decode(np.flatnonzero(np.diff(test.indptr))).tolist()) == {4}  # the latest ten
    with pytest.raises(ArgumentError, match="split must be one of 'ratio', 'leave-last', 'time'"):
        read_parts(tmp_path / "whole.csv", tmp_path / "out", "halves")


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


def test_quantizers_of_one_float_model_share_it_and_have_the_bytes_of_our_codes(tmp_path: Path) -> None:
    names = [name for name in ROWS if "product" in name and name.startswith(("64", "80"))]
    assert len(names) == 2
    result = ablation(TRAIN, TEST, tmp_path, rows=names, seeds=1, k=5, changes=FAST, threads=1)
    assert [row["bytes/answer"] for row in result["rows"]] == [10, 10]
    assert len(list((tmp_path / "models").iterdir())) == 1
    assert all(row["recall@5"] > 0.15 for row in result["rows"])
