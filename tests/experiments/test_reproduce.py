from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import clusters
from hashlgn.config import preset_changes
from hashlgn.data import random_ratio
from hashlgn.errors import ArgumentError
from hashlgn.evaluation.full_ranking import evaluate
from hashlgn.experiments.baselines.indexes import INDEXES
from hashlgn.experiments.common.runs import FLOATS, Run, Runner
from hashlgn.experiments.common.tables import interval
from hashlgn.experiments.reproduction import run as module
from hashlgn.experiments.reproduction import timing
from hashlgn.experiments.reproduction.evaluate import NDCGS
from hashlgn.experiments.reproduction.rows import METHODS, Row, rows_of_preset, thresholds_of
from hashlgn.experiments.reproduction.run import reproduce
from hashlgn.experiments.reproduction.tables import PUBLISHED, paired
from hashlgn.experiments.reproduction.timing import threshold_loop
from hashlgn.inference.recommender import Recommender
from hashlgn.scoring.exclusion import Exclusion

pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")
FAST = {
    "model.dim": 16,
    "train.pretrain_epochs": 2,
    "train.joint_epochs": 2,
    "train.batch_users": 16,
    "train.monitor_k": 5,
    "student.epochs": 3,
    "student.distillation_epochs": 2,
    "student.code_epochs": 1,
    "student.settle_epochs": 1,
    "model.history_bits": 32,
}
FLOAT = Run("float", {"model.kind": "float", "model.encoder": "lightgcn"})
CODES = Run("codes", {"model.bits": 16, "model.encoder": "lightgcn"}, FLOAT)
STUDENT = Run("student", {"model.bits": 16})
HASHGNN = Run("hashgnn", preset_changes("hashgnn") | {"model.bits": 16, "train.temperature": 2.0})
ROWS = {
    row.name: row.updated(FAST)
    for row in (
        Row("LightGCN", FLOAT, sweep=True),
        Row("HashLGN", Run("paper", preset_changes("paper") | {"model.bits": 16}), "paper", sweep=True),
        Row("HashLGN", CODES, sweep=True),
        Row("HashGNN", Run("signs", {"model.bits": 16, "model.scale": False}, FLOAT, "itq-hamming"), sweep=True),
        Row("HashLGN", STUDENT, sweep=True),
        Row("HashGNN", HASHGNN, "paper"),
        Row("baseline", Run("popularity", baseline="popularity")),
        Row("quantizer", Run("product", {"model.bits": 16}, Run("float student", FLOATS), "product")),
    )
}
TRAIN, TEST = random_ratio(clusters(120, 80), 0.3, seed=0)


def run(out: Path, **options: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"seeds": 2, "rows": list(ROWS.values()), "changes": FAST, "cuts": (5, 10), "threads": 1}
    return reproduce(TRAIN, TEST, out, **(given | options))


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Each search is timed for a moment: no test looks at its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "_AT_LEAST", 0.001)
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("reproduction")
    return out, run(out)


def test_every_result_can_be_traced(done) -> None:
    _, result = done
    assert len(result["runs"]) == 2 * len(ROWS)
    for cell in result["runs"]:
        assert cell["train"] == TRAIN.fingerprint(numbered=True) and cell["test"] == TEST.fingerprint()
        assert {"seed", "threads", "version", "machine", "settings", "created"} <= cell.keys()


def test_the_numbers_are_those_of_an_evaluation(done) -> None:
    out, result = done
    runner = Runner(TRAIN, out, keep=True, threads=1)
    for name in ("float", "codes", "student", "product"):
        cell = next(cell for cell in result["runs"] if cell["name"] == name and cell["seed"] == 1)
        found = evaluate(Recommender(runner.model(ROWS[name].run, 1).whole), TEST, (5, 10), metrics=("recall", *NDCGS))
        for metric in ("recall", *NDCGS):
            assert cell["mips"]["@5"][metric] == found.at(5).mean(metric)


def test_the_threshold_is_the_best_on_validation(done) -> None:
    _, result = done
    for cell in result["runs"]:
        if cell["sweep"]:
            best = max(point["validation_f1"] for point in cell["sweep"])
            assert cell["tips"]["validation_f1"] == best
            sizes = [point["answer_size"] for point in cell["sweep"]]
            assert sizes == sorted(sizes)  # thresholds fall


