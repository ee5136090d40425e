"""Rows a second and memory of reading, format by format, each in a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from hashlgn.data import Interactions
from hashlgn.data.synthetic import synthetic, write_lightgcn
from hashlgn.errors import HashLGNError, positive_int
from hashlgn.utils.provenance import provenance

__all__ = ["bench_read"]

_SMALL = 200_000  # rows, of the read that shows what a reader needs whatever the size

# Run in a new process: the peak of a process never falls again. On Linux, the peak of getrusage starts from the
# parent's, and that of /proc from the process's own beginning; macOS has the former alone, in bytes.
_READ = """
import json, os, re, sys, time
from hashlgn.data import read_interactions
import pyarrow.csv, pyarrow.parquet
def peak():
    if os.path.exists("/proc/self/status"):
        return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before, began = peak(), time.perf_counter()
data = read_interactions(sys.argv[1])
seconds = time.perf_counter() - began
columns = (data.indptr, data.indices, data.ratings, data.times)
held = sum(c.nbytes for c in columns if c is not None)
print(json.dumps({"rows": len(data), "seconds": seconds, "peak": peak() - before, "csr": held}))
"""


def bench_read(rows: int = 5_000_000, *, seed: int = 0) -> dict[str, Any]:
    """Write made-up interactions in every format to a temporary folder and read each in a new process.

    Returns:
        ``rows``, one a format: rows a second; MB of the file; ``csr_mb``, the arrays of the result (row pointers,
        items, and where the format has them ratings and times); ``peak_mb``, by how much the most memory that the
        process held exceeds what it held before; ``chunk_mb``, the same for 200,000 rows: what the reader needs
        whatever the size; and ``times_csr``, (peak − chunk) / csr. And the provenance.

    Raises:
        ArgumentError: ``rows`` is no positive integer.
    """
    rows = positive_int("rows", rows)
    result = []
    with tempfile.TemporaryDirectory(prefix="hashlgn-bench-") as name:
        whole, small = (_made(n, seed) for n in (rows, min(rows, _SMALL)))
        for number, (format, write) in enumerate(_WRITERS.items()):
            paths = [Path(name) / f"{number}-{size}" for size in ("large", "small")]
            for folder, data in zip(paths, (whole, small), strict=True):
                folder.mkdir()
                write(folder, data)
            size = sum(p.stat().st_size for p in paths[0].iterdir())
            read, chunk = _read(paths[0]), _read(paths[1])["peak"]
            for path in paths:
                shutil.rmtree(path)  # the next format needs the space on the disk
            result.append(
                {
                    "format": format,
                    "rows/s": round(read["rows"] / read["seconds"]),
                    "file_mb": round(size / 1e6, 1),
                    "csr_mb": round(read["csr"] / 1e6, 1),
                    "peak_mb": round(read["peak"] / 1e6, 1),
                    "chunk_mb": round(chunk / 1e6, 1),
                    "times_csr": round((read["peak"] - chunk) / read["csr"], 2),
                }
            )
    return {"rows": result, **provenance(interactions=rows, seed=seed)}


def _made(rows: int, seed: int) -> pa.Table:
    """A table of ``rows`` interactions, user by user and in no order within a user, with ratings and times."""
    n_users, n_items = max(1, rows // 50), max(50, rows // 100)
    data = synthetic(n_users, n_items, rows, seed=seed, titles=False)
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(rows), data.rows))
    return pa.table(
        {
            "user_id": data.rows[order],
            "item_id": data.indices[order],
            "rating": rng.integers(1, 6, rows),
            "timestamp": rng.integers(1_000_000_000, 1_600_000_000, rows),
        }
    )


def _delimited(path: Path, table: pa.Table, delimiter: str, *, header: bool = True) -> None:
    options = pyarrow.csv.WriteOptions(include_header=header, delimiter=delimiter, quoting_style="none")
    pyarrow.csv.write_csv(table, path, options)


def _movielens(folder: Path, table: pa.Table) -> None:
    empty = pa.nulls(len(table), pa.string())  # "::" is ":" around a column of nothing
    spaced = [column for each in table.columns for column in (each, empty)][:-1]
    _delimited(folder / "ratings.dat", pa.table(spaced, [str(i) for i in range(len(spaced))]), ":", header=False)


def _recbole(folder: Path, table: pa.Table) -> None:
    names = ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
    _delimited(folder / "made.inter", table.rename_columns(names), "\t")


def _strings(folder: Path, table: pa.Table) -> None:
    texts = [pc.binary_join_element_wise(kind, table.column(i).cast(pa.string()), "") for i, kind in enumerate("ui")]
    _delimited(folder / "made.csv", pa.table(texts, ["user_id", "item_id"]), ",")


def _lightgcn(folder: Path, table: pa.Table) -> None:
    data = Interactions.from_pairs(table.column("user_id"), table.column("item_id"))
    write_lightgcn(folder, data, data.select(np.arange(len(data)) < 1))


_WRITERS: dict[str, Callable[[Path, pa.Table], None]] = {
    "csv, pairs": lambda folder, table: _delimited(folder / "made.csv", table.select([0, 1]), ","),
    "csv, pairs of strings": _strings,
    "csv, ratings and times": lambda folder, table: _delimited(folder / "made.csv", table, ","),
    "ratings.dat (::)": _movielens,
    "RecBole .inter": _recbole,
    "LightGCN": _lightgcn,
    "Parquet": lambda folder, table: pyarrow.parquet.write_table(table, folder / "made.parquet"),
}


def _read(path: Path) -> dict[str, Any]:
    """What ``_READ`` says of one path."""
    done = subprocess.run([sys.executable, "-c", _READ, str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HashLGNError(f"reading {path.name} in a process of its own failed: {done.stderr.strip()[-300:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
