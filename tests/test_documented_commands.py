"""Every command that README and docs show is executed, on data and sizes that take seconds.

A line of a page is a command where it is indented by four blanks and begins with ``hashlgn`` or ``python benchmarks/``.
What a reader fills in (DATA, MODEL, …) is filled in; numbers that set how long a command takes are made small, by the
tables below. Nothing else is changed: an option or a name that does not exist fails here.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import typer
from pyarrow import csv, parquet

import hashlgn
from conftest import clusters
from hashlgn.cli.main import app
from hashlgn.data import random_ratio
from hashlgn.data.synthetic import write_lightgcn
from hashlgn.experiments.benchmarks import train
from hashlgn.experiments.reproduction import timing
from hashlgn.serve.journal import Event, Journal
from hashlgn.serve.journal.transfer import export_events
from hashlgn.serve.keys import create_key
from hashlgn.utils.console import exit_code

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PUBLISHED = ("ml-100k", "ml-1m", "gowalla")
# What stands for what a reader fills in; MODEL and DATA are made by the tests.
PLACES = {"TEST": "DATA", "OUT": "out", "DIR": "dir", "M": "MODEL", "ID": "1", "U": "30", "I": "20", "N": "200"}
PLACES |= {f"RECS{suffix}": f"recs{suffix}" for suffix in (".parquet", ".csv", ".jsonl")}
PLACES |= {"JOURNAL": "events.db", "EVENTS": "events.parquet", "KEYS": "keys.json"}
PLACES |= {"T": "0.1", "F.toml": "best.toml", "FILE": "users.txt", "NAME": "ml-1m", "EVENTS.csv": "events.csv"}
# Options that set how long a command takes, and their values here; a list is cut to the names that are kept.
SMALL = {
    "--seeds": "1",
    "--trials": "1",
    "--timeout": "1",
    "--items": "600",
    "--events": "3000",
    "--length": "5",
    "--bits": "16",
    "--dims": "16",
    "--repeats": "1",
    "--singles": "2",
    "--synthetic": "2000",
    "--seconds": "0.2",
    "--users": "30",
    "--interactions": "200",
    "--rows": "default",
    "--k": "5",
    "--encoders": "lightgcn",
    "--hashes": "float,residual",
    "--losses": "softmax",
    "--searchers": "kernel,exact",
    "--baselines": "none",
    "--variants": "student",
    "--counts": "0,1",
}
TRAINING = "--set train.pretrain_epochs=1 --set train.joint_epochs=1 --set model.dim=8 --set model.bits=16"
TRAINING += " --set model.history_bits=16 --set student.epochs=2 --set student.distillation_epochs=1"
# What a command is given beside, by its first words
ADDED = {
    "train": TRAINING,
    "tune": f"--trials 1 {TRAINING}",
    "reproduce": f"--seeds 1 --preset quick --threads 1 {TRAINING} --set model.layers=1",
    "experiment ablation": f"--rows default {TRAINING}",
    "experiment grid": f"--encoders lightgcn --hashes float,residual {TRAINING}",
    "benchmarks/reading.py": "--rows 1000",
    "benchmarks/journal.py": "--users 30 --items 600",
    "bench serve": "--items 600 --users 100 --seconds 0.2 --connections 2 --baselines none",
    "bench stream": f"--interactions 600 --periods 1 --methods never,users {TRAINING}",
    "bench held-back": f"--counts 1 --share 0.2 {TRAINING}",
    "bench train": "--synthetic 2000 --seconds 0.2 --variants student",
    "benchmarks/exports.py": "--items 600 --bits 16 --dim 8 --to parquet,faiss-flat",
    "bench search": "--items 600 --bits 16 --repeats 1 --singles 2 --searchers kernel --baselines none",
}
WRITTEN = ("index.html", "results.json", "reproduction.md")  # by the reproduction
NEEDS = {"reproduce": "implicit", "tune": "optuna"}


def commands(page: Path) -> Iterator[str]:
    """The commands of a page, as they stand there."""
    text = re.sub(r" *\\\n +", " ", page.read_text("utf-8"))
    for line in re.findall(r"^ {4}((?:hashlgn|python benchmarks/).*)$", text, re.MULTILINE):
        for part in re.split(r" (?:·|&&) ", line.split("   #")[0]):
            if part.startswith(("hashlgn ", "python ")):
                yield part.strip()


def alternatives(command: str) -> list[str]:
    """A command with options in brackets and choices (``read|train``) as commands: without options, and with each."""
    options = [part.strip() for part in re.findall(r"\[(.*?)\]", command)]
    plain = re.sub(r" *\[.*?\]", "", command)
    whole = [plain, *(f"{plain} {choice.strip()}" for option in options for choice in option.split(" | "))]
    found = []
    for line in whole:
        choices = re.search(r"(?<= )(RECS)?([\w.-]+(?:\|[\w.-]+)+)", line)
        found += [line.replace(choices[2], one) for one in choices[2].split("|")] if choices else [line]
    return found


def small(words: list[str], model: Path, data: Path) -> list[str]:
    """The same command, filled in and made small."""
    first = " ".join(words[:2]) if words[0] in ("bench", "experiment", "data") else words[0]
    out, previous = [], ""
    for word in words:
        word = PLACES.get(word, SMALL.get(previous, word))
        if word == "MODEL":
            word = "trained" if previous == "--out" else str(model)
        out.append(
            {"DATA": str(data), "T,...": "0.1,0.2", "float-model": str(model), "codes": str(model)}.get(word, word)
        )
        previous = out[-1]
    added = shlex.split(ADDED.get(first, ""))
    for name, value in zip(added[::2], added[1::2], strict=True):
        if name == "--set" or name not in out:
            out += [name, value]
    return out


def distinct() -> list[str]:
    """The commands of all pages; of those that are the same when they are small, but for their output, the first."""
    found: dict[tuple[str, ...], str] = {}
    for command in sorted({one for page in PAGES for line in commands(page) for one in alternatives(line)}):
        words = small(shlex.split(command)[1:], Path("model"), Path("data"))
        places = {number + 1 for number, word in enumerate(words) if word == "--out"}
        found.setdefault(tuple(sorted(w for number, w in enumerate(words) if number not in places)), command)
    return list(found.values())


ALL = distinct()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small data under the names of published data sets, a model, and what commands read."""
    folder = tmp_path_factory.mktemp("documented")
    for name in PUBLISHED:
        write_lightgcn(folder / "data" / name, *random_ratio(clusters(), seed=0))
    (folder / "service").mkdir()
    data = clusters()
    with Journal.open(folder / "service" / "events.db") as journal:
        pairs = zip(data.user_ids.decode(data.rows), data.item_ids.decode(data.indices), strict=True)
        journal.append([Event(int(user), int(item)) for user, item in pairs])
        for user in range(1000, 1030):
            journal.exposure(user, "ab"[user % 2], [1, 2], "request")
    export_events(folder / "service" / "events.db", folder / "service" / "events.parquet")
    create_key(folder / "service" / "keys.json", "write", "shop")
    line = ["train", folder / "data" / "ml-1m", "--out", folder / "model", "--quiet", *shlex.split(TRAINING)]
    assert exit_code(app, [str(word) for word in line]) == 0
    return folder


