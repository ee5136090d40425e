"""Configuration: small frozen dataclasses, TOML files and ``key=value`` overrides. An unknown key is an error that
names the key most like it, else all.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hashlgn.config.presets import PRESETS
from hashlgn.config.sections import ModelConfig, StudentConfig, TrainConfig
from hashlgn.errors import ArgumentError, choose, shown

__all__ = ["Config", "by_key", "load_config", "override_changes", "preset_changes"]


@dataclass(frozen=True)
class Config:
    """The whole configuration: ``[model]``, ``[train]`` and ``[student]`` in a TOML file.

    Raises:
        ArgumentError: a section is none.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    student: StudentConfig = field(default_factory=StudentConfig)

    def __post_init__(self) -> None:
        for name, kind in (("model", ModelConfig), ("train", TrainConfig), ("student", StudentConfig)):
            if not isinstance(value := getattr(self, name), kind):
                raise ArgumentError(f"{name} must be a {kind.__name__} (got {shown(value)})")

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
        """A copy with changes such as ``{"train.lr": 0.01}`` or ``{"train": {"lr": 0.01}}``.

        Text is read as the key's type. Where None is allowed, the text ``auto`` means None.

        Raises:
            ArgumentError: an unknown key, a value of the wrong type, or one that breaks a rule.
        """
        known = [f"{name}.{key}" for name, section in self.to_dict().items() for key in section]
        found: dict[str, dict[str, Any]] = {f.name: {} for f in dataclasses.fields(self)}
        for name, value in by_key(changes).items():
            if name not in known:
                near = difflib.get_close_matches(str(name), known, 1, cutoff=0.85)
                which = f"a known one, such as {near[0]}" if near else f"one of {', '.join(sorted(known))}"
                raise ArgumentError(f"configuration key must be {which} (got {shown(name)})")
            section, _, key = name.partition(".")
            found[section][key] = value
        return Config(**{name: dataclasses.replace(getattr(self, name), **keys) for name, keys in found.items()})


def by_key(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes by ``section.key``: a section that is a mapping of its own is spread out.

    Raises:
        ArgumentError: they are no mapping.
    """
    found: dict[str, Any] = {}
    for name, value in _checked(changes).items():
        section = isinstance(value, Mapping) and "." not in str(name)
        found |= {f"{name}.{key}": one for key, one in value.items()} if section else {name: value}
    return found


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
        except ValueError as error:  # no TOML, no UTF-8, a number of thousands of digits, a path that none can be
            raise ArgumentError(f"config must be valid TOML (got {str(path)!r}: {error})") from error
    changes = {name: value for name, value in (flags or {}).items() if value is not None}
    changes |= override_changes(overrides)
    return Config().updated(preset_changes(preset)).updated(_flat(values)).updated(changes)


def _checked(changes: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(changes, Mapping):
        raise ArgumentError(f"configuration must be a mapping, such as {{'train.lr': 0.01}} (got {shown(changes)})")
    return changes


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    known = [section.name for section in dataclasses.fields(Config)]
    for section, keys in _checked(values).items():
        if isinstance(keys, dict) and section not in known:
            raise ArgumentError(f"configuration section must be one of {', '.join(known)} (got {section!r})")
        if not isinstance(keys, dict):
            raise ArgumentError(
                f"configuration must have its keys in sections: [model], [train], [student] (got {section!r} outside)"
            )
    return {f"{section}.{key}": value for section, keys in values.items() for key, value in keys.items()}
