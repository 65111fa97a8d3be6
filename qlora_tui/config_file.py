"""RunConfig as a YAML file: read with every mistake at its line, written so that it reads back equal.

The YAML is composed into nodes rather than loaded, because nodes keep their lines and the text as typed. Scalars
follow YAML 1.1 for ``on``/``yes``/``no``/``off`` but not where 1.1 surprises: ``2e-4`` is a number, ``2024-01-01``,
``1:30`` and ``007`` are text. A section that is left empty holds its defaults.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from qlora_tui.config import CONFIG_VERSION, RunConfig, Section
from qlora_tui.errors import ConfigError
from qlora_tui.text import one_line

_MOST_BYTES = 1_000_000
_DEEPEST = 16
_MOST_KEYS = 500
_MOST_PROBLEMS = 20
_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)")
_FLOAT = re.compile(
    r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
)
_BOOL = re.compile("yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF")
_NULL = re.compile("~|null|Null|NULL|")
_RESOLVERS = {"bool": _BOOL, "null": _NULL, "int": _INT, "float": _FLOAT}
# The schema's name of a kind -> text that would be of that kind without its quotes.
_READINGS = {"integer": _INT, "number": re.compile(f"{_INT.pattern}|{_FLOAT.pattern}"), "boolean": _BOOL}

# What other trainers call our settings; only names that likeness alone does not find.
_ELSEWHERE = {
    "base_model": "model.source", "model_name_or_path": "model.source", "model_id": "model.source",
    "lora": "adapter", "peft": "adapter", "r": "adapter.rank", "lora_r": "adapter.rank",
    "lora_alpha": "adapter.alpha", "lora_dropout": "adapter.dropout", "use_dora": "adapter.dora",
    "dataset": "data.source", "datasets": "data.source", "max_seq_length": "data.max_length",
    "sequence_len": "data.max_length", "sample_packing": "data.packing", "val_set_size": "data.evaluation.fraction",
    "lr": "training.learning_rate", "num_epochs": "training.epochs", "num_train_epochs": "training.epochs",
    "batch_size": "training.effective_batch", "per_device_train_batch_size": "training.micro_batch",
    "micro_batch_size": "training.micro_batch", "gradient_accumulation_steps": "training.effective_batch",
    "lr_scheduler_type": "training.schedule", "warmup_ratio": "training.warmup", "optim": "training.optimizer",
    "eval_steps": "evaluation.every", "save_steps": "checkpoints.every", "output_dir": "output.directory",
}  # fmt: skip

# PyYAML's wording -> what a person has to look for; the first that fits counts.
_SYNTAX = {
    "mapping values are not allowed": "a ':' out of place: check the indentation, and quote text with ': ' in it",
    "cannot start any token": "a character that cannot start a value: indent with spaces, quote text that begins so",
    "could not find expected ':'": "a key without ':' after it",
    "expected '<document start>', but found '{'": "this is not a config; rows in a .jsonl file belong in data.source",
    "expected '<document start>'": "the indentation does not line up with the lines above",
    "expected <block end>": "the indentation does not line up with the lines above",
    "unexpected end of stream": "a quote that is not closed",
    "expected the node content": "a value is missing here, or a bracket above is not closed",
    "expected ',' or": "a bracket that is not closed, or a comma that is missing",
    "expected a single document": "a second document begins ('---'); a config is one document",
}

_Path = tuple[str | int, ...]


class _Problem(NamedTuple):
    line: int
    text: str


@dataclass
class _Document:
    """A composed file: plain values, and for each path its line and its text as typed."""

    lines: dict[_Path, int] = field(default_factory=dict)
    typed: dict[_Path, str] = field(default_factory=dict)
    problems: list[_Problem] = field(default_factory=list)
    refused: set[_Path] = field(default_factory=set)

    def refuse(self, path: _Path, line: int, message: str) -> None:
        """Note a problem of the file itself, and that its value means nothing further."""
        self.problems.append(_Problem(line, f"{_dotted(path)}: {message}"))
        self.refused.add(path)

    def line_of(self, path: _Path) -> int:
        """The line of ``path``, or of the nearest part around it that is in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


