"""Models on disk: what is saved is loaded, and nothing else ever is."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hashlgn.data import Ids
from hashlgn.errors import ArgumentError, ArtifactError
from hashlgn.inference import artifact
from hashlgn.inference.artifact import check_target, load_artifact, save_artifact
from hashlgn.inference.model import ServedModel
from hashlgn.scoring.decoders import CodebookDecoder, ReweightDecoder
from hashlgn.scoring.fold_in import FoldIn
from hashlgn.scoring.items import CodedItems, FloatItems
from hashlgn.utils import storage

GOLDEN = Path(__file__).parent / "artifacts" / "v1"


def model(kind: str = "codebook", seed: int = 0) -> ServedModel:
    """Three users, two items, everything that a model may carry; the same numbers on every machine, for ever."""

    def floats(*shape: int) -> np.ndarray:
        places = np.arange(math.prod(shape)) + 1
        return ((places * 7919 + seed * 611) % 1000 / 256 - 2).astype(np.float32).reshape(shape)

    width = {"codebook": 3, "reweight": 8, "float": 3}[kind]
    packed = np.array([[0b1010_0011], [seed]], np.uint8)
    items = {
        "codebook": lambda: CodedItems(packed, CodebookDecoder(floats(2, 16, 3)), np.array([0.5, 2], np.float16)),
        "reweight": lambda: CodedItems(packed, ReweightDecoder(*np.abs(floats(2, 8)))),
        "float": lambda: FloatItems(floats(2, 3)),
    }[kind]()
    return ServedModel(
        kind="float" if kind == "float" else "hashlgn",
        config={"model": {"bits": 8}, "train": {"lr": 0.01}},
        user_ids=Ids(["7", "Bäcker", "ann"]),
        item_ids=Ids([1, 2]),
        users=floats(3, width),
        items=items,
        seen=(np.array([0, 2, 2, 3]), np.array([0, 1, 0], np.int32)),
        fold_in=FoldIn(floats(2, 4), ((floats(width, 4), floats(width)),)),
        titles=["One", "Zwölf"],
        genres=[("a", "b"), ()],
        metrics={"validation": {"joint": 0.5}},
        provenance={"seed": 3},
        encoder_state={"users": floats(3, 4), "items": floats(2, 4).T, "shift": np.array(2, np.float32)}
        if kind == "float"
        else None,
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


def test_a_fold_in_of_signs_is_one_again(tmp_path: Path) -> None:
    saved = model("reweight")
    assert saved.fold_in is not None
    signs = replace(saved, fold_in=replace(saved.fold_in, signs=True))
    save_artifact(signs, tmp_path / "m")
    same(load_artifact(tmp_path / "m"), signs)
    with pytest.raises(AssertionError):
        same(load_artifact(tmp_path / "m"), saved)


def test_the_encoders_parameters_come_when_asked_for(tmp_path: Path) -> None:
    saved = model("float")
    save_artifact(saved, tmp_path / "m")
    assert load_artifact(tmp_path / "m").encoder_state is None
    state = load_artifact(tmp_path / "m", encoder_state=True).encoder_state
    assert state is not None and state.keys() == saved.encoder_state.keys()
    for name, array in saved.encoder_state.items():
        assert state[name].dtype == np.float32
        np.testing.assert_array_equal(state[name], array, strict=True)


def test_the_first_format_still_loads() -> None:
    """A change that breaks this needs a new format version, and a folder of its own beside v1.

    ``python tests/test_artifact.py`` wrote it, and runs at no other time.
    """
    same(load_artifact(GOLDEN), model())
    manifest = json.loads((GOLDEN / "manifest.json").read_text())
    assert manifest["format_version"] == 1


def test_loading_and_serving_need_no_torch() -> None:
    code = f"""
import sys
sys.modules["torch"] = None  # whoever imports it now fails
import hashlgn.inference.artifact, hashlgn.inference.recommender
hashlgn.inference.artifact.load_artifact({str(GOLDEN)!r})
recommender = hashlgn.inference.recommender.load({str(GOLDEN)!r})
assert set(recommender.recommend("Bäcker", k=2)["item"].tolist()) == {{1, 2}}
assert len(recommender.recommend(history=[1], k=2)) == 1 and len(recommender.similar_items([1], k=1)) == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True)


