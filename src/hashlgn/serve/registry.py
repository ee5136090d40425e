"""The models of a service: loaded, active, rolled back. A swap is one assignment; requests end where they began."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hashlgn.errors import ArgumentError, ArtifactError, JournalError
from hashlgn.inference.recommender import load
from hashlgn.serve.answers import Served
from hashlgn.serve.attributes import Attributes
from hashlgn.serve.shapes import Problem
from hashlgn.utils.tensors import model_file

__all__ = ["Registry"]


@dataclass(frozen=True)
class _Arm:
    name: str
    upto: float  # users whose hash lies under this, and not under that of the arm before
    served: Served


class Registry:
    """Loads models and says which of them answers.

    Args:
        paths: models to load; the first one is active.
        journal: the journal that histories come from, or None.
        attributes: attributes of items.
        watch: folder whose newest model is activated by itself, or None.
        split: shares of the traffic by names of models, or None.
        threads: processor threads of a search.

    Raises:
        ArgumentError: a share names no model, or a model is not of the form that is served.
        ArtifactError: a model cannot be loaded.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        journal: Any,
        attributes: Attributes,
        *,
        watch: Path | None = None,
        split: Mapping[str, float] | None = None,
        threads: int | None = None,
    ) -> None:
        self._journal, self._attributes, self._watch, self._threads = journal, attributes, watch, threads
        self._lock = threading.Lock()
        self.loaded: dict[str, Served] = {}
        self._past: list[str] = []
        self._seen: dict[Path, tuple[int, int]] = {}
        found = self._candidates() if watch is not None else []
        self._seen = {path: _stamp(path) for path in found}
        self.refused: list[str] = []  # what was wrong with newer models of the watched folder
        if not paths and not found:
            raise ArgumentError("models must be given, or lie in the watched folder (there is none)")
        for path in paths:
            self._load(path)
        if not paths:
            self._load_newest(found)
        first = next(iter(self.loaded.values()))
        self.split = dict(split or {})
        self._arms: tuple[_Arm, ...] = ()
        self._arms = self._arms_with(None if self.split else first)

    @property
    def active(self) -> Served:
        """The model that answers; of a split the first arm's."""
        return self._arms[0].served

    def route(self, user: Any) -> tuple[str, Served]:
        """The arm of a user, by the id in the models' type, and its model; the same for as long as the models are."""
        arms = self._arms
        digest = hashlib.blake2b(str(user).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        place = int.from_bytes(digest, "little") / 2**64
        arm = next((arm for arm in arms if place < arm.upto), arms[-1])
        return arm.name, arm.served

    def named(self, version: str | None) -> Served | None:
        """A loaded model by its version; None where none is named.

        Raises:
            Problem: no loaded model has the name.
        """
        if version is None:
            return None
        if version not in self.loaded:
            listed = ", ".join(map(repr, self.loaded))
            raise Problem(404, "unknown_model", f"model must be one of {listed} (got {version!r:.80})", "model")
        return self.loaded[version]

    def described(self) -> list[dict[str, Any]]:
        """All models, ready for JSON."""
        active = {arm.served.version: arm for arm in self._arms}
        rows = []
        for version, served in list(self.loaded.items()):
            model = served.recommender.model
            rows.append(
                {
                    "version": version,
                    "active": version in active,
                    "loaded": True,
                    "arm": active[version].name if version in active and self.split else None,
                    "users": len(model.user_ids),
                    "items": len(model.item_ids),
                    "calibrated": model.calibration is not None,
                    "created": model.provenance.get("created"),
                    "digest": served.digest,
                }
            )
        held = {served.path for served in self.loaded.values()}
        others = [_name(path) for path in self._candidates() if path not in held]
        return rows + [{"version": version, "active": False, "loaded": False} for version in others]

    def activate(self, version: str) -> Served:
        """Let a model answer from now on: one that is loaded, or lies in the watched folder.

        Raises:
            Problem: there is none of that name, or it is no whole model; what answered before still does.
        """
        with self._lock:
            if version in self.loaded:
                return self._swap(self.loaded[version])
            path = next((path for path in self._candidates() if _name(path) == version), None)
            if path is None:
                raise Problem(404, "unknown_model", f"version must be a known model (got {version!r:.80})", "version")
            return self._try(path)

    def rollback(self) -> Served:
        """Let the model answer that did before.

        Raises:
            Problem: there is none.
        """
        with self._lock:
            while self._past:
                before = self.loaded.get(self._past.pop())
                if before is not None and before is not self.active:
                    self._arms = self._arms_with(before)
                    return before
        raise Problem(409, "no_past", "no other model was active before")

    def look(self) -> Served | None:
        """Activate the newest model of the watched folder where it is new or has changed; None where it has not.

        Raises:
            Problem: it is no whole model; what answered before still does.
        """
        with self._lock:
            found = self._candidates()
            changed = [path for path in found if self._seen.get(path) != _stamp(path)]
            self._seen = {path: _stamp(path) for path in found}
            return self._try(changed[-1]) if changed else None

    def put(self, item: Any, values: Mapping[str, Any]) -> None:
        """Tell all models of an item's attributes."""
        with self._lock:
            self._attributes.put(item, values)
            for served in self.loaded.values():
                served.filters.put(item, values)

    def attributes_of(self, item: Any) -> dict[str, Any]:
        """What the service was told of an item."""
        return self._attributes.items.get(str(item), {})

    def close(self) -> None:
        """Close the file of attributes."""
        self._attributes.close()

    def _try(self, path: Path) -> Served:
        try:
            return self._swap(self._load(path))
        except (ArtifactError, ArgumentError, JournalError) as error:
            raise Problem(422, "bad_model", f"the model cannot be activated ({error})", "version") from error

    def _load_newest(self, found: list[Path]) -> None:
        """Load the newest model that is whole: one that was damaged on its way must not keep the service from starting.

        Raises:
            ArtifactError, ArgumentError: there is none.
        """
        for path in reversed(found):
            try:
                self._load(path)
                return
            except (ArtifactError, ArgumentError) as error:
                self.refused.append(str(error))
                if path == found[0]:
                    raise

    def _load(self, path: Path) -> Served:
        recommender = load(path, threads=self._threads, verify=True)
        types = recommender.model.user_ids.id_type, recommender.model.item_ids.id_type
        for other in self.loaded.values():
            beside = other.recommender.model
            if types != (beside.user_ids.id_type, beside.item_ids.id_type):
                raise ArgumentError(
                    f"{path}: ids of users and items must be of the types of the other models, "
                    f"{beside.user_ids.id_type} and {beside.item_ids.id_type} (got {types[0]} and {types[1]})"
                )
        digest, version = _digest(model_file(path)), _name(model_file(path))
        held = self.loaded.get(version)
        if held is not None and held.digest == digest:
            return held
        if held is not None:
            version = f"{version}-{digest[:8]}"
        try:
            served = Served.of(version, model_file(path), recommender, self._journal, self._attributes, digest)
        except ArgumentError as error:  # the journal is of other ids
            raise ArgumentError(f"{path}: {error}") from error
        self.loaded[version] = served
        return served

    def _swap(self, served: Served) -> Served:
        before = self.active
        if served is before:
            return served
        self._past.append(before.version)
        self._arms = self._arms_with(served)
        self._forget()
        return served

    def _forget(self) -> None:
        """Let go of models that are not needed any more: all but the active, the last, and those of a split."""
        kept = {arm.served.version for arm in self._arms} | set(self._past[-1:]) | set(self.split)
        old = [version for version in self._past[:-1] if version not in kept and version in self.loaded]
        self._past = self._past[-8:]
        for version in old:
            served = self.loaded.pop(version)
            if self._journal is not None:
                self._journal.release(served.view)

    def _arms_with(self, newest: Served | None) -> tuple[_Arm, ...]:
        """The arms; ``newest`` takes the place of the arm that has its name, or of all without a split."""
        if newest is not None and not self.split:
            return (_Arm("all", 1.0, newest),)
        total, upto, arms = sum(self.split.values()), 0.0, []
        held = {arm.name: arm.served for arm in self._arms}
        for name, share in self.split.items():
            served = held.get(name) or self.loaded.get(name)
            if newest is not None and (newest.version == name or newest.version.startswith(f"{name}-")):
                served = newest
            if served is None:
                listed = ", ".join(map(repr, self.loaded))
                raise ArgumentError(f"split must name loaded models: {listed} (got {name!r})")
            upto += share / total
            arms.append(_Arm(name, upto, served))
        return tuple(arms)

    def _candidates(self) -> list[Path]:
        """Files of the watched folder that may be models, the oldest first."""
        if self._watch is None:
            return []
        found: list[Path] = []
        with contextlib.suppress(OSError):  # a folder that is away for a while holds no models
            held = self._watch.iterdir()
            found += [model_file(path) for path in held if path.is_dir() or path.suffix == ".safetensors"]
        return sorted((path for path in found if path.is_file()), key=lambda path: (_stamp(path), path))


def _name(file: Path) -> str:
    """Version of a model: the name of its file, or of the folder that it lies in."""
    return file.parent.name if file.name == "model.safetensors" and file.parent.name else file.stem


def _stamp(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _digest(file: Path) -> str:
    """SHA-256 of a file's header, which holds the checksums of its arrays."""
    try:
        with file.open("rb") as held:
            return hashlib.sha256(held.read(int.from_bytes(held.read(8), "little"))).hexdigest()
    except OSError as error:
        raise ArtifactError(f"{file}: cannot be read ({error})") from error
