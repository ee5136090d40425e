"""Models on disk: what is saved is loaded, and nothing else ever is."""

from __future__ import annotations

import copy
import errno
import itertools
import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hashlgn.data import Ids
from hashlgn.errors import ArgumentError, ArtifactError
from hashlgn.inference.artifact import FORMAT, bytes_by_part, load_artifact, save_artifact
from hashlgn.inference.model import ServedModel
from hashlgn.inference.stored import Stored
from hashlgn.scoring.calibration import Calibration
from hashlgn.scoring.decoders import CodebookDecoder, ReweightDecoder
from hashlgn.scoring.fold_in import FoldIn
from hashlgn.scoring.histories import CodedHistories, FloatHistories
from hashlgn.scoring.items import CodedItems, FloatItems
from hashlgn.utils.tensors import check_target, read_tensors

KINDS = ("codebook", "reweight", "float", "student")


def model(kind: str = "codebook", seed: int = 0) -> ServedModel:
    """Three users, two items, everything that a model may carry; the same numbers on every machine."""

    def floats(*shape: int) -> np.ndarray:
        places = np.arange(math.prod(shape)) + 1
        return ((places * 7919 + seed * 611) % 1000 / 256 - 2).astype(np.float32).reshape(shape)

    width = {"codebook": 3, "reweight": 8, "float": 3, "student": 3}[kind]
    packed = np.array([[0b1010_0011], [seed]], np.uint8)
    items = {
        "codebook": lambda: CodedItems(packed, CodebookDecoder(floats(2, 16, 3)), np.array([0.5, 2], np.float16)),
        "reweight": lambda: CodedItems(packed, ReweightDecoder(*np.abs(floats(2, 8)))),
        "float": lambda: FloatItems(floats(2, 3)),
    }["codebook" if kind == "student" else kind]()
    histories: FoldIn | CodedHistories = FoldIn(floats(2, 4), ((floats(width, 4), floats(width)),))
    own: dict[str, Any] = {}
    columns: tuple[np.ndarray, ...] = ()
    if kind == "student":
        histories = CodedHistories(packed, floats(2, 16, 3), np.array([1, 0.25], np.float16))
        columns = np.array([1, 0.5, 2], np.float32), np.array([5, 2**40, -1])
        own = {"calibration": Calibration(4.0, 0.5, 0.1, np.array([0.5, 2.0]), np.array([0.25, 0.5]))}
    return ServedModel(
        kind="float" if kind == "float" else "hashlgn",
        config={"model": {"bits": 8}, "train": {"lr": 0.01}},
        user_ids=Ids(["7", "Bäcker", "ann"]),
        item_ids=Ids([1, 2]),
        users=None if kind == "student" else floats(3, width),
        items=items,
        stored=Stored.of(np.array([0, 2, 2, 3]), np.array([0, 1, 0], np.int32), *columns),
        histories=histories,
        titles=["One", "Zwölf"],
        genres=[("a", "b"), ()],
        metrics={"validation": {"joint": 0.5}},
        provenance={"seed": 3},
        encoder_state={"users": floats(3, 4), "items": floats(2, 4).T, "shift": np.array(2, np.float32)}
        if kind == "float"
        else None,
        **own,
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
    pairs = list(zip(a.seen, b.seen, strict=True))
    for name in ("users", "strengths", "times"):
        assert (getattr(a, name) is None) == (getattr(b, name) is None)
        if getattr(a, name) is not None:
            pairs.append((getattr(a, name), getattr(b, name)))
    assert (a.calibration is None) == (b.calibration is None)
    if a.calibration is not None and b.calibration is not None:
        pairs.append(
            (a.calibration.probability([-1, 0.2, 3], [0, 2, 9]), b.calibration.probability([-1, 0.2, 3], [0, 2, 9]))
        )
    if isinstance(a.items, CodedItems):
        pairs += [(a.items.packed, b.items.packed), (a.items.decode(), b.items.decode())]
        assert (a.items.scale is None) == (b.items.scale is None)
    else:
        pairs.append((a.items.vectors, b.items.vectors))
    assert type(a.histories) is type(b.histories)
    if a.histories is not None:
        history = (np.array([0, 2]), np.array([0, 1]))
        pairs.append((a.queries(*history), b.queries(*history)))
    for x, y in pairs:
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    saved = model(kind)
    save_artifact(saved, tmp_path / "m")
    same(load_artifact(tmp_path / "m"), saved)
    bare = replace(saved, titles=None, genres=None, metrics={}, encoder_state=None)
    if saved.users is not None:
        bare = replace(bare, histories=None)
    save_artifact(bare, tmp_path / "m")
    same(load_artifact(tmp_path / "m"), bare)


def test_a_fold_in_of_signs_is_one_again(tmp_path: Path) -> None:
    saved = model("reweight")
    assert isinstance(saved.histories, FoldIn)
    signs = replace(saved, histories=replace(saved.histories, signs=True))
    save_artifact(signs, tmp_path / "m")
    same(load_artifact(tmp_path / "m"), signs)
    with pytest.raises(AssertionError):
        same(load_artifact(tmp_path / "m"), saved)


def test_the_encoders_parameters_come_back(tmp_path: Path) -> None:
    saved = model("float")
    save_artifact(saved, tmp_path / "m")
    state = load_artifact(tmp_path / "m").encoder_state
    assert state is not None and state.keys() == saved.encoder_state.keys()
    for name, array in saved.encoder_state.items():
        assert state[name].dtype == np.float32
        np.testing.assert_array_equal(state[name], array, strict=True)


def test_loading_and_serving_need_no_torch(tmp_path: Path) -> None:
    save_artifact(model(), tmp_path / "m")
    code = f"""
import sys
sys.modules["torch"] = None  # whoever imports it now fails
import hashlgn.inference.artifact, hashlgn.inference.recommender
hashlgn.inference.artifact.load_artifact({str(tmp_path / "m")!r})
recommender = hashlgn.inference.recommender.load({str(tmp_path / "m")!r})
assert set(recommender.recommend("Bäcker", k=2)["item"].tolist()) == {{1, 2}}
assert len(recommender.recommend(history=[1], k=2)) == 1 and len(recommender.similar_items([1], k=1)) == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_public_library_reads_the_same_file(kind: str, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file

    saved = model(kind)
    file = save_artifact(saved, tmp_path / "m")
    assert file == tmp_path / "m" / "model.safetensors"
    public, ours = load_file(file), read_tensors(file, FORMAT)
    assert {name for name in public if not name.startswith("pad.")} == set(ours.arrays)
    for name, array in ours.arrays.items():
        np.testing.assert_array_equal(array, public[name], strict=True)
    with safe_open(file, "np") as opened:
        metadata = opened.metadata()
    assert metadata["format"] == FORMAT
    manifest = json.loads(metadata["manifest"])
    assert (manifest["kind"], manifest["config"], manifest["metrics"]) == (saved.kind, saved.config, saved.metrics)
    assert manifest["sha256"].keys() == public.keys()
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    for name, entry in json.loads(content[8 : 8 + length]).items():
        if name not in ("__metadata__", *(name for name in public if name.startswith("pad."))):
            assert (8 + length + entry["data_offsets"][0]) % 64 == 0 or not public[name].size
    sizes = bytes_by_part(file)
    assert sum(sizes.values()) == len(content)
    assert sizes.get("users") == (None if saved.users is None else saved.users.nbytes)


def test_what_is_loaded_lies_in_the_file(tmp_path: Path) -> None:
    loaded = load_artifact(save_artifact(model(), tmp_path / "m"))
    student = load_artifact(save_artifact(model("student"), tmp_path / "s"))
    arrays = [loaded.items.segments[0].rows, loaded.users, loaded.seen[1], loaded.histories.item_vectors]
    for array in (*arrays, student.histories.packed, student.strengths, student.times):
        while array.base is not None and not isinstance(array, np.memmap):
            array = array.base
        assert isinstance(array, np.memmap) and not array.flags.writeable


def test_a_folder_a_file_a_home_and_a_link_name_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    one, two = model(seed=1), model(seed=2)
    assert save_artifact(one, "~/a/b") == tmp_path / "a" / "b" / "model.safetensors"
    same(load_artifact("~/a/b/model.safetensors"), one)
    save_artifact(two, tmp_path / "a" / "other.safetensors")
    assert (tmp_path / "a" / "other.safetensors").is_file()
    same(load_artifact(str(tmp_path / "a" / "other.safetensors")), two)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b")
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "a" / "b" / "model.safetensors")
    same(load_artifact(tmp_path / "link"), one)
    for link in ("link", "link.safetensors"):
        save_artifact(two, tmp_path / link)
        assert (tmp_path / link).is_symlink()
        same(load_artifact(tmp_path / "a" / "b"), two)
        save_artifact(one, tmp_path / "a" / "b")
    assert not (tmp_path / "a" / "b" / "model.safetensors").is_symlink()


def test_who_has_the_old_file_open_goes_on_with_it(tmp_path: Path) -> None:
    save_artifact(model(seed=1), tmp_path / "m")
    held = load_artifact(tmp_path / "m")
    save_artifact(model(seed=2), tmp_path / "m")
    same(held, model(seed=1))
    same(load_artifact(tmp_path / "m"), model(seed=2))


def test_the_mode_of_a_file_is_kept(tmp_path: Path) -> None:
    file = save_artifact(model(), tmp_path / "m")
    for mode in (0o600, 0o640, 0o444):
        file.chmod(mode)
        save_artifact(model(seed=1), tmp_path / "m")
        assert file.stat().st_mode & 0o777 == mode


def test_a_folder_of_the_earlier_format_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ArtifactError, match="earlier, unreleased format: train again") as caught:
        load_artifact(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_loaded_model_can_be_pickled_and_copied(tmp_path: Path) -> None:
    for kind in KINDS:
        loaded = load_artifact(save_artifact(model(kind), tmp_path / kind))
        for again in (pickle.loads(pickle.dumps(loaded)), copy.deepcopy(loaded)):
            same(again, model(kind))


ids = st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=6)
ids |= st.lists(st.text(st.characters(codec="utf-8")), unique=True, max_size=6)


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
        stored=Stored.of(np.cumsum([0, *map(len, rows)]), np.array([*itertools.chain(*rows)], np.int32)),
        titles=titles,
    )
    save_artifact(saved, tmp_path / "m")
    same(load_artifact(tmp_path / "m"), saved)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(["codebook", "float", "student"]))
def test_a_flipped_bit_anywhere_is_refused(data: st.DataObject, kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    file = folder / "model.safetensors"
    file.unlink(missing_ok=True)
    save_artifact(model(kind), folder)
    content = bytearray(file.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    in_header = data.draw(st.booleans())
    place = data.draw(st.integers(0, header - 1) if in_header else st.integers(header, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.safetensors"):
        load_artifact(folder, verify=not in_header)


@pytest.mark.parametrize("verify", [True, False])
def test_a_short_a_long_and_a_missing_file_are_refused(verify: bool, tmp_path: Path) -> None:
    file = save_artifact(model("float"), tmp_path / "m")
    content = file.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    lengths = {*range(12), header // 2, *range(header - 2, header + 3), len(content) // 2, len(content) - 1}
    for changed in (content + b"\0", *(content[:length] for length in sorted(lengths))):
        file.write_bytes(changed)
        with pytest.raises(ArtifactError, match=r"model\.safetensors"):
            load_artifact(tmp_path / "m", verify=verify)
    file.unlink()
    with pytest.raises(ArtifactError, match=r"model\.safetensors"):
        load_artifact(tmp_path / "m", verify=verify)


def test_opening_while_another_process_saves_gives_one_version(tmp_path: Path) -> None:
    old, new = model(seed=1), model(seed=2)
    save_artifact(old, tmp_path / "m")
    pid = os.fork()
    if pid == 0:
        try:
            for _ in range(60):
                save_artifact(new, tmp_path / "m")
                save_artifact(old, tmp_path / "m")
        finally:
            os._exit(0)
    seen = set()
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        held = load_artifact(tmp_path / "m", verify=True)
        seen.add(bool(np.array_equal(held.users, new.users)))
        same(held, new if np.array_equal(held.users, new.users) else old)
    assert seen


def test_no_folder_an_empty_folder_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for place in ("nothing", "empty", "file"):
        with pytest.raises(ArtifactError, match=place):
            load_artifact(tmp_path / place)


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in ("file", "file/inside", "file/inside/m.safetensors"):
        with pytest.raises(ArtifactError, match=f"{tmp_path / 'file'} is a file, not a folder"):
            load_artifact(tmp_path / path)
        with pytest.raises(ArgumentError, match=f"{tmp_path / 'file'} is neither"):
            check_target(tmp_path / path, FORMAT)


def test_only_a_model_is_replaced_and_files_beside_it_are_left_alone(tmp_path: Path) -> None:
    from safetensors.numpy import save

    for name, content in (("theirs", save({"x": np.ones(2)})), ("text", b"dear reader"), ("short", b"12345678")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(content)
        for attempt in (lambda f=folder: save_artifact(model(), f), lambda f=folder: check_target(f, FORMAT)):
            with pytest.raises(ArgumentError, match="path must be free or hold a hashlgn-model"):
                attempt()
        assert [path.name for path in folder.iterdir()] == ["model.safetensors"]
        assert (folder / "model.safetensors").read_bytes() == content
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "notes.txt").write_text("mine")
    (tmp_path / "m" / "model.safetensors").touch()  # empty: nobody's
    save_artifact(model(), tmp_path / "m")
    save_artifact(model(), tmp_path / "m")
    assert (tmp_path / "m" / "notes.txt").read_text() == "mine"
    with pytest.raises(ArgumentError, match="overwrite is False"):
        save_artifact(model(), tmp_path / "m", overwrite=False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArgumentError, match="folder or end in"):
        save_artifact(model(), tmp_path / "file")
    os.mkfifo(tmp_path / "fifo.safetensors")
    with pytest.raises(ArgumentError, match="regular file"):
        save_artifact(model(), tmp_path / "fifo.safetensors")
    with pytest.raises(ArtifactError, match="regular file"):
        load_artifact(tmp_path / "fifo.safetensors")  # and does not wait for a writer


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
            assert first and "No such file" in str(error)
            found.append(None)
        else:
            found.append("new" if np.array_equal(held.users, new.users) else "old")
            same(held, new if found[-1] == "new" else old)
        save_artifact(new, folder)  # and nothing that was left behind stands in the way
        assert [path.name for path in folder.iterdir()] == ["model.safetensors"]
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

    for name in ("mkdir", "replace", "fsync", "unlink", "chmod"):
        setattr(os, name, deadly_at_last(getattr(os, name)))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_full_or_read_only_disk_leaves_the_old(code: int, where: str, tmp_path: Path, monkeypatch) -> None:
    old = model(seed=1)
    save_artifact(old, tmp_path / "m")

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, where, refuse)
        with pytest.raises(ArtifactError, match=f"cannot save to .*m: {os.strerror(code)}"):
            save_artifact(model(seed=2), tmp_path / "m")
    same(load_artifact(tmp_path / "m"), old)
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: {"users": m.users[:2]}, "users must have shape"),
        (lambda m: {"users": None, "histories": None}, "histories must be given where there are no users' vectors"),
        (lambda m: {"histories": FloatHistories(np.ones((2, 4), np.float32))}, "histories must be 2 of width 3"),
        (lambda m: {"histories": FloatHistories(np.ones((3, 3), np.float32))}, "histories must be 2 of width 3"),
        (lambda m: {"stored": Stored.of(*m.seen, np.ones(2, np.float32))}, "strengths must have shape"),
        (
            lambda m: {"stored": Stored.of(*m.seen, np.full(3, np.inf, np.float32))},
            "strengths must be finite and positive",
        ),
        (lambda m: {"stored": Stored.of(*m.seen, times=np.ones(3, np.int32))}, "times must be an array of int64"),
        (lambda m: {"users": m.users.astype(np.float64)}, "users must be an array of float32"),
        (lambda m: {"users": np.full_like(m.users, np.nan)}, "users must be finite"),
        (lambda m: {"item_ids": Ids([1])}, "items must be 1"),
        (lambda m: {"stored": Stored.of(m.seen[0], m.seen[1][:2])}, "seen.indptr must ascend"),
        (lambda m: {"stored": Stored.of(m.seen[0], m.seen[1] + 5)}, "seen.indices must lie in"),
        (lambda m: {"stored": Stored.of(m.seen[0], np.array([1, 0, 0], np.int32))}, "strictly ascending"),
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