def test_a_student_keeps_its_items_where_a_slice_is_held_out(done) -> None:
    out, _ = done
    runner = Runner(TRAIN, out, keep=True, threads=1)
    made, (fit, _) = runner.model(STUDENT.updated(FAST), 0), runner.slices(STUDENT.updated(FAST), 0)
    np.testing.assert_array_equal(made.fit.items.decode(), made.whole.items.decode())
    np.testing.assert_array_equal(made.fit.seen[1], fit.indices)
    np.testing.assert_array_equal(made.whole.seen[1], TRAIN.indices)


def test_thresholds_give_answers_of_the_sizes_wanted(done) -> None:
    out, _ = done
    runner = Runner(TRAIN, out, keep=True, threads=1)
    made, held_out = runner.model(ROWS["float"].run, 0), runner.slices(ROWS["float"].run, 0)[1]
    model = Recommender(made.fit)
    for size, threshold in zip((1, 2, 5), thresholds_of(made.fit, model.searcher, held_out), strict=False):
        cut = evaluate(model, held_out, (), threshold=threshold, metrics=("recall",)).cutoffs[0]
        assert cut.mean("answer_size") == pytest.approx(size, abs=0.1)


def test_a_deleted_result_alone_is_computed_again(done, monkeypatch) -> None:
    out, result = done
    ran: list[str] = []
    real = module.evaluated

    def counted(made: Any, *arguments: Any, **options: Any) -> Any:
        ran.append(made.whole.kind)
        return real(made, *arguments, **options)

    monkeypatch.setattr(module, "evaluated", counted)
    lost = next(path for path in (out / "runs").iterdir() if '"baseline": "popularity"' in path.read_text())
    lost.unlink()
    again = run(out)
    assert ran == ["popularity"]
    assert again["tables"]["paired"] == result["tables"]["paired"]


def test_a_model_trained_again_is_the_same(done, tmp_path: Path) -> None:
    out, _ = done
    for part in ("whole", "fit"):
        one, two = (
            Runner(TRAIN, folder, keep=True, threads=1).model(ROWS["codes"].run, 0).part(part)
            for folder in (out, tmp_path)
        )
        np.testing.assert_array_equal(one.users, two.users)
        np.testing.assert_array_equal(one.items.packed, two.items.packed)


def test_the_papers_numbers_stand_beside_ours(tmp_path: Path) -> None:
    rows = [Row("LightGCN", FLOAT, sweep=True), Row("HashLGN", CODES)]
    result = reproduce(TRAIN, TEST, tmp_path, seeds=1, rows=rows, changes=FAST, cuts=(10, 20, 30, 50), threads=1)
    tables = {
        name: {row["row"].removesuffix(", as published"): row for row in result["tables"][name]}
        for name in ("mips", "tips")
    }
    for method in METHODS:
        line, other = tables["mips"][method], tables["tips"][method]
        # the F1 of two methods is that of the means, by the paper's own numbers: each stands in its own column alone
        printed = PUBLISHED[method]["mips"]
        precision, recall = (printed[f"{metric}@50"] for metric in ("precision", "recall"))
        (f1,) = (printed[name] for name in ("f1@50", "f1_of_means@50") if name in printed)
        of_means = abs(2 * precision * recall / (precision + recall) - f1) < 0.002
        assert of_means == (method != "HashGNN")
        for where, at in ((line, "@50"), (other, "")):
            assert (where[f"f1{at}"] is None) == of_means and (where[f"f1_of_means{at}"] is None) != of_means
        assert line["recall@10"] is None and line["train s"] is None
    assert tables["mips"]["HashGNN"]["f1@50"] == "0.2023" and tables["mips"]["LightGCN"]["f1_of_means@50"] == "0.2762"
    assert tables["tips"]["HashLGN"] | {"mean size": None} == tables["tips"]["HashLGN"]
    assert (tables["tips"]["HashLGN"]["recall"], tables["tips"]["HashLGN"]["threshold"]) == ("0.4665", "4")
    assert tables["tips"]["HashLGN"]["ms per user"] == f"{12.07 / 6.04:.4f}"


