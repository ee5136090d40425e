"""What is measured: our searchers and others' indexes, built over one catalogue and brought to one form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from hashlgn.errors import HashLGNError
from hashlgn.experiments.baselines.indexes import (
    CODED,
    INDEXES,
    Search,
    binary_flat,
    loop_over_seen,
    matmul,
    without_seen,
)
from hashlgn.experiments.benchmarks.search.catalogues import Catalogue, Form
from hashlgn.experiments.common.measure import timed
from hashlgn.scoring.exclusion import Exclusion
from hashlgn.scoring.items import CodedItems, FloatItems
from hashlgn.search import SEARCHERS, Hits, InvertedFile, Kernel

T = TypeVar("T")
_SMALL = 20_000  # the paper's loop and the product with all items are run on catalogues up to this
_SHARES = (1 / 128, 1 / 32, 1 / 8)  # of our inverted file's lists, looked at
VECTORISED = ("faiss-flat", "flat", "numpy product")  # float searches that leave seen items out without a loop


@dataclass(frozen=True)
class Setting:
    """What to measure, and how."""

    searchers: Sequence[str]  # keys of ``SEARCHERS``
    baselines: Sequence[str]  # keys of ``INDEXES``
    bits: Sequence[int]  # lengths of code for the baselines that have codes
    ks: Sequence[int]  # numbers of items asked for
    batch: int  # queries per batch
    singles: int  # queries asked one per call
    repeats: int  # rounds
    threads: int
    say: Callable[[str], None]  # called with a line of progress


@dataclass
class Method:
    """Something that answers, and what is known of it; a call that it does not have is None."""

    name: str  # of the searcher or the index, with its operating point
    over: str  # what it searches, whose exact answer it is compared with
    floats: str | None  # the floats whose exact answer it is compared with too
    queries: npt.NDArray[Any]  # as it takes them, a row for each of the catalogue's users
    build: float  # seconds
    size: float  # bytes per item
    search: Callable[[Any, int], Any] | None = None  # (queries, k) → answers with nothing left out
    filtered: Callable[[Any, int, Exclusion], Any] | None = None  # … → answers without what is excluded
    above: Callable[[Any, float], Any] | None = None  # (queries, threshold) → answers
    times: dict[str, list[float]] = field(default_factory=dict)  # seconds of every run by task


def build_methods(catalogue: Catalogue, setting: Setting) -> list[Method]:
    """Build everything that is asked for and can be had; Faiss's flat search over the narrowest floats comes first."""
    methods: list[Method] = []
    for form in catalogue.forms:
        items = form.items
        methods += (
            _over_floats(form, items, setting) if isinstance(items, FloatItems) else _over_codes(form, items, setting)
        )
    return methods


def _built(name: str, over: str, setting: Setting, build: Callable[[], T]) -> tuple[T, float] | None:
    """What is built, and the seconds that it took; None where it cannot be had."""
    setting.say(f"building {name} over {over}")
    try:
        made, seconds = timed(build)
    except HashLGNError as error:
        setting.say(f"left out: {name} over {over} ({error})")
        return None
    setting.say(f"built {name} over {over} in {seconds:.1f} s")
    return made, seconds


def _over_floats(form: Form, items: FloatItems, setting: Setting) -> Iterator[Method]:
    vectors, over, dim = items.vectors, form.name, items.width
    method = partial(Method, over=over, floats=over, queries=form.queries)
    for name in dict.fromkeys(["faiss-flat", *setting.baselines]):
        for length in setting.bits if name in CODED else setting.bits[:1]:
            built = _built(name, over, setting, partial(INDEXES[name], vectors, length, setting.threads))
            if built is None:
                break
            index, build = built
            for point, search in index.search.items():
                label = ", ".join(filter(None, (name, f"{length} bits" if name in CODED else "", point)))
                filtered, size = partial(without_seen, search), index.bytes_per_item
                yield method(label, build=build, size=size, search=search, filtered=filtered, above=index.above)
                if name == "faiss-flat" and len(vectors) <= _SMALL:
                    yield method("numpy product", build=0.0, size=4 * dim, filtered=partial(matmul, vectors))
                    yield from _loops(method, search, size)
    if "flat" in setting.searchers:
        flat, build = timed(lambda: SEARCHERS["flat"](items, setting.threads))
        yield method("flat", build=build, size=4 * dim, filtered=flat.search)


def _loops(method: Callable[..., Method], search: Search, size: float) -> Iterator[Method]:
    """The paper's procedure, which is worth its time on small catalogues alone."""
    for name, together in (("the paper's loop, one call", True), ("the paper's loop, a call a user", False)):
        yield method(name, build=0.0, size=size, filtered=partial(loop_over_seen, search, together=together))


def _over_codes(form: Form, items: CodedItems, setting: Setting) -> Iterator[Method]:
    method = partial(Method, over=form.name, floats=form.floats)
    for name in setting.searchers:
        if name == "flat":
            continue
        built = _built(name, form.name, setting, partial(SEARCHERS[name], items, setting.threads))
        if built is None:
            continue
        searcher, build = built
        size = searcher.nbytes / len(items) if isinstance(searcher, Kernel) else items.bytes_per_item
        size = 4.0 * items.width if name == "decoded" else size
        ours = method(name, queries=form.queries, build=build, size=size, above=searcher.search_above)
        if not isinstance(searcher, InvertedFile) or searcher.lists <= 1:
            yield replace(ours, search=searcher.search, filtered=searcher.search)
            continue
        for probes in sorted({max(1, round(share * searcher.lists)) for share in _SHARES}):
            search = partial(_probed, searcher, probes)
            label = f"{name}, probes {probes}"
            yield replace(ours, name=label, search=search, filtered=search, above=None, times={})
    if form.binary:
        index, build = timed(lambda: binary_flat(items.packed))
        queries, hamming = np.packbits(form.queries > 0, axis=1, bitorder="little"), index.search[""]
        skipping = partial(without_seen, hamming)
        size = index.bytes_per_item
        yield method("faiss-binary", queries=queries, build=build, size=size, search=hamming, filtered=skipping)


def _probed(searcher: InvertedFile, probes: int, queries: Any, k: int, exclude: Exclusion | None = None) -> Hits:
    searcher.probes = probes
    return searcher.search(queries, k, exclude)
