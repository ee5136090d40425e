"""Rows a second and memory of reading, format by format, each in a process of its own.

    python benchmarks/reading.py --rows 5000000

``csr_mb`` are the arrays of the result (row pointers, items, and where the format has them ratings and times);
``peak_mb``, by how much the most memory that the process held exceeds what it held before; ``chunk_mb``, the same for
200,000 rows: what the reader needs whatever the size; and ``times_csr``, (peak − chunk) / csr.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from hashlgn.data import Interactions, read_interactions
from hashlgn.data.synthetic import synthetic, write_lightgcn
from hashlgn.experiments.common.measure import alone, memory, timed
from hashlgn.experiments.common.tables import table

_SMALL = 200_000  # rows, of the read that shows what a reader needs whatever the size


def main() -> None:
    """Write made-up interactions in every format to a temporary folder and read each in a new process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    rows = parser.parse_args().rows
    result = []
    with tempfile.TemporaryDirectory(prefix="hashlgn-bench-") as name:
        whole, small = (_made(n) for n in (rows, min(rows, _SMALL)))
        for number, (format, write) in enumerate(_WRITERS.items()):
            paths = [Path(name) / f"{number}-{size}" for size in ("large", "small")]
            for folder, data in zip(paths, (whole, small), strict=True):
                folder.mkdir()
                write(folder, data)
            size = sum(p.stat().st_size for p in paths[0].iterdir())
            read = alone(_read, paths[0])
            chunk = read["peak"] if rows <= _SMALL else alone(_read, paths[1])["peak"]
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
    print(table(result))


def _made(rows: int) -> pa.Table:
    """A table of ``rows`` interactions, user by user and in no order within a user, with ratings and times."""
    n_users, n_items = max(1, rows // 50), max(50, rows // 100)
    data = synthetic(n_users, n_items, rows, titles=False)
    rng = np.random.default_rng(0)
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


def _read(folder: Path) -> dict[str, float]:
    """Rows, seconds, bytes of the result, and by how much the peak of memory grew; in a process of its own."""
    before = memory("VmHWM") or 0
    data, seconds = timed(lambda: read_interactions(folder))
    columns = (data.indptr, data.indices, data.ratings, data.times)
    held = sum(column.nbytes for column in columns if column is not None)
    return {"rows": len(data), "seconds": seconds, "csr": held, "peak": (memory("VmHWM") or 0) - before}


if __name__ == "__main__":
    main()
