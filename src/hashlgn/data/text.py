"""Text files: delimited columns by Arrow's streaming reader, and the ragged lines of LightGCN's data sets."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from hashlgn.data.arrays import Arrivals
from hashlgn.data.columns import ROLES, Gather, Request, find_columns, has_alias
from hashlgn.data.ids import Ids
from hashlgn.data.interactions import Interactions
from hashlgn.errors import ArgumentError, DataError

__all__ = ["first_line", "is_ragged", "open_stream", "read_delimited", "read_ragged"]

Int64s = npt.NDArray[np.int64]
BLOCK = 1 << 18  # bytes of text held at a time
DELIMITERS = ("::", "\t", ";", ",", "|", " ")  # in this order, by the first line
_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")
_BOM = b"\xef\xbb\xbf"
_DICTIONARY = pa.dictionary(pa.int32(), pa.string())
# What a column may be read as, the next being tried where one fails.
_LADDERS = {
    "user": [_DICTIONARY],
    "item": [_DICTIONARY],
    "rating": [pa.float32()],
    "time": [pa.int64(), pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC")],
}


@dataclass(frozen=True)
class _Layout:
    """How a delimited file is laid out: delimiter, columns, positions by role, lines before the first row."""

    delimiter: str
    width: int
    columns: dict[str, int]
    skip: int


def open_stream(path: Path) -> pa.NativeFile:
    """Open a file for reading, decompressed where its name says so (.gz, .bz2, .zst, .lz4).

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return pa.input_stream(str(path), compression="detect")
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line number (from 1) and text of every line that is not empty."""
    with open_stream(path) as stream:
        rest, number = b"", 0
        while True:
            try:
                block = stream.read(BLOCK)
            except (OSError, pa.ArrowInvalid) as error:
                raise DataError(f"{path}: cannot be read: {error}") from error
            *lines, rest = (rest + block).split(b"\n")
            if not block:
                lines = [rest]
            for line in lines:
                number += 1
                text = (line.removeprefix(_BOM) if number == 1 else line).rstrip(b"\r")
                if text:
                    yield number, text.decode("utf-8", "replace")
            if not block:
                return


def first_line(path: Path) -> tuple[int, str]:
    """Number and text of the first line that is not empty.

    Raises:
        DataError: the file is empty, or is no text in UTF-8 or Latin-1.
    """
    for number, line in _lines(path):
        if "\0" in line[:1000] or line.startswith("PK\x03\x04"):
            raise DataError(f"{path}: is not a text file in UTF-8 (it may be an archive, or UTF-16)")
        return number, line
    raise DataError(f"{path}: the file is empty")


def is_ragged(path: Path) -> bool:
    """Whether a file looks like LightGCN's: only integers and spaces, and lines of different lengths.

    Raises:
        DataError: all lines have 3 or 4 integers, so it may be either.
    """
    widths = set()
    for number, line in _lines(path):
        if not re.fullmatch(r"\s*\d+( \d+)* *", line):
            return False
        widths.add(len(line.split()))
        if len(widths) > 1 or number >= 100:
            break
    if widths in ({3}, {4}):
        raise DataError(
            f"{path}: lines of {widths.pop()} integers may be 'user item rating …' or LightGCN's 'user item item …'; "
            "choose format='csv' or format='lightgcn'"
        )
    return len(widths) > 1


def read_delimited(path: Path, request: Request) -> Interactions:
    """Read a delimited text file (see ``read_interactions`` for its rules).

    Raises:
        DataError: with the line where one is at fault.
    """
    layout = _layout(path, request)
    kinds = dict.fromkeys(layout.columns, 0)
    ladders = {role: _LADDERS[role] for role in layout.columns}
    step = 2 if layout.delimiter == "::" else 1  # "::" is read as ":" with an empty column between
    names = [str(i) for i in range((layout.width - 1) * step + 1)]
    wanted = {role: position * step for role, position in layout.columns.items()}
    while True:
        gather = Gather(request, str(path), lambda row: f"line {_line_of_row(path, layout, row)}", written=True)
        types = {name: pa.null() for i, name in enumerate(names) if i % step}
        types |= {names[wanted[role]]: ladders[role][kinds[role]] for role in wanted}
        try:
            with open_stream(path) as stream:
                reader = pyarrow.csv.open_csv(
                    stream,
                    pyarrow.csv.ReadOptions(block_size=BLOCK, column_names=names, skip_rows=layout.skip),
                    pyarrow.csv.ParseOptions(delimiter=layout.delimiter[0]),
                    pyarrow.csv.ConvertOptions(
                        column_types=types,
                        include_columns=list(types),
                        null_values=[""],
                        strings_can_be_null=True,
                        check_utf8=True,
                    ),
                )
                for batch in reader:
                    gather.add({role: batch.column(names[wanted[role]]) for role in wanted})
            return gather.finish()
        except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
            if "Empty CSV" in str(error) or "Could not skip" in str(error):
                raise DataError(f"{path}: no interactions (only a header, or nothing at all)") from error
            column = re.search(r"In CSV column #(\d+): (?:Row #\d+: )?CSV conversion error", str(error))
            role = next((r for r in wanted if column and wanted[r] == int(column[1])), None)
            if role is None or kinds[role] + 1 == len(ladders[role]):
                raise DataError(f"{path}: {_explain(path, layout) or error}") from error
            kinds[role] += 1


def _layout(path: Path, request: Request) -> _Layout:
    number, line = first_line(path)
    delimiter = request.delimiter
    if delimiter is None:
        delimiter = next((d for d in DELIMITERS if d in line), None)
        if delimiter is None:
            raise DataError(f"{path}, line {number}: no delimiter found in {line[:80]!r}; give it with delimiter=")
    elif delimiter != "::" and (len(delimiter) != 1 or not delimiter.isascii()):
        raise ArgumentError(f"delimiter must be one ASCII character, or '::' (got {delimiter!r})")
    fields = [f.strip() for f in _split(line, delimiter)]
    names, where = request.names(), f"{path}, line {number}"
    if any(isinstance(name, str) for name in names.values()) or has_alias(fields):
        return _Layout(delimiter, len(fields), find_columns(fields, request, where), number)
    if not names and not any(_NUMBER.fullmatch(f) for f in fields):
        listed = ", ".join(map(repr, fields))
        raise DataError(
            f"{where}: found neither known column names nor numbers ({listed}); "
            "name the columns with user= and item=, or number them from 0 where there is no header"
        )
    if not names and not 2 <= len(fields) <= len(ROLES):
        raise DataError(
            f"{where}: without a header, 2 to 4 columns are read as user, item, rating, time (got {len(fields)}); "
            "number the columns from 0 with user= and item="
        )
    places = names or {role: i for i, role in enumerate(ROLES[: len(fields)])}
    numbered = Request(**dict(places))  # type: ignore[arg-type]
    unnamed = [f"column {i}" for i in range(len(fields))]
    return _Layout(delimiter, len(fields), find_columns(unnamed, numbered, where), number - 1)


def _split(line: str, delimiter: str) -> list[str]:
    if delimiter == "::":
        return line.split("::")
    try:
        return next(csv.reader([line], delimiter=delimiter))
    except csv.Error as error:
        raise DataError(f"lines must end with a line feed ({error})") from error


def _line_of_row(path: Path, layout: _Layout, row: int) -> int:
    rows = (number for number, _ in _lines(path) if number > layout.skip)
    return next((number for i, number in enumerate(rows) if i == row), -1)


def _explain(path: Path, layout: _Layout) -> str | None:
    """What is wrong with the first line that is at fault; a slow second look, for the error alone."""
    for number, line in _lines(path):
        if number <= layout.skip:
            continue
        fields = _split(line, layout.delimiter)
        if len(fields) != layout.width:
            return f"line {number} has {len(fields)} columns instead of {layout.width}"
        for role, position in layout.columns.items():
            value = fields[position].strip()
            if "�" in value:
                return f"line {number}: the {role} is not valid UTF-8 (got {value!r})"
            if role == "rating" and not re.fullmatch(r"[-+]?(nan|inf)", value, re.I) and not _NUMBER.fullmatch(value):
                return f"line {number}: the rating must be a number (got {value!r})"
            if role == "time" and not _NUMBER.fullmatch(value) and not re.match(r"\d{4}-\d\d-\d\d", value):
                return f"line {number}: the time must be a number or an ISO date (got {value!r})"
    return None


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
                text = text.removeprefix(_BOM)
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
    solid[1:-1] = raw > 32
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
