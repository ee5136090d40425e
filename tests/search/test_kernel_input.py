"""What the kernel refuses: arrays that do not fit together, damaged files; and what happens where it is missing."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hashlgn._kernel import compiled
from hashlgn.errors import ArgumentError, ArtifactError
from hashlgn.scoring.decoders import CodebookDecoder
from hashlgn.scoring.items import CodedItems
from hashlgn.search import Exact, FastScan, Kernel, build_searcher

raw = compiled()
pytestmark = pytest.mark.skipif(raw is None, reason="the search kernel was not compiled when HashLGN was installed")


def items(n: int = 300, bits: int = 32, *, scaled: bool = False) -> CodedItems:
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.5, 2, n).astype(np.float16) if scaled else None
    decoder = CodebookDecoder(rng.standard_normal((bits // 4, 16, 4)).astype(np.float32))
    return CodedItems(rng.integers(0, 256, (n, bits // 8), np.uint8), decoder, scale)


def part(**changes: Any) -> Any:
    """A part of 130 items of 16 bits, as the module takes it."""
    fields: dict[str, Any] = {
        "rows": np.zeros((2, 4, 64), np.uint8),
        "starts": np.zeros(1, np.uint32),
        "counts": np.full(1, 130, np.uint32),
        "first": 0,
    }
    return raw.Part(**fields | changes)


def places(value: int = 0, size: int = 256) -> np.ndarray:
    return np.full(size, value, np.uint32)


def search(**changes: Any) -> Any:
    fields: dict[str, Any] = {
        "parts": [part()],
        "tables": np.zeros((3, 4, 16), np.float32),
        "items": 130,
        "k": 5,
        "threshold": 0.0,
    }
    return raw.search(**fields | changes)


def test_arrays_that_fit_are_taken() -> None:
    bounds, found, scores, _ = search()
    assert bounds.tolist() == [0, 5, 10, 15]
    assert found.tolist() == [0, 1, 2, 3, 4] * 3
    assert not scores.any()


BOUNDS = {"largest": np.ones(2, np.float32), "smallest": np.ones(2, np.float32)}


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"rows": np.zeros((2, 4, 32), np.uint8)}, "rows must have shape"),
        ({"rows": np.zeros((2, 3, 64), np.uint8)}, "rows must have an even number of words"),
        ({"rows": np.zeros((2, 0, 64), np.uint8)}, "rows must have an even number of words"),
        ({"rows": np.zeros((1, 1026, 64), np.uint8)}, "rows must have an even number of words"),
        ({"rows": np.zeros((2, 4, 64), np.int8)}, "incompatible function arguments"),
        ({"rows": np.zeros((2, 8, 64), np.uint8)[:, ::2]}, "incompatible function arguments"),
        ({"rows": np.zeros((4, 64), np.uint8)}, "incompatible function arguments"),
        ({"rows": None}, "incompatible function arguments"),
        ({"counts": np.full(1, 257, np.uint32)}, "lists must lie inside the blocks"),
        ({"starts": np.full(1, 1, np.uint32)}, "lists must lie inside the blocks"),
        ({"starts": np.full(1, 2**32 - 1, np.uint32)}, "lists must lie inside the blocks"),
        ({"counts": np.full(1, 130, np.int64)}, "incompatible function arguments"),
        ({"starts": np.zeros(2, np.uint32)}, "starts and counts must be of one length"),
        ({"first": -1}, "incompatible function arguments"),
        ({"order": places(size=130)}, "order must have one number a place"),
        ({"places": places(size=129)}, "places must have one number an item"),
        ({"scale": np.ones(256, np.float32)}, "scale, largest and smallest must come together"),
        ({"scale": np.ones(130, np.float32), **BOUNDS}, "scale must have one number a place"),
        ({"scale": np.ones(256, np.int32), **BOUNDS}, "scale must be floats"),
        ({"scale": np.ones(256, np.complex64), **BOUNDS}, "scale must be floats"),
        ({"scale": np.ones(512, np.float32)[::2], **BOUNDS}, "incompatible function arguments"),
        ({"scale": np.ones(256, np.float32), **BOUNDS, "largest": np.ones(1, np.float32)}, "must be one a block"),
    ],
)
def test_parts_that_do_not_fit_together(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises((ValueError, TypeError), match=rule):
        part(**changes)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"tables": np.zeros((3, 4, 15), np.float32)}, "tables must have shape"),
        ({"tables": np.zeros((3, 6, 16), np.float32)}, "tables must have the words of the codes"),
        ({"tables": np.zeros((3, 4, 16))}, "incompatible function arguments"),
        ({"tables": np.zeros((3, 4, 32), np.float32)[:, :, ::2]}, "incompatible function arguments"),
        ({"tables": np.full((3, 4, 16), np.nan, np.float32)}, "tables must be finite"),
        ({"tables": np.full((3, 4, 16), -np.inf, np.float32)}, "tables must be finite"),
        ({"k": -1}, "incompatible function arguments"),
        ({"k": 131}, "k must be at most the number of items"),
        ({"items": -1}, "incompatible function arguments"),
        ({"items": 2**32}, "items must be less than"),
        ({"threshold": np.nan}, "threshold must be a number"),
        ({"threads": 0}, "threads must be positive"),
        ({"isa": "sse9"}, "isa must be one that this machine has"),
        ({"indptr": np.zeros(4, np.int64)}, "indptr and seen must come together"),
        ({"indptr": np.zeros(3, np.int64), "seen": np.zeros(0, np.int64)}, "one row a query"),
        ({"indptr": np.array([0, 2, 1, 2]), "seen": np.zeros(2, np.int64)}, "indptr must ascend"),
        ({"indptr": np.array([-1, 0, 0, 0]), "seen": np.zeros(2, np.int64)}, "indptr must ascend"),
        ({"indptr": np.array([0, 1, 2, 3]), "seen": np.zeros(2, np.int64)}, "indptr must stay inside seen"),
        ({"banned": np.zeros(129, np.bool_)}, "banned must have one value an item"),
        ({"banned": np.zeros(130, np.uint8)}, "incompatible function arguments"),
        ({"probes": np.zeros((2, 1), np.int32)}, "probes must have one row a query"),
        ({"chosen": []}, "chosen must have one array a part"),
        ({"chosen": [places(256, 1)]}, "chosen must hold places of the part"),
        ({"chosen": [places(3, 2)]}, "chosen must ascend"),
        ({"parts": [None]}, "parts"),
    ],
)
def test_requests_that_do_not_fit(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises((ValueError, TypeError), match=rule):
        search(**changes)


@pytest.mark.parametrize("isa", Kernel.instruction_sets())
def test_numbers_out_of_range_inside_arrays_are_found_or_harmless(isa: str) -> None:
    for scale in ({}, {"scale": np.ones(256, np.float16), **BOUNDS}):
        with pytest.raises(ValueError, match="order must hold item numbers of the catalogue"):
            search(parts=[part(order=places(130), **scale)], isa=isa)
        with pytest.raises(ValueError, match="order must hold item numbers of the catalogue"):
            search(parts=[part(order=places(2**32 - 1), **scale)], isa=isa, banned=np.zeros(130, np.bool_))
    strange = np.array([-(2**63), -1, 130, 2**32 - 1, 2**63 - 1, 7], np.int64)
    for held in (part(), part(order=np.arange(256, dtype=np.uint32), places=places(2**32 - 1, 130))):
        _, found, _, _ = search(parts=[held], indptr=np.array([0, 6, 6, 6]), seen=strange, isa=isa)
        assert (found < 130).all()
    _, found, _, _ = search(probes=np.array([[-1], [0], [2**31 - 1]], np.int32), isa=isa)
    assert found.tolist() == [0, 1, 2, 3, 4]


def test_packing_that_does_not_fit() -> None:
    codes, rows = np.zeros((130, 2), np.uint8), np.zeros((2, 4, 64), np.uint8)
    for wrong in (np.zeros((1, 4, 64), np.uint8), np.zeros((2, 6, 64), np.uint8), np.zeros((2, 4, 32), np.uint8)):
        with pytest.raises(ValueError, match="rows must fit the codes"):
            raw.pack(codes, None, wrong)
    with pytest.raises(ValueError, match="order must hold rows of codes"):
        raw.pack(codes, places(130, 4), rows)
    with pytest.raises(TypeError, match="incompatible function arguments"):
        raw.pack(codes.T, None, rows)
    read_only = rows.copy()
    read_only.flags.writeable = False
    with pytest.raises(TypeError, match="incompatible function arguments"):
        raw.pack(codes, None, read_only)
    with pytest.raises(ValueError, match="codes must lie inside the blocks"):
        raw.unpack(rows, 200, np.zeros((100, 2), np.uint8))
    with pytest.raises(ValueError, match="rows must fit the codes"):
        raw.unpack(rows, 0, np.zeros((100, 3), np.uint8))


def test_wrong_use_of_the_kernel() -> None:
    kernel = Kernel(items(), 1)
    for call, rule in (
        (lambda: Kernel(items(), 1, isa="sse9"), "isa must be one of auto"),
        (lambda: Kernel(items(), 0), "threads must be a positive integer"),
        (lambda: kernel.search(np.zeros((1, 5)), 3), "queries must"),
        (lambda: kernel.search(np.full((1, 4), np.nan), 3), "queries must be finite"),
        (lambda: kernel.search(np.zeros((1, 4)), 0), "k must be a positive integer"),
        (lambda: kernel.append(items(bits=40).packed), "packed must"),
        (lambda: kernel.append(items().packed, np.ones(300, np.float16)), "scale must be None"),
        (lambda: Kernel(items(scaled=True)).append(items().packed), "scale must be given"),
        (lambda: kernel.remove([300]), "deny"),
        (lambda: kernel.remove([-1]), "deny"),
        (lambda: kernel.remove([0.5]), "deny"),
    ):
        with pytest.raises(ArgumentError, match=rule):
            call()
    assert len(kernel.search(np.zeros((1, 4)), 300).items) == 300


@pytest.fixture
def index(tmp_path: Path) -> Path:
    kernel = Kernel(items(scaled=True), 1)
    kernel.remove([3])
    return kernel.save(tmp_path / "index")


def test_every_file_of_an_index_is_guarded(index: Path) -> None:
    files = sorted(index.iterdir())
    assert len(files) >= 9
    for file in files:
        whole = file.read_bytes()
        altered = bytearray(whole)
        altered[len(whole) // 4] ^= 1
        for content in (bytes(altered), whole[: len(whole) // 4], b""):
            file.write_bytes(content)
            with pytest.raises(ArtifactError):
                Kernel.open(index, 1)
            if len(content) < len(whole):
                with pytest.raises(ArtifactError):  # sizes are compared whether or not checksums are
                    Kernel.open(index, 1, verify=False)
        file.unlink()
        with pytest.raises(ArtifactError):
            Kernel.open(index, 1, verify=False)
        file.write_bytes(whole)
    Kernel.open(index, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "something"},
        {"format_version": 2},
        {"items": 299},
        {"items": "many"},
        {"first": []},
        {"first": [0, 300]},
        {"first": [-1]},
        {"files": {}},
        {"files": []},
    ],
)
def test_a_manifest_that_does_not_describe_the_index(index: Path, change: dict[str, Any]) -> None:
    import hashlib

    text = json.dumps(json.loads((index / "index.json").read_text()) | change).encode()
    (index / "index.json").write_bytes(text)
    (index / "index.sha256").write_text(f"{hashlib.sha256(text).hexdigest()}  index.json\n")
    with pytest.raises(ArtifactError, match="index"):
        Kernel.open(index, 1)


def test_a_folder_of_something_else_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("dear reader")
    with pytest.raises(ArgumentError, match="folder must be new, empty or an index"):
        Kernel(items(), 1).save(tmp_path / "letters")
    assert (tmp_path / "letters" / "a.txt").read_text() == "dear reader"
    with pytest.raises(ArtifactError):
        Kernel.open(tmp_path / "letters")
    with pytest.raises(ArtifactError):
        Kernel.open(tmp_path / "nothing")


# A process that cannot import the compiled module.
WITHOUT = """
import sys, warnings
sys.modules["hashlgn._kernel.kernel"] = None
import numpy as np
from hashlgn.search import build_searcher, Kernel
from hashlgn.scoring.decoders import CodebookDecoder
from hashlgn.scoring.items import CodedItems
rng = np.random.default_rng(0)
assert Kernel.instruction_sets() == []
for bits, name in ((64, "FastScan"), (4096, "Exact")):
    items = CodedItems(rng.integers(0, 256, (600, bits // 8), np.uint8),
                       CodebookDecoder(rng.standard_normal((bits // 4, 16, 4)).astype(np.float32)))
    queries = rng.standard_normal((3, 4)).astype(np.float32)
    found, wanted = build_searcher(items).search(queries, 9), build_searcher(items, "exact").search(queries, 9)
    assert type(build_searcher(items)).__name__ == name
    assert np.array_equal(found.items, wanted.items) and np.array_equal(found.scores, wanted.scores)
try:
    build_searcher(items, "kernel")
except ValueError as error:
    print(error)
"""


def test_without_the_compiled_module_everything_works_and_says_so_once() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert done.stderr.count("was not compiled") == 1
    assert "needs the compiled module" in done.stdout


def test_codes_longer_than_the_kernel_takes() -> None:
    long = items(5, 4104)
    with pytest.raises(ArgumentError, match=r"at most 4096 bits .got 4104"):
        Kernel(long)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(build_searcher(long), Exact)
        assert isinstance(build_searcher(items()), Kernel)
    assert not isinstance(build_searcher(items()), FastScan)
