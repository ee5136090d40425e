"""Artifacts made to deceive: the checksums fit, and what they guard is wrong."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors.numpy import load, save
from test_artifact import model, same

from hashlgn.errors import ArtifactError
from hashlgn.inference.artifact import FORMAT_VERSION, load_artifact, save_artifact


def rewrite(folder: Path, change) -> None:
    """Change the manifest and make its checksum right again, as somebody would who means it."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    content = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(content)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  manifest.json\n")


def replace_file(folder: Path, name: str, content: bytes, **entry: object) -> None:
    (folder / name).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    rewrite(folder, lambda m: m["files"][name].update(bytes=len(content), sha256=digest, **entry))


def test_what_a_crafted_manifest_says_is_not_believed(tmp_path: Path) -> None:
    outside = tmp_path / "secret.safetensors"
    outside.write_bytes(b"secret")

    def escape(name: str):
        return lambda m: m["files"].update(
            {name: {"bytes": 6, "sha256": hashlib.sha256(b"secret").hexdigest(), "tensors": {}}}
        )

    crafted = {
        "newer": (lambda m: m.update(format_version=FORMAT_VERSION + 1), "newer"),
        "escape": (escape("../secret.safetensors"), "no part of the format"),
        "absolute": (escape(str(outside)), "no part of the format"),
        "foreign": (lambda m: m.update(format="other"), "format must be"),
        "version": (lambda m: m.update(format_version="1"), "format_version"),
        "counts": (lambda m: m["counts"].update(users=4), "counts"),
        "tensors": (lambda m: m["files"]["seen.safetensors"]["tensors"].pop("indptr"), "holds other tensors"),
        "form": (lambda m: m.update(items="float"), "inconsistent"),
        "missing": (lambda m: m["files"].pop("ids.safetensors"), "ids.safetensors"),
        "list": (lambda m: m.update(files=[]), "files"),
        "fold": (lambda m: m["fold_in"].update(layers=2), "inconsistent"),
    }
    for name, (change, message) in crafted.items():
        folder = tmp_path / name
        save_artifact(model(), folder)
        rewrite(folder, change)
        with pytest.raises(ArtifactError, match=message):
            load_artifact(folder)


json_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
json_values |= st.lists(json_values, max_size=3) | st.dictionaries(st.text(max_size=3), json_values, max_size=3)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_forged_value_is_refused_by_name_or_harmless(data: st.DataObject, tmp_path: Path) -> None:
    """Somewhere in the manifest or in the titles stands another value, and all checksums fit."""
    folder = tmp_path / "m"
    save_artifact(model(), folder)

    def forge(table) -> None:
        while True:
            key = data.draw(st.sampled_from(sorted(table) if isinstance(table, dict) else range(len(table))))
            if not isinstance(table[key], dict | list) or not table[key] or data.draw(st.booleans()):
                table[key] = data.draw(json_values)
                return
            table = table[key]

    if data.draw(st.booleans()):
        rewrite(folder, forge)
    else:
        texts = json.loads((folder / "titles.json").read_bytes())
        forge(texts)
        replace_file(folder, "titles.json", json.dumps(texts).encode())
    with contextlib.suppress(ArtifactError):
        load_artifact(folder)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(["codebook", "reweight", "float"]))
def test_any_forged_array_is_refused_by_name_or_harmless(data: st.DataObject, kind: str, tmp_path: Path) -> None:
    """One array is of any other type, shape and content, and the manifest says so too."""
    folder = tmp_path / "m"
    save_artifact(model(kind), folder)
    name = data.draw(st.sampled_from(sorted(path.name for path in folder.glob("*.safetensors"))))
    held = load((folder / name).read_bytes())
    key = data.draw(st.sampled_from(sorted(held)))
    dtypes = st.sampled_from([held[key].dtype, *map(np.dtype, ("f4", "f2", "f8", "i8", "i4", "u1", "u8", "?", "c8"))])
    shapes = st.just(held[key].shape) | array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    forged = data.draw(arrays(dtypes, shapes))
    tensors = held | {key: forged}
    described = {name: {"dtype": one.dtype.name, "shape": list(one.shape)} for name, one in tensors.items()}
    replace_file(folder, name, save(tensors), tensors=described)
    try:
        loaded = load_artifact(folder, encoder_state=True)
    except ArtifactError:
        return
    save_artifact(loaded, tmp_path / "again")  # what loads is a model like any other
    same(load_artifact(tmp_path / "again", encoder_state=True), loaded)


def test_what_no_array_can_be_is_refused(tmp_path: Path) -> None:
    for kind in ("BF16", "F4", "no type"):
        header = json.dumps({"queries": {"dtype": kind, "shape": [4], "data_offsets": [0, {"F4": 2}.get(kind, 8)]}})
        save_artifact(model(), tmp_path / "m")
        content = len(header).to_bytes(8, "little") + header.encode() + bytes({"F4": 2}.get(kind, 8))
        replace_file(tmp_path / "m", "users.safetensors", content)
        with pytest.raises(ArtifactError, match=r"users\.safetensors: cannot be read"):
            load_artifact(tmp_path / "m")


def test_a_link_is_no_file_of_an_artifact(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    save_artifact(model(), folder)
    real = tmp_path / "elsewhere"
    (folder / "users.safetensors").rename(real)
    (folder / "users.safetensors").symlink_to(real)
    with pytest.raises(ArtifactError, match="plain file"):
        load_artifact(folder)