class _Loader(yaml.SafeLoader):
    """Composes nodes; refuses aliases, which can blow a small file up, and depth, which can end the stack."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """One node and what it holds.

        Raises:
            yaml.MarkedYAMLError: on an alias, or on too deep a nesting.
        """
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not read; write the value out", problem_mark=mark)
        if self.depth >= _DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"more than {_DEEPEST} levels of nesting", problem_mark=mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes text that either YAML 1.1 or :class:`_Loader` would read as something else."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """List items stand under their key, indented."""
        super().increase_indent(flow, False)


def _represent_text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    # Escapes, not quotes alone: plain and single-quoted styles lose line breaks other than "\n".
    style = '"' if not value.replace("\n", "").isprintable() else "|" if "\n" in value else None
    return dumper.represent_scalar(_TAG + "str", value, style=style)


def _represent_float(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
    # 32 and 32.0 are equal configs, so they are written alike; beyond 1e15 the digits would be noise.
    if value.is_integer() and abs(value) < 1e15:
        return dumper.represent_int(int(value))
    return dumper.represent_float(value)


_Loader.yaml_implicit_resolvers = {}
for _name, _pattern in _RESOLVERS.items():
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern.pattern})\Z"), None)
_Dumper.add_implicit_resolver(_TAG + "float", re.compile(rf"(?:{_FLOAT.pattern})\Z"), list("-+.0123456789"))
_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(float, _represent_float)


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
    document = _Document()
    values = _mapping(_compose(text, origin), (), document)
    _check_version(values, document, origin)
    _fill_sections(RunConfig, values)
    try:
        config = RunConfig.model_validate(values, strict=True)
    except ValidationError as error:
        _add_validation_problems(error, document, values)
    if document.problems:
        raise _config_error(origin, document.problems)
    return config


def dump_config(config: RunConfig) -> str:
    """``config`` as YAML in the schema's order; :func:`parse_config` reads it back equal."""
    return yaml.dump(config.model_dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def config_schema() -> dict[str, Any]:
    """The JSON Schema of a config file, every property with its description."""
    schema = RunConfig.model_json_schema()
    for name, settings in schema["properties"].items():
        if "$ref" in settings:
            definition = schema["$defs"][settings["$ref"].rsplit("/", 1)[-1]]
            schema["properties"][name] = {"description": definition["description"], **settings}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "qlora-tui run config"}
    return head | {key: value for key, value in schema.items() if key != "title"}


def _config_error(origin: str, problems: list[_Problem]) -> ConfigError:
    clauses = [f"{origin}:{line}: {text}{'' if text.endswith('?') else '.'}" for line, text in sorted(set(problems))]
    if len(clauses) > _MOST_PROBLEMS:
        clauses = [*clauses[:_MOST_PROBLEMS], f"And {len(clauses) - _MOST_PROBLEMS} more."]
    places = "this place" if len(clauses) == 1 else "these places"
    return ConfigError(
        f"Cannot use {origin}.", "\n".join(clauses), f"Correct {places}; `qlora-tui schema` lists every setting."
    )


def _compose(text: str, origin: str) -> yaml.MappingNode:
    """The top-level mapping of ``text``, or the ConfigError that says why there is none."""
    what = f"Cannot use {origin}."
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        why = f"{origin}:{line}: the character U+{ord(text[error.position]):04X} is not allowed in YAML."
        raise ConfigError(what, why, "Remove it, or write it as an escape in double quotes.") from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(what, _syntax(error, origin), "Correct the YAML there.") from None
    finally:
        if loader is not None:
            loader.dispose()
    if isinstance(node, yaml.MappingNode):
        return node
    minimal = "A config needs at least `name: my-run` and `data: {source: rows.jsonl}`."
    if node is None or node.value == "":
        raise ConfigError(what, "The file is empty.", minimal)
    kind = "a list" if isinstance(node, yaml.SequenceNode) else "plain text"
    raise ConfigError(what, f"{origin}:{_line(node)}: the file holds {kind} instead of settings.", minimal)


def _syntax(error: yaml.MarkedYAMLError, origin: str) -> str:
    said = f"{error.context} {error.problem}"
    words = next((ours for theirs, ours in _SYNTAX.items() if theirs in said), one_line(error.problem or said))
    mark, begun = error.problem_mark or error.context_mark, error.context_mark
    place = f"{origin}:{mark.line + 1}:{mark.column + 1}" if mark else origin
    since = f" (begun on line {begun.line + 1})" if begun and mark and begun.line != mark.line else ""
    return f"{place}: {words}{since}."


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _value(node: yaml.Node, path: _Path, document: _Document) -> Any:
    """The plain value of ``node``; lines, typed text and problems go to ``document``."""
    document.lines.setdefault(path, _line(node))
    if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
        return _mapping(node, path, document)
    if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
        return [_value(item, (*path, index), document) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode):
        document.typed[path] = node.value
        try:
            return _scalar(node.tag, node.value)
        except ValueError:
            pass
    tag = one_line(node.tag.replace(_TAG, "!!"), 40)
    document.refuse(path, _line(node), f"cannot be read as {tag}; write a plain value")
    return None


