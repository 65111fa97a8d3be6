"""Which format the first rows look like, with the evidence in a sentence.

Where they allow several readings that would train different things, nothing is guessed: :class:`AmbiguousFormat` names
the readings and the settings that decide.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qlora_tui.data.columns import CONVERSATIONS, NAMES, Kind, Table, listed
from qlora_tui.data.formats import REQUIRED, ROLES, Format, RowMapping, Settings
from qlora_tui.errors import DataError
from qlora_tui.text import one_line

# Pairs whose names alone are too common to stand for a prompt or an answer.
_PAIRS = (
    ("source", "target"), ("article", "summary"), ("article", "highlights"), ("document", "summary"),
    ("dialogue", "summary"), ("text", "summary"), ("problem", "solution"), ("question", "solution"),
    ("message_1", "message_2"),
)  # fmt: skip
_CONTEXTS = frozenset(
    ("input", "context", "article", "passage", "document", "documents", "background", "story", "paragraph", "abstract",
     "choices", "options", "hint", "hints", "evidence", "premise", "hypothesis", "body", "code", "table", "sql_context")
)  # fmt: skip
"""Columns beside a prompt that are likely to be a part of it."""
_REASONS = frozenset(
    ("rationale", "explanation", "reasoning", "cot", "complex_cot", "chain_of_thought", "thought", "thoughts",
     "thinking", "solution", "steps", "analysis", "justification", "reflection", "corrected", "revision", "critique",
     "critiques")
)  # fmt: skip
"""Columns beside an answer that are likely to be a part of it, or another answer."""
_FINDINGS = frozenset(
    ("label", "labels", "class", "sentiment", "intent", "emotion", "target", "answer", "response", "output", "summary",
     "completion", "translation", "tag", "tags", "rating", "stars")
)  # fmt: skip
"""Columns beside a text that are likely to be what should be learnt from it."""
_MEDIA = frozenset(("image", "images", "video", "videos", "audio", "audios"))

_TEXTS: tuple[Kind, ...] = ("text", "number")


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read the rows: what it means, and the settings under ``data`` that choose it."""

    meaning: str
    settings: Settings

    @property
    def lines(self) -> list[str]:
        """The settings as lines of YAML."""
        return [f"{name}: {_flow(value)}" for name, value in self.settings.items()]


class AmbiguousFormat(DataError):
    """Rows that can be read in several ways; ``readings`` are the candidates."""

    def __init__(self, what: str, why: str, readings: Sequence[Reading]) -> None:
        self.readings = tuple(readings)
        choices = "; ".join(f"{' and '.join(reading.lines)} ({reading.meaning})" for reading in readings)
        super().__init__(what, why, f"Write one of these under data: {choices}.")


def guess(table: Table) -> RowMapping:
    """The only sensible reading of the rows.

    Raises:
        AmbiguousFormat: if there are several.
        DataError: if there is none.
    """
    for look in (
        _pre_tokenised,
        _segments,
        _preference,
        _pair_of_messages,
        _conversation,
        _alpaca,
        _pair,
        _text,
        _by_name,
    ):
        if (found := look(table)) is not None:
            _ask_about_label(table, found)
            _ask_about_media(table, found)
            return found
    raise _unknown(table)


def mapping(
    table: Table, name: Format, columns: dict[str, str], evidence: str = "", whole: bool = True, **settings: object
) -> RowMapping:
    """A mapping with its reason and notes.

    Args:
        evidence: Goes into the sentence behind the columns.
        whole: Let columns that are called as optional roles play them.
    """
    columns = dict(columns)
    for role in ROLES[name] if whole else ():
        column = None if role in columns else table.playing(role)
        if column is not None and column not in columns.values() and table.goes_along(role, column):
            columns[role] = column
    ordered = {role: columns[role] for role in ROLES[name] if role in columns}
    unused = [column for column in table.columns if column not in ordered.values()]
    plural = "columns" if len(ordered) > 1 else "column"
    reason = f"Rows are read as {name} from {plural} {listed(ordered.values())}{evidence}"
    reason += f"; not used: {listed(unused)}." if unused else "."
    return RowMapping(name, ordered, reason, notes=_notes(name, ordered), **settings)  # type: ignore[arg-type]


def _notes(name: Format, columns: dict[str, str]) -> tuple[str, ...]:
    found = []
    if name == "preference":
        found.append("The rows compare answers: the chosen one is trained, the rejected one is not used.")
    if "label" in columns:
        column = one_line(columns["label"], 60)
        found.append(f'Rows whose column "{column}" is false hold answers that were not liked, and are left out.')
    if name == "pre-tokenised":
        found.append("Token ids are trained as they are: they must come from this model's own tokenizer.")
    return tuple(found)


def _pre_tokenised(table: Table) -> RowMapping | None:
    column = table.playing("input_ids", "numbers")
    return mapping(table, "pre-tokenised", {"input_ids": column}) if column else None


def _segments(table: Table) -> RowMapping | None:
    columns = table.of_kind("segments")
    evidence = ", whose parts say themselves whether they are trained"
    return mapping(table, "segments", {"segments": columns[0]}, evidence) if columns else None


