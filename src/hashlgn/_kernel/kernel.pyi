from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

def instruction_sets() -> list[str]:
    """What this machine has, best first."""

class Segment:
    """Items in blocks; the arrays are kept alive, and must not be written to."""

    def __init__(
        self,
        rows: npt.NDArray[np.uint8],
        starts: npt.NDArray[np.uint32],
        counts: npt.NDArray[np.uint32],
        first: int,
        order: npt.NDArray[np.uint32] | None = None,
        scale: npt.NDArray[np.floating[Any]] | None = None,
        largest: npt.NDArray[np.float32] | None = None,
        smallest: npt.NDArray[np.float32] | None = None,
        holes: npt.NDArray[np.uint8] | None = None,
    ) -> None: ...

def search(
    segments: list[Segment],
    tables: npt.NDArray[np.float32],
    items: int,
    k: int,
    threshold: float,
    indptr: npt.NDArray[np.int64] | None = None,
    seen: npt.NDArray[np.int64] | None = None,
    banned: npt.NDArray[np.bool_] | None = None,
    probes: npt.NDArray[np.int32] | None = None,
    chosen: list[npt.NDArray[np.uint32]] | None = None,
    threads: int = 1,
    isa: str = "auto",
    timed: bool = False,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32], dict[str, Any]]:
    """Row bounds, items, scores and a profile; k = 0 asks for every item over the threshold."""

def pack(codes: npt.NDArray[np.uint8], order: npt.NDArray[np.uint32] | None, rows: npt.NDArray[np.uint8]) -> None:
    """Write codes ``(n, bits / 8)``, in the given order, into zeroed blocks ``(blocks, sub-codes, 64)``."""

def arrange(
    codes: npt.NDArray[np.uint8],
    scale: npt.NDArray[np.floating[Any]],
    rows: npt.NDArray[np.uint8],
    order: npt.NDArray[np.uint32],
    slots: npt.NDArray[np.uint32],
    held: npt.NDArray[np.floating[Any]],
) -> None:
    """Write codes into zeroed blocks by falling scale: row and scale of each slot, and the slot of each row."""

def find(
    numbers: npt.NDArray[np.int64] | None,
    first: int,
    slots: npt.NDArray[np.uint32],
    holes: npt.NDArray[np.uint8] | None,
    items: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """The slot of each item, −1 where it is not there, of items ``numbers``, ascending, or those from ``first`` on."""

def unpack(rows: npt.NDArray[np.uint8], slots: npt.NDArray[np.uint32], codes: npt.NDArray[np.uint8]) -> None:
    """Read the codes at some slots back."""

def product(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float32], out: npt.NDArray[np.float64], isa: str = "auto"
) -> None:
    """``out[q, :] = Σ_j x[q, j] · y[j, :]``, j ascending, without terms whose x is 0."""

def single(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float32], out: npt.NDArray[np.float64], isa: str = "auto"
) -> None:
    """The product in single precision; see ``scoring.products.single_product``."""

def chosen(
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float32],
    items: npt.NDArray[np.int64],
    out: npt.NDArray[np.float64],
) -> None:
    """``out[q, l] = Σ_j x[q, j] · y[items[q, l], j]``, j ascending, without terms whose x is 0."""

def sums(
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float64],
    vectors: npt.NDArray[np.float32],
    out: npt.NDArray[np.float64],
) -> None:
    """``out[r, :] = Σ_e weights[e] · vectors[indices[e], :]`` over the entries of each row, ascending."""

def histogram(
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float64],
    packed: npt.NDArray[np.uint8],
    out: npt.NDArray[np.float64],
) -> None:
    """``out[r, 16 m + k]``: the sum of the weights of the row's entries whose sub-code m is k, ascending."""

def unit(v: npt.NDArray[np.float64], out: npt.NDArray[np.float32]) -> bool:
    """``out[r, :] = v[r, :] / ‖v[r, :]‖``, zeros where the length is 0; False where a number is not finite."""

def ascending(indptr: npt.NDArray[np.int64], indices: npt.NDArray[np.int64], n: int) -> bool:
    """Whether this is a ragged array, each row strictly ascending inside ``0 … n − 1``."""

