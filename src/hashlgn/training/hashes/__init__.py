"""Hash functions: an item embedding in, a code of ±1 out. ``HASHES`` is the table of choices."""

from __future__ import annotations

from hashlgn.training.hashes.base import Hash, Start
from hashlgn.training.hashes.residual import Residual
from hashlgn.training.hashes.signs import Mlp3, SignHash, Tanh, sign, straight_through

__all__ = ["HASHES", "Hash", "Mlp3", "Residual", "SignHash", "Start", "Tanh", "sign", "straight_through"]

HASHES: dict[str, type[Hash]] = {"mlp3": Mlp3, "tanh": Tanh, "residual": Residual}
