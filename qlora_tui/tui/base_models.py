"""The rows of the model list, and the shape of whatever model is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

from qlora_tui.models.architecture import ModelShape
from qlora_tui.models.catalog import CatalogEntry, Licence, catalog, catalog_entry
from qlora_tui.models.sources import bundled_models

BUNDLED_TWIN: Final = {"bundled:smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""Catalog entries that have the shape of bundled models."""


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A model that can be chosen."""

    source: str
    """What goes into the recipe."""
    name: str
    origin: Literal["bundled", "catalog", "local", "hub"]
    shape: ModelShape | None
    licence: Licence | None
    gated: bool | None = None
    context: int | None = None
    kind: str = ""
    chat_template: str | None = None

    @property
    def parameters(self) -> int | None:
        return self.shape.parameters if self.shape else None


@cache
def listed_models() -> tuple[BaseModel, ...]:
    """The bundled models that are installed, then the catalog, smallest first."""
    bundled = [_of_bundle(name) for name, model in bundled_models().items() if model.path is not None]
    return (*bundled, *(_of_entry(entry) for entry in catalog()))


def _of_bundle(name: str) -> BaseModel:
    source = f"bundled:{name}"
    entry = catalog_entry(BUNDLED_TWIN[source])
    assert entry is not None, "every bundled model has a twin in the catalog"
    return BaseModel(
        source, source, "bundled", entry.shape(), entry.licence, False, entry.context, entry.kind, entry.chat_template
    )


def _of_entry(entry: CatalogEntry) -> BaseModel:
    return BaseModel(
        entry.id,
        entry.id,
        "catalog",
        entry.shape(),
        entry.licence,
        entry.gated,
        entry.context,
        entry.kind,
        entry.chat_template,
    )


@cache
def model_of(source: str) -> BaseModel:
    """What is known of ``model.source`` without opening the network; a folder's shape is counted from its config."""
    known = next((model for model in listed_models() if model.source.lower() == source.lower()), None)
    if known is not None:
        return known
    path = Path(source)
    if path.is_dir():
        return BaseModel(source, path.name or source, "local", _shape_in(path), None)
    if path.is_file():
        return BaseModel(source, path.name, "local", None, None)
    return BaseModel(source, source, "hub", None, None)


def _shape_in(folder: Path) -> ModelShape | None:
    from qlora_tui.data.model_files import read_json
    from qlora_tui.errors import QloraError
    from qlora_tui.models.shape import shape_from_config

    try:
        return shape_from_config(read_json(folder / "config.json"))
    except (QloraError, OSError):
        return None
