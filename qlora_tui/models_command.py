"""``qlora-tui models``: the catalog and the models on this machine, with what each needs and whether it fits."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qlora_tui.config import RunConfig
from qlora_tui.errors import ModelError
from qlora_tui.memory.device import Device
from qlora_tui.memory.fit import Fit, fit_of, least_needed
from qlora_tui.memory.recipe import GIB
from qlora_tui.memory.remedies import weights_of
from qlora_tui.memory.words import size
from qlora_tui.models.architecture import ModelShape
from qlora_tui.models.catalog import CatalogEntry, catalog, search_catalog
from qlora_tui.models.folder import shape_of_folder
from qlora_tui.models.known import cached_folder, cached_repositories
from qlora_tui.models.sources import bundled_models
from qlora_tui.recipe_options import device_for, recipe_of
from qlora_tui.text import one_line

Place = Literal["bundled", "cached", "hub"]


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model of the list.

    Attributes:
        entry: What the catalog says of it; None for a model that only lies in the hub's cache.
        place: Where it is: inside a package, in the hub's cache, or only on the hub.
    """

    id: str
    shape: ModelShape
    entry: CatalogEntry | None
    place: Place
    fit: Fit
    least: int
    """Bytes of the process with the settings that need least."""

    @property
    def loaded(self) -> int:
        """Bytes of the model itself as the recipe loads it."""
        return weights_of(self.fit)

    def as_values(self) -> dict[str, Any]:
        """The row for JSON, sizes in bytes."""
        entry = self.entry
        return {
            "id": self.id,
            "architecture": self.shape.model_type,
            "parameters": self.fit.parameters,
            "size": self.loaded,
            "licence": entry.licence.name if entry else None,
            "limits": entry.licence.limits if entry else None,
            "gated": entry.gated if entry else None,
            "context": entry.context if entry else self.shape.max_position_embeddings,
            "chat_template": entry.chat_template if entry else None,
            "kind": entry.kind if entry else None,
            "place": self.place,
            "least": self.least,
            "process": {"low": self.fit.process.low, "point": self.fit.process.point, "high": self.fit.process.high},
            "fits": self.fit.fits,
            "notes": list(self.shape.notes),
        }

    def as_cells(self) -> dict[str, str]:
        """The row for a table, by heading."""
        entry = self.entry
        return {
            "model": one_line(self.id, 60),
            "licence": one_line(entry.licence.name, 30) if entry else "",
            "gated": {True: "gated", False: "", None: "?"}[entry.gated] if entry else "",
            "size": f"{self.fit.parameters / 1e9:.2f} B",
            "loaded": f"{self.loaded / GIB:.1f} GiB",
            "context": f"{entry.context if entry else self.shape.max_position_embeddings:,}",
            "template": (entry.chat_template or "none") if entry else "",
            "here": "" if self.place == "hub" else self.place,
            "needs": f"{self.least / GIB:.1f} GiB",
            "fits": self.fit.fits,
        }


_DISPENSABLE = ("template", "context", "licence", "gated", "loaded")
"""Columns that go when the terminal is narrow, in this order."""


def models(text: str, config: Path | None, *, gpu: str | None, as_json: bool) -> str:
    """The models whose id holds every word of ``text``, as a table or as JSON.

    Each is judged at the recipe of ``config``, or at the default one.

    Raises:
        QloraError: if the config or the card cannot be used, or nothing is found.
    """
    recipe = recipe_of(config)
    device, notes = device_for(gpu)
    rows = sorted(_rows(text, recipe, device), key=lambda row: (row.fit.parameters, row.id.lower()))
    if not rows:
        raise ModelError(
            f"No model is called {one_line(text, 60)!r}.",
            f"None of the {len(catalog())} models of the catalog, and none on this machine, has such a name.",
            "Give other words, or none at all; any other model of the hub can be named in model.source.",
        )
    if as_json:
        return json.dumps({"device": _device_values(device), "models": [row.as_values() for row in rows]})
    stated = (
        f"Rank {recipe.adapter.rank}, rows of {recipe.data.max_length:,} tokens, {recipe.training.effective_batch} an "
        f"update, on {_place(device)}. What is needed is told for the settings that need least."
    )
    return "\n".join([_table([row.as_cells() for row in rows]), "", stated, *notes])


def _table(rows: list[dict[str, str]]) -> str:
    from qlora_tui.terminal.table import table

    headings = [name for name in rows[0] if any(row[name] for row in rows)]
    droppable = iter([name for name in _DISPENSABLE if name in headings])
    while True:
        text = table(tuple(headings), [tuple(row[name] for name in headings) for row in rows])
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
        if max(map(len, text.splitlines())) <= width:
            return text
        if (name := next(droppable, None)) is None:
            return text
        headings.remove(name)


def _device_values(device: Device) -> dict[str, Any]:
    return {"name": device.name, "total": device.total, "free": device.free}


def _place(device: Device) -> str:
    free = "" if device.free is None else f", {size(device.free)} free"
    return one_line(device.name, 60) + free


def _rows(text: str, recipe: RunConfig, device: Device) -> Iterator[ModelRow]:
    bundled = {f"bundled:{name}": model for name, model in bundled_models().items() if model.path is not None}
    found = search_catalog(text)
    for source, model in bundled.items():
        twin = next((entry for entry in found if entry.id == model.hub_id), None)
        if twin is not None:
            yield _row(source, twin.shape(), twin, "bundled", recipe, device)
    for entry in found:
        place: Place = "cached" if cached_folder(entry.id) is not None else "hub"
        yield _row(entry.id, entry.shape(), entry, place, recipe, device)
    listed = {entry.id.lower() for entry in catalog()}
    words = text.lower().split()
    for repository, folder in cached_repositories():
        if repository.lower() in listed or not all(word in repository.lower() for word in words):
            continue
        try:
            yield _row(repository, shape_of_folder(folder), None, "cached", recipe, device)
        except (ModelError, OSError):
            continue  # a data set's tool, an encoder, half a download: nothing that could be trained


def _row(
    source: str, shape: ModelShape, entry: CatalogEntry | None, place: Place, recipe: RunConfig, device: Device
) -> ModelRow:
    fit = fit_of(shape, recipe, device)
    return ModelRow(source, shape, entry, place, fit, least_needed(shape, recipe, fit))
