from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hashlgn.config import PRESETS, Config, ModelConfig, StudentConfig, TrainConfig, load_config
from hashlgn.errors import ArgumentError


def test_later_sources_go_before_earlier_ones(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[model]\nbits = 64\nscale = false\n[train]\nlr = 1\nseed = 4\n")
    config = load_config(
        tmp_path / "c.toml", {"model.bits": 32, "train.seed": None}, ["train.lr=0.5", "model.scale = TRUE"]
    )
    assert (config.model.bits, config.model.scale, config.train.lr, config.train.seed) == (32, True, 0.5, 4)
    assert isinstance(load_config(tmp_path / "c.toml").train.lr, float)
    assert load_config() == Config()


def test_there_and_back() -> None:
    config = Config().updated({"model.bits": 64, "model.hash": 'odd "näme"', "train.lr": "1e-9", "model.scale": False})
    assert Config.from_dict(config.to_dict()) == config
    assert Config.from_dict(tomllib.loads(config.to_toml())) == config
    assert Config.from_dict({}) == Config()
    assert Config.from_dict({"model": {"bits": 64}, "train": {}}) == Config().updated({"model.bits": 64})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.size": 3}, "configuration key must be one of .*model.bits.* \\(got 'model.size'\\)"),
        ({"bits": 3}, "configuration key must be one of"),
        (
            {"student.epoch": 3},
            r"configuration key must be a known one, such as student\.epochs \(got 'student.epoch'\)",
        ),
        ({"model.bits": "many"}, "model.bits must be an integer \\(got 'many'\\)"),
        ({"model.bits": 3.5}, "model.bits must be an integer"),
        ({"model.bits": True}, "model.bits must be an integer"),
        ({"model.scale": 1}, "model.scale must be true or false"),
        ({"model.scale": "maybe"}, "model.scale must be true or false"),
        ({"train.lr": "fast"}, "train.lr must be a number"),
        ({"train.loss": 3}, "train.loss must be text"),
    ],
)
def test_a_wrong_key_or_value_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Config().updated(changes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModelConfig(scale="yes"), r"model.scale must be true or false \(got 'yes'\)"),
        (lambda: ModelConfig(norm_penalty="much"), r"model.norm_penalty must be a number \(got 'much'\)"),
        (lambda: ModelConfig(layer_weights=3), r"model.layer_weights must be numbers .* \(got 3\)"),
        (lambda: ModelConfig(bits="0"), r"model.bits must be a positive multiple of 8, at most 4,096 \(got 0\)"),
        (lambda: ModelConfig(history_bits=4_104), r"model.history_bits .* at most 4,096 \(got 4104\)"),
        (lambda: ModelConfig(dim=10**12), r"model.dim must be at most 65,536 \(got 1000000000000\)"),
        (lambda: TrainConfig(seed=10**5000), r"train.seed must lie in 0 … 2\^63 − 1 \(got a int\)"),
        (lambda: Config().updated({"model.bits_": {}}), r"configuration key must be .*model.bits_"),
        (lambda: TrainConfig(seed=1.5), r"train.seed must be an integer \(got 1.5\)"),
        (lambda: TrainConfig(loss=3), r"train.loss must be text \(got 3\)"),
        (lambda: TrainConfig(lr=10**400), "train.lr must be a number"),
        (lambda: StudentConfig(thinning=None), r"student.thinning must be a number \(got None\)"),
        (lambda: Config(model={"bits": 64}), r"model must be a ModelConfig \(got {'bits': 64}\)"),
        (lambda: Config().updated([1]), r"configuration must be a mapping, .* \(got \[1\]\)"),
        (lambda: Config().updated({1: 2}), r"configuration key must be one of .* \(got 1\)"),
        (lambda: Config.from_dict([]), r"configuration must be a mapping, .* \(got \[\]\)"),
        (lambda: StudentConfig(user_weight=1e30), r"student.user_weight must lie in -4 … 4 \(got 1e\+30\)"),
        (lambda: StudentConfig(temperature=1e-30), r"student.temperature must lie in 0.0001 … 10,000"),
        (lambda: StudentConfig(ease_penalty=1e-30), r"student.ease_penalty must lie in 1e-06 … 1,000,000,000"),
        (lambda: TrainConfig(l2=1e30), r"train.l2 must lie in 0 … 1,000,000 "),
        (lambda: ModelConfig(layer_weights=(0, 1e30, 0, 0)), r"model.layer_weights must lie in 0 … 1,000,000 "),
        (lambda: ModelConfig(histories="bits"), r"model.histories must be 'codes' or 'floats' \(got 'bits'\)"),
    ],
)
def test_a_section_checks_the_type_of_each_setting_itself(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


def test_text_and_numpy_numbers_are_read_in_the_type_of_the_setting() -> None:
    made = ModelConfig(bits="64", scale="False", layer_weights="1,2,3,4", dim="auto", norm_penalty=np.float32(1))
    assert made == ModelConfig(bits=64, scale=False, layer_weights=(1.0, 2.0, 3.0, 4.0), norm_penalty=1.0)
    assert type(TrainConfig(seed=np.int64(3)).seed) is int and type(TrainConfig(lr=1).lr) is float


def test_sections_may_be_mappings_of_their_own() -> None:
    changed = Config().updated({"train": {"lr": 0.5, "loss": "softmax"}, "model.bits": "64"})
    assert (changed.train.lr, changed.train.loss, changed.model.bits) == (0.5, "softmax", 64)
    assert Config().updated(changed.to_dict()) == changed
    with pytest.raises(ArgumentError, match=r"must be one of .* \(got 'train.velocity'\)"):
        Config().updated({"train": {"velocity": 1}})
    with pytest.raises(ArgumentError, match=r"\(got 'trian.lr'\)"):
        Config().updated({"trian": {"lr": 1}})


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("[model\n")
    (tmp_path / "section.toml").write_text("[modle]\n")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "type.toml").write_text("[model]\nbits = 3.5\n")
    (tmp_path / "flat.toml").write_text("bits = 3\n")
    for name, message in (
        ("none.toml", "config must be a readable TOML file"),
        ("broken.toml", "config must be valid TOML"),
        ("section.toml", r"configuration section must be one of model, train, student \(got 'modle'\)"),
        ("binary.toml", "config must be valid TOML"),
        ("type.toml", "model.bits must be an integer \\(got 3.5\\)"),
        ("", "config must be a readable TOML file"),  # the folder itself
        ("flat.toml", r"sections: \[model\], \[train\], \[student\]"),
    ):
        with pytest.raises(ArgumentError, match=message):
            load_config(tmp_path / name)
    with pytest.raises(ArgumentError, match=r"section.key=value"):
        load_config(overrides=["train.lr"])


def test_a_preset_changes_the_defaults_and_yields_to_everything_else(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[train]\nlr = 0.5\nbatch_size = 64\n")
    config = load_config(tmp_path / "c.toml", {"model.bits": 128}, ["train.batch_size=32"], preset="paper")
    assert (config.train.lr, config.train.batch_size, config.model.bits) == (0.5, 32, 128)
    assert (config.train.loss, config.train.pretrain_epochs, config.model.hash) == ("bpr", 0, "mlp3")
    with pytest.raises(ArgumentError, match=r"preset must be one of 'paper', 'hashgnn' \(got 'papers'\)"):
        load_config(preset="papers")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_keys_that_exist(name: str) -> None:
    config = Config().updated(PRESETS[name])
    nested = config.to_dict()
    for key, value in PRESETS[name].items():
        section, _, field = key.partition(".")
        assert nested[section][field] == value


def test_a_file_with_a_number_of_thousands_of_digits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.toml"
    path.write_text("[train]\nseed = " + 5_000 * "9")
    with pytest.raises(ArgumentError, match="config must be valid TOML"):
        load_config(path)
    path.write_text("[model.bits_]")
    with pytest.raises(ArgumentError, match=r"configuration key must be .*model.bits_"):
        load_config(path)
