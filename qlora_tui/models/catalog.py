"""Curated base models: what they are, what they may be used for, and how to get them. Read on first use."""

from __future__ import annotations

import difflib
import re
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from qlora_tui.errors import ModelError
from qlora_tui.models.shape import ModelShape, shape_from_config
from qlora_tui.text import one_line

Kind = Literal["base", "instruct"]


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Licence(_Checked):
    """What a licence is called and what it asks, in a phrase; no substitute for reading it."""

    name: str
    limits: str


class CatalogEntry(_Checked):
    """One model on the hub."""

    id: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    config: dict[str, Any]
    """The fields of its config.json that decide its size."""
    parameters: Annotated[int, Field(gt=0)]
    licence_id: str
    """The hub's tag for the licence."""
    licence: Licence
    gated: bool | None
    """Whether the hub asks for consent before the download; None where it is not known."""
    context: Annotated[int, Field(gt=0)]
    """Longest context in tokens."""
    chat_template: str | None
    """The family of its chat template; None if it has none."""
    kind: Kind

    @property
    def name(self) -> str:
        """The id without its owner."""
        return self.id.partition("/")[2]

    def shape(self) -> ModelShape:
        """Its shape, counted."""
        return shape_from_config(self.config)


class _Shape(_Checked):
    parameters: Annotated[int, Field(gt=0)]
    config: dict[str, Any]


class _Row(_Checked):
    id: str
    shape: str
    licence: str
    gated: bool | None
    context: int
    chat_template: str | None
    kind: Kind


class _File(_Checked):
    licences: dict[str, Licence]
    shapes: dict[str, _Shape]
    models: list[_Row]

    @model_validator(mode="after")
    def _whole(self) -> _File:
        """Every shape and licence that a model names is there and used, and no model is there twice."""
        for field, known in (("shape", set(self.shapes)), ("licence", set(self.licences))):
            named = {getattr(row, field) for row in self.models}
            if named != known:
                raise ValueError(f"{field}s named and described differ: {', '.join(sorted(named ^ known))}")
        ids = [row.id.lower() for row in self.models]
        if len(set(ids)) < len(ids):
            raise ValueError(f"listed twice: {', '.join(sorted({name for name in ids if ids.count(name) > 1}))}")
        return self


@cache
def catalog() -> tuple[CatalogEntry, ...]:
    """All models, smallest first."""
    text = resources.files("qlora_tui.models").joinpath("catalog.yaml").read_text(encoding="utf-8")
    file = _File.model_validate(yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    entries = [
        CatalogEntry(
            id=row.id,
            config=file.shapes[row.shape].config,
            parameters=file.shapes[row.shape].parameters,
            licence_id=row.licence,
            licence=file.licences[row.licence],
            gated=row.gated,
            context=row.context,
            chat_template=row.chat_template,
            kind=row.kind,
        )
        for row in file.models
    ]
    return tuple(sorted(entries, key=lambda entry: (entry.parameters, entry.id.lower())))


def catalog_entry(model_id: str) -> CatalogEntry | None:
    """The model with exactly this hub id, in any case; None if it is not listed."""
    wanted = model_id.strip().lower()
    return next((entry for entry in catalog() if entry.id.lower() == wanted), None)


def search_catalog(query: str) -> list[CatalogEntry]:
    """The models whose id holds every word of ``query``, smallest first.

    Words are separated by spaces, and so are letters and digits on both sides, so that ``llama3 8b`` finds
    ``Llama-3.1-8B``. An empty query finds everything.
    """
    words = _parts(query)
    return [entry for entry in catalog() if all(any(p.startswith(w) for p in _parts(entry.id)) for w in words)]


def find_model(name: str) -> CatalogEntry:
    """The one model meant by ``name``: its id, its name without the owner, or words that fit a single model best.

    Raises:
        ModelError: if none or several fit.
    """
    wanted = name.strip().lower()
    exact = catalog_entry(name) or next((entry for entry in catalog() if entry.name.lower() == wanted), None)
    if exact is not None:
        return exact
    found = search_catalog(name) if _parts(name) else []
    # A name that is whole in one id beats one that only begins it: "qwen3 4b" is not "qwen3 4b instruct 2507".
    shortest = min((len(_parts(entry.name)) for entry in found), default=0)
    closest = [entry for entry in found if len(_parts(entry.name)) == shortest]
    if len(closest) == 1:
        return closest[0]
    raise ModelError(
        f"The catalog has no single model {one_line(name, 60)!r}.",
        "Several fit." if found else "None has a name like this.",
        f"Did you mean {', '.join(_nearest(wanted, found))}? `qlora-tui models` lists all of them.",
    )


def _parts(text: str) -> list[str]:
    return re.findall(r"\d+(?:\.\d+)?[a-z]?(?![a-z])|[a-z]+|\d+", text.lower())


def _nearest(wanted: str, found: list[CatalogEntry]) -> list[str]:
    if found:
        return [entry.id for entry in found[:4]]
    ids = {entry.name.lower(): entry.id for entry in catalog()}
    names = difflib.get_close_matches(wanted.rpartition("/")[2], ids, n=3, cutoff=0.0)
    return [ids[name] for name in names]