def _mapping(node: yaml.MappingNode, path: _Path, document: _Document) -> dict[str, Any]:
    values: dict[str, Any] = {}
    where = _dotted(path) or "top level"
    if len(node.value) > _MOST_KEYS:
        document.problems.append(_Problem(_line(node), f"{where}: more than {_MOST_KEYS} keys; is this the config?"))
    for key, item in node.value[:_MOST_KEYS]:
        if not isinstance(key, yaml.ScalarNode):
            document.problems.append(_Problem(_line(key), f"{where}: a key must be a plain name"))
            continue
        # The text as typed, so that a key such as "on" stays a name.
        here = (*path, key.value)
        if key.value in values:
            message = f"{_dotted(here)}: given twice, first on line {document.lines[here]}; keep one"
            document.problems.append(_Problem(_line(key), message))
            continue
        document.lines[here] = _line(key)
        values[key.value] = _value(item, here, document)
    return values


def _scalar(tag: str, text: str) -> Any:
    """The value of a scalar.

    Raises:
        ValueError: if ``text`` is not of the kind that ``tag`` names, or of a kind that configs do not have.
    """
    kind = tag.removeprefix(_TAG)
    if kind == "str":
        return text
    if kind not in _RESOLVERS or not _RESOLVERS[kind].fullmatch(text):
        raise ValueError(kind)
    digits = text.replace("_", "")
    if kind == "int":
        return int(digits)
    if kind == "float":
        number = float(digits.lower().replace(".inf", "inf").replace(".nan", "nan"))
        # 1e3 steps are a whole number to their writer.
        return int(number) if number.is_integer() else number
    return None if kind == "null" else text.lower() in ("yes", "true", "on")


def _check_version(values: dict[str, Any], document: _Document, origin: str) -> None:
    """Refuse a file of a later version at once: its other settings cannot be judged.

    Raises:
        ConfigError: if the file's version is newer than :data:`CONFIG_VERSION`.
    """
    version = values.get("version", CONFIG_VERSION)
    if isinstance(version, int) and version > CONFIG_VERSION:
        line, typed = document.lines["version",], _shown(version, ("version",), document)
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


def _add_validation_problems(error: ValidationError, document: _Document, values: dict[str, Any]) -> None:
    found: dict[_Path, _Problem] = {}
    for detail in error.errors(include_url=False):
        path = _path_in_file(detail["loc"], values, missing=detail["type"] == "missing")
        if path in found or path in document.refused:
            continue
        if detail["type"] == "value_error" and isinstance(detail["input"], dict):
            # A rule between settings; its message begins with the one to point at.
            text = str(detail["ctx"]["error"])
            line = document.line_of(tuple(text.split(" ", 1)[0].split(".")))
        else:
            text = f"{_dotted(path)}: {_message(detail, path, document)}"
            line = document.line_of(path)
        found[path] = _Problem(line, text)
    # Each alternative of a setting complains for itself; the one that got furthest inside is the one meant.
    inner = {path[:end] for path in found for end in range(len(path))}
    document.problems += [problem for path, problem in found.items() if path not in inner]


def _path_in_file(location: tuple[int | str, ...], values: Any, missing: bool) -> _Path:
    """``location`` without the labels of alternatives, which pydantic puts between keys."""
    path: _Path = ()
    for part in location:
        inside = part in values if isinstance(values, dict) else isinstance(values, list) and isinstance(part, int)
        if inside:
            path, values = (*path, part), values[part]
    return (*path, location[-1]) if missing else path


