"""Catalogues to search: random, trained on made-up interactions, or saved models; floats and codes side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hashlgn.data import Interactions
from hashlgn.errors import ArgumentError, positive_int
from hashlgn.inference.artifact import load_artifact
from hashlgn.scoring.codes import check_bits
from hashlgn.scoring.decoders import CodebookDecoder, Floats, ReweightDecoder
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.items import CodedItems, FloatItems
from hashlgn.scoring.rows import rows_of

Ragged = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
SPREAD = 25.0  # the 99th percentile of Gowalla's norms is so many times the 1st
_CENTRES = 256


@dataclass(frozen=True)
class Form:
    """The catalogue's items in one form, and the users who ask."""

    name: str
    items: FloatItems | CodedItems
    queries: Floats  # of the catalogue's users, (q, width)
    floats: str | None = None  # name of the floats that codes stand for

    @classmethod
    def of(cls, vectors: Floats, queries: Floats) -> Form:
        """Floats."""
        name = f"{vectors.shape[1]} floats"
        return cls(name, FloatItems(vectors), queries, name)

    @property
    def binary(self) -> bool:
        """Whether both sides are binary, so that scores are Hamming distances."""
        decoder = self.items.decoder if isinstance(self.items, CodedItems) else None
        return isinstance(decoder, ReweightDecoder) and bool(np.isin(self.queries, (-1, 1)).all())


@dataclass(frozen=True)
class Catalogue:
    """One catalogue in several forms."""

    name: str  # where it comes from
    forms: list[Form]  # floats, the narrowest first, and then codes
    seen: Ragged  # what each user leaves out, in compressed-row form
    truth: Ragged | None = None  # held-out items of each user, at least one each

    @property
    def n_items(self) -> int:
        """Size of the catalogue."""
        return len(self.forms[0].items)

    def exclusion(self, rows: npt.NDArray[np.int64]) -> Exclusion:
        """What some users leave out."""
        return Exclusion.build(self.n_items, seen=rows_of(self.seen, rows))


def random_catalogue(n: int, bits: Sequence[int], dims: Sequence[int], users: int, seed: int) -> Catalogue:
    """Random floats around 256 centres, of unit length, and random codes and codewords that stand for none of them.

    Codes come without a scale, with scales within 10%, with log-normal scales whose 99th percentile is 25 times the
    1st, and as binary codes on both sides. Every user has seen 50 to 100 items, drawn evenly.
    """
    rng = np.random.default_rng(seed)
    forms = []
    for dim in dims:
        centres = rng.standard_normal((_CENTRES, dim), np.float32)
        queries = _around(rng, centres, users)
        forms.append(Form.of(_around(rng, centres, positive_int("items", n)), queries))
    near = rng.uniform(0.9, 1.1, n).astype(np.float16)
    far = np.exp(np.log(SPREAD) / (2 * 2.3263) * rng.standard_normal(n, np.float32)).astype(np.float16)
    queries, width = forms[0].queries, dims[0]
    for length in bits:
        subcodes = check_bits(length) // 4
        packed = rng.integers(0, 256, (n, length // 8), np.uint8)
        size = np.sqrt(np.float32(subcodes * width))
        decoder = CodebookDecoder(rng.standard_normal((subcodes, 16, width), np.float32) / size)
        forms += [
            Form(f"{length} bits{text}", CodedItems(packed, decoder, scale), queries)
            for text, scale in (("", None), (" + scale", near), (" + spread scale", far))
        ]
        ones = np.ones(length, np.float32)
        signs = rng.choice(np.array([-1, 1], np.float32), (users, length))
        forms.append(Form(f"{length} bits, binary users", CodedItems(packed, ReweightDecoder(ones, ones)), signs))
    counts = np.minimum(rng.integers(50, 101, users), n // 4)
    bounds = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    return Catalogue("random", forms, (bounds, rng.integers(0, n, bounds[-1])))


def saved_catalogue(models: Sequence[Path], test: Interactions | None) -> Catalogue:
    """Saved models over the same users and items: those with float items, and those with codes.

    Where none has float items, the decoded vectors of the first stand for them. Where there are held-out interactions,
    ``test``, only users who have some are asked.

    Raises:
        ArgumentError: there is no model, or they are over different users or items.
        ArtifactError: a model cannot be read.
    """
    if not models:
        raise ArgumentError("model must be the folder of at least one model (got none)")
    served = [load_artifact(folder) for folder in models]
    first = served[0]
    if any(m.user_ids != first.user_ids or m.item_ids != first.item_ids for m in served):
        raise ArgumentError(f"model must be over the same users and items (got {', '.join(map(str, models))})")
    rows, truth = np.arange(len(first.user_ids)), None
    if test is not None:
        data, _ = test.encode_like(Interactions(first.user_ids, first.item_ids, *first.seen))
        known = Exclusion.build(len(first.items), seen=(first.seen[0], first.seen[1]))
        fresh = data.select(~known.excluded(data.rows, data.indices))
        rows = np.flatnonzero(np.diff(fresh.indptr))
        truth = rows_of((fresh.indptr, fresh.indices), rows)
    found, coded = {}, []
    for folder, model in zip(models, served, strict=True):
        items = model.items
        if isinstance(items, FloatItems):
            found[items.width] = Form.of(items.vectors, model.queries_of(rows))
        else:
            stem = folder.parent.name if folder.name == "model.safetensors" else folder.name
            name = f"{stem}, {items.decoder.bits} bits" + (" + scale" if items.scale is not None else "")
            coded.append(Form(name, items, model.queries_of(rows)))
    floats = [found[width] for width in sorted(found)] or [Form.of(first.items.decode(), coded[0].queries)]
    return Catalogue("saved", floats + coded, rows_of(first.seen, rows), truth)


def _around(rng: np.random.Generator, centres: Floats, size: int) -> Floats:
    vectors = rng.standard_normal((size, centres.shape[1]), np.float32)
    step = 1_000_000
    for start in range(0, size, step):
        part = vectors[start : start + step]
        part += centres[rng.integers(0, len(centres), len(part))]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return vectors
