"""The rows of the model list, and the shape of whatever model is chosen."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from qlora_tui.config import ModelSection
from qlora_tui.errors import QloraError
from qlora_tui.models.architecture import ModelShape
from qlora_tui.models.catalog import CatalogEntry, Licence, catalog, catalog_entry
from qlora_tui.models.sources import bundled_models
from qlora_tui.tui.words import count

if TYPE_CHECKING:
    from qlora_tui.models.search import FoundModel

_UNREAD: Final = "the publisher's own word on the hub, not checked here; read the model's page"

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


_learnt: dict[str, BaseModel] = {}
"""What was found out about models that are not listed, by source."""


def model_of(source: str) -> BaseModel:
    """What is known of ``model.source`` now; :func:`look_up` finds out more."""
    known = next((model for model in listed_models() if model.source.lower() == source.lower()), None)
    return known or _learnt.get(source) or BaseModel(source, source, "hub", None, None)


def look_up(source: str) -> BaseModel:
    """Find out what a model is made of; reads files and may ask the hub, so call it from a thread.

    Raises:
        QloraError: if there is no such model, or it cannot be sized.
    """
    from qlora_tui.models.known import known_model

    known = known_model(ModelSection(source=source))
    local = os.path.exists(source) or known.folder is not None
    name = Path(source).name if os.path.exists(source) else source
    _learnt[source] = BaseModel(source, name, "local" if local else "hub", known.shape, None)
    return _learnt[source]


def search_hub(words: str) -> tuple[BaseModel, ...]:
    """Models on the hub by words; call it from a thread.

    Raises:
        EnvironmentFault: if the hub cannot be asked.
    """
    from qlora_tui.models.search import search_hub as search

    return tuple(_of_hub(found) for found in search(words))


def _of_hub(found: FoundModel) -> BaseModel:
    known = model_of(found.id)
    if known.shape is not None:
        return known
    licence = None if found.licence is None else Licence(name=found.licence, limits=_UNREAD)
    kind = f"{count(found.downloads)} downloads" if found.downloads else ""
    return replace(known, licence=licence, gated=found.gated, kind=kind)


def look_in_cache() -> frozenset[str]:
    """Sources of the models that the hub's client has put on this machine; call it from a thread."""
    from qlora_tui.models.known import cached_repositories

    found = set()
    for repository, _ in cached_repositories():
        with suppress(QloraError):
            if model_of(repository).shape is None:
                look_up(repository)
            found.add(repository)
    return frozenset(found)


def learnt_models() -> tuple[BaseModel, ...]:
    """Models that are not listed and lie on this machine."""
    return tuple(model for model in _learnt.values() if model.origin == "local")