def _preference(table: Table) -> RowMapping | None:
    kinds: tuple[Kind, ...] = ("text", "message", *CONVERSATIONS)
    chosen, rejected = table.playing("chosen", *kinds), table.playing("rejected", *kinds)
    if chosen is None or rejected is None:
        return None
    columns = {"chosen": chosen, "rejected": rejected}
    prompts = table.all_playing("prompt", "text", "request", *CONVERSATIONS)
    if table.kinds[chosen] == "message" or not prompts:
        prompts += [column for column in table.of_kind(*CONVERSATIONS) if column not in (chosen, rejected, *prompts)]
    evidence = ", of which the chosen answer is trained and the rejected one is not used"
    if [column.strip().lower() for column in prompts] == ["instruction", "input"]:
        columns |= {"prompt": prompts[0], "input": prompts[1]}
    elif len(prompts) > 1:
        raise _several("prompt", prompts, columns)
    elif prompts:
        columns["prompt"] = prompts[0]
        _ask_about_contexts(table, {"prompt": prompts[0], "chosen": chosen}, columns.values())
    return mapping(table, "preference", columns, evidence)


def _pair_of_messages(table: Table) -> RowMapping | None:
    prompt = table.playing("prompt", *CONVERSATIONS)
    completion = table.playing("completion", "message", *CONVERSATIONS)
    if prompt is None or completion is None:
        return None
    return mapping(table, "prompt-completion", {"prompt": prompt, "completion": completion}, ", which hold messages")


def _conversation(table: Table) -> RowMapping | None:
    columns = [column for column in table.of_kind(*CONVERSATIONS) if column not in table.all_playing("prompt")]
    found = [column for column in table.all_playing("messages") if column in columns] or columns
    if not found:
        return None
    first = found[0]
    if any(row.values.get(column) != row.values.get(first) for row in table.rows for column in found[1:]):
        raise _several("messages", found, {})
    kind = table.kinds[first]
    keys = '"from" and "value"' if kind == "from-value" else "a speaker and a text"
    evidence = f", whose messages have {keys}" + (" and are written as JSON" if kind == "json-messages" else "")
    if kind == "from-value":
        return mapping(table, "sharegpt", {"conversations": first}, evidence)
    return mapping(table, "messages", {"messages": first}, evidence)


def _alpaca(table: Table) -> RowMapping | None:
    instruction = table.playing("instruction", "text")
    answers = table.all_playing("output", *_TEXTS)
    if instruction is None or not answers or len(table.all_playing("prompt")) > 1 + bool(table.named("input")):
        return None
    inputs = table.all_playing("input")
    if len(answers) > 1:
        raise _several("output", answers, {"instruction": instruction})
    if len(inputs) > 1:
        raise _several("input", inputs, {"instruction": instruction, "output": answers[0]})
    columns = {"instruction": instruction} | ({"input": inputs[0]} if inputs else {}) | {"output": answers[0]}
    _ask_about_contexts(table, {"instruction": instruction, "output": answers[0]}, columns.values())
    _ask_about_reasons(table, columns, columns.values())
    return mapping(table, "alpaca", columns)


def _pair(table: Table) -> RowMapping | None:
    prompts, answers = table.all_playing("prompt", *_TEXTS), table.all_playing("completion", *_TEXTS)
    if not prompts or not answers:
        named = [(table.named(one), table.named(other)) for one, other in _PAIRS]
        whole = [(one, other) for one, other in named if one and other]
        if not whole:
            return None
        prompts, answers = [whole[0][0]], [whole[0][1]]
    if len(prompts) > 1:
        raise _several("prompt", prompts, {"completion": answers[0]})
    if len(answers) > 1:
        raise _several("completion", answers, {"prompt": prompts[0]})
    columns = {"prompt": prompts[0], "completion": answers[0]}
    _ask_about_contexts(table, columns, columns.values())
    _ask_about_reasons(table, columns, columns.values())
    return mapping(table, "prompt-completion", columns)


def _text(table: Table) -> RowMapping | None:
    column = table.playing("text", "text")
    if column is None and len(table.columns) == 1 and table.kinds[table.columns[0]] == "text":
        column = table.columns[0]
        if any(column.strip().lower() in names for role, names in NAMES.items() if role != "text"):
            return None
    if column is None:
        return None
    if speakers := table.among(frozenset(("role", "speaker", "from")), [column]):
        raise DataError(
            "The rows hold one message each.",
            f"Column {listed(speakers)} says who speaks in column {listed([column])}.",
            "Put the messages of a conversation into one row, as a list named messages.",
        )
    if findings := table.among(_FINDINGS, [column]):
        readings = [
            Reading(f"{one_line(each, 60)} is the answer", {"columns": {"prompt": column, "completion": each}})
            for each in findings
        ]
        readings.append(Reading(f"{one_line(column, 60)} is learnt as it stands", {"format": "text"}))
        raise AmbiguousFormat(
            "The rows hold a text and something about it.",
            f"Beside column {listed([column])} there is {listed(findings)}.",
            readings,
        )
    return mapping(table, "text", {"text": column}, ", which is trained whole")


