"""Files made to deceive: the checksums fit, and what they guard is wrong."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from test_artifact import KINDS, model, same

from hashlgn.errors import ArtifactError, HashLGNError
from hashlgn.inference.artifact import FORMAT, load_artifact, save_artifact
from hashlgn.inference.recommender import Recommender
from hashlgn.utils.tensors import read_tensors, write_tensors


def forged(path: Path, change: Any) -> Path:
    """Change the manifest and the arrays, and write a file whose checksums are right, as a forger would."""
    held = read_tensors(path, FORMAT)
    manifest, parts = held.manifest, {part: (dict(a), said) for part, (a, said) in held.parts().items()}
    kept = {key: manifest[key] for key in ("kind", "config", "metrics", "provenance")}
    change(kept, parts)
    file = path / "model.safetensors" if path.is_dir() else path
    file.unlink()
    return write_tensors(file, FORMAT, kept, parts)


def rewritten(file: Path, change: Any) -> None:
    """Change the header itself and make its checksum right again."""
    content = file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"]["sha256"] = "0" * 64
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    text = text.replace(b"0" * 64, hashlib.sha256(text).hexdigest().encode(), 1)
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])


def answers(path: Path) -> None:
    """What loads answers by items of its catalogue, or with an error of the project."""
    try:
        loaded = load_artifact(path)
    except ArtifactError:
        return
    known = set(loaded.item_ids.values.tolist())
    for engine in ("auto", "exact"):
        for answer, ask in (
            ("item", lambda r: r.recommend(k=2)),
            ("item", lambda r: r.recommend(k=2, allow=[1])),
            ("item", lambda r: r.recommend(threshold=-1e9)),
            ("item", lambda r: r.recommend(history=[1, 2], k=2, filter_seen=False)),
            ("item", lambda r: r.recommend(threshold=0.1, calibrated=True)),
            ("similar", lambda r: r.similar_items([1], k=1)),
        ):
            with contextlib.suppress(HashLGNError):
                assert set(ask(Recommender(loaded, engine=engine, threads=1))[answer].tolist()) <= known
    for texts in (loaded.titles, loaded.genres):
        assert texts is None or len(list(texts)) == 2


def test_what_a_crafted_manifest_says_is_not_believed(tmp_path: Path) -> None:
    def manifest(header: dict[str, Any], **changes: Any) -> None:
        text = json.loads(header["__metadata__"]["manifest"]) | changes
        header["__metadata__"]["manifest"] = json.dumps(text)

    headers = {
        "newer": (lambda h: manifest(h, format_version=3), "format version 3 is unknown"),
        "version": (lambda h: manifest(h, format_version="1"), "format version '1' is unknown"),
        "foreign": (lambda h: h["__metadata__"].update(format="other"), "format must be"),
        "parts": (lambda h: manifest(h, parts=[]), "inconsistent"),
        "none": (lambda h: manifest(h, parts={}), "inconsistent"),
        "hole": (lambda h: h["seen.indices"].update(data_offsets=[0, 12]), "seen.indices|wrong|damaged"),
        "outside": (lambda h: h["seen.indices"].update(shape=[2**62]), "does not have its size"),
        "negative": (lambda h: h["seen.indices"].update(shape=[-1, -3]), "place of 'seen.indices' is wrong"),
        "fraction": (lambda h: h["seen.indices"].update(shape=[3.0]), "place of 'seen.indices' is wrong"),
        "true": (lambda h: h["users.queries"].update(shape=[True, 3, 3]), "place of 'users.queries' is wrong"),
        "kind": (lambda h: h["users.queries"].update(dtype="BF16"), "damaged"),
        "entry": (lambda h: h.update({"users.queries": 3}), "damaged"),
        "gone": (lambda h: h.pop("users.queries"), "wrong"),
        "deep": (lambda h: h["__metadata__"].update(manifest="[" * 100_000), "damaged"),
    }
    parts = {
        "form": (lambda kept, p: p["items"][1].update(form="floats"), "inconsistent"),
        "no form": (lambda kept, p: p["items"][1].update(form="other"), "inconsistent"),
        "list": (lambda kept, p: p["items"][1].update(form=[]), "inconsistent"),
        "decoder": (lambda kept, p: p["items"][1].update(decoder="other"), "decoder must be"),
        "segments": (lambda kept, p: p["items"][1].update(segments=2), "inconsistent"),
        "many": (lambda kept, p: p["items"][1].update(segments=10**12), "inconsistent"),
        "missing": (lambda kept, p: p.pop("ids.users"), "ids.users"),
        "fold": (lambda kept, p: p["histories"][1].update(layers=2), "inconsistent"),
        "kind": (lambda kept, p: kept.update(kind=3), "kind must be a name"),
    }
    for change, message in headers.values():
        file = save_artifact(model(), tmp_path / "m")
        rewritten(file, change)
        with pytest.raises(ArtifactError, match=message):
            load_artifact(file)
        file.unlink()
    for change, message in parts.values():
        file = forged(save_artifact(model(), tmp_path / "m"), change)
        with pytest.raises(ArtifactError, match=message):
            load_artifact(file)


def test_arrays_must_be_aligned(tmp_path: Path) -> None:
    """The public library packs arrays without gaps, and does not keep what the manifest says."""
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    file = save_artifact(model(), tmp_path / "m")
    with safe_open(file, "np") as opened:
        metadata = opened.metadata()
    save_file({name: a for name, a in load_file(file).items() if not name.startswith("pad.")}, file, metadata)
    rewritten(file, lambda header: None)
    with pytest.raises(ArtifactError, match="multiple of 64 bytes"):
        load_artifact(file)


def block(name: str, value: Any) -> Any:
    return lambda kept, parts: parts["items"][0].update({name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (block("order", np.full(128, 2, np.uint32)), "order must hold item numbers"),
        (block("order", np.full(128, 2**32 - 1, np.uint32)), "order must hold item numbers"),
        (block("order", np.zeros(127, np.uint32)), "order must be u4"),
        (block("counts", np.array([129], np.uint32)), "lists must lie inside"),
        (block("counts", np.array([2**32 - 1], np.uint32)), "lists must lie inside"),
        (block("counts", np.array([3], np.uint32)), "items must be 2"),
        (block("starts", np.array([1], np.uint32)), "lists must lie inside"),
        (block("starts", np.array([0, 0], np.uint32)), "counts must be u4"),
        (block("scale", np.full(128, -1, np.float16)), "scale must be positive"),
        (block("scale", np.full(128, np.nan, np.float16)), "scale must be positive"),
        (block("scale", np.ones(128, np.float32)), "items.scale must be an array of float16"),
        (block("largest", np.array([np.inf], np.float32)), "scale must be positive"),
        (block("codes", np.zeros((1, 4, 64), np.uint8)), "codes must be u1"),
        (block("codes", np.zeros((0, 2, 64), np.uint8)), "must"),
        (block("codewords", np.full((2, 16, 3), np.nan, np.float32)), "codewords must be finite"),
    ],
)
def test_blocks_that_point_outside_of_arrays_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    file = forged(save_artifact(model(), tmp_path / "m"), change)
    with pytest.raises(ArtifactError, match=message):
        load_artifact(file)


def test_an_order_that_repeats_an_item_is_found_where_it_is_needed(tmp_path: Path) -> None:
    file = forged(save_artifact(model(), tmp_path / "m"), block("order", np.zeros(128, np.uint32)))
    for engine in ("auto", "exact", "kernel"):
        with contextlib.suppress(HashLGNError):
            table = Recommender(load_artifact(file), engine=engine).recommend(k=2, filter_seen=False)
            assert set(table["item"].tolist()) <= {1, 2}
    with pytest.raises(HashLGNError, match="order must hold every item once"):
        _ = load_artifact(file).items.packed


json_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
json_values |= st.lists(json_values, max_size=3) | st.dictionaries(st.text(max_size=3), json_values, max_size=3)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(["codebook", "student"]))
def test_any_forged_value_is_refused_by_name_or_harmless(data: st.DataObject, kind: str, tmp_path: Path) -> None:
    """Somewhere in the header or in the manifest stands another value, and all checksums fit."""
    (tmp_path / "m" / "model.safetensors").unlink(missing_ok=True)
    file = save_artifact(model(kind), tmp_path / "m")

    def forge(table: Any) -> None:
        while True:
            key = data.draw(st.sampled_from(sorted(table) if isinstance(table, dict) else range(len(table))))
            if not isinstance(table[key], dict | list) or not table[key] or data.draw(st.booleans()):
                table[key] = data.draw(json_values)
                return
            table = table[key]

    def change(header: dict[str, Any]) -> None:
        if data.draw(st.booleans()):
            manifest = json.loads(header["__metadata__"]["manifest"])
            forge(manifest)
            header["__metadata__"]["manifest"] = json.dumps(manifest)
        else:
            forge(header)

    rewritten(file, change)
    answers(file)


@settings(deadline=None, max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_any_forged_array_is_refused_by_name_or_harmless(data: st.DataObject, kind: str, tmp_path: Path) -> None:
    """One array is of any other type, shape and content, and the manifest says so too."""
    folder = tmp_path / "m"
    save_artifact(model(kind), folder)

    def change(kept: dict[str, Any], parts: dict[str, Any]) -> None:
        held = parts[data.draw(st.sampled_from(sorted(parts)))][0]
        key = data.draw(st.sampled_from(sorted(held)))
        dtypes = st.sampled_from([held[key].dtype, *map(np.dtype, ("f4", "f2", "f8", "i8", "i4", "u1", "u8", "?"))])
        shapes = st.just(held[key].shape) | array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
        held[key] = data.draw(arrays(dtypes, shapes))

    forged(folder, change)
    answers(folder)
    try:
        loaded = load_artifact(folder, verify=True)
    except ArtifactError:
        return
    save_artifact(loaded, tmp_path / "again")  # what passes all checks is a model like any other
    with contextlib.suppress(HashLGNError):
        same(load_artifact(tmp_path / "again", verify=True), loaded)
