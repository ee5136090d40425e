"""Coded items as blocks in segments: what a change gives, and what a file holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np

from hashlgn.errors import ArgumentError
from hashlgn.scoring.codes import Bytes
from hashlgn.scoring.decoders import CodebookDecoder, Decoder, ReweightDecoder
from hashlgn.scoring.items import CodedItems
from hashlgn.search.blocks import BLOCK, FIELDS, Blocks, Ints, Scale
from hashlgn.utils.tensors import Arrays

__all__ = ["BlockItems", "items_arrays", "items_from", "merged"]

_SMALL = BLOCK  # items: segments that hold no more together are joined, so that there are few


class BlockItems(CodedItems):
    """Codes that stand in blocks, such as those of a mapped file; ``packed`` and ``scale`` are made when first asked.

    A change gives a new catalogue and leaves this one as it is. What is large is shared by both: new codes stand in
    segments of their own, which are merged where they are small, so that an item is moved few times.

    Args:
        segments: where the items are, each in one of them.
        decoder: reads the codes.
    """

    def __init__(self, segments: tuple[Blocks, ...], decoder: Decoder, count: int | None = None) -> None:
        object.__setattr__(self, "segments", segments)
        object.__setattr__(self, "decoder", decoder)
        object.__setattr__(self, "count", sum(map(len, segments)) if count is None else count)

    segments: tuple[Blocks, ...]
    count: int

    @classmethod
    def of(cls, items: CodedItems) -> BlockItems:
        """Coded items in blocks; the same object where they are."""
        if isinstance(items, BlockItems):
            return items
        return cls((Blocks.build(items.packed, items.scale),), items.decoder)

    def __len__(self) -> int:
        return self.count

    def __getstate__(self) -> dict[str, Any]:
        """What is stored; ``packed`` is made again."""
        return {"segments": self.segments, "decoder": self.decoder, "count": self.count}

    def placed(self, numbers: Ints, packed: Bytes, scale: Scale | None) -> BlockItems:
        """A catalogue in which some items have the given codes.

        Args:
            numbers: ascending: items that are there, then new ones, which follow the last item without a gap.
            packed: their codes.
            scale: their scales.
        """
        old = numbers[numbers < self.count]
        segments, count = list(self.segments), self.count + len(numbers) - len(old)
        for place, slots, _ in self._found(old):
            segments[place] = segments[place].without(slots)

        def build(numbers: Ints, packed: Bytes, scale: Scale | None) -> Blocks:
            return Blocks.build(packed, scale, numbers=numbers)

        return BlockItems(merged(segments, numbers, packed, scale, build), self.decoder, count)

    def whole(self) -> BlockItems:
        """The same catalogue in one segment; the same object where it is."""
        if len(self.segments) == 1 and self.segments[0].holes is None:
            return self
        return BlockItems((Blocks.build(self.packed, self.scale),), self.decoder)

    def rows(self, items: Ints) -> tuple[Bytes, Scale | None]:
        """Codes and scales of some items."""
        codes, scale = np.empty((len(items), self.decoder.bits // 8), np.uint8), None
        if self.segments[0].scale is not None:
            scale = np.empty(len(items), self.segments[0].scale.dtype)
        for place, slots, rows in self._found(np.asarray(items, np.int64)):
            one = self.segments[place]
            codes[rows] = one.codes(slots)
            if scale is not None and one.scale is not None:
                scale[rows] = one.scale[slots]
        return codes, scale

    def _found(self, items: Ints) -> Iterator[tuple[int, Ints, Ints]]:
        """Segments that hold some items: the slots of these, and which of the items they are."""
        left = np.arange(len(items))
        for place, one in enumerate(self.segments):
            slots = one.find(items)
            if len(items) == 1:  # as in most changes
                if slots[0] >= 0:
                    yield place, slots, left
                    return
                continue
            here = slots >= 0
            if here.any():
                yield place, slots[here], left[here]
                items, left = items[~here], left[~here]

    @cached_property
    def _rows(self) -> tuple[Bytes, Scale | None]:
        parts = [one.live() for one in self.segments]
        numbers = np.concatenate([part[0] for part in parts])
        order = np.empty(len(numbers), np.int64)
        order[numbers] = np.arange(len(numbers))
        scales = [part[2] for part in parts if part[2] is not None]
        return np.concatenate([part[1] for part in parts])[order], np.concatenate(scales)[order] if scales else None

    @property
    def packed(self) -> Bytes:
        """Codes in the order of the items, ``(n, bits / 8)``."""
        return self._rows[0]

    @property
    def scale(self) -> Scale | None:
        """Scales in the order of the items, ``(n,)``, or None."""
        return None if self.segments[0].scale is None else self._rows[1]

    @property
    def bytes_per_item(self) -> float:
        """Bytes of one item: code and scale."""
        scale = self.segments[0].scale
        return self.decoder.bits / 8 + (0 if scale is None else scale.itemsize)


def merged(
    segments: list[Blocks],
    numbers: Ints,
    packed: Bytes,
    scale: Scale | None,
    build: Callable[[Ints, Bytes, Scale | None], Blocks],
) -> tuple[Blocks, ...]:
    """Segments, with one more at the end that at least halves the one before, so that there are few: small ones are
    joined.

    Args:
        segments: those there are.
        numbers: new items, ascending.
        packed: their codes.
        scale: their scales.
        build: arranges items, ascending, with their codes and scales.
    """
    while segments and len(numbers) + len(segments[-1]) <= max(_SMALL, 3 * len(numbers) - 1):
        before, codes, scales = segments.pop().live()
        numbers = np.concatenate((before, numbers))
        order = np.argsort(numbers, kind="stable")
        numbers, packed = numbers[order], np.concatenate((codes, packed))[order]
        scale = None if scale is None or scales is None else np.concatenate((scales, scale))[order]
    return *segments, build(numbers, packed, scale)


def items_arrays(segments: tuple[Blocks, ...], decoder: Decoder) -> tuple[Arrays, dict[str, Any]]:
    """Coded items for a file: arrays by name, and what the manifest says of them.

    Raises:
        ArgumentError: the decoder is of a kind that has no form in a file.
    """
    if isinstance(decoder, CodebookDecoder):
        arrays, kind = {"codewords": decoder.codewords}, "codebook"
    elif isinstance(decoder, ReweightDecoder):
        arrays, kind = {"alpha": decoder.alpha, "beta": decoder.beta}, "reweight"
    else:
        raise ArgumentError(f"items.decoder must be a reweight or codebook decoder (got {type(decoder).__name__})")
    for number, segment in enumerate(segments):
        arrays |= {_name(number, name): array for name, array in segment.arrays().items()}
    return arrays, {"form": "codes", "decoder": kind, "segments": len(segments)}


def items_from(arrays: Arrays, said: dict[str, Any]) -> tuple[tuple[Blocks, ...], Decoder]:
    """Coded items from a file: what ``items_arrays`` gave.

    Raises:
        ArgumentError: the arrays do not fit together; also a ``KeyError`` where one is missing.
    """
    decoder: Decoder
    if said["decoder"] == "codebook":
        decoder, weights = CodebookDecoder(arrays["codewords"]), {"codewords": (arrays["codewords"], (None, 16, None))}
    elif said["decoder"] == "reweight":
        decoder = ReweightDecoder(arrays["alpha"], arrays["beta"])
        weights = {name: (arrays[name], arrays["alpha"].shape[:1]) for name in ("alpha", "beta")}
    else:
        raise ArgumentError(f"decoder must be 'reweight' or 'codebook' (got {said['decoder']!r:.60})")
    for name, (array, shape) in weights.items():
        fits = array.ndim == len(shape) and all(w in (None, g) for w, g in zip(shape, array.shape, strict=True))
        if array.dtype != np.float32 or not fits or not np.isfinite(array).all():
            raise ArgumentError(f"{name} must be finite float32 {shape} (got {array.dtype} {array.shape})")
    if decoder.bits % 8 or not decoder.bits:
        raise ArgumentError(f"decoder must be for a multiple of 8 bits (got {decoder.bits})")
    segments, first = [], 0
    for number in range(said["segments"]):
        held: dict[str, Any] = {field: arrays.get(_name(number, name)) for name, field in FIELDS.items()}
        segments.append(Blocks(first=first, **held))
        segments[-1].check(decoder.bits)
        first += len(segments[-1])
    if not segments:
        raise ArgumentError("segments must be at least 1")
    return tuple(segments), decoder


def _name(segment: int, name: str) -> str:
    return f"{segment}.{name}" if segment else name
