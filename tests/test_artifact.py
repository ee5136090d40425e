"""Models on disk: what is saved is loaded, and nothing else ever is."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hashlgn import storage
from hashlgn.artifact import FORMAT_VERSION, check_target, load_artifact, save_artifact
from hashlgn.data import Ids
from hashlgn.errors import ArgumentError, ArtifactError
from hashlgn.scoring import CodebookDecoder, CodedItems, FloatItems, FoldIn, ReweightDecoder
from hashlgn.served import ServedModel

GOLDEN = Path(__file__).parent / "artifacts" / "v1"


def model(kind: str = "codebook", seed: int = 0) -> ServedModel:
    """Three users, two items, everything that a model may carry."""
    rng = np.random.default_rng(seed)

    def floats(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    width = {"codebook": 3, "reweight": 8, "float": 3}[kind]
    packed = rng.integers(0, 256, (2, 1), np.uint8)
    items = {
        "codebook": lambda: CodedItems(packed, CodebookDecoder(floats(2, 16, 3)), np.array([0.5, 2], np.float16)),
        "reweight": lambda: CodedItems(packed, ReweightDecoder(*np.abs(floats(2, 8)))),
        "float": lambda: FloatItems(floats(2, 3)),
    }[kind]()
    return ServedModel(
        kind="lightgcn" if kind == "float" else "hashlgn",
        config={"model": {"bits": 8}, "train": {"lr": 0.01}},
        user_ids=Ids([7], ["ann", "Bäcker"]),
        item_ids=Ids([1, 2]),
        users=floats(3, width),
        items=items,
        seen=(np.array([0, 2, 2, 3]), np.array([0, 1, 0], np.int32)),
        fold_in=FoldIn(floats(2, 4), ((floats(width, 4), floats(width)),)),
        titles=["One", "Zwölf"],
        genres=[("a", "b"), ()],
        metrics={"validation": {"joint": 0.5}},
        provenance={"seed": 3},
        encoder_state={"users": floats(3, 4), "items": floats(2, 4)} if kind == "float" else None,
    )


def same(a: ServedModel, b: ServedModel) -> None:
    assert (a.kind, a.config, a.metrics, a.provenance, a.titles, a.genres) == (
        b.kind,
        b.config,
        b.metrics,
        b.provenance,
        b.titles,
        b.genres,
    )
    assert a.user_ids == b.user_ids and a.item_ids == b.item_ids
    pairs = [(a.users, b.users), *zip(a.seen, b.seen, strict=True)]
    if isinstance(a.items, CodedItems):
        pairs += [(a.items.packed, b.items.packed), (a.items.decode(), b.items.decode())]
        assert (a.items.scale is None) == (b.items.scale is None)
    else:
        pairs.append((a.items.vectors, b.items.vectors))
    assert (a.fold_in is None) == (b.fold_in is None)
    if a.fold_in is not None:
        history = (np.array([0, 2]), np.array([0, 1]))
        pairs.append((a.fold_in.queries(*history), b.fold_in.queries(*history)))
    for x, y in pairs:
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("kind", ["codebook", "reweight", "float"])
def test_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    saved = model(kind)
    save_artifact(saved, tmp_path / "m")
    same(load_artifact(tmp_path / "m"), saved)
    bare = replace(saved, fold_in=None, titles=None, genres=None, metrics={}, encoder_state=None)
    save_artifact(bare, tmp_path / "m")
    same(load_artifact(tmp_path / "m"), bare)


def test_the_encoders_parameters_come_when_asked_for(tmp_path: Path) -> None:
    saved = model("float")
    save_artifact(saved, tmp_path / "m")
    assert load_artifact(tmp_path / "m").encoder_state is None
    state = load_artifact(tmp_path / "m", encoder_state=True).encoder_state
    assert state is not None and state.keys() == saved.encoder_state.keys()
    np.testing.assert_array_equal(state["users"], saved.encoder_state["users"])


def test_the_first_format_still_loads() -> None:
    """Written by the first version and never again: a change that breaks it needs a new format version."""
    same(load_artifact(GOLDEN), model())
    assert json.loads((GOLDEN / "manifest.json").read_text())["format_version"] == 1


def test_loading_needs_no_torch() -> None:
    code = f"import sys, hashlgn.artifact as a; a.load_artifact({str(GOLDEN)!r}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_refused(data: st.DataObject, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    save_artifact(model(), folder)
    name = data.draw(st.sampled_from(sorted(path.name for path in folder.iterdir())))
    content = bytearray((folder / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    (folder / name).write_bytes(content)
    with pytest.raises(ArtifactError, match="manifest" if name.startswith("manifest") else name):
        load_artifact(folder)


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.iterdir()))
def test_a_short_a_long_and_a_missing_file_are_refused(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    save_artifact(model(), folder)
    content = (folder / name).read_bytes()
    for changed in (content[:-1], content[: len(content) // 2], b"", content + b"\0"):
        (folder / name).write_bytes(changed)
        with pytest.raises(ArtifactError, match="manifest" if name.startswith("manifest") else name):
            load_artifact(folder)
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        load_artifact(folder)


def rewrite(folder: Path, change) -> None:
    """Change the manifest and make its checksum right again, as somebody would who means it."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    content = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(content)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  manifest.json\n")


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


