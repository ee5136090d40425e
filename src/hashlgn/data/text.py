"""Text files: delimited columns by Arrow's streaming reader, and the ragged lines of LightGCN's data sets."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from hashlgn.data.arrays import Arrivals
from hashlgn.data.columns import Gather, Request, UnusableError, find_columns
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
_PLACES = {False: ("user", "item", "rating", "time"), True: ("item", "title", "genres")}  # of columns without names
_MARK = "\x1f"  # stands for "::" while Arrow, whose delimiters are one character, reads
_SAMPLE = 50  # lines by which a delimiter is chosen
_LARGEST = 1 << 30  # bytes that a line may have


class _Recoded(io.RawIOBase):
    """A stream of bytes as UTF-8, with ``::`` replaced by one character."""

    def __init__(self, stream: pa.NativeFile, encoding: str, double: bool) -> None:
        super().__init__()
        self._stream, self._double = stream, double
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._held, self._ready, self._done = "", b"", False

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        while not self._ready and not self._done:
            block = self._stream.read(BLOCK)
            self._done = not block
            text = self._held + self._decoder.decode(block, final=self._done)
            end = len(text) if self._done else len(text.rstrip(":"))
            text, self._held = text[:end], text[end:]
            self._ready = (text.replace("::", _MARK) if self._double else text).encode("utf-8", "surrogatepass")
        size = min(len(target), len(self._ready))
        target[:size], self._ready = self._ready[:size], self._ready[size:]
        return size


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


def _opened(path: Path, encoding: str | None, double: bool = False) -> Any:
    """A file as a stream of UTF-8."""
    stream = open_stream(path)
    if not double and encoding is None:
        return stream
    try:
        return io.BufferedReader(_Recoded(stream, encoding or "utf-8", double), BLOCK)
    except LookupError as error:
        raise ArgumentError(f"encoding must be one that Python knows (got {encoding!r})") from error


def _lines(path: Path, encoding: str | None = None) -> Iterator[tuple[int, str]]:
    """Line number (from 1) and text of every line that is not empty."""
    with _opened(path, encoding) as stream:
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


def first_line(path: Path, encoding: str | None = None) -> tuple[int, str]:
    """Number and text of the first line that is not empty.

    Raises:
        DataError: the file is empty, or is no text in UTF-8 or Latin-1.
    """
    for number, line in _lines(path, encoding):
        if "\0" in line[:1000] or line.startswith("PK\x03\x04"):
            raise DataError(f"{path}: is not a text file in UTF-8 (it may be an archive, or another encoding=)")
        return number, line
    raise DataError(f"{path}: the file is empty")


def is_ragged(path: Path) -> bool:
    """Whether a file looks like LightGCN's: only integers and spaces, and lines of different lengths.

    Raises:
        DataError: most lines have 3 (or 4) integers, and no line has more, so it may be either.
    """
    widths: list[int] = []
    for number, line in _lines(path):
        if not re.fullmatch(r"\s*\d+( \d+)* *", line):
            return False
        widths.append(len(line.split()))
        if number >= 1000:
            break
    for width in (3, 4):
        if max(widths, default=0) == width and 2 * widths.count(width) > len(widths):
            raise DataError(
                f"{path}: lines of {width} integers may be 'user item rating …' or LightGCN's 'user item item …'; "
                "choose format='csv' or format='lightgcn'"
            )
    return len(set(widths)) > 1


def read_delimited(path: Path, request: Request) -> Gather:
    """Read the columns of a delimited text file (see ``read_interactions`` for its rules).

    Raises:
        DataError: with the line where one is at fault.
    """
    notes: list[str] = []
    while True:
        try:
            gather = _read_once(path, request)
            gather.notes[:0] = notes
            return gather
        except UnusableError as unusable:
            notes.append(f"the column of {unusable.role}s was not read ({unusable})")
            request = request.changed({unusable.role: False})
        except UnicodeError as error:
            if request.encoding is not None:
                raise DataError(f"{path}: is not {request.encoding} ({error}); give another encoding=") from error
            notes.append("the text is not UTF-8, and was read as Latin-1; encoding= names another")
            request = replace(request, encoding="latin-1")


def _read_once(path: Path, request: Request) -> Gather:
    layout = _layout(path, request)
    quoted = layout.delimiter not in ("\t", "::") and _check_quotes(path, layout, request)
    double = layout.delimiter == "::"
    names = [str(i) for i in range(layout.width)]
    types = {names[place]: pa.string() if role == "time" else _DICTIONARY for role, place in layout.columns.items()}
    block, skip = BLOCK, request.on_bad == "skip"
    while True:
        gather = Gather(
            request, str(path), lambda row: f"line {_line_of_row(path, layout, request, quoted, row)}", written=True
        )

        def broken(row: pa.csv.InvalidRow, gather: Gather = gather) -> str:
            gather.skipped["bad"] += 1
            gather.bad(f"{row.actual_columns} columns instead of {row.expected_columns}: {row.text[:60]!r}")
            return "skip"

        try:
            with _opened(path, request.encoding or ("utf-8" if skip else None), double) as stream:
                reader = pyarrow.csv.open_csv(
                    stream,
                    pyarrow.csv.ReadOptions(
                        block_size=block,
                        column_names=names,
                        skip_rows=layout.skip,
                        use_threads=not skip,
                    ),
                    pyarrow.csv.ParseOptions(
                        delimiter=_MARK if double else layout.delimiter,
                        quote_char='"' if quoted else False,
                        newlines_in_values=quoted,
                        invalid_row_handler=broken if skip else None,
                    ),
                    pyarrow.csv.ConvertOptions(
                        column_types=types,
                        include_columns=list(types),
                        null_values=[""],
                        strings_can_be_null=True,
                        quoted_strings_can_be_null=True,
                        check_utf8=True,
                    ),
                )
                for batch in reader:
                    gather.add({role: batch.column(names[place]) for role, place in layout.columns.items()})
            return gather
        except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
            told = str(error)
            if "Empty CSV" in told or "Could not skip" in told:
                raise DataError(f"{path}: no interactions (only a header, or nothing at all)") from error
            if "block" in told and block < _LARGEST:  # a row larger than a block
                block *= 16
                continue
            if "invalid UTF8" in told:
                raise UnicodeError(told) from error
            raise DataError(f"{path}: {_explain(path, layout, request, quoted) or told}") from error


def _check_quotes(path: Path, layout: _Layout, request: Request) -> bool:
    """Whether a file has quoted values; they are followed from the first line to the last.

    Raises:
        DataError: a quote is never closed, or text follows a closing quote; with the line where the row begins.
    """
    with _opened(path, request.encoding) as stream:
        while (block := stream.read(BLOCK)) and b'"' not in block:
            pass
    if not block:
        return False
    last = 0
    try:
        for number, _ in _records(path, layout, request, True):
            last = number
    except csv.Error as error:
        raise DataError(
            f'{path}: a quote (") is not closed, or text follows it, in the row after line {last} ({error}); '
            "in a value, a quote is written twice"
        ) from error
    return True


def _records(path: Path, layout: _Layout, request: Request, quoted: bool) -> Iterator[tuple[int, list[str]]]:
    """Number of the last line, and the values, of every row after the header; a slow way, for faults and quotes."""
    if not quoted:
        for number, line in _lines(path, request.encoding):
            if number > layout.skip:
                yield number, line.split(layout.delimiter)
        return
    limit = csv.field_size_limit(_LARGEST)
    try:
        with _opened(path, request.encoding) as stream:
            text = io.TextIOWrapper(stream, "utf-8-sig", "replace", newline="")
            for _ in range(layout.skip):
                text.readline()
            reader = csv.reader(text, delimiter=layout.delimiter, strict=True)
            for row in reader:
                if row:
                    yield layout.skip + reader.line_num, row
    finally:
        csv.field_size_limit(limit)


def _layout(path: Path, request: Request) -> _Layout:
    number, line = first_line(path, request.encoding)
    if "\r" in line.strip("\r") and '"' not in line:
        raise DataError(f"{path}, line {number}: lines must end with a line feed (a carriage return stands alone)")
    delimiter = request.delimiter or _delimiter(path, request)
    if delimiter is None:
        raise DataError(f"{path}, line {number}: no delimiter found in {line[:80]!r}; give it with delimiter=")
    if delimiter != "::" and (len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n'):
        raise ArgumentError(f"delimiter must be one ASCII character, or '::' (got {delimiter!r})")
    fields = [f.strip() for f in _split(line, delimiter)]
    names, where = request.names(), f"{path}, line {number}"
    if any(isinstance(name, str) for name in names.values()) or request.has_header(fields):
        return _Layout(delimiter, len(fields), find_columns(fields, request, where), number)
    if not names and not any(_NUMBER.fullmatch(f) for f in fields):
        listed = ", ".join(map(repr, fields))
        raise DataError(
            f"{where}: found neither known column names nor numbers ({listed}); "
            "name the columns with user= and item=, or number them from 0 where there is no header"
        )
    roles = _PLACES[request.of_items]
    if not names and not 2 <= len(fields) <= len(roles):
        raise DataError(
            f"{where}: without a header, 2 to {len(roles)} columns are read as {', '.join(roles)} (got {len(fields)}); "
            f"number the columns from 0 with {' and '.join(f'{role}=' for role in roles[:2])}"
        )
    places = names or {role: i for i, role in enumerate(roles[: len(fields)])}
    numbered = request.changed({role: place for role, place in places.items() if getattr(request, role) is not False})
    unnamed = [f"column {i}" for i in range(len(fields))]
    return _Layout(delimiter, len(fields), find_columns(unnamed, numbered, where), number - 1)


def _delimiter(path: Path, request: Request) -> str | None:
    """The delimiter that gives known names of columns, or else columns of one number in the first lines."""
    sample = zip(range(_SAMPLE), _lines(path, request.encoding), strict=False)
    lines = [line for _, (_, line) in sample if line.strip()]
    best, chosen = (False, False, 0.0), None
    for delimiter in DELIMITERS:
        try:
            rows = [_split(line, delimiter) for line in lines]
        except DataError:
            continue
        width = len(rows[0]) if rows else 0
        if width < 2:
            continue
        names = [name.strip() for name in rows[0]]
        both = all(any(_has(name, role, request) for name in names) for role in request.needed)
        same = sum(len(row) == width for row in rows) / len(rows)
        if (both, request.has_header(names), same) > best:
            best, chosen = (both, request.has_header(names), same), delimiter
    return chosen


def _has(name: str, role: str, request: Request) -> bool:
    wanted = getattr(request, role)
    return name == wanted if isinstance(wanted, str) else request.usual(name, role)


def _split(line: str, delimiter: str) -> list[str]:
    if delimiter in ("::", "\t") or '"' not in line:
        return line.split(delimiter)
    try:
        return next(csv.reader([line], delimiter=delimiter))
    except csv.Error as error:
        raise DataError(f"lines must end with a line feed ({error})") from error


def _line_of_row(path: Path, layout: _Layout, request: Request, quoted: bool, row: int) -> int:
    rows = (number for number, values in _records(path, layout, request, quoted) if len(values) == layout.width)
    return next((number for i, number in enumerate(rows) if i == row), -1)


def _explain(path: Path, layout: _Layout, request: Request, quoted: bool) -> str | None:
    """Which line has the wrong number of columns; a slow second look, for the error alone."""
    for number, values in _records(path, layout, request, quoted):
        if len(values) != layout.width:
            return f"line {number} has {len(values)} columns instead of {layout.width}"
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
