"""The config's JSON Schema, and what it says of one setting: where it stands, what it takes, in words."""

from __future__ import annotations

import ast
import inspect
from functools import cache
from itertools import pairwise
from typing import Any

from qlora_tui import config
from qlora_tui.config import RunConfig


def config_schema() -> dict[str, Any]:
    """The JSON Schema of a config file, every property with its description."""
    schema = RunConfig.model_json_schema()
    for owner, texts in _docstrings().items():
        described = schema if owner == RunConfig.__name__ else schema["$defs"].get(owner, {})
        for name, settings in described.get("properties", {}).items():
            if name in texts:
                settings["description"] = texts[name]
    for name, settings in schema["properties"].items():
        if "$ref" in settings:
            definition = schema["$defs"][settings["$ref"].rsplit("/", 1)[-1]]
            schema["properties"][name] = {"description": definition["description"], **settings}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "qlora-tui run config"}
    return head | {key: value for key, value in schema.items() if key != "title"}


def _docstrings() -> dict[str, dict[str, str]]:
    """The strings below the fields of each class in ``config.py``."""
    found: dict[str, dict[str, str]] = {}
    for owner in ast.parse(inspect.getsource(config)).body:
        if isinstance(owner, ast.ClassDef):
            found[owner.name] = {
                field.target.id: inspect.cleandoc(below.value.value)
                for field, below in pairwise(owner.body)
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
                and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            }  # fmt: skip
    return found


@cache
def _schema() -> dict[str, Any]:
    return config_schema()


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    return {**_schema()["$defs"][schema["$ref"].rsplit("/", 1)[-1]], **schema}


def alternatives(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The schemas of which a setting may fit any; one, if it takes one kind of value."""
    return [_resolved(alternative) for alternative in schema.get("anyOf", [schema])]


def schema_at(path: tuple[str | int, ...]) -> dict[str, Any]:
    """The schema of the setting at ``path``; empty for one that does not exist."""
    here = _schema()
    for part in path:
        inner: Any = {}
        for alternative in alternatives(here):
            step = alternative.get("items") if isinstance(part, int) else alternative.get("properties", {}).get(part)
            inner = step or (alternative.get("additionalProperties") if isinstance(part, str) else None) or inner
        here = _resolved(inner)
    return here


def description(path: tuple[str, ...]) -> str:
    """What the setting at ``path`` does, and why its default is what it is; empty for one that does not exist."""
    return str(schema_at(path).get("description", ""))


def setting_names(path: tuple[str, ...]) -> list[str]:
    """The dotted names of every setting below ``path``."""
    names: list[str] = []
    for name in schema_at(path).get("properties", ()):
        names += setting_names((*path, name)) or [".".join((*path, name))]
    return names


def allowed(schema: dict[str, Any]) -> str:
    """What a setting takes, in words: "a whole number of at least 1, or auto"."""
    return ", or ".join(_kind(alternative) for alternative in alternatives(schema))


def _kind(schema: dict[str, Any]) -> str:
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return f"{', '.join(schema['enum'][:-1])} or {schema['enum'][-1]}"
    if "properties" in schema:
        return f"settings such as {next(iter(schema['properties']))} on indented lines below it"
    words = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"}
    limits = {"minimum": "of at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    bounds = " and ".join(f"{word} {schema[key]:.12g}" for key, word in limits.items() if key in schema)
    kinds = words | {"null": "null", "object": "a mapping such as {role: column}"}
    if schema["type"] == "array":
        return f"a list of {allowed(schema['items'])}" + (" (at least one)" if schema.get("minItems") else "")
    filled = " that is not empty" if schema.get("minLength") else ""
    return f"{kinds[schema['type']]} {bounds}".rstrip() + filled
