"""Configuration: sections, presets, TOML files and ``key=value`` overrides."""

from hashlgn.config.loading import Config, load_config, override_changes, preset_changes
from hashlgn.config.presets import PRESETS
from hashlgn.config.sections import ModelConfig, StudentConfig, TrainConfig

__all__ = [
    "PRESETS",
    "Config",
    "ModelConfig",
    "StudentConfig",
    "TrainConfig",
    "load_config",
    "override_changes",
    "preset_changes",
]
