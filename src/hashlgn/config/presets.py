"""Recipes of published models, as changes from the defaults."""

from __future__ import annotations

from typing import Any

__all__ = ["PRESETS"]

# The paper's own recipe, as far as its text says: LightGCN with 3 layers and 64 dimensions, a hash of three fully
# connected layers with a straight-through sign, reweighting, a compression with a hidden layer, inner products, and
# BPR through all of it from a random start. The paper gives no rate, batch size or λ: those here are the best of twelve
# on the validation slice of MovieLens 1M after a few minutes at most. Patience is counted in validations.
_PAPER: dict[str, Any] = {
    "model.encoder": "lightgcn",
    "model.dim": 64,
    "model.layers": 3,
    "model.bits": 64,
    "model.hash": "mlp3",
    "model.decoder": "reweight",
    "model.compression": "mlp",
    "model.similarity": "inner",
    "model.scale": False,
    "model.hash_directions": False,
    "model.code_start": "random",
    "train.loss": "bpr",
    "train.pretrain_epochs": 0,
    "train.joint_epochs": 1000,
    "train.schedule": "constant",
    "train.lr": 0.02,
    "train.joint_lr": 0.02,
    "train.code_lr": 0.02,
    "train.batch_size": 32768,
    "train.l2": 1e-4,
    "train.init": "random",
    "train.patience": 10,
    "train.validate_every": 5,
}

# HashGNN (Tan et al., WWW 2020). Rates, batches and the temperature, an eighth of the bits, are the best of a few on
# the validation slice of MovieLens 1M: with those of its authors (0.001, 256, none) it stays below popularity there.
_HASHGNN: dict[str, Any] = {
    "model.encoder": "sage",
    "model.dim": 64,
    "model.bits": 64,
    "model.hash": "tanh",
    "model.decoder": "identity",
    "model.compression": "hash",
    "model.similarity": "inner",
    "model.scale": False,
    "model.guidance": True,
    "train.loss": "hashgnn",
    "train.temperature": 8.0,
    "train.pretrain_epochs": 0,
    "train.joint_epochs": 20,
    "train.schedule": "cosine",
    "train.lr": 0.02,
    "train.joint_lr": 0.02,
    "train.code_lr": 0.02,
    "train.batch_size": 8192,
    "train.l2": 0.0,
    "train.init": "random",
    "train.patience": 10,
    "train.validate_every": 1,
}

PRESETS: dict[str, dict[str, Any]] = {"paper": _PAPER, "hashgnn": _HASHGNN}
