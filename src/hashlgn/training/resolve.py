"""From a configuration to one that can be trained: names are checked, and what is open is filled in.

Names are looked up in the tables of choices as they are now, so that a plugin's own are known. Numbers are checked
by the dataclasses themselves.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from hashlgn.config import Config, ModelConfig
from hashlgn.data import Interactions
from hashlgn.data.strengths import strengths_of
from hashlgn.errors import ArgumentError, DataError, choose, shown
from hashlgn.evaluation.metrics import METRICS
from hashlgn.training.decoders import COMPRESSIONS, DECODERS
from hashlgn.training.encoders import ENCODERS
from hashlgn.training.hashes import HASHES
from hashlgn.training.losses import LOSSES
from hashlgn.training.schedules import SCHEDULES

__all__ = ["check_data", "check_parts", "resolve", "resolve_device"]


def resolve(config: Config) -> Config:
    """The same configuration with what is None filled in, as far as the data have no say.

    Width and filter of the spectral encoder stay None: validation chooses them.

    Raises:
        ArgumentError: a name is unknown, or settings do not go together.
    """
    model, settings = config.model, config.train
    choose("model.kind", model.kind, {"hashlgn": None, "float": None})
    if model.encoder is None:
        raise ArgumentError("model.encoder must name an encoder here: without one, users are histories (got None)")
    encoder = choose("model.encoder", model.encoder, ENCODERS)
    if config.student.teacher != "auto":
        raise ArgumentError(
            f"student.teacher must be left out where model.encoder is named (got {shown(config.student.teacher)})"
        )
    check_parts(model)
    choose("train.monitor", settings.monitor, METRICS)
    choose("train.schedule", settings.schedule, SCHEDULES)
    losses = {name: loss for name, loss in LOSSES.items() if not loss.needs_teacher}
    choose("train.loss", settings.loss, losses)
    if settings.joint_loss is not None:
        choose("train.joint_loss", settings.joint_loss, LOSSES)
    if model.layer_weights is not None and not encoder.has_layer_weights:
        raise ArgumentError(
            f"model.layer_weights must be left out for encoder {model.encoder!r} (got {model.layer_weights})"
        )
    dim, similarity, joint_loss = model.dim, model.similarity, settings.joint_loss
    if dim is None and encoder.dims is not None:
        dim = encoder.dims[model.kind]
    if similarity is None:
        similarity = "inner" if model.compression == "hash" else encoder.similarity
    if joint_loss is None:
        taught = settings.loss == "softmax" and similarity == "cosine" and settings.pretrain_epochs > 0
        joint_loss = "distillation" if taught else settings.loss
    return replace(
        config,
        model=replace(model, dim=dim, similarity=similarity),
        train=replace(settings, joint_loss=joint_loss),
    )


def check_parts(config: ModelConfig) -> None:
    """Check that the names of hash, decoder and compression are known, and that they go together.

    Raises:
        ArgumentError: they do not.
    """
    hash_ = choose("model.hash", config.hash, HASHES)
    choose("model.decoder", config.decoder, DECODERS)
    choose("model.compression", config.compression, {**COMPRESSIONS, "hash": None})
    if config.kind == "float":
        return
    if hash_.decoder not in (None, config.decoder):
        raise ArgumentError(f"hash {config.hash!r} needs decoder {hash_.decoder!r} (got decoder {config.decoder!r})")
    if not hash_.has_sign and config.guidance:
        raise ArgumentError(f"guidance needs a hash with a sign (got hash {config.hash!r})")
    if not hash_.has_sign and config.code_start == "random":
        raise ArgumentError(f"code_start 'random' needs a hash with a sign (got hash {config.hash!r})")
    if config.compression != "hash":
        return
    if hash_.per_item:
        raise ArgumentError(f"compression 'hash' needs a hash that users can go through too (got hash {config.hash!r})")
    if config.decoder != "identity" or config.similarity == "cosine" or config.scale:
        raise ArgumentError(
            "compression 'hash' needs decoder 'identity', similarity 'inner' and no scale: its scores are Hamming "
            f"distances (got decoder {config.decoder!r}, similarity {config.similarity!r}, scale {config.scale})"
        )


def check_data(data: Interactions, config: Config) -> None:
    """Refuse data that a training cannot learn from, before anything is computed.

    Raises:
        DataError: there are fewer than two users or two items, or no interaction.
        ArgumentError: the data lacks the weights or times that the configuration names.
    """
    if data.n_users < 2 or data.n_items < 2 or not len(data):
        raise DataError(f"training needs at least 2 users and 2 items (got {data.sizes})")
    if config.model.encoder is None:
        strengths_of(data, config.model.strength or "one", config.model.half_life)


def resolve_device(device: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU.

    Raises:
        ArgumentError: an unknown name, or ``cuda`` where there is none.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ArgumentError(f"device must be 'auto', 'cpu' or 'cuda' (got {shown(device)})")
    if device == "cuda" and not torch.cuda.is_available():
        raise ArgumentError("device must be 'cpu' or 'auto' on a machine without CUDA (got 'cuda')")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
