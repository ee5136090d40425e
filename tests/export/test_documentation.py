"""The Python blocks of ``docs/export.md`` run, one after the other, as a reader would run them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from random_models import random_model

PAGE = Path(__file__).parents[2] / "docs" / "export.md"
BLOCKS = re.findall(r"^```python ?(\w*)\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
PACKAGES = {"qdrant": "qdrant_client", "milvus": "milvus_lite", "lancedb": "lancedb"}


def run(wanted: set[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the blocks that need no large package, and those that need the packages wanted."""
    random_model(6, ties=False).save(folder / "model")
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    for extra, block in BLOCKS:
        if not extra or extra in wanted:
            exec(compile(block, str(PAGE), "exec"), names)
    return names


def test_the_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("duckdb", reason="the extra 'duckdb' is not installed")
    names = run(set(), tmp_path, monkeypatch)
    assert names["ids"].to_pylist() == names["model"].recommend([100], 10)["item"].tolist()
    assert len(BLOCKS) == 8 and {extra for extra, _ in BLOCKS} == {"", *PACKAGES}


@pytest.mark.engines
@pytest.mark.parametrize("extra", PACKAGES)
def test_the_blocks_of_large_packages_run(extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("duckdb", PACKAGES[extra]):
        pytest.importorskip(package, reason="the extra 'engines' is not installed")
    names = run({extra}, tmp_path, monkeypatch)
    found = names["ids"] if isinstance(names["ids"], list) else names["ids"].to_pylist()
    assert found == names["model"].recommend([100], 10)["item"].tolist()
