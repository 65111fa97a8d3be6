"""Write `docs/config.md`, the reference of every config field, from the schema.

python scripts/make_config_reference.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from qlora_tui.config import RunConfig, Section
from qlora_tui.config_schema import allowed, description, schema_at

TARGET = Path(__file__).resolve().parent.parent / "docs" / "config.md"

INTRODUCTION = """\
# The config

Made by `scripts/make_config_reference.py` from the schema. The descriptions stand in `qlora_tui/config.py`.

One YAML file describes one run. Only `name` and `data.source` have no default.
[`examples/every-field.yaml`](../examples/every-field.yaml) holds every setting at its default and says what each one
trades; `qlora-tui schema` prints the JSON Schema.

- **Mistakes** are reported together, each with its line. An unknown key is a mistake; the message names the nearest
  known one. A section that is left empty holds its defaults.
- **`auto`** is replaced before training. The event that ends the `load` phase gives each choice with its reason, and
  the run's own `config.yaml` holds the choices.
- **Relative paths** are looked for in the current folder, then beside the config. The run's own `config.yaml` holds
  absolute ones.
- **YAML**: `yes`, `no`, `on` and `off` are booleans; `2e-4` is a number; dates, `1:30` and `007` are text. Aliases
  (`*name`) are refused.
- A file of a **later version** is refused, not guessed at.
"""


def reference() -> str:
    """The whole page."""
    top: list[str] = []
    sections: list[str] = []
    for name, settings in RunConfig.model_fields.items():
        if isinstance(settings.annotation, type) and issubclass(settings.annotation, Section):
            rows = list(_rows(settings.annotation, (name,)))
            sections += [f"## `{name}`\n\n{settings.annotation.__doc__}\n", _table(rows)]
        else:
            top += _row(name, settings, (name,))
    return "\n".join([INTRODUCTION, "## Top level\n", _table(top), *sections])


def _rows(section: type[Section], path: tuple[str, ...]) -> Iterator[str]:
    """A row for each setting of a section; those of a section inside are named with its name before them."""
    for name, settings in section.model_fields.items():
        here = (*path, name)
        if isinstance(settings.annotation, type) and issubclass(settings.annotation, Section):
            yield from _rows(settings.annotation, here)
        else:
            yield from _row(".".join(here[1:]), settings, here)


def _row(name: str, settings: Any, path: tuple[str, ...]) -> Iterator[str]:
    default = "required" if settings.is_required() else f"`{_as_yaml(settings.get_default(call_default_factory=True))}`"
    yield f"| `{name}` | {_cell(allowed(schema_at(path)))} | {default} | {_cell(description(path))} |"


def _table(rows: list[str]) -> str:
    return "\n".join(["| setting | takes | default | what it does |", "|---|---|---|---|", *rows, ""])


def _as_yaml(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return text.removesuffix("...\n").strip()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(reference(), encoding="utf-8")
    print(f"wrote {TARGET}")
