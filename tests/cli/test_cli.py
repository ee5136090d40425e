from __future__ import annotations

import csv
import dataclasses
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import hashlgn
from conftest import clusters
from hashlgn.cli.main import app
from hashlgn.cli.options import typed_advice
from hashlgn.data import random_ratio
from hashlgn.data.synthetic import write_lightgcn
from hashlgn.errors import ArtifactError
from hashlgn.inference.artifact import FORMAT
from hashlgn.utils.console import exit_code
from hashlgn.utils.tensors import read_tensors


def settings(**values: object) -> list[str]:
    return [part for name, value in values.items() for part in ("--set", f"{name.replace('__', '.')}={value}")]


SHORT = settings(train__pretrain_epochs=2, train__joint_epochs=2)
STUDENT = ["--dim", "16", "--quiet", *settings(student__epochs=6, student__distillation_epochs=3)]
LIGHTGCN = ["--dim", "16", "--quiet", *settings(model__encoder="lightgcn"), *SHORT]


def run(*arguments: object) -> int:
    return exit_code(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_lightgcn(folder, *random_ratio(clusters(), seed=0))
    return folder


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "model"
    assert run("train", data, "--out", out, "--bits", 32, "--history-bits", 32, *STUDENT) == 0
    return out


def test_it_is_a_module_too() -> None:
    done = subprocess.run([sys.executable, "-m", "hashlgn", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlgn.__version__


def test_train_says_that_it_replaced_a_model(data: Path, tmp_path: Path, capsys) -> None:
    train = ["train", data, "--out", tmp_path / "model", *[part for part in STUDENT if part != "--quiet"]]
    for replaced in (False, True):
        assert run(*train, *settings(train__lr=0.01) * replaced) == 0
        said = capsys.readouterr().err
        assert ("holds a model, which the new one will replace" in said) == replaced
        assert ("train.lr has no effect on the default recipe" in said) == replaced
        assert re.search(
            r"trained hashlgn in [\d.]+ s, validation ndcg@\d+ 0\.\d{4}; [\d.]+ bytes per item; saved", said
        )
    again = tmp_path / "again"
    for replaced in (False, True):
        assert run("refit", tmp_path / "model", data, "--out", again) == 0
        said = capsys.readouterr().err
        assert "the data has nothing new" in said and "users with nothing new (" in said
        assert re.search(r"s, on all interactions, so without validation; [\d.]+ bytes per item; saved to", said)
        assert ("holds a model, which the new one will replace" in said) == replaced


def test_train_reads_train_txt_alone(model: Path, data: Path) -> None:
    train = hashlgn.read_interactions(data, part="train")
    info = hashlgn.load(model).info()
    assert info["interactions"] == len(train)
    assert info["bits"] == 32
    assert info["provenance"]["data"]["fingerprint"] == train.fingerprint()


def test_evaluate_prints_and_writes_what_the_library_says(model: Path, data: Path, tmp_path: Path, capsys) -> None:
    assert (
        run("evaluate", model, "--test", data, "--k", "2,5", "--threshold", "0.1", "--json", tmp_path / "r.json") == 0
    )
    shown = capsys.readouterr().out
    held = json.loads((tmp_path / "r.json").read_text())
    test = hashlgn.read_interactions(data, part="test")
    want = hashlgn.evaluate(hashlgn.load(model), test, (2, 5))
    assert held["cutoffs"][1]["metrics"]["recall"]["mean"] == want.at(5).mean("recall")
    assert f"{want.at(5).mean('recall'):.4f}" in shown
    assert {"version", "machine", "model", "test"} <= held.keys()


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_recommend_writes_every_user_in_every_format(model: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"recs{suffix}"
    assert run("recommend", model, "--out", out, "--k", 3, "--quiet") == 0
    if suffix == ".parquet":
        rows = pq.read_table(out).to_pylist()
    elif suffix == ".csv":
        rows = list(csv.DictReader(out.open()))
    else:
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert list(rows[0]) == ["user", "item", "score", "rank", "source"]
    want = hashlgn.load(model).recommend(k=3)
    assert [int(row["item"]) for row in rows] == want["item"].tolist()
    np.testing.assert_array_equal(np.array([row["score"] for row in rows], np.float32), want["score"])


def test_recommend_for_some_users_by_threshold_and_with_seen(model: Path, tmp_path: Path) -> None:
    (tmp_path / "users.txt").write_text("1003\r\n1001\n\n")
    out = tmp_path / "recs.csv"
    assert (
        run("recommend", model, "--out", out, "--users", tmp_path / "users.txt", "--threshold=-10", "--keep-seen") == 0
    )
    users = [row["user"] for row in csv.DictReader(out.open())]
    assert users == ["1003"] * 40 + ["1001"] * 40


@pytest.mark.parametrize("encoder", ["gcn", "ngcf", "dgcf", "sage"])
def test_an_encoder_is_trained_by_name(data: Path, tmp_path: Path, encoder: str) -> None:
    out = tmp_path / "model"
    small = ["--dim", 8, "--bits", 16, *settings(train__monitor_k=5, model__encoder=encoder), *SHORT]
    assert run("train", data, "--out", out, "--quiet", *small) == 0
    model = hashlgn.load(out)
    assert model.info()["config"]["model"]["encoder"] == encoder
    assert len(model.recommend(history=[1, 5], k=3)) == 3


def test_advice_is_given_as_it_is_typed() -> None:
    assert typed_advice("no column for the item (columns: 'a'); name it with item=") == (
        "no column for the item (columns: 'a'); name it with --columns item=NAME"
    )
    assert typed_advice("min_rating=4 would keep; on_bad='skip' leaves out; encoding= names another") == (
        "--min-rating 4 would keep; --on-bad skip leaves out; --encoding names another"
    )


def test_train_names_the_columns_that_it_does_not_read(tmp_path: Path, capsys) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user,item,created_at,weight\n1,2,5,1.5\n")
    assert run("train", path, "--out", tmp_path / "m") == 1  # too little to learn from
    told = capsys.readouterr().err
    assert "the column 'created_at' was not read; name it with --columns time=NAME where it is the time" in told
    assert "the column 'weight' was not read; name it with --columns weight=NAME where it is the weight" in told


def test_real_exports_and_what_is_said_about_them(tmp_path: Path, capsys) -> None:
    rows = "".join(f"u{n % 7};café {n % 5};{1 + n % 5},5\n" for n in range(35))
    (tmp_path / "export.csv").write_bytes(f"user;sku;stars\n{rows}broken\n".encode("latin-1"))
    columns = ["--columns", "item=sku,rating=stars"]
    assert run("data", "stats", tmp_path / "export.csv", *columns, "--decimal", ",", "--on-bad", "skip") == 0
    shown, said = capsys.readouterr()
    assert "interactions" in shown
    assert "Latin-1" in said and "--min-rating" in said and "left out" in said and "min_rating=" not in said
    assert run("data", "stats", tmp_path / "export.csv", *columns) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_answers_in_a_file_are_evaluated(model: Path, data: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "recs.csv"
    assert run("recommend", model, "--out", out, "--k", 5, "--quiet") == 0
    assert run("evaluate", model, "--test", data, "--k", 5) == 0
    want = capsys.readouterr().out
    assert run("evaluate", out, "--test", data, "--train", data, "--k", 5, "--json", tmp_path / "r.json") == 0
    assert capsys.readouterr().out.splitlines() == want.splitlines()[:-1]  # answers alone have no probabilities
    assert json.loads((tmp_path / "r.json").read_text())["model"] == str(out)
    seen = hashlgn.read_interactions(data)  # what a user has is in no answer that counts
    out.write_text(
        "user,item\n"
        + "".join(
            f"{u},{seen.item_ids.decode(seen.indices[seen.indptr[n] :][:1])[0]}\n"
            for n, u in enumerate(seen.user_ids.values.tolist())
        )
    )
    assert run("evaluate", out, "--test", data, "--train", data, "--k", 5) == 0
    assert "no answer is in the test part" in capsys.readouterr().err
    assert run("evaluate", model, "--test", data / "train.txt", "--k", 5) == 1
    assert "`hashlgn data split` makes a test part" in capsys.readouterr().err


def test_probabilities_are_written_and_cut(model: Path, data: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "r.csv"
    assert run("recommend", model, "--out", out, "--k", 5, "--calibrated", "--quiet") == 0
    rows = list(csv.DictReader(out.open()))
    served = hashlgn.load(model)
    want = served.recommend(k=5, calibrated=True)["probability"]
    np.testing.assert_allclose([float(row["probability"]) for row in rows], want, rtol=1e-6)
    cut = float(np.median(want))
    assert run("recommend", model, "--out", out, "--calibrated", "--threshold", cut, "--quiet") == 0
    chances = [float(row["probability"]) for row in csv.DictReader(out.open())]
    assert len(chances) == len(served.recommend(threshold=cut, calibrated=True)) > 0 and min(chances) > cut * 0.9999
    assert run("recommend", model, "--out", out, "--calibrated", "--threshold", 1.5) == 2
    assert "threshold must lie between 0 and 1" in capsys.readouterr().err
    assert run("evaluate", model, "--test", data, "--k", 5, "--details", "--metrics", "recall,novelty,diversity") == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("expected calibration error", "users, few", "items, rare", "predicted"))
    assert run("evaluate", model, "--test", data, "--metrics", "noveltee") == 2


def test_a_split_keeps_titles_and_genres_in_a_file_beside(tmp_path: Path, capsys) -> None:
    pairs = [f"{user},{item}" for user in range(9) for item in range(user % 3, 12)]
    about = [f"{item},Film {item},Drama|War" for item in range(12)]
    for name, lines in {"all": ["user,item", *pairs], "films": ["item,title,genres", *about]}.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    parts = tmp_path / "parts"
    assert run("data", "split", tmp_path / "all.csv", "--items", tmp_path / "films.csv", "--out", parts) == 0
    assert "--items" in capsys.readouterr().out
    train = hashlgn.read_interactions(parts / "train.parquet", items=parts / "items.parquet")
    assert train.titles == [f"Film {item}" for item in train.item_ids.decode(np.arange(train.n_items))]
    assert train.genres is not None and set(train.genres) == {("Drama", "War")}


@pytest.mark.parametrize("how", ["ratio", "leave-last", "time", "users"])
def test_a_split_is_written_trained_and_evaluated(how: str, tmp_path: Path, capsys) -> None:
    made = clusters()
    rows = zip(made.user_ids.decode(made.rows), made.item_ids.decode(made.indices), strict=True)
    times = np.append(np.random.default_rng(0).permutation(len(made) - 20), np.arange(20) + len(made))
    lines = [f"u{user},i{item},{4 + time % 2},{time}" for time, (user, item) in zip(times, rows, strict=True)]
    (tmp_path / "all.csv").write_text("\n".join(["user,item,rating,timestamp", *lines]) + "\n")
    parts, model = tmp_path / "parts", tmp_path / "model"
    share = ["--share", 0.3] if how == "time" else []
    assert run("data", "split", tmp_path / "all.csv", "--how", how, "--out", parts, *share) == 0
    written = [pq.read_table(parts / f"{path.stem}.parquet") for path in sorted(parts.iterdir())]
    assert len(written) == (3 if how == "users" else 2) and sum(map(len, written)) == len(made)
    assert written[0].column_names == ["user", "item", "time"]
    assert run("train", parts / "train.parquet", "--out", model, "--bits", 32, *STUDENT) == 0
    given = ["--history", parts / "given.parquet"] if how == "users" else []
    results = tmp_path / "r.json"
    assert run("evaluate", model, "--test", parts / "test.parquet", "--k", 5, "--json", results, *given) == 0
    found = json.loads(results.read_text())
    assert found["users"] > 5 and found["cutoffs"][0]["metrics"]["recall"]["mean"] > 0.2
    if how == "time":
        assert found["left_out"]["unknown_users"] > 0  # who came after the split, counted
    assert run("data", "split", tmp_path / "all.csv", "--how", "luck", "--out", parts) == 2
    assert "how must be one of" in capsys.readouterr().err


def test_checksums_are_compared_when_asked(model: Path, tmp_path: Path, capsys) -> None:
    assert run("info", model) == 0
    assert "not compared" in capsys.readouterr().out
    assert run("info", model, "--verify") == 0
    assert "compared, and right" in capsys.readouterr().out
    content = bytearray((model / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    assert run("info", tmp_path, "--verify") == 1
    error = capsys.readouterr().err
    assert error.startswith("hashlgn:") and error.count("\n") == 1 and "checksum" in error


def test_a_plugin_brings_a_loss(data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from hashlgn.training.losses import LOSSES\nLOSSES['mine'] = LOSSES['softmax']\n"
    )
    options = ["--bits", 16, *LIGHTGCN, *settings(train__loss="mine", train__joint_loss="softmax")]
    assert run("train", data, "--out", tmp_path / "a", *options) == 2
    try:
        assert run("train", data, "--out", tmp_path / "a", *options, "--plugin", tmp_path / "mine.py") == 0
        assert hashlgn.load(tmp_path / "a").info()["config"]["train"]["loss"] == "mine"
    finally:
        from hashlgn.training.losses import LOSSES

        LOSSES.pop("mine", None)


def test_an_installed_plugin_needs_no_option(data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "site" / "theirs-1.dist-info").mkdir(parents=True)
    (tmp_path / "site" / "theirs.py").write_text(
        "from hashlgn.training.losses import LOSSES\nLOSSES['theirs'] = LOSSES['softmax']\n"
    )
    (tmp_path / "site" / "theirs-1.dist-info" / "METADATA").write_text("Name: theirs\nVersion: 1\n")
    entry = tmp_path / "site" / "theirs-1.dist-info" / "entry_points.txt"
    entry.write_text("[hashlgn.plugins]\ntheirs = theirs\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    try:
        options = ["--bits", 16, *LIGHTGCN, *settings(train__loss="theirs", train__joint_loss="softmax")]
        assert run("train", data, "--out", tmp_path / "a", *options) == 0
    finally:
        from hashlgn.training.losses import LOSSES

        LOSSES.pop("theirs", None)
    entry.write_text("[hashlgn.plugins]\ntheirs = not_there\n")
    assert run("info", tmp_path / "a") == 2
    assert "the installed plugin theirs (not_there) cannot be loaded" in capsys.readouterr().err


def test_the_doctor_says_what_is_there(monkeypatch, capsys) -> None:
    assert run("doctor") == 0
    shown = capsys.readouterr().out
    assert hashlgn.__version__ in shown and "extra train" in shown and "threads" in shown
    monkeypatch.setattr("hashlgn.search.Kernel.instruction_sets", staticmethod(list))
    assert run("doctor") == 0
    shown = capsys.readouterr().out
    assert "not compiled" in shown and "install a C++20 compiler" in shown


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8"])
def test_what_a_terminal_cannot_show_ends_in_no_traceback(model: Path, tmp_path: Path, encoding: str) -> None:
    served = hashlgn.load(model).model
    titled = dataclasses.replace(served, titles=["千と千尋の神隠し"] * len(served.item_ids))
    hashlgn.Recommender(titled).save(tmp_path / "titled")
    odd = os.fsencode(tmp_path) + b"/\xff\xfe.txt"
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    main = [sys.executable, "-c", "from hashlgn.cli.main import main; main()"]
    similar = subprocess.run(
        [*main, "similar", tmp_path / "titled", "--item", "1"], env=environment, capture_output=True
    )
    assert similar.returncode == 0 and not similar.stderr
    wanted = "千と千尋の神隠し".encode(encoding, "backslashreplace")
    assert similar.stdout.count(wanted) == 11
    missing = subprocess.run([*main, "data", "stats", odd], env=environment, capture_output=True)
    assert missing.returncode == 1 and missing.stderr.count(b"\n") == 1 and b"Traceback" not in missing.stderr


def test_recommend_writes_titles_where_they_are_asked_for(model: Path, tmp_path: Path) -> None:
    served = hashlgn.load(model).model
    titles = [f"title {place}" * (place % 3 > 0) for place in range(len(served.item_ids))]
    hashlgn.Recommender(dataclasses.replace(served, titles=titles)).save(tmp_path / "titled")
    for option in ([], ["--titles"]):
        assert run("recommend", tmp_path / "titled", "--out", tmp_path / "r.jsonl", "--k", 9, "--quiet", *option) == 0
        rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
        assert ("title" in rows[0]) == bool(option)
    places = served.item_ids.encode([row["item"] for row in rows]).tolist()
    assert [row["title"] for row in rows] == [titles[place] or None for place in places]
    assert {type(row["title"]) for row in rows} == {str, type(None)}


def test_recommend_says_where_it_prints_no_answer_or_a_popular_one(model: Path, capsys) -> None:
    skipped = "--on-unknown", "skip"
    assert run("recommend", model, "--user", "999999", *skipped) == 0
    assert "no recommendation" in capsys.readouterr().err
    assert run("recommend", model, "--history", "999999", "--k", 1, *skipped) == 0
    said = capsys.readouterr()
    assert "what most users have" in said.err and said.out.strip()


def test_recommend_skips_users_whom_the_model_does_not_know(model: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "users.txt").write_text("1000\nnobody\n1001\n999999\n")
    command = ["recommend", model, "--out", tmp_path / "r.jsonl", "--users", tmp_path / "users.txt", "--k", 1]
    assert run(*command) == 2
    assert "unknown id" in capsys.readouterr().err
    assert run(*command, "--on-unknown", "skip") == 0
    assert "left out 2 users whom the model does not know" in " ".join(capsys.readouterr().err.split())
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [row["user"] for row in rows] == [1000, 1001]
    assert run(*command, "--on-unknown", "popular") == 2


def test_one_answer_is_printed_as_the_library_gives_it(model: Path, capsys) -> None:
    recommender = hashlgn.load(model)
    user = int(recommender.model.user_ids.decode([0])[0])
    for options, asked in ((["--user", user], {"users": [user]}), (["--history", "1,5"], {"history": [1, 5]})):
        assert run("recommend", model, *options, "--k", 3) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        wanted = recommender.recommend(k=3, **asked)
        assert [line[2] for line in lines] == [str(item) for item in wanted["item"]]
        assert [float(line[1]) for line in lines] == pytest.approx(wanted["score"].tolist(), abs=1e-4)


def test_similar_and_info(model: Path, capsys) -> None:
    assert run("similar", model, "--item", "1", "--k", 3) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert run("info", model) == 0
    told = capsys.readouterr().out
    assert "32 bits" in told and "       teacher  labels\n" in told
    assert run("info", model, "--json") == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "hashlgn"


def test_columns_may_have_any_name(tmp_path: Path, capsys) -> None:
    (tmp_path / "odd.csv").write_text("who,what,stars\n1,2,5\n1,3,1\n2,2,4\n")
    assert (
        run("data", "stats", tmp_path / "odd.csv", "--columns", "user=who,item=what,rating=stars", "--min-rating", 4)
        == 0
    )
    assert "2" in capsys.readouterr().out


def test_every_reading_option_is_on_every_command_that_reads(tmp_path: Path, capsys) -> None:
    known = set(inspect.signature(hashlgn.read_interactions).parameters) - {"source"}
    columns = {"user", "item", "rating", "time", "weight", "title", "genres"}
    for command in (["train"], ["evaluate"], ["data", "stats"], ["data", "split"], ["tune"]):
        run(*command, "--help")
        shown = capsys.readouterr().out
        for option in (known - columns) | {"columns"}:
            assert f"--{option.replace('_', '-')} " in shown, (command, option)
    (tmp_path / "a.csv").write_text("u|i|plays|when|what|kind\n1|2|3|9|Two|A\n1|2|4|5|Two|A\n2|3|1||Three|B;C\n")
    (tmp_path / "items.csv").write_text("sku,name\n2,Two\n")
    typed = ["--columns", "user=u,item=i,weight=plays,time=when,title=what,genres=kind", "--delimiter", "|"]
    typed += ["--on-missing", "skip", "--duplicates", "last", "--id-type", "str", "--format", "csv", "--k-core", 1]
    assert run("data", "stats", tmp_path / "a.csv", *typed, "--json", tmp_path / "s.json") == 0
    assert json.loads((tmp_path / "s.json").read_text())["interactions"] == 1
    assert "left out 1 row with missing values" in capsys.readouterr().err
    assert (
        run("data", "stats", tmp_path / "a.csv", "--columns", "user=u,item=i", "--items", tmp_path / "items.csv") == 1
    )
    assert "with --columns item=NAME" in capsys.readouterr().err
    assert run("data", "stats", tmp_path / "a.csv", "--columns", "user=u,item=i,titel=x") == 2


def test_stats_and_synth(tmp_path: Path, capsys) -> None:
    out = tmp_path / "made"
    assert run("data", "synth", "--users", 50, "--items", 30, "--interactions", 400, "--out", out) == 0
    assert run("data", "stats", out, "--json", tmp_path / "s.json") == 0
    stats = json.loads((tmp_path / "s.json").read_text())
    test = hashlgn.read_interactions(out, part="test")
    assert stats["interactions"] + len(test) == 400
    assert "density" in capsys.readouterr().out


def test_flags_go_before_the_file_and_set_before_flags(data: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[model]\nbits = 16\n[train]\nseed = 5\nlr = 0.02\n")
    out = tmp_path / "model"
    options = ["--config", tmp_path / "c.toml", "--bits", 24, *settings(train__lr=0.01)]
    assert run("train", data, "--out", out, *options, *LIGHTGCN, "--log", tmp_path / "log.jsonl") == 0
    config = hashlgn.load(out).info()["config"]
    assert (config["model"]["bits"], config["train"]["seed"], config["train"]["lr"]) == (24, 5, 0.01)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert next(line["epoch"] for line in lines if line["stage"] == "joint") == 1
    assert not list(tmp_path.glob("*.checkpoint"))


def test_the_papers_recipe_yields_to_what_is_given(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    given = ["--dim", 16, "--quiet", *settings(train__batch_size=64), *SHORT]
    assert run("train", data, "--out", out, "--preset", "paper", *given) == 0
    config = hashlgn.load(out).info()["config"]
    assert (config["train"]["loss"], config["train"]["joint_epochs"], config["model"]["dim"]) == ("bpr", 2, 16)


def test_a_search_ends_in_a_file_that_train_reads(data: Path, tmp_path: Path, capsys) -> None:
    pytest.importorskip("optuna", reason="the extra 'tune' is not installed")
    held = [*settings(train__pretrain_epochs=1, train__joint_epochs=1, model__layers=1), "--dim", 8, "--model", "float"]
    assert run("tune", data, "--out", tmp_path / "search", "--trials", 2, *held, "--quiet") == 0
    assert "best.toml" in capsys.readouterr().out
    best = tmp_path / "search" / "best.toml"
    assert run("train", data, "--out", tmp_path / "model", "--config", best, "--quiet") == 0
    config = hashlgn.load(tmp_path / "model").info()["config"]
    rows = json.loads((tmp_path / "search" / "trials.json").read_text())
    assert config["train"]["lr"] == rows["best"]["train.lr"] and "model.layers" not in rows["best"]


def test_the_ablation_prints_a_row_and_its_command(data: Path, tmp_path: Path, capsys) -> None:
    fast = settings(train__pretrain_epochs=1, train__joint_epochs=1, model__dim=8, model__bits=16)
    options = ["--rows", "default; codes not trained", "--seeds", 1, "--k", 5, "--out", tmp_path, "--quiet", *fast]
    assert run("experiment", "ablation", "--data", data, *options) == 0
    shown = capsys.readouterr().out
    assert "recall@5" in shown and f"codes not trained: hashlgn train {data}" in shown


def test_the_grid_prints_every_combination(data: Path, tmp_path: Path, capsys) -> None:
    fast = [*settings(train__pretrain_epochs=1, train__joint_epochs=1, model__dim=8), "--bits", 16, "--k", 5, "--quiet"]
    names = ["--encoders", "lightgcn", "--hashes", "mlp3,itq", "--losses", "softmax,bpr"]
    assert run("experiment", "grid", "--data", data, "--out", tmp_path, *names, *fast) == 0
    shown = capsys.readouterr().out
    assert all(f"lightgcn, {name}, {loss}" in shown for name in ("mlp3", "itq") for loss in ("softmax", "bpr"))


def test_a_stopped_training_resumes_to_the_same_model(data: Path, tmp_path: Path, monkeypatch) -> None:
    assert run("train", data, "--out", tmp_path / "whole", "--bits", 32, *LIGHTGCN) == 0

    import hashlgn.training.stages

    done = 0
    real = hashlgn.training.stages.validation_metric

    def interrupted(*arguments: object) -> float:
        nonlocal done
        done += 1
        if done == 4:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlgn.training.stages, "validation_metric", interrupted)
    assert run("train", data, "--out", tmp_path / "part", "--bits", 32, *LIGHTGCN) == 130
    assert (tmp_path / "part.checkpoint").exists() and not (tmp_path / "part").exists()
    monkeypatch.setattr(hashlgn.training.stages, "validation_metric", real)
    assert (
        run("train", data, "--out", tmp_path / "part", "--bits", 32, *LIGHTGCN) == 2
    )  # nothing is lost by a forgotten word
    assert run("train", data, "--out", tmp_path / "part", "--bits", 32, "--resume", *LIGHTGCN) == 0
    part, whole = (read_tensors(tmp_path / name, FORMAT).arrays for name in ("part", "whole"))
    assert part.keys() == whole.keys()
    for name, array in whole.items():
        assert part[name].tobytes() == array.tobytes()


def test_an_interruption_says_whether_anything_is_kept(data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    import hashlgn.training.student.trainer as student

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    arguments = ["train", data, "--out", tmp_path / "m", "--bits", 16, "--dim", 16, *settings(student__epochs=1)]
    with monkeypatch.context() as patched:
        patched.setattr(student, "singular_vectors", interrupted)
        assert run(*arguments) == 130
    told = capsys.readouterr().err
    assert "interrupted; nothing is kept yet" in told and "--resume" not in told
    monkeypatch.setattr(student, "coded", interrupted)
    assert run(*arguments) == 130 and "interrupted; --resume goes on" in capsys.readouterr().err
    monkeypatch.setattr("hashlgn.inference.recommender.load", interrupted)
    assert run("info", tmp_path / "m") == 130 and "hashlgn: interrupted\n" in capsys.readouterr().err


def test_what_cannot_be_trained_is_refused_before_anything_is_promised(tmp_path: Path, capsys) -> None:
    one = tmp_path / "one.csv"
    one.write_text("user,item\n1,2\n")
    assert run("train", one, "--out", tmp_path / "m") == 1
    told = capsys.readouterr().err
    assert "at least 2 users and 2 items" in told and "will try" not in told
    for command in (
        ["train", one, "--out", tmp_path / "m"],
        ["refit", tmp_path / "none", one, "--out", tmp_path / "m"],
        ["tune", one, "--out", tmp_path / "m.toml"],
    ):
        assert run(*command, "--device", "gpu") == 2
        told = capsys.readouterr().err
        assert "device must be 'auto', 'cpu' or 'cuda' (got 'gpu')" in told and "read" not in told


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train"], 2, "Missing option '--out'"),
        (["train", "--out", "{tmp}/new"], 2, "data must be given, or a journal"),
        (["nonsense"], 2, "No such command"),
        (["train", "{tmp}/nothing", "--out", "{tmp}/m"], 1, "no such file or folder"),
        (["train", "{data}", "--out", "{tmp}/m", "--bits", "12"], 2, "bits must be a positive multiple of 8"),
        (["train", "{data}", "--out", "{tmp}/m", "--set", "train.rate=1"], 2, "configuration key must be one of"),
        (["train", "{data}", "--out", "{tmp}/m", "--set", "train.lr=fast"], 2, "train.lr must be a number"),
        (["train", "{data}", "--out", "{tmp}/m", "--model", "LightGCN"], 2, "model.kind must be one of"),
        (["train", "{data}", "--out", "{tmp}/m", *settings(model__hash="foo"), *LIGHTGCN], 2, "hash must be one of"),
        (["train", "{data}", "--out", "{tmp}/m", *settings(train__monitor="auc")], 2, "train.monitor must be one of"),
        (["train", "{data}", "--out", "{tmp}/m", "--set", "model.power=nan"], 2, "model.power must lie in 0 … 8"),
        (["train", "{data}", "--out", "{tmp}/m", "--columns", "who=1"], 2, "columns must be user="),
        (
            ["data", "synth", "--users=3", "--items=3", "--interactions=4", "--out={tmp}/s", "--seed=-1"],
            2,
            "seed must be",
        ),
        (["data", "stats", "{tmp}/cr.csv"], 1, "line feed"),
        (["train", "{data}", "--out", "{tmp}/m", *settings(train__loss="hinge"), *LIGHTGCN], 2, "loss must be one of"),
        (["train", "{data}", "--out", "{tmp}/m", "--preset", "best"], 2, "preset must be one of 'paper'"),
        (["bench", "train", "--variants", "float"], 2, "variants must be one of"),
        (["tune", "{data}", "--out", "{tmp}/t", "--trials", "0"], 2, "trials must be a positive integer"),
        (["tune", "{data}", "--out", "{tmp}/t", "--set", "lr"], 2, "set must have the form"),
        (["experiment", "ablation", "--data", "{data}", "--rows", "x"], 2, "rows must be one of"),
        (["experiment", "grid", "--data", "{data}", "--hashes", "md5"], 2, "hashes must be one of"),
        (["reproduce", "--data", "{data}", "--preset", "slow"], 2, "preset must be one of"),
        (["bench", "train", "--synthetic", "many"], 2, "synthetic must be numbers"),
        (["train", "{data}", "--out", "{tmp}/m", "--device", "tpu"], 2, "device must be"),
        (["train", "{data}", "--out", "{data}/train.txt"], 2, "path must be a folder or end in .safetensors"),
        (["train", "{tmp}/empty.csv", "--out", "{tmp}/m"], 1, "empty.csv"),
        (["train", "{tmp}/header.csv", "--out", "{tmp}/m"], 1, "no interactions"),
        (["evaluate", "{model}", "--test", "{data}", "--k", "0"], 2, "k must be a positive integer"),
        (["evaluate", "{model}", "--test", "{data}", "--k", "many"], 2, "k must be numbers separated by commas"),
        (["evaluate", "{model}", "--test", "{data}", "--threshold", "nan"], 2, "threshold must be a number"),
        (["evaluate", "{data}", "--test", "{data}"], 1, "{data}"),
        (["evaluate", "{tmp}/no.csv", "--test", "{data}"], 1, "no such file"),
        (["info", "{tmp}/nothing"], 1, "nothing"),
        (["recommend", "{model}", "--out", "{tmp}/r.csv", "--users", "{tmp}/none.txt"], 2, "users must be a readable"),
        (["recommend", "{model}", "--out", "{tmp}/r.csv", "--engine", "fast"], 2, "engine must be one of"),
        (["similar", "{model}", "--item", "1", "--k", "2", "--threshold", "0.5"], 2, "must not both be given"),
        (["--plugin", "no_such_module", "info", "{model}"], 2, "plugin must be a module that can be imported"),
        (["info", "{model}", "--plugin", "{tmp}/none.py"], 2, "plugin must be a module"),
        (["data", "stats", "{tmp}/odd.csv"], 1, "with --columns item=NAME"),
        (["recommend", "{model}", "--out", "{tmp}/r.xlsx"], 2, ".parquet"),
        (["recommend", "{model}", "--out", "{tmp}/r.csv", "--k", "3", "--threshold", "1"], 2, "must not both be given"),
        (["recommend", "{model}", "--out", "{tmp}/r.csv", "--users", "{tmp}/users.txt"], 2, "users"),
        (["similar", "{model}", "--item", "nobody"], 2, "nobody"),
        (["recommend", "{model}"], 2, "one of --out, --user and --history (got none)"),
        (["recommend", "{model}", "--user", "1001", "--history", "1"], 2, "(got --user and --history)"),
        (["recommend", "{model}", "--user", "nobody"], 2, "nobody"),
        (["recommend", "{model}", "--user", "1001", "--users", "{tmp}/users.txt"], 2, "users must come with --out"),
        (["data", "get", "ml-2m"], 2, "ml-1m"),
    ],
)
def test_bad_usage_is_one_line_with_its_exit_code(
    arguments: list[str], code: int, message: str, model: Path, data: Path, tmp_path: Path, capsys
) -> None:
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text("user,item\n")
    (tmp_path / "users.txt").write_text("1001\n77\n")
    (tmp_path / "odd.csv").write_text("user,what\n1,2\n")
    (tmp_path / "cr.csv").write_bytes(b"user,item\r1,2\r2,3\r")
    places = {"data": data, "model": model, "tmp": tmp_path}
    assert run(*(argument.format(**places) for argument in arguments)) == code
    error = capsys.readouterr().err.strip().splitlines()
    assert message.format(**places) in error[-1]
    assert sum(line.startswith("hashlgn:") for line in error) == 1
    assert not (tmp_path / "m").exists() and not list(tmp_path.glob("r.*"))


def test_a_model_that_cannot_be_saved_leaves_the_training(data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    import hashlgn.estimators

    def full(*arguments: object) -> None:
        raise ArtifactError("cannot save: No space left on device")

    out = tmp_path / "new" / "folder" / "model"
    with monkeypatch.context() as patch:
        patch.setattr(hashlgn.estimators.HashLGN, "save", full)
        assert run("train", data, "--out", out, "--bits", 32, *LIGHTGCN) == 1
    assert "No space left" in capsys.readouterr().err
    assert out.with_name("model.checkpoint").exists()
    assert run("train", data, "--out", out, "--bits", 32, "--resume", *LIGHTGCN) == 0
    assert [path.name for path in out.parent.iterdir()] == ["model"]


def test_help_everywhere(capsys) -> None:
    for command in ([], ["train"], ["evaluate"], ["recommend"], ["similar"], ["info"], ["demo"], ["doctor"]):
        assert run(*command, "--help") == 0
        assert "--help" in capsys.readouterr().out
    for group in (
        ["data", "get"],
        ["data", "stats"],
        ["data", "synth"],
        ["bench", "train"],
        ["bench", "search"],
    ):
        assert run(*group, "--help") == 0
    assert run("--version") == 0
    assert capsys.readouterr().out.strip().endswith(hashlgn.__version__)
