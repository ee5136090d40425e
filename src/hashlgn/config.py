"""Configuration: small frozen dataclasses, TOML files and ``key=value`` overrides. An unknown key is an error that
lists the keys.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hashlgn.errors import ArgumentError, choose, positive_int

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
    "model.hash_directions": False,
    "model.code_start": "random",
    "train.loss": "bpr",
    "train.pretrain_epochs": 0,
    "train.joint_epochs": 1000,
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
    "train.pretrain_epochs": 0,
    "train.joint_epochs": 50,
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
    """What is trained. ``None`` means "choose for me".

    Names are keys of the tables in ``hashlgn.training`` (``ENCODERS``, ``HASHES``, ``DECODERS``, ``COMPRESSIONS``,
    ``SIGNS``), to which a plugin adds its own. They are checked when a training starts; numbers are checked here.

    Attributes:
        kind: ``hashlgn``, or ``float``: the float model, without hash and decoder.
        encoder: ``lightgcn``, ``gcn``, ``ngcf``, ``dgcf``, ``sage`` (HashGNN's) or ``spectral`` (closed form). None
            means ``lightgcn`` or ``spectral``, the one that validates better; it is ``lightgcn`` without
            validation, and where ``kind`` is ``float``.
        dim: length of an embedding, all its parts together. None means the encoder's own default: 64 for a float model
            and 128 under codes; for the spectral encoder the best of 128, 256, 512 and 1,024 on validation.
        layers: propagation steps; ``sage`` has two for users and one for items, ``spectral`` has none.
        layer_weights: ``α_0 … α_K`` of LightGCN's ``E = Σ_k α_k E^(k)``, one for ``E^(0)`` and one for each layer, at
            least 0. None means ``1 / (K + 1)`` each.
        power: exponent of the spectral encoder's filter ``h(σ) = σ^power``, 0 … 8. None means that validation chooses.
        bits: length of an item's code, a multiple of 8.
        hash: ``residual``, ``mlp3`` (the paper's), ``linear``, ``tanh`` (HashGNN's) or ``free``.
        decoder: ``codebook``, ``reweight`` (the paper's), or ``identity``: the code itself.
        sign: gradient of the sign: ``straight_through`` or ``tanh``.
        compression: of queries: ``linear``, ``mlp``, or ``hash``: users go through the items' hash and become codes
            too, so that the score is ``bits − 2 · Hamming distance``.
        similarity: ``cosine`` or ``inner``. None means inner for the spectral encoder and for users that are hashed,
            else cosine.
        scale: whether an item stores two bytes of scale beside its code.
        norm_penalty: weight of ``mean (‖g(c)‖ − 1)²`` under the cosine without a scale.
        hash_directions: whether the hash sees embeddings divided by their lengths, or (the paper's) as they are.
        code_start: ``fitted``: hash, decoder and compression start from what fits the embeddings; ``random``: from
            PyTorch's draw (the paper's; no hash without a sign has such a start).
        guidance: whether in the joint training rows pass the hash without becoming signs, with a probability that
            falls from 1 to 0 (HashGNN).

    Raises:
        ArgumentError: a number breaks its rule.
    """

    kind: str = "hashlgn"
    encoder: str | None = None
    dim: int | None = None
    layers: int = 3
    layer_weights: tuple[float, ...] | None = None
    power: float | None = None
    bits: int = 128
    hash: str = "residual"
    decoder: str = "codebook"
    sign: str = "straight_through"
    compression: str = "linear"
    similarity: str | None = None
    scale: bool = True
    norm_penalty: float = 3.0
    hash_directions: bool = True
    code_start: str = "fitted"
    guidance: bool = False

    def __post_init__(self) -> None:
        if self.dim is not None:
            positive_int("model.dim", self.dim)
        _check_count("model.layers", self.layers)
        weights = self.layer_weights
        if weights is not None and (len(weights) != self.layers + 1 or not any(weights)):
            raise ArgumentError(
                f"model.layer_weights must be {self.layers + 1} numbers, one more than model.layers, and not all 0 "
                f"(got {weights!r})"
            )
        for weight in weights or ():
            _check_finite("model.layer_weights", weight)
        if not isinstance(self.bits, int) or self.bits < 1 or self.bits % 8:
            raise ArgumentError(f"model.bits must be a positive multiple of 8 (got {self.bits})")
        if self.power is not None and not 0 <= self.power <= 8:
            raise ArgumentError(f"model.power must lie in 0 … 8 (got {self.power!r})")
        if self.similarity not in (None, "cosine", "inner"):
            raise ArgumentError(f"model.similarity must be 'cosine', 'inner' or None (got {self.similarity!r})")
        if self.code_start not in ("fitted", "random"):
            raise ArgumentError(f"model.code_start must be 'fitted' or 'random' (got {self.code_start!r})")
        _check_finite("model.norm_penalty", self.norm_penalty)


@dataclass(frozen=True)
class TrainConfig:
    """How it is trained. ``None`` means "choose for me".

    Attributes:
        loss: a key of ``LOSSES``: ``softmax``, ``bpr`` (the paper's), ``hashgnn`` (as its paper has it) or
            ``hashgnn-code`` (as its authors' code has it).
        joint_loss: of the joint training: one of those, or ``distillation``, towards the scores of the float model as
            it was when the codes joined. None: ``distillation`` where ``loss`` is ``softmax`` on cosine scores and
            there is a pre-training, else ``loss``.
        pretrain_epochs: passes over the data in which the encoder is trained alone, at most, before hash and decoder
            join.
        joint_epochs: passes over the data in which all parts are trained together, at most. A float model has no such
            stage: its encoder is trained for ``pretrain_epochs + joint_epochs``.
        schedule: of the learning rates over a stage: ``cosine``, falling to 0, or ``constant``.
        lr: Adam's learning rate for the encoder while it is trained alone.
        joint_lr: for the encoder in the joint training.
        code_lr: for hash, decoder and compression.
        batch_users: users per step under the softmax.
        batch_size: interactions per step under BPR and HashGNN's losses.
        temperature: of the softmax.
        joint_temperature: of the distillation.
        user_weight: exponent e of the weight ``(number of items)^e`` on each of a user's interactions in the softmax.
        candidates: items scored per step under the softmax, sampled where the catalogue is larger.
        l2: λ of ``λ ‖E^(0)‖²`` under BPR and HashGNN's losses; ``Bpr`` says how it is counted.
        init: ``E^(0)`` starts from ``svd`` (of the normalised adjacency), ``random``, or a saved float model, whose
            path this is.
        validation_users: users whose interactions give the validation slice, at most; 0 trains on everything,
            without early stopping.
        validation_share: share of those users' interactions that is held out.
        monitor: metric on the validation slice, at ``monitor_k``: ``recall``, ``ndcg``, or another key of ``METRICS``.
        monitor_k: cutoff of the monitored metric.
        patience: validations without a better value before a stage ends.
        validate_every: epochs between validations.
        seed: fixes every draw.

    Raises:
        ArgumentError: a number breaks its rule.
    """

    loss: str = "softmax"
    joint_loss: str | None = None
    pretrain_epochs: int = 60
    joint_epochs: int = 30
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

    def __post_init__(self) -> None:
        for name in ("pretrain_epochs", "joint_epochs", "validation_users"):
            _check_count(f"train.{name}", getattr(self, name))
        for name in ("batch_users", "batch_size", "candidates", "patience", "validate_every", "monitor_k"):
            positive_int(f"train.{name}", getattr(self, name))
        for name in ("lr", "joint_lr", "code_lr", "l2"):
            _check_finite(f"train.{name}", getattr(self, name))
        for name in ("temperature", "joint_temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ArgumentError(f"train.{name} must be positive and finite (got {getattr(self, name)!r})")
        if not math.isfinite(self.user_weight):
            raise ArgumentError(f"train.user_weight must be finite (got {self.user_weight!r})")
        if not 0 < self.validation_share < 1:
            raise ArgumentError(f"train.validation_share must lie between 0 and 1 (got {self.validation_share})")
        if not 0 <= self.seed < 2**63:
            raise ArgumentError(f"train.seed must lie in 0 … 2^63 − 1 (got {self.seed})")


@dataclass(frozen=True)
class StudentConfig:
    """How a student is trained: the model whose users are their histories.

    Attributes:
        dim: width of the vectors, p and o.
        answers: items as answers are ``codes`` or ``floats``.
        answer_bits: length of such a code, a multiple of 8.
        histories: items in histories are ``codes`` or ``floats``.
        history_bits: length of such a code, a multiple of 8.
        epochs: passes over the users by labels.
        distillation_epochs: by a mixture of teachers.
        code_epochs: for the answers' codewords and scales, beside float histories.
        settle_epochs: for the same beside histories in codes.
        lr: Adam's rate for float vectors, falling to 0 by a cosine in each stage.
        code_lr: for everything from the codes of the answers on.
        batch_users: users per step, at most; an epoch has at least 12 steps.
        candidates: items scored per step, sampled where the catalogue is larger.
        temperature: of the softmax, whatever it learns from.
        hidden: share of each history that a step hides from the query, and asks for.
        user_weight: exponent e of the weight ``d_u^e`` on each of a user's interactions, d_u their number.
        teacher: ``auto``: a mixture with EASE where it can be computed and validates better; or ``labels`` alone.
        ease_penalty: λ of EASE.
        validation_users: users whose interactions give the validation slice, at most; 0 trains on everything.
        validation_share: share of those users' interactions that is held out.
        monitor_k: cutoff of NDCG on the validation slice.
        seed: fixes every draw.

    Raises:
        ArgumentError: a number breaks its rule.
    """

    dim: int = 256
    answers: str = "codes"
    answer_bits: int = 128
    histories: str = "codes"
    history_bits: int = 256
    epochs: int = 12
    distillation_epochs: int = 10
    code_epochs: int = 5
    settle_epochs: int = 3
    lr: float = 0.005
    code_lr: float = 0.003
    batch_users: int = 512
    candidates: int = 16_384
    temperature: float = 0.2
    hidden: float = 0.7
    user_weight: float = -0.5
    teacher: str = "auto"
    ease_penalty: float = 50.0
    validation_users: int = 1000
    validation_share: float = 0.1
    monitor_k: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("answer_bits", "history_bits"):
            if positive_int(f"student.{name}", getattr(self, name)) % 8:
                raise ArgumentError(f"student.{name} must be a positive multiple of 8 (got {getattr(self, name)})")
        for name in ("answers", "histories"):
            if getattr(self, name) not in ("codes", "floats"):
                raise ArgumentError(f"student.{name} must be 'codes' or 'floats' (got {getattr(self, name)!r})")
        for name in ("dim", "batch_users", "candidates", "monitor_k"):
            positive_int(f"student.{name}", getattr(self, name))
        for name in ("epochs", "distillation_epochs", "code_epochs", "settle_epochs", "validation_users", "seed"):
            if getattr(self, name) < 0:
                raise ArgumentError(f"student.{name} must be at least 0 (got {getattr(self, name)})")
        for name in ("lr", "code_lr", "temperature", "ease_penalty"):
            if not 0 < getattr(self, name) < math.inf:
                raise ArgumentError(f"student.{name} must be positive and finite (got {getattr(self, name)!r})")
        for name in ("hidden", "validation_share"):
            if not 0 < getattr(self, name) < 1:
                raise ArgumentError(f"student.{name} must lie between 0 and 1 (got {getattr(self, name)!r})")
        if not math.isfinite(self.user_weight):
            raise ArgumentError(f"student.user_weight must be finite (got {self.user_weight!r})")
        if self.teacher not in ("auto", "labels"):
            raise ArgumentError(f"student.teacher must be 'auto' or 'labels' (got {self.teacher!r})")


@dataclass(frozen=True)
class Config:
    """The whole configuration: ``[model]``, ``[train]`` and ``[student]`` in a TOML file."""

    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    student: StudentConfig = field(default_factory=StudentConfig)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Nested plain values, as JSON and TOML take them."""
        return dataclasses.asdict(self)

    def to_toml(self) -> str:
        """Text that ``load_config`` reads back as the same configuration. TOML has no None: those keys are left out."""
        # JSON's numbers, strings, lists and words for true and false are TOML's too.
        sections = [
            f"[{section}]\n"
            + "".join(
                f"{key} = {json.dumps(value, ensure_ascii=False)}\n"
                for key, value in values.items()
                if value is not None
            )
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

        Where None is allowed, the text ``auto`` means None.

        Raises:
            ArgumentError: an unknown key, a value of the wrong type, or one that breaks a rule.
        """
        sections = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        hints = {
            f"{s}.{key}": hint for s, c in sections.items() for key, hint in typing.get_type_hints(type(c)).items()
        }
        converted: dict[str, dict[str, Any]] = {section: {} for section in sections}
        for name, value in changes.items():
            if name not in hints:
                raise ArgumentError(f"configuration key must be one of {', '.join(sorted(hints))} (got {name!r})")
            section, _, key = name.partition(".")
            converted[section][key] = _converted(name, value, hints[name])
        return Config(**{s: dataclasses.replace(c, **converted[s]) for s, c in sections.items()})


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
                "configuration must have its keys in the sections [model], [train] and [student] (got "
                f"{section!r} outside)"
            )
    return {f"{section}.{key}": value for section, keys in values.items() for key, value in keys.items()}


def _converted(name: str, value: Any, hint: Any) -> Any:
    """``value`` in the type of its key, or an error that names both."""
    optional = type(None) in typing.get_args(hint)
    kind = next(k for k in typing.get_args(hint) if k is not type(None)) if optional else hint
    if optional and (value is None or (isinstance(value, str) and value.lower() == "auto")):
        return None
    if typing.get_origin(kind) is tuple:
        parts = value.strip("[]()").split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            raise ArgumentError(f"{name} must be numbers separated by commas (got {value!r})")
        return tuple(_converted(name, part, typing.get_args(kind)[0]) for part in parts)
    rule = {int: "an integer", float: "a number", bool: "true or false", str: "text"}[kind]
    if kind is int and hasattr(value, "__index__") and not isinstance(value, bool):
        value = int(value)
    if isinstance(value, str) and kind is not str:
        try:
            value = {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
        except (ValueError, KeyError):
            raise ArgumentError(f"{name} must be {rule} (got {value!r})") from None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise ArgumentError(f"{name} must be {rule} (got {value!r})")
    return value


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 0:
        raise ArgumentError(f"{name} must be an integer of at least 0 (got {value!r})")


def _check_finite(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ArgumentError(f"{name} must be finite and at least 0 (got {value!r})")
