"""What the page on extending says is executed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hashlgn.data.readers import FORMATS
from hashlgn.search import SEARCHERS
from hashlgn.training.encoders import ENCODERS
from hashlgn.training.hashes import HASHES
from hashlgn.training.losses import LOSSES

PAGE = Path(__file__).parent.parent / "docs" / "extending.md"
BLOCKS = re.findall(r"^## (.+?)\n.*?```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("title", "code"), BLOCKS, ids=[title for title, _ in BLOCKS])
def test_the_page_runs(title: str, code: str) -> None:
    before = [set(table) for table in (ENCODERS, HASHES, LOSSES, SEARCHERS, FORMATS)]
    try:
        exec(compile(code, f"{PAGE.name}: {title}", "exec"), {"__name__": "extending"})
    finally:
        for table, names in zip((ENCODERS, HASHES, LOSSES, SEARCHERS, FORMATS), before, strict=True):
            for name in set(table) - names:
                del table[name]


def test_there_is_a_block_for_each() -> None:
    assert [title for title, _ in BLOCKS] == ["An encoder", "A hash", "A loss", "A searcher", "A data set"]
    assert all(len(code.splitlines()) <= 45 for _, code in BLOCKS)
