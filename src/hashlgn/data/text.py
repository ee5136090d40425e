"""Text files: delimited columns by Arrow's streaming reader."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from hashlgn.data.columns import Request, find_columns, left_out
from hashlgn.data.gather import Gather, usable
from hashlgn.errors import DataError, counted

__all__ = ["BLOCK", "BOM", "first_line", "lines_of", "open_stream", "quoting", "read_delimited"]

Int64s = npt.NDArray[np.int64]
BLOCK = 1 << 18  # bytes of text held at a time
DELIMITERS = ("::", "\t", ";", ",", "|", " ")  # in this order, by the first line
_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")
BOM = b"\xef\xbb\xbf"
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
    """How a delimited file is laid out: delimiter, columns, positions by role, lines before the first row, and what to
    say of columns that are not read.
    """

    delimiter: str
    width: int
    columns: dict[str, int]
    skip: int
    notes: Sequence[str] = ()


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
    return io.BufferedReader(_Recoded(stream, encoding or "utf-8", double), BLOCK)


def lines_of(path: Path, encoding: str | None = None) -> Iterator[tuple[int, str]]:
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
                text = (line.removeprefix(BOM) if number == 1 else line).rstrip(b"\r")
                if text:
                    yield number, text.decode("utf-8", "replace")
            if not block:
                return


def first_line(path: Path, encoding: str | None = None) -> tuple[int, str]:
    """Number and text of the first line that is not empty.

    Raises:
        DataError: the file is empty, or is no text in UTF-8 or Latin-1.
    """
    for number, line in lines_of(path, encoding):
        if "\0" in line[:1000] or line.startswith("PK\x03\x04"):
            raise DataError(f"{path}: is not a text file in UTF-8 (it may be an archive, or another encoding=)")
        return number, line
    raise DataError(f"{path}: the file is empty")


def read_delimited(path: Path, request: Request) -> Gather:
    """Read the columns of a delimited text file (see ``read_interactions`` for its rules).

    Raises:
        DataError: with the line where one is at fault.
    """
    try:
        return usable(lambda request: _read_once(path, request), request)
    except UnicodeError as error:
        if request.encoding is not None:
            raise DataError(f"{path}: is not {request.encoding} ({error}); give another encoding=") from error
    gather = usable(lambda request: _read_once(path, request), replace(request, encoding="latin-1"))
    gather.notes.insert(0, "the text is not UTF-8, and was read as Latin-1; encoding= names another")
    return gather


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

        gather.notes.extend(layout.notes)

        def broken(row: pa.csv.InvalidRow, gather: Gather = gather) -> str:
            gather.skipped["bad"] += 1
            gather.bad(f"{counted(row.actual_columns, 'column')} instead of {row.expected_columns}: {row.text[:60]!r}")
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


def quoting(path: Path, request: Request) -> tuple[str, bool]:
    """Delimiter of a file, and whether it has quoted values.

    Raises:
        DataError: columns of user and item are not found, or a quote is not closed.
    """
    layout = _layout(path, request)
    return layout.delimiter, layout.delimiter not in ("\t", "::") and _check_quotes(path, layout, request)


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
    last = layout.skip
    try:
        for number, row in _records(path, layout, request, True):
            if number - last > 1 and _may_be_rows(row, layout):
                raise DataError(
                    f'{path}: a quote (") in line {last + 1} opens a value that ends in line {number}, and each of '
                    "these lines is a row by itself; in a value, a quote is written twice"
                )
            last = number
    except csv.Error as error:
        raise DataError(
            f'{path}: a quote (") is not closed, or text follows it, in the row that begins in line {last + 1} '
            f"({error}); in a value, a quote is written twice"
        ) from error
    return True


def _may_be_rows(row: list[str], layout: _Layout) -> bool:
    """Whether a row with line breaks in its values reads as several rows too: two stray quotes look like that."""
    lines = [line.split(layout.delimiter) for line in layout.delimiter.join(row).splitlines()]
    needed = [place for role, place in layout.columns.items() if role in ("user", "item")]
    return len(lines) > 1 and all(
        len(values) == layout.width
        and all(values[place].strip() for place in needed)
        and not any(value.startswith(" ") for value in values)  # prose has blanks after commas
        for values in lines
    )


def _records(path: Path, layout: _Layout, request: Request, quoted: bool) -> Iterator[tuple[int, list[str]]]:
    """Number of the last line, and the values, of every row after the header; a slow way, for faults and quotes."""
    if not quoted:
        for number, line in lines_of(path, request.encoding):
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
    declared = re.fullmatch(r'"?sep=([^"\r\n])"?', line)  # Excel's own first line
    if declared:
        request = replace(request, delimiter=request.delimiter or declared[1])
        number, line = next(islice(lines_of(path, request.encoding), 1, 2), (number, line))
    if "\r" in line.strip("\r") and '"' not in line:
        raise DataError(f"{path}, line {number}: lines must end with a line feed (a carriage return stands alone)")
    delimiter = request.delimiter or _delimiter(path, request)
    if delimiter is None:
        raise DataError(f"{path}, line {number}: no delimiter found in {line[:80]!r}; give it with delimiter=")
    fields = [f.strip() for f in _split(line, delimiter)]
    names, where = request.names(), f"{path}, line {number}"
    if any(isinstance(name, str) for name in names.values()) or request.has_header(fields):
        columns = find_columns(fields, request, where)
        return _Layout(delimiter, len(fields), columns, number, left_out(fields, columns, request))
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
    wanted: dict[str, Any] = {role: place for role, place in places.items() if getattr(request, role) is not False}
    numbered = replace(request, **wanted)
    unnamed = [f"column {i}" for i in range(len(fields))]
    return _Layout(delimiter, len(fields), find_columns(unnamed, numbered, where), number - 1)


def _delimiter(path: Path, request: Request) -> str | None:
    """The delimiter that gives known names of columns, or else columns of one number in the first lines."""
    sample = zip(range(_SAMPLE), lines_of(path, request.encoding), strict=False)
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
    """Which line has the wrong number of columns; a slow second scan, for the error alone."""
    for number, values in _records(path, layout, request, quoted):
        if len(values) != layout.width:
            told = f"line {number} has {counted(len(values), 'column')} instead of {layout.width}"
            return f"{told}; on_bad='skip' leaves such lines out"
    return None