def _message(detail: Any, path: _Path, document: _Document) -> str:
    """What is wrong with the setting at ``path``, in words."""
    value, schema = detail["input"], _schema_at(path)
    if detail["type"] == "missing":
        return f"missing ({schema['description'].rstrip('.')})"
    if detail["type"] == "extra_forbidden":
        return _unknown(path)
    shown = _shown(value, path, document)
    if detail["type"] == "value_error":
        return f"{shown} is not allowed; {detail['ctx']['error']}"
    wanted = _allowed(schema)
    kinds = {alternative.get("type") for alternative in _alternatives(schema)} - {"null"}
    readings = [reading for kind, reading in _READINGS.items() if kind in kinds]
    if isinstance(value, str) and any(reading.fullmatch(value) for reading in readings):
        return f"{shown} is text; remove the quotes (use {wanted})"
    if kinds <= {"integer", "number"} and isinstance(value, str):
        return f"{shown} is not a number; use {wanted}"
    if kinds == {"integer"} and isinstance(value, float):
        return f"{shown} is not a whole number; use {wanted}"
    if wanted.startswith("text") and isinstance(value, bool | int | float):
        return f"{shown} is not read as text; put it in quotes"
    near = _nearest(value, [word for choice in _alternatives(schema) for word in _words(choice)])
    return f"{shown} is not allowed; use {wanted}" + (f" (did you mean {near}?)" if near else "")


def _words(schema: dict[str, Any]) -> list[str]:
    """The words that a setting of fixed choices takes."""
    return [word for word in (*schema.get("enum", ()), schema.get("const")) if isinstance(word, str)]


def _unknown(path: _Path) -> str:
    """Where an unknown key may belong: the nearest name beside it, else the same name in another section."""
    section, key = path[:-1], str(path[-1])
    settings = _settings(())
    if "." in key and key in settings:
        outer, inner = key.rsplit(".", 1)
        return f"settings are nested; write {inner} on an indented line under {outer}"
    near = _nearest(key, list(_schema_at(section).get("properties", ())))
    if near:
        return f"unknown setting; did you mean {_dotted((*section, near))}?"
    homes = [name for name in settings if key == name.rsplit(".", 1)[-1]]
    if not homes and key.lower() in _ELSEWHERE:
        homes = [_ELSEWHERE[key.lower()]]
    if not homes:
        last = _nearest(key, [name.rsplit(".", 1)[-1] for name in settings])
        homes = [name for name in settings if last and name.rsplit(".", 1)[-1] == last]
    if homes:
        return f"not a setting of this section; did you mean {' or '.join(homes)}?"
    return f"unknown setting; known here: {', '.join(_schema_at(section).get('properties', ()))}"


def _nearest(word: Any, names: list[str]) -> str | None:
    return next(iter(get_close_matches(word.lower(), names, 1, 0.65)), None) if isinstance(word, str) else None


def _dotted(path: _Path) -> str:
    joined = "".join(f"[{part}]" if isinstance(part, int) else f".{one_line(part, 60)}" for part in path)
    return joined.removeprefix(".")


def _shown(value: Any, path: _Path, document: _Document) -> str:
    """A value for a message: text in quotes, the rest as typed."""
    if isinstance(value, list | dict):
        return f"{'a' if value else 'an empty'} {'list' if isinstance(value, list) else 'mapping'}"
    typed = one_line(document.typed.get(path, ""), 60)
    return f'"{typed}"' if isinstance(value, str) else typed or "an empty value"


@cache
def _schema() -> dict[str, Any]:
    return config_schema()


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    return {**_schema()["$defs"][schema["$ref"].rsplit("/", 1)[-1]], **schema}


def _alternatives(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [_resolved(alternative) for alternative in schema.get("anyOf", [schema])]


def _schema_at(path: _Path) -> dict[str, Any]:
    """The schema of the setting at ``path``; empty for one that does not exist."""
    here = _schema()
    for part in path:
        inner: Any = {}
        for alternative in _alternatives(here):
            step = alternative.get("items") if isinstance(part, int) else alternative.get("properties", {}).get(part)
            inner = step or (alternative.get("additionalProperties") if isinstance(part, str) else None) or inner
        here = _resolved(inner)
    return here


def _settings(path: _Path) -> list[str]:
    """The dotted names of every setting below ``path``."""
    names: list[str] = []
    for name in _schema_at(path).get("properties", ()):
        names += _settings((*path, name)) or [_dotted((*path, name))]
    return names


def _allowed(schema: dict[str, Any]) -> str:
    """What a setting takes, in words: "a whole number of at least 1, or auto"."""
    return ", or ".join(_kind(alternative) for alternative in _alternatives(schema))


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
        return f"a list of {_allowed(schema['items'])}" + (" (at least one)" if schema.get("minItems") else "")
    filled = " that is not empty" if schema.get("minLength") else ""
    return f"{kinds[schema['type']]} {bounds}".rstrip() + filled