class Rows:
    """Histories: row r is that of user ``users[r]``, ascending, or of user r. The arrays are kept alive."""

    def __init__(
        self,
        users: npt.NDArray[np.int64] | None,
        indptr: npt.NDArray[np.int64],
        indices: npt.NDArray[np.int32],
        strengths: npt.NDArray[np.float32] | None = None,
        times: npt.NDArray[np.int64] | None = None,
        newer: npt.NDArray[np.bool_] | None = None,
    ) -> None: ...

_Rows = tuple[
    npt.NDArray[np.int64],
    npt.NDArray[np.int64],
    npt.NDArray[np.int32],
    npt.NDArray[np.float32] | None,
    npt.NDArray[np.int64] | None,
    npt.NDArray[np.bool_] | None,
]

def columns(segments: list[Rows], users: npt.NDArray[np.int64] | None) -> _Rows:
    """Users, bounds, items, strengths, times, and what is newer, of some users, or of all that the segments name where
    None; the last segment that has a user counts. A column is None where no segment has it, and 0 where the user's does
    not.
    """

def extended(
    segments: list[Rows],
    users: npt.NDArray[np.int64],
    items: npt.NDArray[np.int64],
    strengths: npt.NDArray[np.float32] | None,
    times: npt.NDArray[np.int64] | None,
) -> _Rows:
    """The same of the users of new interactions, with these among them."""

def who(segments: list[Rows], item: int) -> npt.NDArray[np.int64]:
    """The users who have an item, ascending."""

def strengths(
    segments: list[Rows], users: npt.NDArray[np.int64], items: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """The strength of the item beside in the history of each of some users; 1 where no strengths are stored, 0 where
    the user does not have it.
    """

def gather(
    segments: list[Rows], users: npt.NDArray[np.int64], count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32] | None]:
    """Bounds, items and strengths of some of ``count`` users; the last segment that has a user counts."""

class HistoryCodes:
    """Items in histories as codes; the arrays are kept alive."""

    def __init__(
        self,
        packed: list[npt.NDArray[np.uint8]],
        weight: list[npt.NDArray[np.floating[Any]]],
        codewords: npt.NDArray[np.float32],
    ) -> None:
        """Take codes and weights in pages of one size, a power of two; the last may be shorter."""

    def changed(
        self, places: list[int], packed: list[npt.NDArray[np.uint8]], weight: list[npt.NDArray[np.floating[Any]]]
    ) -> HistoryCodes:
        """The same with other pages at some places."""

    def histogram(
        self,
        indptr: npt.NDArray[np.int64],
        indices: npt.NDArray[np.int64],
        strengths: npt.NDArray[np.float64],
        out: npt.NDArray[np.float64],
    ) -> None:
        """``out[r, 16 m + k]``: the sum of strength times weight of the row's entries whose sub-code m is k."""

    def queries(
        self,
        indptr: npt.NDArray[np.int64],
        indices: npt.NDArray[np.int64],
        strengths: npt.NDArray[np.float32] | None = None,
    ) -> npt.NDArray[np.float32] | None:
        """Unit rows of the products of histograms and codewords; None where the arguments break a rule."""

_Found = tuple[
    npt.NDArray[np.int64],
    npt.NDArray[np.int64],
    npt.NDArray[np.int64],
    npt.NDArray[np.float32],
    npt.NDArray[np.int64] | None,
]

class Answers:
    """What a catalogue answers to histories, from ids to hits in one call; everything is kept alive."""

    def __init__(
        self,
        catalogue: list[Segment],
        columns: npt.NDArray[np.float32],
        histories: HistoryCodes,
        stored: list[Rows],
        users: int,
        banned: npt.NDArray[np.bool_] | None,
        user_ids: Ids | None,
        item_ids: Ids | None,
        threads: int,
        isa: str,
    ) -> None:
        """Take codewords of the catalogue as columns ``(width, 16 M)``, and the histories of ``users`` users."""

    @property
    def seconds(self) -> float:
        """Seconds of the last search, from queries to hits."""

    def stored(self, ids: list[Any], k: int, own: bool) -> _Found | None:
        """Numbers of users, row bounds, items and scores, and ids of the items where they are integers; with ``own``,
        without the items of their histories. None where an id is not found, or a history is empty or breaks a rule.
        """

    def given(self, ids: list[Any], k: int, own: bool) -> _Found | None:
        """The same of one history by the ids of its items, with their numbers."""

    def lists(
        self,
        histories: Sequence[tuple[npt.NDArray[np.integer[Any]], npt.NDArray[np.float32] | None]],
        ks: Sequence[int],
    ) -> list[tuple[list[int], list[Any], list[float]]] | None:
        """Of each history, items and strengths, the k best that it does not have: numbers, ids and scores. None as
        ``stored``.
        """