def _by_name(table: Table) -> RowMapping | None:
    """Columns with the very names of a format, whatever they hold: each row then says what is wrong with it."""
    for name, required in REQUIRED.items():
        if all(role in table.columns for role in required):
            return mapping(table, name, {role: role for role in required})
    return None


def _ask_about_contexts(table: Table, columns: dict[str, str], besides: Iterable[str]) -> None:
    """Ask if another column than ``besides`` is likely to belong to the prompt, the first of ``columns``."""
    prompt, answer = columns.values()
    if contexts := table.among(_CONTEXTS, besides):
        template = "\n\n".join(f"{{{column}}}" for column in (*contexts, prompt))
        raise AmbiguousFormat(
            "A part of the prompt may stand in a column of its own.",
            f"Beside {listed((prompt, answer))} there is {listed(contexts)}.",
            [
                Reading("all of it is the prompt", {"template": template, "columns": {"completion": answer}}),
                Reading(f"{listed(contexts)} is left out", {"columns": columns}),
            ],
        )


def _ask_about_reasons(table: Table, columns: dict[str, str], besides: Iterable[str]) -> None:
    """Ask if another column than ``besides`` is likely to belong to the answer, the last of ``columns``."""
    role = list(columns)[-1]
    if reasons := table.among(_REASONS, besides):
        raise AmbiguousFormat(
            "A part of the answer may stand in a column of its own.",
            f"Beside {listed(columns.values())} there is {listed(reasons)}.",
            [
                Reading(f"{listed(reasons)} is left out", {"columns": columns}),
                Reading("it is thought before the answer", {"columns": {**columns, "reasoning": reasons[0]}}),
                Reading("it is the answer", {"columns": {**columns, role: reasons[0]}}),
            ],
        )


def _ask_about_label(table: Table, found: RowMapping) -> None:
    """Ask whether a label of 0 or 1 beside an answer is a judgement of it."""
    column = table.playing("label", "number")
    if column is None or "label" not in ROLES[found.format] or not set(table.values(column)) <= {0, 1}:
        return
    raise AmbiguousFormat(
        "The rows may hold answers that were not liked.",
        f"Column {listed([column])} is 0 or 1 in each of them.",
        [
            Reading("rows with 0 are left out", {"columns": {**found.columns, "label": column}}),
            Reading(f"{listed([column])} is left out", {"columns": found.columns}),
        ],
    )


def _ask_about_media(table: Table, found: RowMapping) -> None:
    """Ask whether rows with pictures or sound should be trained without them."""
    if media := table.among(_MEDIA, found.columns.values()):
        raise AmbiguousFormat(
            "The rows hold more than text.",
            f"Column {listed(media)} cannot be trained here; the answers may depend on it.",
            [Reading(f"{listed(media)} is left out", {"columns": found.columns})],
        )


def _several(role: str, candidates: Sequence[str], others: dict[str, str]) -> AmbiguousFormat:
    """The error where several columns can play a role and the ``others`` are clear."""
    names = {"completion": "answer", "output": "answer", "messages": "conversation"}
    readings = [
        Reading(f"the {names.get(role, role)} is {one_line(column, 60)}", {"columns": {role: column, **others}})
        for column in candidates
    ]
    if role == "prompt" and set(others) == {"completion"}:
        template = "\n\n".join(f"{{{column}}}" for column in candidates)
        readings.append(Reading("all of it is the prompt", {"template": template, "columns": others}))
    return AmbiguousFormat(
        f"The rows have several columns that can be the {names.get(role, role)}.", f"They are {listed(candidates)}.",
        readings,
    )  # fmt: skip


def _unknown(table: Table) -> DataError:
    columns = f"The columns are {listed(table.columns)}"
    prompt = table.playing("prompt")
    if prompt and table.kinds.get(table.named("completions") or "") == "texts":
        return DataError(
            "The rows hold several answers with a judgement of each.",
            f"{columns}; which answer should be learnt, they do not say.",
            "Write rows with the one answer to learn, as prompt and completion.",
        )
    if prompt and len(table.of_kind("text", *CONVERSATIONS)) == 1:
        return DataError(
            "The rows hold prompts but no answers.",
            f"{columns}; there is nothing to learn in them.",
            "Add a column with the answers; to learn the prompts themselves, name their column text.",
        )
    return DataError(
        "The format of the rows is not recognised.",
        f"{columns}; known are messages, prompt and completion, instruction and output, chosen and rejected, text.",
        "Set data.columns to {prompt: COLUMN, completion: COLUMN}, or write data.template.",
    )


def _flow(value: object) -> str:
    """``value`` in YAML's flow style; what is not a plain name is quoted."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_flow(item)}" for name, item in value.items()) + "}"
    text = str(value)
    plain = text.isascii() and text.replace("_", "").replace("-", "").isalpha() and not text.startswith("-")
    reserved = text.lower() in ("true", "false", "null", "yes", "no", "on", "off", "y", "n")
    return text if plain and not reserved else json.dumps(one_line(text, 200) if "\n" not in text else text)
