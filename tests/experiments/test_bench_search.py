"""The benchmark of search at small sizes: what it compares is right, whatever it measures."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hashlgn
from conftest import clusters
from hashlgn.data import random_ratio
from hashlgn.data.synthetic import synthetic
from hashlgn.errors import ArgumentError, MissingExtraError
from hashlgn.experiments.baselines.indexes import INDEXES, binary_flat, loop_over_seen, matmul, without_seen
from hashlgn.experiments.benchmarks.search.bench import bench_search
from hashlgn.experiments.benchmarks.search.catalogues import SPREAD, random_catalogue, saved_catalogue
from hashlgn.experiments.benchmarks.search.run import Truth
from hashlgn.experiments.benchmarks.search.trained import trained_catalogue
from hashlgn.experiments.common.runs import Runner
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.items import CodedItems, FloatItems
from hashlgn.search import SEARCHERS, Flat
from hashlgn.utils.console import exit_code

N, K = 3000, 20
PACKAGES = {"hnswlib", "scann"}
COLUMNS = {"method", "us", "qps", "ratio", "bytes/item", "build s", "float agreement", "decoded agreement"}


@pytest.fixture(scope="module")
def spread() -> tuple[Any, Any, Exclusion]:
    """Items of very different lengths, users, and histories of very different lengths."""
    rng = np.random.default_rng(5)
    catalogue = random_catalogue(N, [64], [16], 40, 5)
    form = catalogue.forms[0]
    vectors = form.items.decode() * np.exp(0.7 * rng.standard_normal((N, 1), np.float32))
    counts = rng.integers(1, 400, 40)
    counts[3] = 0
    seen = np.concatenate([rng.choice(N, c, replace=False) for c in counts])
    return vectors, form.queries, Exclusion.build(N, seen=(np.concatenate(([0], np.cumsum(counts))), seen))


def oracle(vectors: Any, users: Any, exclude: Exclusion | None = None) -> Any:
    scores = users.astype(np.float64) @ vectors.T.astype(np.float64)
    if exclude is not None:
        scores[exclude.masks(len(users))] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :K]


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_finds_the_best(name: str, spread: tuple[Any, Any, Exclusion]) -> None:
    package = name.removesuffix("-l2")
    if package in PACKAGES and importlib.util.find_spec(package) is None:
        pytest.skip(f"{name} is not installed: pip install 'hashlgn[bench]'")
    vectors, users, exclude = spread
    index = INDEXES[name](vectors, 64, 1)
    search = list(index.search.values())[-1]
    expected = oracle(vectors, users)
    found = search(users, K)
    assert found.shape == (len(users), K)
    agreement = np.mean([len(np.intersect1d(a, b)) for a, b in zip(found, expected, strict=True)]) / K
    assert agreement == 1 if name == "faiss-flat" else agreement > 0.35
    assert search(users[:1], K).shape == (1, K)
    left = without_seen(search, users, K, exclude)
    rows, places = np.nonzero(left >= 0)
    assert not exclude.excluded(rows, left[rows, places]).any()
    assert index.bytes_per_item >= (0.9 * 64 if "refined" in name or name == "faiss-flat" else 8)


def test_distances_stand_for_products() -> None:
    rng = np.random.default_rng(1)
    vectors = (
        rng.uniform(1, 1.5, (500, 1)).astype(np.float32)
        * random_catalogue(500, [64], [16], 1, 1).forms[0].items.decode()
    )
    users = rng.standard_normal((20, 16), np.float32)
    found = INDEXES["faiss-hnsw-l2"](vectors, 64, 1).search["ef 512"](users, K)  # a breadth over all items: exhaustive
    assert np.array_equal(found, oracle(vectors, users))
    with pytest.raises(ArgumentError, match="adds nothing"):
        INDEXES["faiss-hnsw-l2"](vectors / np.linalg.norm(vectors, axis=1, keepdims=True), 64, 1)


def test_every_way_to_leave_seen_items_out_gives_one_answer(spread: tuple[Any, Any, Exclusion]) -> None:
    vectors, users, exclude = spread
    flat = INDEXES["faiss-flat"](vectors, 64, 1).search[""]
    expected = oracle(vectors, users, exclude)
    assert np.array_equal(without_seen(flat, users, K, exclude), expected)
    assert np.array_equal(matmul(vectors, users, K, exclude), expected)
    for together in (True, False):
        assert np.array_equal(loop_over_seen(flat, users, K, exclude, together=together), expected)
    hits = Flat(FloatItems(vectors)).search(users, K, exclude)
    assert np.array_equal(hits.items.reshape(-1, K), expected)


def test_seen_items_of_a_catalogue_that_runs_out() -> None:
    vectors, users = np.eye(4, dtype=np.float32)[:3], np.ones((2, 4), np.float32)
    exclude = Exclusion.build(3, seen=(np.array([0, 2, 2]), np.array([0, 1])))
    found = without_seen(INDEXES["faiss-flat"](vectors, 8, 1).search[""], users, 3, exclude)
    assert found[0].tolist() == [2, -1, -1]
    assert sorted(found[1].tolist()) == [0, 1, 2]


def test_binary_flat_ranks_by_hamming_distance() -> None:
    rng = np.random.default_rng(2)
    packed, asked = rng.integers(0, 256, (500, 8), np.uint8), rng.integers(0, 256, (5, 8), np.uint8)
    found = binary_flat(packed).search[""](asked, 7)
    distances = np.bitwise_count(packed[None] ^ asked[:, None]).sum(axis=2)
    got = np.take_along_axis(distances, found, axis=1)
    assert np.array_equal(got, np.sort(distances, axis=1)[:, :7])


def test_agreement_counts_ties_and_missing_answers() -> None:
    items = FloatItems(np.array([[3], [2], [2], [1]], np.float32))
    truth = Truth(np.ones((1, 1), np.float32), np.array([[3, 2, 2, 1]], np.float32), items)
    assert truth.agreement(np.array([[0, 2]])) == 1  # either of the tied
    assert truth.agreement(np.array([[0, 3]])) == 0.5
    assert truth.agreement(np.array([[0, -1]])) == 0.5


def test_random_scales_spread_as_they_say() -> None:
    coded = {c.name: c for c in random_catalogue(20_000, [64], [16], 8, 0).forms}
    scales = [coded[f"64 bits + {name}"].items.scale for name in ("spread scale", "scale")]
    assert scales[0] is not None
    assert scales[1] is not None
    low, high = np.percentile(scales[0], (1, 99))
    assert high / low == pytest.approx(SPREAD, rel=0.1)
    low, high = np.percentile(scales[1], (0, 100))
    assert high / low < 1.23
    assert [c.name for c in coded.values() if c.binary] == ["64 bits, binary users"]


def test_a_random_run() -> None:
    said: list[str] = []
    result = bench_search(
        items=[N],
        bits=[64],
        ks=[5, K],
        batch=16,
        singles=2,
        repeats=1,
        baselines=["faiss-pq", "faiss-ivf-pq"],
        say=said.append,
    )
    rows = result["rows"]
    assert all(row.keys() >= COLUMNS for row in rows)
    base = rows[0]
    assert (base["method"], base["k"], base["ratio"], base["float agreement"]) == ("faiss-flat", 5, 1, 1)
    ours = [row for row in rows if row["over"].startswith("64 bits") and row["method"] in SEARCHERS]
    assert {row["decoded agreement"] for row in ours if row["method"] != "ivf"} == {1}
    assert {row["over"] for row in ours} >= {
        "64 bits",
        "64 bits + scale",
        "64 bits + spread scale",
        "64 bits, binary users",
    }
    assert all(row["recall"] is None for row in rows)
    methods = {row["method"] for row in rows}
    assert {"numpy product", "the paper's loop, one call", "the paper's loop, a call a user", "faiss-binary"} <= methods
    assert sum(method.startswith("faiss-ivf-pq") for method in methods) > 1
    assert any("round 1/1" in line for line in said)
    assert result["threads"] == 1


def test_a_missing_package_is_left_out_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> Any:
        raise MissingExtraError("the index 'scann' needs the package 'scann'")

    monkeypatch.setitem(INDEXES, "scann", missing)
    said: list[str] = []
    rows = bench_search(
        items=[500],
        bits=[64],
        ks=[5],
        batch=4,
        singles=1,
        repeats=1,
        baselines=["scann"],
        searchers=[],
        say=said.append,
    )["rows"]
    assert all("scann" not in row["method"] for row in rows)
    assert [line for line in said if line.startswith("left out")] == [
        "left out: scann over 64 floats (the index 'scann' needs the package 'scann')"
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"items": [0]}, "items must be a positive integer"),
        ({"bits": [12]}, "bits must be a positive multiple of 8"),
        ({"ks": [0]}, "k must be a positive integer"),
        ({"baselines": ["nothing"]}, "baselines must be one of"),
        ({"searchers": ["nothing"]}, "searchers must be one of"),
        ({"items": [100], "ks": [101]}, "k must be at most"),
        ({"ks": []}, "k must hold at least one"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        bench_search(**arguments)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_a_trained_catalogue_is_made_once_of_codes_that_training_makes(cache: Path, monkeypatch: Any) -> None:
    first = trained_catalogue(1000, [64], [16], 0, cache, lambda line: None)
    with monkeypatch.context() as patch:
        patch.setattr(Runner, "_train", lambda *arguments: pytest.fail("trained again"))
        again = trained_catalogue(1000, [64], [16], 0, cache, lambda line: None)
    for a, b in zip(first.forms, again.forms, strict=True):
        assert a.name == b.name and np.array_equal(a.items.decode(), b.items.decode())
    made = synthetic(200, 1000, 12_000, clusters=50, titles=False)
    model = hashlgn.HashLGN(bits=64, dim=16).fit(random_ratio(made, seed=0)[0]).model
    assert isinstance(model.items, CodedItems)
    assert np.array_equal(model.items.packed, first.forms[1].items.packed)
    assert first.truth is not None
    exclude = first.exclusion(np.arange(len(first.seen[0]) - 1))
    rows = np.repeat(np.arange(len(first.truth[0]) - 1), np.diff(first.truth[0]))
    assert not exclude.excluded(rows, first.truth[1]).any()  # nothing held out is seen


def test_the_command_writes_tables_and_a_plot(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from hashlgn.cli.main import app

    pytest.importorskip("matplotlib")
    files = {name: tmp_path / f"search.{name}" for name in ("json", "svg")}
    line = "bench search --trained --items 1000 --bits 64 --dims 16 --k 10 --batch 32 --singles 1 --repeats 1"
    line += f" --baselines faiss-ivf-pq --searchers decoded,fastscan --cache {cache}"
    line += f" --json {files['json']} --plot {files['svg']}"
    assert exit_code(app, line.split()) == 0
    output = capsys.readouterr().out
    assert "trained, 1,000 items, k = 10" in output
    rows = json.loads(files["json"].read_text())["rows"]
    flat = rows[0]
    assert flat["method"] == "faiss-flat"
    assert 0 < flat["recall"] <= 1
    codes = [row for row in rows if row["over"] == "64 bits + scale"]
    assert len(codes) == 2
    assert all(row["recall"] == codes[0]["recall"] and row["decoded agreement"] == 1 for row in codes)
    assert codes[0]["recall"] > 0.8 * flat["recall"]
    assert files["svg"].read_text().startswith("<?xml")
    assert exit_code(app, [*line.split()[:-1], str(tmp_path / "plot.pdf")]) == 2


def test_saved_models_are_judged_as_evaluate_judges_them(tmp_path: Path) -> None:
    data = clusters()
    train, test = random_ratio(data, seed=0)
    settings = {"model.dim": 16, "train.pretrain_epochs": 1, "train.joint_epochs": 1, "train.validation_users": 20}
    models = [hashlgn.LightGCN(config=settings).fit(train), hashlgn.HashLGN(bits=32, config=settings).fit(train)]
    folders = [model.save(tmp_path / name) for model, name in zip(models, ("float", "codes"), strict=True)]
    rows = bench_search(
        models=folders, test=test, bits=[32], ks=[5], singles=1, repeats=1, baselines=[], searchers=["decoded", "flat"]
    )["rows"]
    quality = {(row["method"], row["over"].split(",")[0]): row["recall"] for row in rows}
    for place, key in (
        (0, ("flat", "16 floats")),
        (0, ("the paper's loop, one call", "16 floats")),
        (1, ("decoded", "codes")),
    ):
        assert quality[key] == pytest.approx(hashlgn.evaluate(models[place], test, 5).at(5).mean("recall"), abs=1e-4)
    whole = {"models": folders[1:], "singles": 1, "repeats": 1, "baselines": [], "searchers": ["kernel"]}
    assert bench_search(ks=[data.n_items], bits=[32], test=test, **whole)["rows"]  # more than a user has not seen
    with pytest.raises(ArgumentError, match=rf"k must be at most the number of items, {data.n_items} \(got 100\)"):
        bench_search(ks=[5, 100], **whole)
    with pytest.raises(ArgumentError, match="same users and items"):
        saved_catalogue(
            [folders[0], hashlgn.LightGCN(config=settings).fit(clusters(40)).save(tmp_path / "other")], None
        )
