"""RunConfig as a YAML file: read with every mistake at its line, written so that it reads back equal.

A section that is left empty holds its defaults.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from qlora_tui.config import CONFIG_VERSION, RunConfig, Section
from qlora_tui.config_messages import add_validation_problems, as_typed
from qlora_tui.config_nodes import FLOAT, TAG, Document, Problem, compose, read_mapping
from qlora_tui.config_schema import config_schema
from qlora_tui.errors import ConfigError
from qlora_tui.text import one_line

__all__ = ["config_schema", "dump_config", "load_config", "parse_config"]

_MOST_BYTES = 1_000_000
_MOST_PROBLEMS = 20


def load_config(path: Path) -> RunConfig:
    """The config in the file at ``path``.

    Raises:
        ConfigError: if the file cannot be read, or :func:`parse_config` refuses it.
    """
    what = f"Cannot use {one_line(str(path))}."
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(what, "There is no such file.", "Check the path, or let the wizard write one.") from None
    except IsADirectoryError:
        inside = path / "config.yaml"
        hint = f"Give {one_line(str(inside))}." if inside.is_file() else "Give the path of the config file itself."
        raise ConfigError(what, "It is a folder.", hint) from None
    except OSError as error:
        why = f"It cannot be read: {error.strerror or type(error).__name__}."
        raise ConfigError(what, why, "Check the path and its permissions.") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        why = f"{one_line(str(path))}:{line}: the file is not UTF-8 text."
        raise ConfigError(what, why, "Check that it is the config, and save it as UTF-8.") from None
    if len(content) > _MOST_BYTES:
        raise ConfigError(what, "It is larger than 1 MB.", "Check that it is the config and not the data.")
    return parse_config(text, str(path))


def parse_config(text: str, origin: str) -> RunConfig:
    """The config that ``text`` holds; ``origin`` names it in messages.

    Raises:
        ConfigError: with every mistake of the file, each with its line.
    """
    origin = one_line(origin)
    document = Document()
    values = read_mapping(compose(text, origin), (), document)
    _check_version(values, document, origin)
    _fill_sections(RunConfig, values)
    try:
        config = RunConfig.model_validate(values, strict=True)
    except ValidationError as error:
        add_validation_problems(error, document, values)
    if document.problems:
        raise _config_error(origin, document.problems)
    return config


def dump_config(config: RunConfig) -> str:
    """``config`` as YAML in the schema's order; :func:`parse_config` reads it back equal."""
    return yaml.dump(config.model_dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _config_error(origin: str, problems: list[Problem]) -> ConfigError:
    clauses = [f"{origin}:{line}: {text}{'' if text.endswith('?') else '.'}" for line, text in sorted(set(problems))]
    if len(clauses) > _MOST_PROBLEMS:
        clauses = [*clauses[:_MOST_PROBLEMS], f"And {len(clauses) - _MOST_PROBLEMS} more."]
    places = "this place" if len(clauses) == 1 else "these places"
    return ConfigError(
        f"Cannot use {origin}.", "\n".join(clauses), f"Correct {places}; `qlora-tui schema` lists every setting."
    )


def _check_version(values: dict[str, Any], document: Document, origin: str) -> None:
    """Refuse a file of a later version at once: its other settings cannot be judged.

    Raises:
        ConfigError: if the file's version is newer than :data:`CONFIG_VERSION`.
    """
    version = values.get("version", CONFIG_VERSION)
    if isinstance(version, int) and version > CONFIG_VERSION:
        line, typed = document.lines["version",], as_typed(version, ("version",), document)
        raise ConfigError(
            f"Cannot use {origin}.",
            f"{origin}:{line}: version: {typed} is newer than this program, which reads version {CONFIG_VERSION}.",
            f"Upgrade qlora-tui, or write the file for version {CONFIG_VERSION}.",
        )


def _fill_sections(model: type[Section], values: dict[str, Any]) -> None:
    """Make absent and empty sections mappings, so that what they lack is named setting by setting."""
    for name, settings in model.model_fields.items():
        if isinstance(settings.annotation, type) and issubclass(settings.annotation, Section):
            if values.get(name) is None:
                values[name] = {}
            if isinstance(values[name], dict):
                _fill_sections(settings.annotation, values[name])


class _Dumper(yaml.SafeDumper):
    """Quotes text that either YAML 1.1 or :func:`parse_config` would read as something else."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """List items stand under their key, indented."""
        super().increase_indent(flow, False)


def _represent_text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    # Escapes, not quotes alone: plain and single-quoted styles lose line breaks other than "\n".
    style = '"' if not value.replace("\n", "").isprintable() else "|" if "\n" in value else None
    return dumper.represent_scalar(TAG + "str", value, style=style)


def _represent_float(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
    # 32 and 32.0 are equal configs, so they are written alike; beyond 1e15 the digits would be noise.
    if value.is_integer() and abs(value) < 1e15:
        return dumper.represent_int(int(value))
    return dumper.represent_float(value)


_Dumper.add_implicit_resolver(TAG + "float", re.compile(rf"(?:{FLOAT.pattern})\Z"), list("-+.0123456789"))
_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(float, _represent_float)
