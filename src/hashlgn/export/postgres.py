"""PostgreSQL: a script for ``psql`` with the codes, and a function that scores them bit for bit; pgvector beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import numpy as np

from hashlgn.errors import ArgumentError
from hashlgn.export import sql
from hashlgn.export.base import NAME, Catalogue, Exporter, Part, Query
from hashlgn.scoring.codes import unpack_signs
from hashlgn.scoring.decoders import Floats

__all__ = ["BIT", "CODES", "HALFVEC", "SPARSEVEC"]

_OVERFETCH = 20  # candidates of the bit index for each item of the answer
_SIGNS = 256  # bits of the bit index
_MOST = 1000  # candidates that an index of pgvector gives at most
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
# By name: the type of a column, for codes of a length and vectors of a width, and the text of each item of a part
Column = tuple[Callable[[Catalogue], str], Callable[[Catalogue, Part], Iterable[str]]]


def _sparse(part: Part) -> Iterable[str]:
    """``M`` numbers other than 0: the scale at ``16 m + k_m``, counted from 1."""
    for row, scale in zip((part.places + 1).tolist(), part.scales.tolist(), strict=True):
        yield f"{{{','.join(f'{place}:{scale!r}' for place in row)}}}/{16 * len(row)}"


def _dense(part: Part) -> Iterable[str]:
    return (f"[{','.join(map(repr, row))}]" for row in part.items.decode().tolist())


def _signs(vectors: Floats, length: float = 0.0) -> Iterable[str]:
    """Signs of sums of ``(v, √(length² − ‖v‖²))`` at random: the fewer differ, the larger the inner product, about.

    The component that is added makes items of one length, and is 0 for queries, whose length is 0 here (Bachrach et
    al., *Speeding up the Xbox recommender system*, RecSys 2014); random directions: Charikar, STOC 2002.
    """
    squares = np.einsum("ij,ij->i", vectors, vectors)
    more = np.sqrt(np.maximum(length**2 - squares, 0)).astype(np.float32)
    sums = np.concatenate((vectors, more[:, None]), axis=1) @ _directions(vectors.shape[1] + 1)
    return ("".join(row) for row in np.where(sums > 0, "1", "0").tolist())


@cache
def _directions(width: int) -> Floats:
    """``(width, 256)`` of ±1, for ever the same."""
    drawn = np.frombuffer(hashlib.shake_256(b"hashlgn").digest(width * _SIGNS // 8), np.uint8)
    return unpack_signs(drawn[None]).reshape(width, _SIGNS).astype(np.float32)


_COLUMNS: dict[str, Column] = {
    "code": (lambda catalogue: "bytea", lambda _, part: (f"\\\\x{row.tobytes().hex()}" for row in part.codes)),
    "scale": (lambda catalogue: "real", lambda _, part: map(repr, part.scales.tolist())),
    "sparse": (lambda catalogue: f"sparsevec({4 * catalogue.bits})", lambda _, part: _sparse(part)),
    "half": (lambda catalogue: f"halfvec({catalogue.items.width})", lambda _, part: _dense(part)),
    "signs": (
        lambda catalogue: f"bit({_SIGNS})",
        lambda catalogue, part: _signs(part.items.decode(), catalogue.length),
    ),
}


def _writer(names: tuple[str, ...], index: str = "") -> Callable[[Catalogue, Path], None]:
    """What writes ``items.sql``: a table with some of the columns, their data, the function, an index."""
    extension = "" if names == ("code", "scale") else "CREATE EXTENSION IF NOT EXISTS vector;\n"

    def write(catalogue: Catalogue, folder: Path) -> None:
        kinds = {"number": "integer PRIMARY KEY"}
        kinds["id"] = f"{'bigint' if catalogue.model.item_ids.id_type == 'int' else 'text'} NOT NULL"
        kinds |= {} if catalogue.model.titles is None else {"title": "text"}
        kinds |= {} if catalogue.model.genres is None else {"genres": "text[]"}
        kinds |= {name: f"{_COLUMNS[name][0](catalogue)} NOT NULL" for name in names}
        function = _function(catalogue.bits) if "code" in names else ""
        with (folder / "items.sql").open("w", encoding="utf-8", newline="\n") as file:
            file.write(f"\\set ON_ERROR_STOP on\nBEGIN;\nSET client_encoding = 'UTF8';\n{extension}")
            columns = ",\n    ".join(f"{name} {kind}" for name, kind in kinds.items())
            file.write(f"CREATE TABLE {NAME} (\n    {columns}\n);\n{function}")
            file.write(f"COPY {NAME} ({', '.join(kinds)}) FROM stdin;\n")
            for part in catalogue.parts():
                held = [_texts(name, part) for name in part.attributes.column_names]
                held += [_COLUMNS[name][1](catalogue, part) for name in names]
                file.writelines("\t".join(row) + "\n" for row in zip(*held, strict=True))
            file.write(f"\\.\n{index}COMMIT;\nANALYZE {NAME};\n")

    return write


def _texts(name: str, part: Part) -> Iterable[str]:
    """A column of attributes as COPY reads it."""
    for value in part.attributes[name].to_pylist():
        if isinstance(value, list):  # an array: each text in quotation marks
            inner = ",".join('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in value)
            value = f"{{{inner}}}"
        text = str(value)
        if "\0" in text:
            raise ArgumentError(f"{name} must hold no zero byte, which PostgreSQL cannot store (got {text!r})")
        yield text.translate(_ESCAPES)


def _function(bits: int) -> str:
    expression = sql.score(
        bits, lambda byte: f"(get_byte(code, {byte}) & 15)", lambda byte: f"(get_byte(code, {byte}) >> 4)"
    )
    return (
        "CREATE FUNCTION hashlgn_score(code bytea, scale real, t double precision[]) RETURNS real\n"
        f"    LANGUAGE sql IMMUTABLE PARALLEL SAFE\n    AS $$ SELECT {expression} $$;\n"
    )


def _exact(query: Query) -> str:
    return f"hashlgn_score(code, scale, '{{{sql.numbers(query.flat)}}}'::double precision[])"


def _codes(query: Query, k: int) -> str:
    return sql.select(query, k, _exact(query))


def _sparsevec(query: Query, k: int) -> str:
    table = ",".join(f"{place}:{value!r}" for place, value in enumerate(query.flat.tolist(), 1) if value)
    return sql.select(query, k, f"-(sparse <#> '{{{table}}}/{query.flat.size}')")


def _halfvec(query: Query, k: int) -> str:
    return sql.select(query, k, f"-(half <#> '[{sql.numbers(query.vector)}]'::halfvec({query.vector.size}))")


def _bit(query: Query, k: int) -> str:
    """The index gives the items whose signs are nearest; their codes decide."""
    signs = next(iter(_signs(query.vector[None])))
    fetched = min(_OVERFETCH * k + len(query.seen), _MOST)
    nearest = f"SELECT * FROM {NAME} ORDER BY signs <~> B'{signs}' LIMIT {fetched}"
    return f"SET hnsw.ef_search = {fetched};\n" + sql.select(query, k, _exact(query)).replace(
        f"FROM {NAME}\n", f"FROM ({nearest}) AS nearest\n"
    )


_INDEX = f"CREATE INDEX ON {NAME} USING hnsw (signs bit_hamming_ops);\n"

CODES = Exporter(_writer(("code", "scale")), _codes)
SPARSEVEC = Exporter(_writer(("sparse",)), _sparsevec)
HALFVEC = Exporter(_writer(("half",)), _halfvec)
BIT = Exporter(_writer(("code", "scale", "signs"), _INDEX), _bit)
