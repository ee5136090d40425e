"""Configuration: small frozen dataclasses, TOML files and ``key=value`` overrides. An unknown key is an error that
lists the keys.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hashlgn.errors import ArgumentError, choose

__all__ = ["PRESETS", "Config", "ModelConfig", "TrainConfig", "load_config", "override_changes", "preset_changes"]

# The paper's own recipe, as far as its text says: LightGCN with 3 layers and 64 dimensions, a hash of three fully
# connected layers with a straight-through sign, reweighting, a compression with a hidden layer, inner products, and
# BPR through all of it from a random start. Patience is counted in validations.
_PAPER: dict[str, Any] = {
    "model.encoder": "lightgcn",
    "model.dim": 64,
    "model.layers": 3,
    "model.bits": 64,
    "model.hash": "mlp3",
    "model.decoder": "reweight",
    "model.sign": "straight_through",
    "model.compression": "mlp",
    "model.similarity": "inner",
    "model.scale": False,
    "train.loss": "bpr",
    "train.epochs": 1000,
    "train.warmup": 0.0,
    "train.schedule": "constant",
    "train.lr": 0.001,
    "train.joint_lr": 0.001,
    "train.code_lr": 0.001,
    "train.batch_size": 2048,
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
    "model.sign": "straight_through",
    "model.compression": "hash",
    "model.similarity": "inner",
    "model.scale": False,
    "model.guidance": True,
    "train.loss": "hashgnn",
    "train.temperature": 8.0,
    "train.epochs": 50,
    "train.warmup": 0.0,
    "train.schedule": "cosine",
    "train.lr": 0.01,
    "train.joint_lr": 0.01,
    "train.code_lr": 0.01,
    "train.batch_size": 2048,
    "train.l2": 0.0,
    "train.init": "random",
    "train.patience": 10,
    "train.validate_every": 1,
}

PRESETS: dict[str, dict[str, Any]] = {"paper": _PAPER, "hashgnn": _HASHGNN}


@dataclass(frozen=True)
class ModelConfig:
    """What is trained.

    Attributes:
        kind: ``hashlgn``, or ``lightgcn``: the float model, without hash and decoder.
        encoder: ``lightgcn``, ``gcn``, ``ngcf``, ``dgcf``, ``sage`` (HashGNN's) or ``spectral`` (closed form); ``auto``
            means ``lightgcn`` or ``spectral``, the one that validates better, and ``lightgcn`` without validation or
            where ``kind`` is ``lightgcn``.
        dim: length of an embedding, all its parts together; 0 means 64 as a float model and 128 under codes, and for
            the spectral encoder the best of 128, 256, 512 and 1,024 on validation.
        layers: propagation steps; ``sage`` has two for users and one for items, ``spectral`` none.
        power: exponent of the spectral encoder's filter ``h(σ) = σ^power``; below 0 it is chosen on validation.
        bits: length of an item's code, a multiple of 8.
        hash: ``residual``, ``mlp3`` (the paper's), ``linear``, ``tanh`` (HashGNN's) or ``free``.
        decoder: ``codebook``, ``reweight`` (the paper's), or ``identity``: the code itself.
        sign: gradient of the sign: ``straight_through`` or ``tanh``.
        compression: of queries: ``linear``, ``mlp``, or ``hash``: users go through the items' hash and become codes
            too, so that the score is ``bits − 2 · Hamming distance``.
        similarity: ``cosine`` or ``inner``; ``auto`` means inner for the spectral encoder and for users that are
            hashed, else cosine.
        scale: whether an item stores two bytes of scale beside its code.
        norm_penalty: weight of ``mean (‖g(c)‖ − 1)²`` under the cosine without a scale.
        guidance: whether in the joint training rows pass the hash without being cut to signs, with a probability that
            falls from 1 to 0 (HashGNN).
    """

    kind: str = "hashlgn"
    encoder: str = "auto"
    dim: int = 0
    layers: int = 3
    power: float = -1.0
    bits: int = 128
    hash: str = "residual"
    decoder: str = "codebook"
    sign: str = "straight_through"
    compression: str = "linear"
    similarity: str = "auto"
    scale: bool = True
    norm_penalty: float = 3.0
    guidance: bool = False


@dataclass(frozen=True)
class TrainConfig:
    """How it is trained.

    Attributes:
        loss: ``softmax``, ``bpr`` (the paper's), ``hashgnn`` (as its paper has it) or ``hashgnn-code`` (as its authors'
            code has it).
        joint_loss: of the joint training: one of those, or ``distillation``, towards the scores of the float model as
            it was when the codes joined; ``auto`` means that where ``loss`` is ``softmax`` on cosine scores and the
            warm-up has an epoch, and else ``loss``.
        epochs: passes over the data, at most.
        warmup: share of the epochs in which the encoder is trained alone, before hash and decoder join. A float model
            has no hash to wait for.
        schedule: of the learning rates over a stage: ``cosine``, falling to 0, or ``constant``.
        lr: Adam's learning rate for the encoder while it is trained alone.
        joint_lr: for the encoder in the joint training.
        code_lr: for hash, decoder and compression.
        batch_users: users a step under the softmax.
        batch_size: interactions a step under BPR and HashGNN's losses.
        temperature: of the softmax.
        joint_temperature: of the distillation.
        user_weight: exponent e of the weight ``(number of items)^e`` on each of a user's interactions in the softmax.
        candidates: items scored a step under the softmax, sampled where the catalogue is larger.
        l2: λ of ``λ ‖E^(0)‖²`` under BPR and HashGNN's losses, on the rows of the batch.
        init: ``E^(0)`` starts from ``svd`` (of the normalised adjacency), ``random``, or the folder of a saved float
            model.
        validation_users: users whose interactions give the validation slice, at most; 0 trains on everything,
            without early stopping.
        validation_share: share of those users' interactions that is held out.
        monitor: ``recall`` or ``ndcg``, at ``monitor_k``, on the validation slice.
        monitor_k: cut of the monitored metric.
        patience: validations without a better value before a stage ends.
        validate_every: epochs between validations.
        seed: fixes every draw.
    """

    loss: str = "softmax"
    joint_loss: str = "auto"
    epochs: int = 90
    warmup: float = 0.67
    schedule: str = "cosine"
    lr: float = 0.05
    joint_lr: float = 0.01
    code_lr: float = 0.003
    batch_users: int = 1024
    batch_size: int = 2048
    temperature: float = 0.15
    joint_temperature: float = 0.1
    user_weight: float = -0.5
    candidates: int = 50_000
    l2: float = 1e-4
    init: str = "svd"
    validation_users: int = 1000
    validation_share: float = 0.1
    monitor: str = "ndcg"
    monitor_k: int = 50
    patience: int = 12
    validate_every: int = 2
    seed: int = 0


@dataclass(frozen=True)
class Config:
    """The whole configuration: ``[model]`` and ``[train]`` in a TOML file."""

    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Nested plain values, as JSON and TOML take them."""
        return dataclasses.asdict(self)

    def to_toml(self) -> str:
        """Text that ``load_config`` reads back as the same configuration."""
        # JSON's numbers, strings and words for true and false are TOML's too.
        sections = [
            f"[{section}]\n"
            + "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())
            for section, values in self.to_dict().items()
        ]
        return "\n".join(sections)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        """Read nested plain values; keys left out keep their defaults.

        Raises:
            ArgumentError: an unknown section or key, or a value of the wrong type.
        """
        return cls().updated(_flat(values))

    def updated(self, changes: Mapping[str, Any]) -> Config:
        """A copy with changes such as ``{"train.lr": 0.01}``; text is converted to the key's type.

        Raises:
            ArgumentError: an unknown key, or a value of the wrong type.
        """
        sections: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name, value in changes.items():
            section, _, key = name.partition(".")
            known = {f"{s}.{k}" for s, c in sections.items() for k in typing.get_type_hints(type(c))}
            if name not in known:
                raise ArgumentError(f"configuration key must be one of {', '.join(sorted(known))} (got {name!r})")
            hint = typing.get_type_hints(type(sections[section]))[key]
            sections[section] = dataclasses.replace(sections[section], **{key: _converted(name, value, hint)})
        return Config(**sections)


def preset_changes(name: str | None) -> dict[str, Any]:
    """The changes from the defaults that a preset makes; none where ``name`` is None.

    Raises:
        ArgumentError: there is no preset of that name; the message lists the names.
    """
    chosen: dict[str, Any] = {} if name is None else choose("preset", name, PRESETS)
    return dict(chosen)


def override_changes(overrides: Iterable[str]) -> dict[str, str]:
    """``section.key=value`` as typed, as changes.

    Raises:
        ArgumentError: one has no ``=``.
    """
    changes = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ArgumentError(f"set must have the form section.key=value (got {override!r})")
        changes[key.strip()] = value.strip()
    return changes


def load_config(
    path: str | Path | None = None,
    flags: Mapping[str, Any] | None = None,
    overrides: Iterable[str] = (),
    preset: str | None = None,
) -> Config:
    """Defaults, then a preset, then a TOML file, then flags that are not None, then ``section.key=value`` overrides.

    Raises:
        ArgumentError: there is no such preset, the file cannot be read or parsed, a key is unknown, a value has the
            wrong type.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(Path(path).read_text("utf-8"))
        except OSError as error:
            raise ArgumentError(f"config must be a readable TOML file (got {str(path)!r}: {error.strerror})") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ArgumentError(f"config must be valid TOML (got {str(path)!r}: {error})") from error
    changes = {name: value for name, value in (flags or {}).items() if value is not None}
    changes |= override_changes(overrides)
    return Config().updated(preset_changes(preset)).updated(_flat(values)).updated(changes)


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    known = [section.name for section in dataclasses.fields(Config)]
    for section, keys in values.items():
        if isinstance(keys, dict) and section not in known:
            raise ArgumentError(f"configuration section must be one of {', '.join(known)} (got {section!r})")
        if not isinstance(keys, dict):
            raise ArgumentError(
                f"configuration must have its keys in the sections [model] and [train] (got {section!r} outside)"
            )
    return {f"{section}.{key}": value for section, keys in values.items() for key, value in keys.items()}


def _converted(name: str, value: Any, hint: Any) -> Any:
    wanted = hint
    if wanted is int and hasattr(value, "__index__") and not isinstance(value, bool):
        value = int(value)
    if isinstance(value, str) and wanted is not str:
        try:
            value = {"true": True, "false": False}[value.lower()] if wanted is bool else wanted(value)
        except (ValueError, KeyError):
            raise ArgumentError(f"{name} must be {_article(wanted)} (got {value!r})") from None
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, wanted) or (wanted is not bool and isinstance(value, bool)):
        raise ArgumentError(f"{name} must be {_article(wanted)} (got {value!r})")
    return value


def _article(kind: type) -> str:
    return {int: "an integer", float: "a number", bool: "true or false", str: "text"}[kind]
