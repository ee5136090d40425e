"""The benchmark of the service starts it, loads it and prints what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hashlgn.cli.main import app
from hashlgn.utils.console import exit_code


def test_the_service_is_measured_beside_a_server_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install '.[bench]'")
    small = ["--items", "300", "--users", "50", "--length", "5", "--seconds", "0.2", "--connections", "4"]
    others = ["--baselines", "uvicorn", "--json", str(tmp_path / "figures.json")]
    assert exit_code(app, ["bench", "serve", *small, *others]) == 0
    shown = capsys.readouterr().out
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert [row["service"] for row in rows] == ["hashlgn", "hashlgn /health/live", "uvicorn"]
    assert all(row["service"] in shown and row["requests/s"] > 0 and row["p99 ms"] >= row["p50 ms"] for row in rows)
    assert rows[0]["batch ms"] > 0 and rows[2]["batch ms"] is None