ids = st.lists(st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(codec="utf-8")), unique=True, max_size=6)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), user_ids=ids, item_ids=ids.filter(len))
def test_any_ids_titles_and_histories_come_back(data: st.DataObject, user_ids, item_ids, tmp_path: Path) -> None:
    users, items = (Ids.from_values(values)[0] for values in (user_ids, item_ids))
    rows = [sorted(data.draw(st.sets(st.integers(0, len(items) - 1)))) for _ in user_ids]
    titles = data.draw(st.none() | st.lists(st.text(), min_size=len(items), max_size=len(items)))
    saved = ServedModel(
        kind="float",
        config={},
        user_ids=users,
        item_ids=items,
        users=np.ones((len(users), 2), np.float32),
        items=FloatItems(np.ones((len(items), 2), np.float32)),
        seen=(np.cumsum([0, *map(len, rows)]), np.array([*itertools.chain(*rows)], np.int32)),
        titles=titles,
    )
    save_artifact(saved, tmp_path / "m")
    same(load_artifact(tmp_path / "m"), saved)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(["codebook", "float"]))
def test_a_flipped_bit_anywhere_is_refused(data: st.DataObject, kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    save_artifact(model(kind), folder)
    name = data.draw(st.sampled_from(sorted(path.name for path in folder.iterdir())))
    content = bytearray((folder / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    (folder / name).write_bytes(content)
    with pytest.raises(ArtifactError, match="manifest" if name.startswith("manifest") else name):
        load_artifact(folder)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", [*sorted(path.name for path in GOLDEN.iterdir()), "encoder.safetensors"])
def test_a_short_a_long_and_a_missing_file_are_refused(name: str, verify: bool, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    save_artifact(model("float") if name.startswith("encoder") else model(), folder)
    content = (folder / name).read_bytes()
    for changed in (content[:-1], content[: len(content) // 2], b"", content + b"\0"):
        (folder / name).write_bytes(changed)
        with pytest.raises(ArtifactError, match="manifest" if name.startswith("manifest") else name):
            load_artifact(folder, verify=verify)
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        load_artifact(folder, verify=verify)


@pytest.mark.parametrize("verify", [True, False])
def test_a_save_while_it_is_read_gives_no_mixture(verify: bool, tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "m"
    old, new = model(seed=1), replace(model(seed=2), provenance={"seed": 4})
    real, saves = artifact._read_manifest, 0

    def read_and_save(place: Path) -> dict[str, object]:
        nonlocal saves
        manifest = real(place)
        if saves:
            saves -= 1
            save_artifact(new, folder)
        return manifest

    monkeypatch.setattr(artifact, "_read_manifest", read_and_save)
    save_artifact(old, folder)
    saves = 1
    same(load_artifact(folder, verify=verify), new)
    saves = 100
    with pytest.raises(ArtifactError, match="replaced again and again"):
        load_artifact(folder, verify=verify)


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
    (tmp_path / "m" / "notes.txt").write_text("mine")
    with pytest.raises(ArgumentError, match=r"holds notes\.txt"):
        save_artifact(model(), tmp_path / "m")
    assert (tmp_path / "m" / "notes.txt").read_text() == "mine"
    (tmp_path / "m" / "notes.txt").unlink()
    with pytest.raises(ArgumentError, match="overwrite is False"):
        save_artifact(model(), tmp_path / "m", overwrite=False)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process to kill")
@pytest.mark.parametrize("first", [True, False], ids=["new", "replaced"])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(first: bool, tmp_path: Path) -> None:
    """In a process of its own, killed before each of its calls that change or sync the disk in turn."""
    old, new = model(seed=1), model(seed=2)
    folder, found = tmp_path / "m", []
    for deadly in range(1, 100):
        shutil.rmtree(folder, ignore_errors=True)
        if not first:
            save_artifact(old, folder)
        pid = os.fork()
        if pid == 0:
            try:
                kill_at(deadly)
                save_artifact(new, folder)
            finally:
                os._exit(0)
        killed = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        try:
            held = load_artifact(folder)
        except ArtifactError as error:
            assert first and "no such folder" in str(error)
            found.append(None)
        else:
            found.append("new" if np.array_equal(held.users, new.users) else "old")
            same(held, new if found[-1] == "new" else old)
        save_artifact(new, folder)  # and nothing that was left behind stands in the way
        assert [path.name for path in tmp_path.iterdir()] == ["m"]
        if not killed:
            break
    assert not killed and set(found) == {None if first else "old", "new"}


def kill_at(deadly: int) -> None:
    calls = 0

    def deadly_at_last(real):
        def call(*arguments: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls == deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    for name in ("mkdir", "rename", "fsync", "unlink", "rmdir"):
        setattr(os, name, deadly_at_last(getattr(os, name)))
    storage._exchange = deadly_at_last(storage._exchange)


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


if __name__ == "__main__":
    save_artifact(model(), GOLDEN)
