"""The ragged lines of LightGCN's data sets, ``user item item …``, and how to tell them from rows of ratings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hashlgn.data.arrays import Arrivals
from hashlgn.data.columns import Request
from hashlgn.data.ids import Ids
from hashlgn.data.interactions import Interactions
from hashlgn.data.text import BLOCK, BOM, first_line, lines_of, open_stream
from hashlgn.errors import DataError

__all__ = ["is_ragged", "read_ragged"]

Int64s = npt.NDArray[np.int64]


def is_ragged(path: Path, *, tabs: bool = False) -> bool:
    """Whether a file looks like LightGCN's: only integers and spaces, and lines of different lengths.

    Args:
        path: the file.
        tabs: whether integers may stand between tabs too.

    Raises:
        DataError: most lines have 3 (or 4) integers, and hardly a line has more, so it may be either.
    """
    widths: list[int] = []
    for number, line in lines_of(path):
        if not re.fullmatch(r"\s*\d+([ \t]+\d+)*\s*" if tabs else r"\s*\d+( \d+)* *", line):
            return False
        widths.append(len(line.split()))
        if number >= 1000:
            break
    for width in (3, 4):
        most, longest = widths.count(width), max(widths, default=0)
        # lists of which nearly all have one length are not known; a row of ratings may be broken
        if (longest <= width + 1 and 2 * most > len(widths)) or 20 * most > 19 * len(widths):
            raise DataError(
                f"{path}: lines of {width} integers may be 'user item rating …' or LightGCN's 'user item item …'; "
                "choose format='csv' or format='lightgcn'"
            )
    return len(set(widths)) > 1


def read_ragged(paths: list[Path], request: Request) -> Interactions:
    """Read LightGCN's lines, ``user item item …``, of one or more files as one.

    A user may have several lines, or a line without items: then they are in the catalogue, with no
    interactions.

    Raises:
        DataError: with the line where one is at fault.
    """
    if request.names() or request.min_rating is not None:
        raise DataError(f"{paths[0]}: lines of a user and items have no columns and no ratings to choose by")
    heads, tails, sizes = Arrivals(pa.int64()), Arrivals(pa.int64()), [np.empty(0, np.int64)]
    for path in paths:
        first_line(path)
        for users, counts, items in _ragged_blocks(path):
            heads.add(pa.array(users).dictionary_encode())
            tails.add(pa.array(items).dictionary_encode())
            sizes.append(counts)
    (user_words, user_codes), (item_words, item_codes) = heads.finish(), tails.finish()
    if not len(item_words):
        raise DataError(f"{' and '.join(map(str, paths))}: no interactions (only users)")
    keys = np.repeat(np.concatenate(user_codes).astype(np.int64) * len(item_words), np.concatenate(sizes))
    keys += np.concatenate(item_codes)
    user_ids, item_ids = (
        Ids.from_arrow(words.cast(pa.large_string()) if request.id_type == "str" else words)
        for words in (user_words, item_words)
    )
    return Interactions.from_keys(user_ids, item_ids, {"keys": keys, "ratings": None, "times": None})


def _ragged_blocks(path: Path) -> Iterator[tuple[Int64s, Int64s, Int64s]]:
    """Users, their numbers of items, and the items, of some whole lines at a time."""
    rest, lines = b"", 0
    with open_stream(path) as stream:
        while True:
            block = stream.read(BLOCK)
            text = rest + block
            if not lines:
                text = text.removeprefix(BOM)
            cut = text.rfind(b"\n") + 1 if block else len(text)
            text, rest = text[:cut], text[cut:]
            if text.strip():
                yield _parse_ragged(text, path, lines)
            lines += text.count(b"\n")
            if not block:
                return


def _parse_ragged(text: bytes, path: Path, lines: int) -> tuple[Int64s, Int64s, Int64s]:
    raw = np.frombuffer(text, np.uint8)
    solid = np.zeros(len(raw) + 2, np.bool_)
    solid[1:-1] = ~np.isin(raw, np.frombuffer(b" \t\r\n", np.uint8))
    starts, ends = np.flatnonzero(solid[1:] & ~solid[:-1]), np.flatnonzero(solid[:-1] & ~solid[1:])
    wrong = np.flatnonzero(solid[1:-1] & ((raw < 48) | (raw > 57)))
    at = starts[np.searchsorted(starts, wrong[:1], "right") - 1] if len(wrong) else starts[ends - starts > 18]
    if len(at):
        token = text[at[0] :].split(None, 1)[0].decode("utf-8", "replace")
        number = lines + text.count(b"\n", 0, int(at[0])) + 1
        raise DataError(f"{path}: line {number}: users and items must be integers from 0 (got {token!r})")
    values = np.fromstring(text.decode("ascii"), np.int64, sep=" ")
    line = np.searchsorted(np.flatnonzero(raw == 10), starts)
    is_user = np.append(True, line[1:] != line[:-1])
    places = np.flatnonzero(is_user)
    return values[is_user], np.diff(np.append(places, len(values))) - 1, values[~is_user]
