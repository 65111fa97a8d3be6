"""The jinja2 environment chat templates run in: what transformers offers them, and bounds it does not have.

A template comes with a model, so it is foreign code. The environment below gives it the filters, functions and tags of
``transformers.utils.chat_template_utils`` and nothing else; multiplication is watched because a single product can ask
for more memory than there is before any output could be counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MAX_OUTPUT_CHARS = 64 * 1024 * 1024
"""Longest conversation a template may render: four times the longest line of a data file."""

_MAX_EXPONENT = 64
_WHERE_A_LOOP_IS = frozenset({"first", "last", "index", "index0", "revindex", "revindex0", "length"})


class GenerationMarks(Extension):
    """The tag ``{% generation %}…{% endgeneration %}``, which marks what the assistant writes.

    While :meth:`record` is active, the spans are collected as character positions in the output.
    """

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        self._written: list[str] | None = None
        self._spans: list[tuple[int, int]] = []

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Macro) -> str:
        output = str(caller())
        if self._written is not None:
            start = sum(map(len, self._written))
            self._spans.append((start, start + len(output)))
        return output

    @contextmanager
    def record(self, written: list[str]) -> Iterator[list[tuple[int, int]]]:
        """Collects spans while ``written`` receives the output block by block."""
        self._written, self._spans = written, []
        try:
            yield self._spans
        finally:
            self._written = None


class _Dict:
    """``dict`` without the attributes a template could climb out by."""

    def __call__(self, *arguments: Any, **values: Any) -> dict[Any, Any]:
        return dict(*arguments, **values)

    def fromkeys(self, *arguments: Any) -> dict[Any, Any]:
        return dict.fromkeys(*arguments)


class _Namespace(Namespace):
    """``namespace()`` that refuses names with a leading underscore."""

    def __init__(*arguments: Any, **values: Any) -> None:  # a template may pass "self" as a name
        self, positional = arguments[0], arguments[1:]
        attributes = dict(*positional, **values)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**"})

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        # Nearly every template asks its loop where it is, in every turn, and jinja thinks about each answer anew.
        if attr in _WHERE_A_LOOP_IS and type(obj) is LoopContext:
            return True
        return super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and isinstance(right, int) and abs(right) > _MAX_EXPONENT:
            raise SecurityError("the template computes a power that is too large")
        if operator == "*" and _product_length(left, right) > MAX_OUTPUT_CHARS:
            raise SecurityError("the template repeats a value too often")
        return super().call_binop(context, operator, left, right)


def chat_environment() -> jinja2.Environment:
    """A fresh sandbox with everything a chat template may use."""
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[GenerationMarks, loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    environment.globals["dict"] = _Dict()
    environment.globals["namespace"] = _Namespace
    return environment


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON without jinja's HTML escapes."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _product_length(left: Any, right: Any) -> int:
    """Length of ``left * right`` where one of them is a text or a list; 0 for numbers."""
    for sequence, times in ((left, right), (right, left)):
        if isinstance(sequence, (str, list, tuple)) and isinstance(times, int):
            return len(sequence) * times
    return 0


def _raise_exception(message: Any) -> NoReturn:
    raise TemplateError(str(message))


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"chat templates cannot store the underscore-prefixed attribute {name!r}")
