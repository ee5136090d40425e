"""A catalogue trained on made-up interactions: a float model in closed form, and residual codes of its items."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from hashlgn.data import Interactions, random_ratio
from hashlgn.data.synthetic import synthetic
from hashlgn.errors import ArgumentError, need
from hashlgn.experiments.benchmarks.search.catalogues import Catalogue, Coded
from hashlgn.scoring.codes import pack_signs
from hashlgn.scoring.decoders import CodebookDecoder, Floats
from hashlgn.scoring.exclusion import rows_of
from hashlgn.scoring.items import CodedItems
from hashlgn.utils.storage import reason, replaced_file

__all__ = ["trained_catalogue"]

_AN_ITEM = 12  # interactions an item
_A_USER = 60  # interactions a user
_CLUSTERS = 50  # tastes: fewer than the narrowest float model has dimensions, so that it has room for all of them
_USERS = 2000  # users with held-out items, of whom the quality of answers is told
_BEAM = 4  # of the assignment of words: in a quarter of the time of the model's own 16, nearly its error
_TINY = 1e-7  # scales are positive, and float16


def trained_catalogue(
    n: int, bits: Sequence[int], dims: Sequence[int], seed: int, cache: Path | None, say: Callable[[str], None]
) -> Catalogue:
    """Twelve interactions an item among 50 tastes, of which a fifth is held out; see ``docs/benchmarks.md``.

    Floats are the spectral encoder's: users ``S V``, of unit length, and items ``D^1/2 V``, whose lengths follow
    popularity. Codes are those of the narrowest floats: residual quantisation in the metric of the users, once without
    a scale, and once of the directions alone, with a scale of the item's own.

    Args:
        n: number of items.
        bits: lengths of code.
        dims: widths of floats.
        seed: fixes every draw.
        cache: folder where all of it is kept, and found the next time; nothing is kept where None.
        say: called with a line of progress.

    Raises:
        ArgumentError: ``cache`` is no folder to write to.
        MissingExtraError: PyTorch is not installed.
    """
    kept = _Kept(cache, f"trained-{n}-{seed}", say)
    split: list[tuple[Interactions, Interactions]] = []

    def data() -> tuple[Interactions, Interactions]:  # made only where a part of the model is not kept
        if not split:
            say(f"trained: making {n * _AN_ITEM:,} interactions")
            users = max(2, n * _AN_ITEM // _A_USER)
            made = synthetic(users, n, n * _AN_ITEM, clusters=_CLUSTERS, seed=seed, titles=False)
            split.append(random_ratio(made, seed=seed))
        return split[0]

    def ragged(part: int) -> dict[str, npt.NDArray[Any]]:
        train, test = data()
        chosen = np.random.default_rng(seed).permutation(np.flatnonzero(np.diff(test.indptr)))[:_USERS]
        indptr, indices = rows_of(((train, test)[part].indptr, (train, test)[part].indices), chosen)
        return {"indptr": indptr, "indices": indices, "users": chosen}

    seen, truth = kept.arrays("seen", lambda: ragged(0)), kept.arrays("truth", lambda: ragged(1))
    vectors, users, coded = {}, {}, []
    narrowest, widest = min(dims), max(dims)
    model = kept.arrays(
        f"spectral-{widest}-{narrowest}", lambda: _spectral(data()[0], widest, narrowest, seed, seen["users"])
    )
    for dim in dims:
        vectors[dim] = np.ascontiguousarray(model["items"][:, :dim])
        users[dim] = _unit(np.ascontiguousarray(model["queries"][:, :dim]))
    for length in bits:
        for name, scaled in ((f"{length} bits", False), (f"{length} bits + scale", True)):
            codes = kept.arrays(
                f"codes-{widest}-{narrowest}-{length}{'-scale' * scaled}",
                partial(_codes, vectors[narrowest], model["metric"], length, scaled),
            )
            scale = codes["scale"] if scaled else None
            items = CodedItems(codes["packed"], CodebookDecoder(codes["codewords"]), scale)
            coded.append(Coded(name, items, users[narrowest], narrowest))
    return Catalogue(
        "trained", vectors, users, coded, (seen["indptr"], seen["indices"]), (truth["indptr"], truth["indices"])
    )


def _spectral(
    train: Interactions, dim: int, narrowest: int, seed: int, chosen: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[Any]]:
    """Items ``D^1/2 V``, the chosen users' rows of ``S V``, and the second moment of the directions of all users in the
    narrowest floats.
    """
    need("torch", "train", "a trained catalogue")
    from hashlgn.training.graph import Graph

    graph = Graph(train)
    _, vectors = graph.singular_vectors(dim, seed)
    users = np.asarray(graph.normalised @ vectors, np.float32)
    directions = _unit(users[:, :narrowest])
    return {
        "items": np.asarray(np.sqrt(graph.item_degree)[:, None] * vectors, np.float32),
        "queries": users[chosen],
        "metric": (directions.T @ directions / len(directions)).astype(np.float64),
    }


def _codes(vectors: Floats, metric: npt.NDArray[np.float64], bits: int, scaled: bool) -> dict[str, npt.NDArray[Any]]:
    """Residual codes in the metric A of the users: the quantiser sees ``A^1/2 o``, and codewords are brought back.

    So what is made small is the error of the scores, ``E (f · (o − g))² = (o − g)ᵀ A (o − g)``, and not of the vectors.
    """
    torch = need("torch", "train", "a trained catalogue")
    from hashlgn.training.hashes import Residual

    values, axes = np.linalg.eigh(metric)
    values = np.maximum(values, 1e-6 * values[-1])
    root, back = (axes * values**power @ axes.T for power in (0.5, -0.5))
    seen_by_users = (vectors @ root.astype(np.float32)).astype(np.float32)
    lengths = np.linalg.norm(seen_by_users, axis=1)
    hashing = Residual(len(vectors), vectors.shape[1], bits, beam=_BEAM)
    target = seen_by_users / np.maximum(lengths, 1e-12)[:, None] if scaled else seen_by_users
    start = hashing.start(torch.from_numpy(target)).codewords
    if start is None:
        raise AssertionError("residual codes have codewords")
    codewords = start.numpy()
    packed = pack_signs(hashing.codes.numpy())
    found: dict[str, npt.NDArray[Any]] = {
        "packed": packed,
        "codewords": np.ascontiguousarray(codewords @ back, np.float32),
    }
    if scaled:
        decoded = np.concatenate(
            [
                np.linalg.norm(CodebookDecoder(codewords).decode(packed[start : start + 100_000]), axis=1)
                for start in range(0, len(packed), 100_000)
            ]
        )
        found["scale"] = np.clip(lengths / np.maximum(decoded, 1e-12), _TINY, 6e4).astype(np.float16)
    return found


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)


class _Kept:
    """Named groups of arrays: made once, and read again from a folder where there is one."""

    def __init__(self, folder: Path | None, prefix: str, say: Callable[[str], None]) -> None:
        self._folder, self._prefix, self._say = folder, prefix, say

    def arrays(self, name: str, make: Callable[[], dict[str, npt.NDArray[Any]]]) -> dict[str, npt.NDArray[Any]]:
        path = None if self._folder is None else self._folder / f"{self._prefix}-{name}.safetensors"
        if path is not None and path.is_file():
            self._say(f"trained: reading {path.name}")
            return load_file(path)
        began = time.perf_counter()
        arrays = make()
        self._say(f"trained: made {name} in {time.perf_counter() - began:.1f} s")
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with replaced_file(path) as temporary:
                    save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, temporary)
            except OSError as error:
                raise ArgumentError(
                    f"cache must be a folder to write to (got {str(path.parent)!r}: {reason(error)})"
                ) from error
        return arrays