@pytest.mark.parametrize("command", ALL)
def test_the_command_works(command: str, place: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    words = shlex.split(command)[1:]
    if words[0] in NEEDS:
        pytest.importorskip(NEEDS[words[0]], reason="an extra is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(hashlgn.__file__).parents[1]))  # for processes that a command starts
    monkeypatch.setenv("HASHLGN_DATA", str(place / "data"))
    monkeypatch.setattr("hashlgn.data.download.download", lambda name: place / "data" / name)
    # In this process: another one takes seconds to load PyTorch, and has a test of its own.
    monkeypatch.setattr(train, "_alone", train._measure)
    monkeypatch.setattr(timing, "_AT_LEAST", 0.001)
    shutil.copytree(place / "service", tmp_path, dirs_exist_ok=True)
    (tmp_path / "users.txt").write_text("1001\n")
    (tmp_path / "best.toml").write_text("[model]\nbits = 16\n")
    made = clusters()
    known, test = random_ratio(made, seed=0)
    (tmp_path / "parts").mkdir()
    for name, part in {"train": known, "given": known, "test": test}.items():
        parquet.write_table(part.to_arrow(), tmp_path / "parts" / f"{name}.parquet")
    csv.write_csv(made.to_arrow().append_column("time", pa.array(range(len(made)))), tmp_path / "events.csv")
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "best.toml").write_text("[train]\nlr = 0.01\n")
    line = small(words, place / "model", place / "data" / "ml-100k")
    if words[0].endswith(".py"):
        done = subprocess.run([sys.executable, ROOT / line[0], *line[1:]], capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.count("\n") > 2, done.stderr
    elif words[0] == "serve":  # it goes on until it is told to end
        pytest.importorskip("httptools", reason="an extra is not installed")
        assert_serves(line)
    else:
        code, (shown, said) = exit_code(app, line), capsys.readouterr()
        assert code == 0, said
        if words[0] == "reproduce":
            assert all(text in shown for text in ("HashGNN, as published", "0.3151", "0.5930", "0.0913"))
            assert all((tmp_path / "out" / name).is_file() for name in WRITTEN)


def assert_serves(line: list[str]) -> None:
    """The command says where it serves, and ends by SIGTERM."""
    start = [sys.executable, "-c", "from hashlgn.cli.main import main; main()"]
    with subprocess.Popen([*start, *line, "--port", "0"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        for said in process.stderr:
            lines.append(said)
            if said.startswith("serving "):
                process.terminate()
    assert process.returncode == 0 and any(said.startswith("serving ") for said in lines), lines


def test_commands_are_found_and_filled_in() -> None:
    assert len(ALL) > 20 and {command.split()[1] for command in ALL} > {"train", "evaluate", "recommend", "reproduce"}
    assert alternatives("hashlgn x MODEL [--k 1 | --t T] [--a b|c]") == [
        "hashlgn x MODEL",
        "hashlgn x MODEL --k 1",
        "hashlgn x MODEL --t T",
        "hashlgn x MODEL --a b",
        "hashlgn x MODEL --a c",
    ]
    assert small(["train", "DATA", "--out", "MODEL", "--seeds", "3"], Path("m"), Path("d"))[:6] == [
        *("train", "d", "--out", "trained", "--seeds", "1")
    ]


def test_every_command_stands_in_a_page() -> None:
    lines = [line for page in PAGES for command in commands(page) for line in alternatives(command)]
    pages = "\n".join([*lines, *(page.read_text("utf-8") for page in PAGES)])
    root = typer.main.get_command(app)
    names = [
        f"{name} {inner}" if hasattr(command, "commands") else name
        for name, command in root.commands.items()
        for inner in getattr(command, "commands", [""])
    ]
    assert [name for name in names if f"hashlgn {name}" not in pages] == []
