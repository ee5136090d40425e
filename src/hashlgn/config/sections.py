"""The sections of a configuration: small frozen dataclasses that read their own values and check them."""

from __future__ import annotations

import math
import numbers
import typing
from dataclasses import dataclass
from typing import Any

import numpy as np

from hashlgn.config.mixtures import shares_of
from hashlgn.errors import ArgumentError, positive_int, shown

__all__ = ["ModelConfig", "StudentConfig", "TrainConfig"]

_MOST_BITS = 4_096  # of a code: the search has no longer ones
_MOST_DIM = 65_536
# Of numbers that a loss is made of: beyond these, float32 overflows whatever the learning rate is.
_MOST, _TEMPERATURES, _EXPONENTS = 1e6, (1e-4, 1e4), (-4.0, 4.0)


@dataclass(frozen=True)
class ModelConfig:
    """What is trained. ``None`` means "choose for me".

    Names are keys of the tables in ``hashlgn.training`` (``ENCODERS``, ``HASHES``, ``DECODERS``, ``COMPRESSIONS``), to
    which a plugin adds its own. They are checked when a training starts; numbers are checked here.

    Attributes:
        kind: ``hashlgn``, or ``float``: the float model, without hash and decoder.
        encoder: None, the default, means the student: users are their histories, and section ``student`` says how it
            is trained. Or an encoder with a vector for each user: ``lightgcn``, ``gcn``, ``ngcf``, ``dgcf``, ``sage``
            (HashGNN's) or ``spectral`` (closed form).
        answers: of the student: items as answers are ``codes`` or ``floats``.
        histories: of the student: items in histories are ``codes`` or ``floats``.
        history_bits: length of a code in a history, a multiple of 8. None means four times ``bits``, but at most 320
            (beyond 10,000 items at least twice ``bits``).
        strength: of the student: how much an interaction counts in a history: ``one``, ``weight`` (its own) or
            ``decay`` (by age). None means ``one``, or ``weight`` where interactions have weights that validate better.
        half_life: age at which a decaying interaction counts half, in the unit of the times (seconds, as a rule).
        dim: length of an embedding, all its parts together. None means 256 for the student (beyond 10,000
            items 192, or as many as ``bits``), and else the encoder's own default: 64 for a float model and 128 under
            codes; for the spectral encoder the best of 128, 256, 512 and 1,024 on validation.
        layers: propagation steps; ``sage`` has two for users and one for items, ``spectral`` has none.
        layer_weights: ``α_0 … α_K`` of LightGCN's ``E = Σ_k α_k E^(k)``, one for ``E^(0)`` and one for each layer, at
            least 0. None means ``1 / (K + 1)`` each.
        power: exponent of the spectral encoder's filter ``h(σ) = σ^power``, 0 … 8. None means that validation chooses.
        bits: length of an item's code, a multiple of 8.
        hash: ``residual``, ``mlp3`` (the paper's) or ``tanh`` (HashGNN's).
        decoder: ``codebook``, ``reweight`` (the paper's), or ``identity``: the code itself.
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
        ArgumentError: a value is not of its type, or breaks its rule.
    """

    kind: str = "hashlgn"
    encoder: str | None = None
    answers: str = "codes"
    histories: str = "codes"
    history_bits: int | None = None
    strength: str | None = None
    half_life: float | None = None
    dim: int | None = None
    layers: int = 3
    layer_weights: tuple[float, ...] | None = None
    power: float | None = None
    bits: int = 128
    hash: str = "residual"
    decoder: str = "codebook"
    compression: str = "linear"
    similarity: str | None = None
    scale: bool = True
    norm_penalty: float = 3.0
    hash_directions: bool = True
    code_start: str = "fitted"
    guidance: bool = False

    def __post_init__(self) -> None:
        _read_fields(self, "model")
        if self.dim is not None and positive_int("model.dim", self.dim) > _MOST_DIM:
            raise ArgumentError(f"model.dim must be at most {_MOST_DIM:,} (got {shown(self.dim)})")
        for name in ("bits", "history_bits"):
            bits = getattr(self, name)
            if bits is not None and not (0 < bits <= _MOST_BITS and bits % 8 == 0):
                rule = f"a positive multiple of 8, at most {_MOST_BITS:,}"
                raise ArgumentError(f"model.{name} must be {rule} (got {shown(bits)})")
        if self.half_life is not None and not 0 < self.half_life < math.inf:
            raise ArgumentError(f"model.half_life must be positive and finite (got {shown(self.half_life)})")
        _check_count("model.layers", self.layers)
        weights = self.layer_weights
        if weights is not None and (len(weights) != self.layers + 1 or not any(weights)):
            raise ArgumentError(
                f"model.layer_weights must be {self.layers + 1} numbers, one more than model.layers, and not all 0 "
                f"(got {shown(weights)})"
            )
        for weight in weights or ():
            _check_range("model.layer_weights", weight, 0, _MOST)
        _check_range("model.power", self.power, 0, 8)
        _check_range("model.norm_penalty", self.norm_penalty, 0, _MOST)
        _check_choice("model.strength", self.strength, None, "one", "weight", "decay")
        _check_choice("model.answers", self.answers, "codes", "floats")
        _check_choice("model.histories", self.histories, "codes", "floats")
        _check_choice("model.similarity", self.similarity, None, "cosine", "inner")
        _check_choice("model.code_start", self.code_start, "fitted", "random")


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
        init: ``E^(0)`` starts from ``svd`` (of the normalised adjacency), or ``random``.
        validation_users: users whose interactions give the validation slice, at most; 0 trains on everything,
            without early stopping.
        validation_share: share of those users' interactions that is held out.
        monitor: metric on the validation slice, at ``monitor_k``: ``recall``, ``ndcg``, or another key of ``METRICS``.
        monitor_k: cutoff of the monitored metric.
        patience: validations without a better value before a stage ends.
        validate_every: epochs between validations.
        seed: fixes every draw.

    Raises:
        ArgumentError: a value is not of its type, or breaks its rule.
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
        _read_fields(self, "train")
        for name in ("pretrain_epochs", "joint_epochs", "validation_users"):
            _check_count(f"train.{name}", getattr(self, name))
        for name in ("batch_users", "batch_size", "candidates", "patience", "validate_every", "monitor_k"):
            positive_int(f"train.{name}", getattr(self, name))
        for name in ("lr", "joint_lr", "code_lr"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ArgumentError(f"train.{name} must be finite and at least 0 (got {shown(getattr(self, name))})")
        _check_range("train.l2", self.l2, 0, _MOST)
        _check_range("train.temperature", self.temperature, *_TEMPERATURES)
        _check_range("train.joint_temperature", self.joint_temperature, *_TEMPERATURES)
        _check_range("train.user_weight", self.user_weight, *_EXPONENTS)
        _check_choice("train.init", self.init, "svd", "random")
        if not 0 < self.validation_share < 1:
            raise ArgumentError(f"train.validation_share must lie between 0 and 1 (got {shown(self.validation_share)})")
        if not 0 <= self.seed < 2**63:
            raise ArgumentError(f"train.seed must lie in 0 … 2^63 − 1 (got {shown(self.seed)})")


@dataclass(frozen=True)
class StudentConfig:
    """How a student is trained: the model whose users are their histories.

    Attributes:
        epochs: passes over the users by labels.
        distillation_epochs: by a mixture of teachers.
        code_epochs: for the answers' codewords and scales, beside float histories.
        settle_epochs: for the same beside histories in codes.
        lr: Adam's rate for float vectors, falling to 0 by a cosine in each stage.
        label_lr: the same while they learn from labels; ``lr`` where None.
        code_lr: for codewords, scales and float histories, once answers are codes.
        settle_lr: for codewords and scales beside histories in codes.
        batch_users: users per step, at most; an epoch has at least 8 steps.
        candidates: items scored per step, sampled where the catalogue is larger.
        temperature: of the softmax, whatever it learns from.
        hidden: share of each history that a step hides from the query, and asks for. None means 0.7 (beyond 10,000
            items 0.5).
        user_weight: exponent e of the weight ``d_u^e`` on each of a user's interactions, d_u their number.
        thinning: towards a teacher, each step tells a random share of each history of d items, uniform between
            ``max(1 − thinning, 20 / d)`` and 1.
        teacher: ``auto``: a mixture of the label student and EASE, or beyond 10,000 items a graph filter, where it
            validates better; ``labels`` alone; or a mixture of your own, such as
            ``0.5 labels + 0.3 lightgcn + 0.2 ease``: of ``labels``, ``ease``, ``filter``, ``popularity`` and encoders,
            which are trained as section ``train`` says. A teacher without a number counts 1; shares are divided by
            their sum.
        encoder_epochs: passes over the data of each encoder among the teachers, at most.
        ease_penalty: λ of EASE.

    Raises:
        ArgumentError: a value is not of its type, or breaks its rule.
    """

    epochs: int = 20
    distillation_epochs: int = 12
    code_epochs: int = 16
    settle_epochs: int = 4
    lr: float = 0.005
    label_lr: float | None = None
    code_lr: float = 0.003
    settle_lr: float = 0.0007
    batch_users: int = 512
    candidates: int = 8_192
    temperature: float = 0.15
    hidden: float | None = None
    user_weight: float = -0.25
    thinning: float = 0.9
    teacher: str = "auto"
    encoder_epochs: int = 45
    ease_penalty: float = 50.0

    def __post_init__(self) -> None:
        _read_fields(self, "student")
        for name in ("batch_users", "candidates"):
            positive_int(f"student.{name}", getattr(self, name))
        for name in ("epochs", "distillation_epochs", "code_epochs", "settle_epochs", "encoder_epochs"):
            _check_count(f"student.{name}", getattr(self, name))
        for name in ("lr", "label_lr", "code_lr", "settle_lr"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise ArgumentError(f"student.{name} must be positive and finite (got {shown(getattr(self, name))})")
        if self.hidden is not None and not 0 < self.hidden < 1:
            raise ArgumentError(f"student.hidden must lie between 0 and 1 (got {shown(self.hidden)})")
        _check_range("student.temperature", self.temperature, *_TEMPERATURES)
        _check_range("student.user_weight", self.user_weight, *_EXPONENTS)
        _check_range("student.thinning", self.thinning, 0, 1)
        _check_range("student.ease_penalty", self.ease_penalty, 1e-6, 1e9)
        if self.teachers not in (None, {"labels": 1.0}) and not self.distillation_epochs:
            raise ArgumentError(
                "student.distillation_epochs must be positive where student.teacher names a mixture "
                f"(got 0, with {shown(self.teacher)})"
            )

    @property
    def teachers(self) -> dict[str, float] | None:
        """The shares of the mixture that ``teacher`` names; None where it is ``auto``."""
        return None if self.teacher == "auto" else shares_of(self.teacher)


def _read_fields(section: Any, name: str) -> None:
    """Give every field of a section the type that it is declared with.

    Raises:
        ArgumentError: a value is not of its type, nor text that spells one.
    """
    for key, hint in typing.get_type_hints(type(section)).items():
        object.__setattr__(section, key, _typed(f"{name}.{key}", getattr(section, key), hint))


def _typed(name: str, value: Any, hint: Any) -> Any:
    optional = type(None) in typing.get_args(hint)
    kind = next(k for k in typing.get_args(hint) if k is not type(None)) if optional else hint
    if optional and (value is None or (isinstance(value, str) and value.lower() == "auto")):
        return None
    if typing.get_origin(kind) is tuple:
        parts = value.strip("[]()").split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            raise ArgumentError(f"{name} must be numbers separated by commas (got {shown(value)})")
        return tuple(_typed(name, part, typing.get_args(kind)[0]) for part in parts)
    rule = {int: "an integer", float: "a number", bool: "true or false", str: "text"}[kind]
    abstract = {int: numbers.Integral, float: numbers.Real, bool: bool | np.bool_, str: str}[kind]
    readable = isinstance(value, abstract) and (kind is bool or not isinstance(value, bool))
    try:
        if isinstance(value, str) and kind is bool:
            return {"true": True, "false": False}[value.lower()]
        if readable or isinstance(value, str):
            return kind(value)
    except (ValueError, KeyError, OverflowError):
        pass
    raise ArgumentError(f"{name} must be {rule} (got {shown(value)})")


def _check_count(name: str, value: int) -> None:
    if value < 0:
        raise ArgumentError(f"{name} must be an integer of at least 0 (got {shown(value)})")


def _check_range(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise ArgumentError(f"{name} must lie in {low:g} … {high:,.10g} (got {shown(value)})")


def _check_choice(name: str, value: str | None, *choices: str | None) -> None:
    if value not in choices:
        listed = ", ".join(map(repr, choices[:-1]))
        raise ArgumentError(f"{name} must be {listed} or {choices[-1]!r} (got {shown(value)})")
