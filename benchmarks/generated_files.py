"""Data files of every kind, many of them damaged: what people have on their disks, and what is made to harm.

Everything comes from a seed, so that a file that makes trouble can be made again.
"""

from __future__ import annotations

import copy
import csv
import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]

HOSTILE = (
    "", " ", "\n\n\n", "\x00", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x1b[2J\x1b[H", "\r\rover", "\x9b1m",
    "[red]markup[/red]", "[/]", "[@click=app.quit]x[/]", "\u202egnp.exe",
    "\u2066x\u2069", "a\u0301" * 30, "\ufeff",
    "\ud800", "\udfff x", "\U000e0041\U000e007f", "👩‍👩‍👧‍👦", "שלום", "مرحبا", "<|im_end|>", "<|im_start|>assistant\n",
    "</s>", "{{ 7*7 }}",
    "{% raise %}", "{column}", "{0.__class__}", "../../etc/passwd", "=cmd|' /C calc'!A0", "%s%n", "NaN", "null", "-1",
    "1e999", "true", "a" * 5000, "x " * 3000, "\\", '"', "'", ",", ";", "\t", "a@b.example", "4111 1111 1111 1111",
    "<script>alert(1)</script>", "<think>never closed", "</think>", "\u2028", "\x85", "Ã©tÃ©",
    "\ufffd", "ſ", "İ", "ﷺ" * 40,
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 1e308, float("nan"), float("inf"), 2**63, 10**30, "", "text", [], {}, [[]], [None],
    ["a", 1], {"a": {"b": [1]}}, [{"role": "user"}], [{"content": "x"}], {"role": "assistant", "content": None},
)  # fmt: skip
_WORDS = tuple("the light of a small house in winter is seen from far by those who walk home late".split())  # noqa: SIM905
_ROLES = ("user", "assistant", "system", "tool", "human", "gpt", "developer", "User", "", "narrator", "function")


def _value(dice: random.Random) -> Any:
    return copy.deepcopy(dice.choice(_VALUES))


def text(dice: random.Random) -> str:
    """A few words, now and then with something hostile among them."""
    words = dice.choices(_WORDS, k=dice.randint(1, 12))
    if dice.random() < 0.15:
        words.insert(dice.randrange(len(words) + 1), dice.choice(HOSTILE))
    return " ".join(words)


def _turns(dice: random.Random, role: str, content: str, names: tuple[str, str]) -> list[Row]:
    turns: list[Row] = []
    for index in range(dice.randint(1, 4)):
        usual = names[index % 2]
        turns.append({role: usual if dice.random() < 0.95 else dice.choice(_ROLES), content: text(dice)})
    return turns


_FORMS: tuple[Callable[[random.Random], Row], ...] = (
    lambda dice: {"messages": _turns(dice, "role", "content", ("user", "assistant"))},
    lambda dice: {"conversations": _turns(dice, "from", "value", ("human", "gpt"))},
    lambda dice: {"prompt": text(dice), "completion": text(dice)},
    lambda dice: {"instruction": text(dice), "input": text(dice), "output": text(dice)},
    lambda dice: {"question": text(dice), "answer": text(dice)},
    lambda dice: {"text": text(dice)},
    lambda dice: {"prompt": text(dice), "chosen": text(dice), "rejected": text(dice)},
    lambda dice: {"input_ids": dice.choices(range(60_000), k=8), "labels": dice.choices(range(-100, 60_000), k=8)},
    lambda dice: {
        "messages": [
            {"role": "user", "content": text(dice)},
            {"role": "assistant", "tool_calls": [{"function": {"name": text(dice), "arguments": text(dice)}}]},
            {"role": "tool", "content": text(dice)},
            {"role": "assistant", "content": text(dice)},
        ],
        "tools": [{"type": "function", "function": {"name": text(dice), "parameters": {}}}],
    },
    lambda dice: {dice.choice(HOSTILE) or "x": text(dice), text(dice): text(dice)},
    lambda dice: {"segments": [{"label": dice.random() < 0.5, "text": text(dice)} for _ in range(3)]},
    lambda dice: {"a": text(dice), "b": text(dice), "c": _value(dice)},
)


def rows(dice: random.Random) -> list[Any]:
    """Rows of one form; in some files with other forms, other types and missing fields among them."""
    form = dice.choice(_FORMS)
    found: list[Any] = [form(dice) for _ in range(dice.choice((1, 2, 5, 20)))]
    if dice.random() < 0.5:
        for _ in range(dice.randint(1, 3)):
            _damage_row(dice, found)
    return found


def _damage_row(dice: random.Random, found: list[Any]) -> None:
    index = dice.randrange(len(found))
    row = found[index]
    match dice.randrange(5):
        case 0:
            found[index] = _value(dice)
        case 1:
            found[index] = dice.choice(_FORMS)(dice)
        case 2 if isinstance(row, dict) and row:
            row[dice.choice(list(row))] = _value(dice)
        case 3 if isinstance(row, dict) and row:
            del row[dice.choice(list(row))]
        case _ if isinstance(row, dict):
            row[text(dice)] = _value(dice)


def _flat(row: Any) -> Row:
    """A row as a table can hold it."""
    if not isinstance(row, dict):
        return {"value": str(row)}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in row.items()}


def _as_lines(dice: random.Random, some: list[Any]) -> bytes:
    del dice
    return "\n".join(map(json.dumps, some)).encode() + b"\n"


def _as_json(dice: random.Random, some: list[Any]) -> bytes:
    value = dice.choice((some, {"data": some}, {"train": some, "test": some}, some[0]))
    return json.dumps(value, indent=dice.choice((None, 1)), ensure_ascii=dice.random() < 0.5).encode(
        "utf-8", "surrogatepass"
    )


def _as_table(separator: str) -> Callable[[random.Random, list[Any]], bytes]:
    def written(dice: random.Random, some: list[Any]) -> bytes:
        flat = list(map(_flat, some))
        names = list(dict.fromkeys(name for row in flat for name in row))
        page = io.StringIO()
        writer = csv.DictWriter(
            page, names, delimiter=separator, quoting=dice.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
        )
        writer.writeheader()
        writer.writerows(flat)
        return page.getvalue().encode("utf-8", "surrogatepass")

    return written


def _as_text(dice: random.Random, some: list[Any]) -> bytes:
    return dice.choice(("\n", "\n\n", "\r\n")).join(map(str, some)).encode("utf-8", "surrogatepass")


def _as_parquet(dice: random.Random, some: list[Any]) -> bytes:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    sink = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(_clean(some)), sink, row_group_size=dice.choice((1, 100)))
    return sink.getvalue()