def test_the_tables_and_the_page_are_whole(done) -> None:
    out, result = done
    published = [row for row in result["tables"]["mips"] if "as published" in row["row"]]
    assert [row["row"].split(",")[0] for row in published] == list(METHODS)
    assert "±" in next(row for row in result["tables"]["mips"] if row["row"] == "codes")["recall@5"]
    text = (out / "reproduction.md").read_text("utf-8")
    page = (out / "index.html").read_text("utf-8")
    assert "## Table 2" in text and "0.4665" in text and "0.4665" in page
    assert page.count("data:image/svg+xml") == 5 and "http://" not in page
    assert json.loads((out / "results.json").read_text("utf-8"))["tables"]["ndcg"] == result["tables"]["ndcg"]


def test_search_is_timed_both_ways_over_answers_of_the_same_sizes(done) -> None:
    _, result = done
    times = result["times"]
    swept = {name for name, row in ROWS.items() if row.sweep}
    assert {(line["row"], line["k"], line["mean size"]) for line in times["mips"]} == {
        (name, k, k) for name in swept for k in (5, 10)
    }
    for name in swept:
        sizes = [line["mean size"] for line in times["tips"] if line["row"] == name]
        assert sizes == sorted(sizes) and len(set(sizes)) == len(sizes)  # thresholds fall


def test_both_threshold_searches_answer_the_same(done) -> None:
    out, _ = done
    model = Runner(TRAIN, out, keep=True).model(ROWS["codes"].run, 0).whole
    exclude = Exclusion.build(len(model.items), seen=model.seen)
    above = INDEXES["faiss-flat"](model.items.decode(), 0, 1).above
    assert above is not None
    ours = Recommender(model).searcher.search_above(model.users, 0.2, exclude)
    assert threshold_loop(above, model.users, 0.2, exclude) == len(ours.items) > 0


def test_paired_differences_are_of_the_users() -> None:
    def cell(values: list[float]) -> list[dict[str, Any]]:
        return [{"per_user": {"recall": values, "ndcg": values}}]

    line = paired([("a", "b")], {"a": cell([0.5, 0.7, 0.9]), "b": cell([0.4, 0.6, 0.8])})[0]
    assert (line["recall"], line["recall, 95%"]) == ("+0.1000", "+0.1000 to +0.1000")


def test_an_interval_is_students() -> None:
    assert interval([0.4]) == (0.4, None)
    mean, half = interval([0.4, 0.6])
    assert mean == 0.5 and half == pytest.approx(12.706 * 0.1, abs=1e-3)


@pytest.mark.parametrize("preset", ["quick", "full"])
def test_rows_of_a_preset_are_configurations(preset: str) -> None:
    rows = rows_of_preset(preset)
    assert len({row.name for row in rows}) == len(rows)
    assert {row.method for row in rows} == {*METHODS, "baseline", "quantizer"}
    for row in rows:
        row.run.identity(0)  # which checks it, and what it starts from
    guided = [row.run.changes.get("model.guidance") for row in rows if row.method == "HashGNN" and row.how == "paper"]
    assert guided == [True, True, False]
    sizes = {row.run.config().model.bits + 16 * row.run.config().model.scale for row in rows if row.run.quantizer}
    assert sizes == ({80} if preset == "quick" else {80, 144})  # the bytes of our 64 and 128 bits with a scale


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds must be a positive integer"),
        ({"preset": "slow"}, "preset must be one of 'quick', 'full'"),
        ({"cuts": (0,)}, "cuts must be a positive integer"),
        ({"rows": [ROWS["popularity"]]}, "rows must hold one of"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=message):
        run(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_killed_training_leaves_nothing_that_is_taken_for_a_model(done, tmp_path: Path) -> None:
    out, _ = done
    shutil.copytree(out / "models", tmp_path / "models")
    runner = Runner(TRAIN, tmp_path, keep=True, threads=1)
    folder = runner.folder(ROWS["float"].run, 0)
    shutil.rmtree(folder / "whole")
    assert len(runner.model(ROWS["float"].run, 0).fit.user_ids) == TRAIN.n_users
    assert (folder / "whole").exists()
