"""Small tables of text, for a terminal and for a notebook."""

from __future__ import annotations

import html
from collections.abc import Sequence

__all__ = ["html_table", "text_table"]

Rows = Sequence[Sequence[str]]


def text_table(rows: Rows) -> str:
    """Columns side by side, to the right; the first row is the head."""
    widths = [max(12, *(len(text) + 2 for text in column)) for column in zip(*rows, strict=True)]
    lines = ("".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(lines)


def html_table(rows: Rows) -> str:
    """The same as HTML, escaped."""
    head, *body = ([html.escape(text) for text in row] for row in rows)
    lines = (f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in body)
    return f"<table><tr><th>{'</th><th>'.join(head)}</th></tr>{''.join(lines)}</table>"