def _as_arrow(dice: random.Random, some: list[Any]) -> bytes:
    import pyarrow as arrow

    table = arrow.Table.from_pylist(_clean(some))
    sink = io.BytesIO()
    new = arrow.ipc.new_file if dice.random() < 0.5 else arrow.ipc.new_stream
    with new(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _clean(some: list[Any]) -> list[Row]:
    """Rows whose values have the same types, as columns want them, and no halves of surrogate pairs."""
    return [{_whole(name): _whole(value) for name, value in _flat(row).items()} for row in some]


def _whole(value: str) -> str:
    return value.encode("utf-8", "replace").decode()


_WRITERS: dict[str, Callable[[random.Random, list[Any]], bytes]] = {
    "jsonl": _as_lines, "json": _as_json, "csv": _as_table(","), "tsv": _as_table("\t"), "txt": _as_text,
    "parquet": _as_parquet, "arrow": _as_arrow,
}  # fmt: skip
_WEIGHTS = (5, 3, 3, 1, 2, 2, 1)


_NOTHING = (b"", b"\n" * 5000, b" ", b"null", b"[]", b"{}", b"PK\x03\x04", b"\x1f\x8b")


def _damaged(dice: random.Random, content: bytes) -> bytes:
    """The bytes of a file after an accident."""
    place = dice.randrange(len(content) + 1)
    match dice.randrange(14):
        case 0 | 1:
            return content[:place]
        case 2:
            return content[place:]
        case 3:
            return content[:place] + dice.randbytes(dice.choice((1, 4, 64))) + content[place:]
        case 4:
            return content[:place] + b"\x00" * dice.choice((1, 1000)) + content[place:]
        case 5:
            return content.decode("utf-8", "replace").encode(dice.choice(("utf-16", "utf-16-le", "utf-32", "utf-7")))
        case 6:
            return (
                content.decode("utf-8", "replace")
                .replace("e", "é")
                .encode(dice.choice(("latin-1", "cp1252", "shift_jis")), "replace")
            )
        case 7:
            return b"\xef\xbb\xbf" + content
        case 8:
            return content.replace(b"\n", b"\r")
        case 9:
            return content + content[:place]
        case 10:
            return content[:place] + b"[" * dice.choice((10, 100_000)) + content[place:]
        case 11:
            return content[:place] + b"9" * dice.choice((20, 10_000)) + content[place:]
        case 12:
            return content.replace(b'"', b"'", dice.randint(1, 4))
        case _:
            return dice.choice((*_NOTHING, dice.randbytes(500)))


def _packed(dice: random.Random, content: bytes, path: Path) -> tuple[bytes, Path]:
    """A packed file, whose packing is damaged in turn now and then."""
    if dice.random() < 0.5:
        content, ending = gzip.compress(content, mtime=0), ".gz"
    else:
        import pyarrow

        content, ending = bytes(pyarrow.compress(content, codec="zstd", asbytes=True)), ".zst"
    if dice.random() < 0.3:
        content = _damaged(dice, content)
    return content, path.with_name(path.name + ending)


def write_file(seed: int, folder: Path) -> Path:
    """Write the file of a seed into a folder; its path."""
    dice = random.Random(seed)
    kind = dice.choices(list(_WRITERS), _WEIGHTS)[0]
    content = _WRITERS[kind](dice, rows(dice))
    if dice.random() < 0.5:
        content = _damaged(dice, content)
    if dice.random() < 0.03:  # a file that is not what its name says
        kind = dice.choice(list(_WRITERS))
    path = folder / f"rows-{seed}.{kind}"
    if kind not in ("parquet", "arrow") and dice.random() < 0.15:
        content, path = _packed(dice, content, path)
    path.write_bytes(content)
    return path
