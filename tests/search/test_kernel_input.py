"""What the kernel refuses: arrays that do not fit together, damaged files; and what happens where it is missing."""

from __future__ import annotations

import pickle
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
from hashlgn.search import Exact, FastScan, Kernel, blocks, build_searcher
from hashlgn.search.blocks import Blocks
from hashlgn.search.kernel import INDEX
from hashlgn.utils.tensors import read_tensors, write_tensors

raw = compiled()
pytestmark = pytest.mark.skipif(raw is None, reason="the search kernel was not compiled when HashLGN was installed")


def items(n: int = 300, bits: int = 32, *, scaled: bool = False) -> CodedItems:
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.5, 2, n).astype(np.float16) if scaled else None
    decoder = CodebookDecoder(rng.standard_normal((bits // 4, 16, 4)).astype(np.float32))
    return CodedItems(rng.integers(0, 256, (n, bits // 8), np.uint8), decoder, scale)


def segment(**changes: Any) -> Any:
    """A segment of 130 items of 16 bits, as the module takes it."""
    fields: dict[str, Any] = {
        "rows": np.zeros((2, 4, 64), np.uint8),
        "starts": np.zeros(1, np.uint32),
        "counts": np.full(1, 130, np.uint32),
        "first": 0,
    }
    return raw.Segment(**fields | changes)


def slots(value: int = 0, size: int = 256) -> np.ndarray:
    return np.full(size, value, np.uint32)


def search(**changes: Any) -> Any:
    fields: dict[str, Any] = {
        "segments": [segment()],
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
        ({"rows": np.zeros((2, 3, 64), np.uint8)}, "rows must have an even number of sub-codes"),
        ({"rows": np.zeros((2, 0, 64), np.uint8)}, "rows must have an even number of sub-codes"),
        ({"rows": np.zeros((1, 1026, 64), np.uint8)}, "rows must have an even number of sub-codes"),
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
        ({"order": slots(size=130)}, "order must have one number per slot"),
        ({"scale": np.ones(256, np.float32)}, "scale, largest and smallest must come together"),
        ({"scale": np.ones(130, np.float32), **BOUNDS}, "scale must have one number per slot"),
        ({"scale": np.ones(256, np.int32), **BOUNDS}, "scale must be float16 or float32"),
        ({"scale": np.ones(256, np.complex64), **BOUNDS}, "scale must be float16 or float32"),
        ({"scale": np.ones(256), **BOUNDS}, "scale must be float16 or float32"),
        ({"scale": np.ones(512, np.float32)[::2], **BOUNDS}, "incompatible function arguments"),
        (
            {"scale": np.ones(256, np.float32), **BOUNDS, "largest": np.ones(1, np.float32)},
            "must have one number per block",
        ),
    ],
)
def test_segments_that_do_not_fit_together(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises((ValueError, TypeError), match=rule):
        segment(**changes)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"tables": np.zeros((3, 4, 15), np.float32)}, "tables must have shape"),
        ({"tables": np.zeros((3, 6, 16), np.float32)}, "tables must have the sub-codes of the codes"),
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
        ({"indptr": np.zeros(3, np.int64), "seen": np.zeros(0, np.int64)}, "one row per query"),
        ({"indptr": np.array([0, 2, 1, 2]), "seen": np.zeros(2, np.int64)}, "indptr must ascend"),
        ({"indptr": np.array([-1, 0, 0, 0]), "seen": np.zeros(2, np.int64)}, "indptr must ascend"),
        ({"indptr": np.array([0, 1, 2, 3]), "seen": np.zeros(2, np.int64)}, "indptr must stay inside what it divides"),
        ({"banned": np.zeros(129, np.bool_)}, "banned must have one value per item"),
        ({"banned": np.zeros(130, np.uint8)}, "incompatible function arguments"),
        ({"probes": np.zeros((2, 1), np.int32)}, "probes must have one row per query"),
        ({"chosen": []}, "chosen must have one array per segment"),
        ({"chosen": [slots(256, 1)]}, "chosen must hold slots of the segment"),
        ({"chosen": [slots(3, 2)]}, "chosen must ascend"),
        ({"segments": [None]}, "segments"),
    ],
)
def test_requests_that_do_not_fit(changes: dict[str, Any], rule: str) -> None:
    with pytest.raises((ValueError, TypeError), match=rule):
        search(**changes)


@pytest.mark.parametrize("isa", Kernel.instruction_sets())
def test_numbers_out_of_range_inside_arrays_are_found_or_harmless(isa: str) -> None:
    for scale in ({}, {"scale": np.ones(256, np.float16), **BOUNDS}):
        with pytest.raises(ValueError, match="order must hold item numbers of the catalogue"):
            search(segments=[segment(order=slots(130), **scale)], isa=isa)
        with pytest.raises(ValueError, match="order must hold item numbers of the catalogue"):
            search(segments=[segment(order=slots(2**32 - 1), **scale)], isa=isa, banned=np.zeros(130, np.bool_))
    strange = np.array([-(2**63), -1, 130, 2**32 - 1, 2**63 - 1, 7], np.int64)
    for held in (segment(), segment(order=np.arange(256, dtype=np.uint32))):
        _, found, _, _ = search(segments=[held], indptr=np.array([0, 6, 6, 6]), seen=strange, isa=isa)
        assert (found < 130).all()
    _, found, _, _ = search(probes=np.array([[-1], [0], [2**31 - 1]], np.int32), isa=isa)
    assert found.tolist() == [0, 1, 2, 3, 4]


def test_packing_that_does_not_fit() -> None:
    codes, rows = np.zeros((130, 2), np.uint8), np.zeros((2, 4, 64), np.uint8)
    for wrong in (np.zeros((1, 4, 64), np.uint8), np.zeros((2, 6, 64), np.uint8), np.zeros((2, 4, 32), np.uint8)):
        with pytest.raises(ValueError, match="rows must fit the codes"):
            raw.pack(codes, None, wrong)
    with pytest.raises(ValueError, match="order must hold rows of codes"):
        raw.pack(codes, slots(130, 4), rows)
    with pytest.raises(TypeError, match="incompatible function arguments"):
        raw.pack(codes.T, None, rows)
    read_only = rows.copy()
    read_only.flags.writeable = False
    with pytest.raises(TypeError, match="incompatible function arguments"):
        raw.pack(codes, None, read_only)
    with pytest.raises(ValueError, match="slots must lie inside the blocks"):
        raw.unpack(rows, np.array([255, 256], np.uint32), np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="codes must have one row per slot"):
        raw.unpack(rows, np.zeros(2, np.uint32), np.zeros((3, 2), np.uint8))
    with pytest.raises(ValueError, match="rows must fit the codes"):
        raw.unpack(rows, np.zeros(100, np.uint32), np.zeros((100, 3), np.uint8))


def test_arranging_what_does_not_fit() -> None:
    codes, scale, rows = np.zeros((3, 2), np.uint8), np.ones(3, np.float16), np.zeros((1, 4, 64), np.uint8)
    order, slots_, held = np.empty(128, np.uint32), np.empty(3, np.uint32), np.empty(128, np.float16)
    raw.arrange(codes, scale, rows, order, slots_, held)
    for wrong, rule in (
        ((codes[:0], scale[:0], rows, order, slots_[:0], held), "scale and slots must have one number per code"),
        ((codes, scale[:2], rows, order, slots_, held), "scale and slots must have one number per code"),
        ((codes, scale, rows[:0], order, slots_, held), "rows must fit the codes"),
        ((codes, scale, rows, order[:3], slots_, held), "order and held must have one number per slot"),
        ((codes, scale, rows, order, slots_, held.astype(np.float32)), "scale and held must be float16 or float32"),
        ((codes, scale.astype(np.int32), rows, order, slots_, held.astype(np.int32)), "must be float16 or float32"),
    ):
        with pytest.raises(ValueError, match=rule):
            raw.arrange(*wrong)


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


def index(folder: Path) -> Path:
    kernel = Kernel(items(scaled=True), 1)
    kernel.remove([3])
    return kernel.save(folder)


def test_every_byte_of_an_index_is_guarded(tmp_path: Path) -> None:
    file = index(tmp_path)
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in (0, 7, 8, header // 2, header, (header + len(whole)) // 2, len(whole) - 1):
        altered = bytearray(whole)
        altered[place] ^= 1
        file.write_bytes(bytes(altered))
        with pytest.raises(ArtifactError):
            Kernel.open(file, 1, verify=place >= header)  # the header is compared whether or not the rest is
    for content in (whole[: len(whole) // 4], whole[:-1], whole + b"0", b""):
        file.write_bytes(content)
        with pytest.raises(ArtifactError):
            Kernel.open(tmp_path, 1)
    file.write_bytes(whole)
    assert len(Kernel.open(tmp_path, 1, verify=True)) == 300


def forged(file: Path, part: str, name: str, value: Any) -> None:
    """Another array in an index, whose checksums fit."""
    parts = {part: (dict(arrays), said) for part, (arrays, said) in read_tensors(file, INDEX).parts().items()}
    parts[part][0][name] = value
    file.unlink()
    write_tensors(file, INDEX, {}, parts)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("items", "order", np.full(384, 300, np.uint32)),
        ("items", "order", np.full(384, 2**32 - 1, np.uint32)),
        ("items", "order", np.zeros(300, np.uint32)),
        ("items", "starts", np.array([1], np.uint32)),
        ("items", "starts", np.array([2**32 - 1], np.uint32)),
        ("items", "counts", np.array([385], np.uint32)),
        ("items", "counts", np.array([300], np.int64)),
        ("items", "codes", np.zeros((3, 6, 64), np.uint8)),
        ("items", "codes", np.zeros((3, 8, 64), np.int8)),
        ("items", "codewords", np.zeros((7, 16, 4), np.float32)),
        ("items", "codewords", np.full((8, 16, 4), np.inf, np.float32)),
        ("items", "codewords", np.full((8, 16, 4), 1e38, np.float32)),
        ("items", "scale", np.zeros(384, np.float16)),
        ("items", "scale", np.full(384, np.inf, np.float16)),
        ("items", "scale", np.ones(384, np.int16)),
        ("items", "smallest", np.full(3, np.nan, np.float32)),
        ("removed", "items", np.array([300])),
        ("removed", "items", np.array([-1])),
        ("removed", "items", np.array([0.5])),
    ],
)
def test_arrays_that_point_outside_are_refused(tmp_path: Path, part: str, name: str, value: Any) -> None:
    file = index(tmp_path)
    forged(file, part, name, value)
    with pytest.raises(ArtifactError, match="inconsistent"):
        Kernel.open(file, 1)


def test_a_file_of_something_else_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text("{}")  # whatever lies beside it is left alone
    (tmp_path / "letters.safetensors").write_text("dear reader")
    kernel = Kernel(items(), 1)
    with pytest.raises(ArgumentError, match="path must be free or hold a hashlgn-index"):
        kernel.save(tmp_path / "letters.safetensors")
    assert (tmp_path / "letters.safetensors").read_text() == "dear reader"
    with pytest.raises(ArtifactError):
        Kernel.open(tmp_path / "letters.safetensors")
    for place in (tmp_path / "nothing", tmp_path):
        with pytest.raises(ArtifactError):
            Kernel.open(place)
    with pytest.raises(ArtifactError, match="train again"):
        Kernel.open(tmp_path)
    kernel.save(tmp_path)
    assert (tmp_path / "index.json").read_text() == "{}"
    write_tensors(tmp_path / "m", "hashlgn-model", {}, {})
    with pytest.raises(ArgumentError, match="hold a hashlgn-index"):
        kernel.save(tmp_path / "m")


@pytest.mark.parametrize(
    ("scale", "taken"),
    [
        (np.array([1, 2, 3]), True),
        ([1, 2, 3], True),
        (np.array([1, 2, 3], ">f4"), True),
        (np.array([1, 9, 2, 9, 3, 9], np.float16)[::2], True),
        (np.array([1, 2, np.nan]), False),
        (np.array([1, 2, 0]), False),
        (np.array([1, 2, -3]), False),
        (np.array([1, 2]), False),
        (np.array([[1, 2, 3]]), False),
        (np.array([1, 2, 1e40]), False),
        (np.array([True, True, True]), False),
        (np.array([1, 2, 3], complex), False),
        (np.array(["1", "2", "3"]), False),
        (np.array([1, 2, 3], object), False),
        (None, False),
    ],
)
def test_an_append_is_taken_whole_or_refused_without_a_trace(scale: Any, taken: bool) -> None:
    held, more = items(scaled=True), items(3)
    query = np.random.default_rng(1).standard_normal((1, 4)).astype(np.float32)
    kernel = Kernel(held, 1)
    if not taken:
        with pytest.raises(ArgumentError):
            kernel.append(more.packed, scale)
        assert len(kernel) == 300
        np.testing.assert_array_equal(kernel.search(query, 400).items, Exact(held).search(query, 400).items)
        return
    assert kernel.append(more.packed, scale).tolist() == [300, 301, 302]
    whole = CodedItems(
        np.concatenate((held.packed, more.packed)), held.decoder, np.concatenate((held.scale, [1.0, 2.0, 3.0]))
    )
    found, wanted = kernel.search(query, 400), Exact(whole).search(query, 400)
    np.testing.assert_array_equal(found.items, wanted.items)
    np.testing.assert_array_equal(found.scores, wanted.scores)


def test_an_appended_array_may_be_written_over() -> None:
    held, first, second = items(2000, scaled=True), items(3, scaled=True), items(5, scaled=True)
    kernel, codes, scale = Kernel(held, 1), first.packed.copy(), np.array(first.scale)
    kernel.append(codes, scale)
    codes[:], scale[:] = 0, 9  # before they are arranged anew, with those that come next
    kernel.append(second.packed, second.scale)
    parts = [held, first, second]
    packed, scales = (np.concatenate([getattr(part, name) for part in parts]) for name in ("packed", "scale"))
    query = np.random.default_rng(1).standard_normal((1, 4)).astype(np.float32)
    found, wanted = kernel.search(query, 50), Exact(CodedItems(packed, held.decoder, scales)).search(query, 50)
    np.testing.assert_array_equal(found.items, wanted.items)
    np.testing.assert_array_equal(found.scores, wanted.scores)


def test_codes_of_another_type_are_not_appended() -> None:
    kernel = Kernel(items(), 1)
    for packed in (items(3).packed.astype(np.int64), items(3).packed.astype(np.int8), [[1.0, 2.0, 3.0, 4.0]]):
        with pytest.raises(ArgumentError, match="packed must be uint8"):
            kernel.append(packed)
    assert len(kernel.search(np.zeros((1, 4)), 400).items) == 300


def test_blocks_without_the_compiled_module_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for n in (0, 1, 64, 127, 129, 300):
        for scaled in (True, False):
            held = items(n, 72, scaled=scaled)
            with monkeypatch.context() as patch:
                patch.setattr(blocks, "_COMPILED", False)
                plain = Blocks.build(held.packed, held.scale)
                codes, scale = plain.live()[1:]
            fast = Blocks.build(held.packed, held.scale)
            for name, array in fast.arrays().items():
                np.testing.assert_array_equal(array, plain.arrays()[name], strict=True)
            moved = fast.without(fast.slots[::3].astype(np.int64))
            read_back = pickle.loads(pickle.dumps(moved))  # without what is kept beside the arrays
            asked = np.arange(-1, n + 1)
            for one in (moved, read_back):
                with monkeypatch.context() as patch:
                    slots_ = one.find(asked)
                    assert (slots_[1:-1][::3] == -1).all() and slots_[0] == slots_[-1] == -1
                    patch.setattr(blocks, "_COMPILED", False)
                    np.testing.assert_array_equal(one.find(asked), slots_)
                    left = [array for array in one.live() if array is not None]
                    patch.undo()
                    for array, wanted in zip(one.live(), left, strict=False):
                        np.testing.assert_array_equal(array, wanted, strict=True)
                np.testing.assert_array_equal(left[1], held.packed[np.arange(n) % 3 > 0])
            np.testing.assert_array_equal(codes, held.packed)
            np.testing.assert_array_equal(fast.live()[1], held.packed)
            if scaled:
                np.testing.assert_array_equal(scale, held.scale)


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
