"""A config file's YAML as plain values, with the line and the text as typed of each.

It is composed into nodes rather than loaded, because values do not keep where they stood. Scalars follow YAML 1.1
for ``on``/``yes``/``no``/``off`` but not where 1.1 surprises: ``2e-4`` is a number, ``2024-01-01``, ``1:30`` and
``007`` are text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

from qlora_tui.errors import ConfigError
from qlora_tui.text import one_line

_DEEPEST = 16
_MOST_KEYS = 500
TAG = "tag:yaml.org,2002:"
INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)")
FLOAT = re.compile(
    r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
)
BOOL = re.compile("yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF")
_NULL = re.compile("~|null|Null|NULL|")
_RESOLVERS = {"bool": BOOL, "null": _NULL, "int": INT, "float": FLOAT}

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

Place = tuple[str | int, ...]
"""Where a setting stands: its keys from the outside in, and positions in lists."""


class Problem(NamedTuple):
    """One mistake of the file; lines count from 1."""

    line: int
    text: str


@dataclass
class Document:
    """A composed file: plain values, and for each path its line and its text as typed."""

    lines: dict[Place, int] = field(default_factory=dict)
    typed: dict[Place, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    refused: set[Place] = field(default_factory=set)

    def refuse(self, path: Place, line: int, message: str) -> None:
        """Note a problem of the file itself, and that its value means nothing further."""
        self.problems.append(Problem(line, f"{dotted(path)}: {message}"))
        self.refused.add(path)

    def line_of(self, path: Place) -> int:
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


_Loader.yaml_implicit_resolvers = {}
for _name, _pattern in _RESOLVERS.items():
    _Loader.add_implicit_resolver(TAG + _name, re.compile(rf"(?:{_pattern.pattern})\Z"), None)


def compose(text: str, origin: str) -> yaml.MappingNode:
    """The top-level mapping of ``text``; ``origin`` names it in messages.

    Raises:
        ConfigError: if it is not YAML, or holds no mapping.
    """
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


def _value(node: yaml.Node, path: Place, document: Document) -> Any:
    """The plain value of ``node``; lines, typed text and problems go to ``document``."""
    document.lines.setdefault(path, _line(node))
    if isinstance(node, yaml.MappingNode) and node.tag == TAG + "map":
        return read_mapping(node, path, document)
    if isinstance(node, yaml.SequenceNode) and node.tag == TAG + "seq":
        return [_value(item, (*path, index), document) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode):
        document.typed[path] = node.value
        try:
            return _scalar(node.tag, node.value)
        except ValueError:
            pass
    tag = one_line(node.tag.replace(TAG, "!!"), 40)
    document.refuse(path, _line(node), f"cannot be read as {tag}; write a plain value")
    return None


def read_mapping(node: yaml.MappingNode, path: Place, document: Document) -> dict[str, Any]:
    """The plain values of a mapping; lines, typed text and problems go to ``document``."""
    values: dict[str, Any] = {}
    where = dotted(path) or "top level"
    if len(node.value) > _MOST_KEYS:
        document.problems.append(Problem(_line(node), f"{where}: more than {_MOST_KEYS} keys; is this the config?"))
    for key, item in node.value[:_MOST_KEYS]:
        if not isinstance(key, yaml.ScalarNode):
            document.problems.append(Problem(_line(key), f"{where}: a key must be a plain name"))
            continue
        # The text as typed, so that a key such as "on" stays a name.
        here = (*path, key.value)
        if key.value in values:
            message = f"{dotted(here)}: given twice, first on line {document.lines[here]}; keep one"
            document.problems.append(Problem(_line(key), message))
            continue
        document.lines[here] = _line(key)
        values[key.value] = _value(item, here, document)
    return values


def _scalar(tag: str, text: str) -> Any:
    """The value of a scalar.

    Raises:
        ValueError: if ``text`` is not of the kind that ``tag`` names, or of a kind that configs do not have.
    """
    kind = tag.removeprefix(TAG)
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


def dotted(path: Place) -> str:
    """``path`` as it is written in messages: ``evaluation.metrics[0]``."""
    joined = "".join(f"[{part}]" if isinstance(part, int) else f".{one_line(part, 60)}" for part in path)
    return joined.removeprefix(".")