def test_a_link_is_no_file_of_an_artifact(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    save_artifact(model(), folder)
    real = tmp_path / "elsewhere"
    (folder / "users.safetensors").rename(real)
    (folder / "users.safetensors").symlink_to(real)
    with pytest.raises(ArtifactError, match="plain file"):
        load_artifact(folder)


def test_no_folder_an_empty_folder_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for place in ("nothing", "empty", "file"):
        with pytest.raises(ArtifactError, match=place):
            load_artifact(tmp_path / place)


def test_only_an_artifact_is_replaced(tmp_path: Path) -> None:
    for content in ("notes.txt", "manifest.json"):
        folder = tmp_path / content.partition(".")[0]
        folder.mkdir()
        (folder / content).write_text("mine")
        for attempt in (lambda f=folder: save_artifact(model(), f), lambda f=folder: check_target(f)):
            with pytest.raises(ArgumentError, match="folder must be empty or hold an artifact"):
                attempt()
        assert (folder / content).read_text() == "mine"
    save_artifact(model(), tmp_path / "m")
    with pytest.raises(ArgumentError, match="overwrite is False"):
        save_artifact(model(), tmp_path / "m", overwrite=False)


STEPS = ("write_file", "sync_folder", "_put_in_place", "_exchange", "_tidy")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", range(12))
@pytest.mark.parametrize("first", [True, False])
def test_a_kill_at_any_step_leaves_the_old_or_the_new(step: str, when: int, first: bool, tmp_path: Path) -> None:
    """In a process of its own, which exits on the spot before its n-th call of a step of storage."""
    old, new = model(seed=1), model(seed=2)
    folder = tmp_path / "m"
    if not first:
        save_artifact(old, folder)
    pid = os.fork()
    if pid == 0:
        real, calls = getattr(storage, step), 0

        def deadly(*arguments: object) -> object:
            nonlocal calls
            calls += 1
            if calls > when:
                os._exit(9)
            return real(*arguments)

        setattr(storage, step, deadly)
        if step in ("write_file",):
            import hashlgn.artifact

            hashlgn.artifact.write_file = deadly
        save_artifact(new, folder)
        os._exit(0)
    os.waitpid(pid, 0)
    try:
        held = load_artifact(folder)
    except ArtifactError:
        assert first and not folder.exists()
    else:
        wanted = [new] if first else [old, new]
        assert any(np.array_equal(held.users, one.users) for one in wanted)
        same(held, next(one for one in wanted if np.array_equal(held.users, one.users)))
    save_artifact(new, folder)  # and nothing that was left behind stands in the way
    same(load_artifact(folder), new)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("where", ["fsync", "mkdir"])
def test_a_full_or_read_only_disk_leaves_the_old(code: int, where: str, tmp_path: Path, monkeypatch) -> None:
    old = model(seed=1)
    save_artifact(old, tmp_path / "m")

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse) if where == "fsync" else patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(ArtifactError, match=f"cannot save to .*m: {os.strerror(code)}"):
            save_artifact(model(seed=2), tmp_path / "m")
    same(load_artifact(tmp_path / "m"), old)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: {"users": m.users[:2]}, "users must have shape"),
        (lambda m: {"users": m.users.astype(np.float64)}, "users must be an array of float32"),
        (lambda m: {"users": np.full_like(m.users, np.nan)}, "users must be finite"),
        (lambda m: {"item_ids": Ids([1])}, "items must be 1"),
        (lambda m: {"seen": (m.seen[0], m.seen[1][:2])}, "seen.indptr must ascend"),
        (lambda m: {"seen": (m.seen[0], m.seen[1] + 5)}, "seen.indices must lie in"),
        (lambda m: {"seen": (m.seen[0], np.array([1, 0, 0], np.int32))}, "strictly ascending"),
        (lambda m: {"titles": ["one"]}, "titles must be a list of 2"),
        (lambda m: {"genres": [["a"], ["b"]]}, "genres must be a list of 2 tuples"),
        (lambda m: {"metrics": {"recall": float("nan")}}, "metrics must be JSON-able"),
        (lambda m: {"config": {"x": object()}}, "config must be JSON-able"),
        (lambda m: {"kind": ""}, "kind must be a name"),
    ],
)
def test_parts_that_do_not_fit_together_are_named(change, message: str) -> None:
    good = model()
    with pytest.raises(ArgumentError, match=message):
        replace(good, **change(good))