class Ids:
    """Ids of one type."""

    def find(self, wanted: list[Any]) -> npt.NDArray[np.int64] | None:
        """Numbers of a list of ids; None where a value is of another type, or unknown."""

class Integers(Ids):
    """Ids that are integers, and the same ascending with the position of each; the arrays are kept alive."""

    def __init__(
        self,
        values: npt.NDArray[np.int64],
        ordered: npt.NDArray[np.int64],
        order: npt.NDArray[np.int32] | None = None,
    ) -> None: ...
    def decode(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Ids of numbers."""

class Texts(Ids):
    """Ids that are strings, and their hashes ascending with the position of each; the arrays are kept alive."""

    def __init__(
        self,
        utf8: npt.NDArray[np.uint8],
        offsets: npt.NDArray[np.int64],
        hashes: npt.NDArray[np.uint64],
        order: npt.NDArray[np.int32],
        base: int,
    ) -> None: ...
    def decode(self, numbers: npt.NDArray[np.int64]) -> list[str]:
        """Ids of numbers."""

class Placement:
    """Where items go: the constants of ``inference.placement``; the arrays are kept alive."""

    def __init__(
        self,
        mean: npt.NDArray[np.float32],
        axes: npt.NDArray[np.float32],
        signal: npt.NDArray[np.float32],
        answers: npt.NDArray[np.float32],
        histories: npt.NDArray[np.float32],
        stiffness: npt.NDArray[np.float32],
        levels: npt.NDArray[np.float32],
        exponent: float,
        nothing: float,
        noise: float,
        reach: float,
        doubt: float,
        growth: float,
        trust: float,
    ) -> None: ...
    def estimates(
        self,
        v: npt.NDArray[np.float64],
        rows: npt.NDArray[np.int64],
        strengths: npt.NDArray[np.float32],
        bounds: npt.NDArray[np.int64],
        own: npt.NDArray[np.float32],
        totals: npt.NDArray[np.int64],
        o: npt.NDArray[np.float32],
        p: npt.NDArray[np.float32],
    ) -> None:
        """Both vectors of items, ``(items, width)``; see ``inference.placement.Placement.estimates``."""

    def place(
        self,
        histories: HistoryCodes,
        stored: list[Rows],
        users: int,
        numbers: npt.NDArray[np.int64],
        asked: npt.NDArray[np.int64],
        bounds: npt.NDArray[np.int64],
        totals: npt.NDArray[np.int64],
        own: npt.NDArray[np.float32],
        o: npt.NDArray[np.float32],
        p: npt.NDArray[np.float32],
    ) -> None:
        """As ``estimates``, where the histories of the items' people are stored: ``asked``, between ``bounds``, are
        numbers below ``users``. ``own`` is filled with the vectors of the items in histories, 0 without a code.
        """

class Coder:
    """Codes under codewords that stay, see ``scoring.encoding``; the arrays are kept alive."""

    def __init__(
        self,
        products: npt.NDArray[np.float32],
        gram: npt.NDArray[np.float32],
        length: float,
        least: float,
        most: float,
        beam: int,
        rounds: int,
    ) -> None: ...
    def code(
        self, vectors: npt.NDArray[np.float32], packed: npt.NDArray[np.uint8], scales: npt.NDArray[np.float64]
    ) -> None:
        """Packed sub-codes and scales of vectors ``(n, width)``."""

def decode(
    packed: npt.NDArray[np.uint8],
    scale: npt.NDArray[np.floating[Any]],
    codewords: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> None:
    """Vectors of packed sub-codes ``(n, M / 2)`` with their scales ``(n,)``; codewords are ``(16 M, width)``."""
