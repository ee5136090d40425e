"""Binary codes: ``(n, bits)`` of ±1, packed to ``(n, bits / 8)`` bytes, read as ``(n, bits / 4)`` sub-codes.

Bit ``j`` of a code is +1 or −1; packed, it is bit ``j % 8`` of byte ``j // 8`` (least significant first), set for +1.
Sub-code ``m`` holds the bits ``4m … 4m + 3``, the first of them least significant: byte ``i`` is sub-code
``2i`` in its low half and sub-code ``2i + 1`` in its high half. This is also the order of Faiss's
4-bit product quantizers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hashlgn.errors import ArgumentError, shown

__all__ = ["check_bits", "hamming", "pack_signs", "pack_subcodes", "unpack_signs", "unpack_subcodes"]

Bytes = npt.NDArray[np.uint8]


def check_bits(bits: Any) -> int:
    """Check a code length: a positive multiple of 8.

    Raises:
        ArgumentError: it is not.
    """
    if isinstance(bits, bool) or not hasattr(bits, "__index__") or int(bits) < 8 or int(bits) % 8:
        raise ArgumentError(f"bits must be a positive multiple of 8 (got {shown(bits)})")
    return int(bits)


def pack_signs(codes: npt.ArrayLike) -> Bytes:
    """Pack codes of ±1, ``(n, bits)``, to bytes, ``(n, bits / 8)``. Zero counts as +1, as in ``sign(0) = +1``.

    Raises:
        ArgumentError: ``codes`` is not two-dimensional, or its width is no multiple of 8.
    """
    signs = np.asarray(codes)
    if signs.ndim != 2:
        raise ArgumentError(f"codes must have shape (n, bits) (got {signs.shape})")
    check_bits(signs.shape[1])
    return np.packbits(signs >= 0, axis=1, bitorder="little")


def unpack_signs(packed: Bytes) -> npt.NDArray[np.int8]:
    """Unpack bytes, ``(n, bits / 8)``, to codes of ±1, ``(n, bits)``."""
    return np.unpackbits(packed, axis=1, bitorder="little").astype(np.int8) * 2 - 1


def pack_subcodes(subcodes: npt.ArrayLike) -> Bytes:
    """Pack 4-bit sub-codes, ``(n, M)`` with values 0 … 15 and an even M, to bytes, ``(n, M / 2)``.

    Raises:
        ArgumentError: a value is out of range, or the shape is wrong.
    """
    array = np.asarray(subcodes)
    if array.ndim != 2 or array.shape[1] % 2:
        raise ArgumentError(f"subcodes must have shape (n, M) with an even M (got {array.shape})")
    if array.size and (array.min() < 0 or array.max() > 15):
        raise ArgumentError(f"subcodes must lie in 0 … 15 (got {array.min()} … {array.max()})")
    array = array.astype(np.uint8)
    packed: Bytes = array[:, 0::2] | (array[:, 1::2] << 4)
    return packed


def unpack_subcodes(packed: Bytes) -> Bytes:
    """Unpack bytes, ``(n, bits / 8)``, to 4-bit sub-codes, ``(n, bits / 4)``."""
    subcodes = np.empty((packed.shape[0], packed.shape[1] * 2), np.uint8)
    subcodes[:, 0::2] = packed & 15
    subcodes[:, 1::2] = packed >> 4
    return subcodes


def hamming(a: Bytes, b: Bytes) -> npt.NDArray[np.int64]:
    """Hamming distances in bits between packed codes, ``(n, bytes)`` and ``(m, bytes)`` → ``(n, m)``."""
    different = a[:, None, :] ^ b[None, :, :]
    distances: npt.NDArray[np.int64] = np.bitwise_count(different).sum(axis=2, dtype=np.int64)
    return distances
