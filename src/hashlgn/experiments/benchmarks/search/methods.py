"""What is measured: our searchers and others' indexes, built over one catalogue and brought to one form."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.errors import HashLGNError
from hashlgn.experiments.baselines.indexes import (
    CODED,
    INDEXES,
    Index,
    binary_flat,
    loop_over_seen,
    matmul,
    without_seen,
)
from hashlgn.experiments.benchmarks.search.catalogues import Catalogue, Coded
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.items import FloatItems
from hashlgn.search import SEARCHERS, Hits, InvertedFile, Kernel, Searcher

__all__ = ["VECTORISED", "Method", "Setting", "build_methods"]

_SMALL = 20_000  # the paper's loop and the product with all items are run on catalogues up to this
_SHARES = (1 / 128, 1 / 32, 1 / 8)  # of our inverted file's lists, looked at
VECTORISED = ("faiss-flat", "flat", "numpy product")  # float searches that leave seen items out without a loop


@dataclass(frozen=True)
class Setting:
    """How to measure: cuts, queries a batch, single queries, rounds, threads."""

    ks: Sequence[int]
    batch: int
    singles: int
    repeats: int
    threads: int


@dataclass
class Method:
    """Something that answers, and what is known of it.

    Attributes:
        name: of the searcher or the index, with its operating point.
        over: what it searches.
        dim: width of the floats whose exact answer it is compared with, None for none.
        coded: the codes whose exact answer it is compared with, None for none.
        queries: as it takes them, a row for each of the catalogue's users.
        build: seconds.
        size: bytes per item.
        search: ``(queries, k)`` → answers with nothing left out; None where it does not.
        filtered: ``(queries, k, exclusion)`` → answers without what is excluded; None where it cannot.
        above: ``(queries, threshold)`` → answers; None where it cannot.
        times: seconds of every run by task.
    """

    name: str
    over: str
    dim: int | None
    coded: str | None
    queries: npt.NDArray[Any]
    build: float
    size: float
    search: Callable[[Any, int], Any] | None = None
    filtered: Callable[[Any, int, Exclusion], Any] | None = None
    above: Callable[[Any, float], Any] | None = None
    times: dict[str, list[float]] = field(default_factory=dict)


def build_methods(
    catalogue: Catalogue,
    setting: Setting,
    *,
    searchers: Sequence[str],
    baselines: Sequence[str],
    bits: Sequence[int],
    say: Callable[[str], None],
) -> list[Method]:
    """Build everything that is asked for and can be had; Faiss's flat search over the narrowest floats comes first."""
    return [
        *_over_floats(catalogue, setting, searchers, baselines, bits, say),
        *_over_codes(catalogue, setting, searchers, say),
    ]


def _over_floats(
    catalogue: Catalogue,
    setting: Setting,
    searchers: Sequence[str],
    baselines: Sequence[str],
    bits: Sequence[int],
    say: Callable[[str], None],
) -> Iterator[Method]:
    for dim, vectors in sorted(catalogue.vectors.items()):
        users, over = catalogue.users[dim], f"{dim} floats"
        for name in dict.fromkeys(["faiss-flat", *baselines]):
            for length in bits if name in CODED else bits[:1]:
                say(f"{catalogue.name}: building {name} over {over}")
                began = time.perf_counter()
                try:
                    index = INDEXES[name](vectors, length, setting.threads)
                except HashLGNError as error:
                    say(f"left out: {name} over {over} ({error})")
                    break
                build = time.perf_counter() - began
                say(f"{catalogue.name}: built {name} over {over} in {build:.1f} s")
                label = f"{name}, {length} bits" if name in CODED else name
                for point, search in index.search.items():
                    yield Method(
                        f"{label}, {point}" if point else label,
                        over,
                        dim,
                        None,
                        users,
                        build,
                        index.bytes_per_item,
                        search,
                        partial(without_seen, search),
                        index.above,
                    )
                    if name == "faiss-flat" and len(vectors) <= _SMALL:
                        yield from _small(catalogue, dim, index)
        if "flat" in searchers:
            began = time.perf_counter()
            flat = SEARCHERS["flat"](FloatItems(vectors), setting.threads)
            yield Method("flat", over, dim, None, users, time.perf_counter() - began, 4 * dim, filtered=flat.search)


def _small(catalogue: Catalogue, dim: int, flat: Index) -> Iterator[Method]:
    """What is worth its time on small catalogues alone: the product with everything, and the paper's procedure."""
    users, vectors, over = catalogue.users[dim], catalogue.vectors[dim], f"{dim} floats"
    yield Method("numpy product", over, dim, None, users, 0.0, 4 * dim, filtered=partial(matmul, vectors))
    for name, together in (("the paper's loop, one call", True), ("the paper's loop, a call a user", False)):
        yield Method(
            name,
            over,
            dim,
            None,
            users,
            0.0,
            flat.bytes_per_item,
            filtered=partial(loop_over_seen, flat.search[""], together=together),
        )


def _over_codes(
    catalogue: Catalogue, setting: Setting, searchers: Sequence[str], say: Callable[[str], None]
) -> Iterator[Method]:
    for coded in catalogue.coded:
        for name in searchers:
            if name == "flat":
                continue
            began = time.perf_counter()
            try:
                searcher: Searcher = SEARCHERS[name](coded.items, setting.threads)
            except HashLGNError as error:
                say(f"left out: {name} over {coded.name} ({error})")
                continue
            build = time.perf_counter() - began
            say(f"{catalogue.name}: built {name} over {coded.name} in {build:.1f} s")
            size = searcher.nbytes / len(coded.items) if isinstance(searcher, Kernel) else coded.items.bytes_per_item
            method = Method(
                name,
                coded.name,
                coded.dim,
                coded.name,
                coded.queries,
                build,
                4.0 * coded.items.width if name == "decoded" else size,
                searcher.search,
                searcher.search,
                searcher.search_above,
            )
            if isinstance(searcher, InvertedFile) and searcher.lists > 1:
                for probes in sorted({max(1, round(share * searcher.lists)) for share in _SHARES}):
                    search = partial(_probed, searcher, probes)
                    yield replace(
                        method, name=f"{name}, probes {probes}", search=search, filtered=search, above=None, times={}
                    )
            else:
                yield method
        if coded.binary:
            yield _binary(coded)


def _probed(searcher: InvertedFile, probes: int, queries: Any, k: int, exclude: Exclusion | None = None) -> Hits:
    searcher.probes = probes
    return searcher.search(queries, k, exclude)


def _binary(coded: Coded) -> Method:
    began = time.perf_counter()
    index = binary_flat(coded.items.packed)
    queries = np.packbits(coded.queries > 0, axis=1, bitorder="little")
    search = index.search[""]
    return Method(
        "faiss-binary",
        coded.name,
        None,
        coded.name,
        queries,
        time.perf_counter() - began,
        index.bytes_per_item,
        search,
        partial(without_seen, search),
    )
