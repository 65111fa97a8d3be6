"""The format of data: what the config says, or else what the first rows look like."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from qlora_tui.config import DataSection
from qlora_tui.data.columns import Table, listed
from qlora_tui.data.formats import IN_MESSAGES, OPTIONAL, REQUIRED, ROLES, SPEAKERS, Format, RowMapping
from qlora_tui.data.guess import guess, mapping
from qlora_tui.data.prompt_template import parse_prompt_template
from qlora_tui.data.source import RawRow
from qlora_tui.errors import DataError
from qlora_tui.text import one_line


def detect(rows: Sequence[RawRow], section: DataSection) -> RowMapping:
    """The format of ``rows``, which are the first ones of the data; ``section`` overrules what they look like.

    Raises:
        AmbiguousFormat: if the rows can be read in several ways.
        DataError: if a named column or role does not exist, or no format fits.
    """
    table = Table(rows)
    _check_columns(section.columns, table)
    if section.template is not None:
        return _from_template(section.template, section, table)
    if section.format != "auto":
        return _named(section.format, section.columns, table, "as configured")
    if section.columns:
        return _from_roles(section.columns, table)
    found = guess(table)
    _refuse_mixture(found, rows)
    return found


def _check_columns(columns: dict[str, str], table: Table) -> None:
    roles = sorted({role for names in ROLES.values() for role in names} | set(IN_MESSAGES))
    for role, column in columns.items():
        if role not in roles:
            raise DataError(
                f"data.columns names the role {one_line(role, 60)!r}, which does not exist.",
                f"The roles are {', '.join(roles)}.",
                _nearest(role, roles) or "Use one of them.",
            )
        if role not in IN_MESSAGES and column not in table.columns:
            raise _no_column(column, table.columns, f"data.columns.{role}")


def _from_template(template: str, section: DataSection, table: Table) -> RowMapping:
    used = parse_prompt_template(template).columns
    for column in used:
        if column not in table.columns:
            raise _no_column(column, table.columns, "data.template")
    if section.format not in ("auto", "prompt-completion"):
        raise DataError(
            f"data.template does not go with data.format {section.format!r}.",
            "A template makes the prompt of prompt and completion rows.",
            "Set data.format to auto, or remove the template.",
        )
    if unused := sorted(set(section.columns) - {"completion", *OPTIONAL["prompt-completion"]}):
        raise DataError(
            f"data.columns.{unused[0]} is not used.",
            "data.template makes the prompt; only the completion and what stands beside it have columns then.",
            f"Remove {unused[0]} from data.columns, or remove data.template.",
        )
    answers = [column for column in table.all_playing("completion") if column not in used]
    answer = section.columns.get("completion") or (answers[0] if len(answers) == 1 else None)
    if answer is None:
        raise DataError(
            "There are several columns for the answer." if answers else "There is no column for the answer.",
            f"The columns are {listed(table.columns)}.",
            f"Name it, under data: columns: {{completion: {answers[0] if answers else 'COLUMN'}}}.",
        )
    reason = f'The prompt is made from data.template, the answer is column "{one_line(answer, 60)}".'
    return RowMapping("prompt-completion", {**section.columns, "completion": answer}, reason, template)


def _from_roles(columns: dict[str, str], table: Table) -> RowMapping:
    roles = set(columns) - set(IN_MESSAGES)
    fitting: list[Format] = [name for name, known in ROLES.items() if roles <= set(known)]
    if not roles:  # only speakers or keys of messages are named
        fitting = ["messages", "sharegpt"]
    # A format whose columns are all named comes before one that has to find some.
    fitting.sort(key=lambda name: len(set(REQUIRED[name]) - roles))
    for name in fitting:
        if all(role in roles or table.playing(role) for role in REQUIRED[name]):
            return _named(name, columns, table, "by the roles in data.columns")
    if fitting:
        return _named(fitting[0], columns, table, "by the roles in data.columns")
    raise DataError(
        "The roles in data.columns belong to different formats.",
        f"They are {', '.join(sorted(columns))}.",
        "Use those of one format: " + "; ".join(f"{name}: {', '.join(roles)}" for name, roles in ROLES.items()) + ".",
    )


def _named(name: Format, columns: dict[str, str], table: Table, ground: str) -> RowMapping:
    """The mapping for a known format; a required role without a column takes the one that is called like it."""
    inside = {role: value for role, value in columns.items() if role in IN_MESSAGES}
    chosen = {role: column for role, column in columns.items() if role not in inside}
    if foreign := sorted(set(chosen) - set(ROLES[name])):
        raise DataError(
            f"data.columns.{foreign[0]} does not belong to the format {name}.",
            f"Its roles are {', '.join(ROLES[name])}.",
            f"Remove {foreign[0]}, or choose another data.format.",
        )
    for role in REQUIRED[name]:
        if role not in chosen:
            free = [column for column in table.all_playing(role) if column not in chosen.values()]
            if not free:
                raise _no_column(role, table.columns, f"the format {name} ({role})")
            chosen[role] = free[0]
    keys = (inside.get("role"), inside.get("content"))
    speakers = {inside[speaker]: speaker for speaker in SPEAKERS if speaker in inside}
    return mapping(table, name, chosen, f", {ground}", whole=not columns, keys=keys, speakers=speakers)


def _refuse_mixture(found: RowMapping, rows: Sequence[RawRow]) -> None:
    """Rows of another format among the first ones would be dropped one by one: better to say so at once."""
    needed = [found.columns[role] for role in REQUIRED[found.format]]
    others = [row for row in rows if all(row.values.get(column) in (None, "", []) for column in needed)]
    if not others or len(others) == len(rows):
        return
    try:
        other = guess(Table(others))
    except DataError:
        return
    if (other.format, other.columns) != (found.format, found.columns):
        raise DataError(
            "The rows have different formats.",
            f"{len(rows) - len(others)} of the first {len(rows)} are read as {_read_as(found)}, "
            f"but row {others[0].number} looks like {_read_as(other)}.",
            "Put the rows of each format into a file of their own.",
        )


def _read_as(found: RowMapping) -> str:
    return f"{found.format} from {listed(list(found.columns.values()))}"


def _no_column(column: str, seen: Sequence[str], where: str) -> DataError:
    return DataError(
        f"There is no column {one_line(column, 60)!r}, which {where} needs.",
        f"The columns are {listed(seen)}.",
        _nearest(column, seen) or "Name the right one in data.columns.",
    )


def _nearest(name: str, known: Sequence[str]) -> str:
    by_name = {item.lower(): item for item in known[:1000]}
    near = difflib.get_close_matches(name.lower()[:60], by_name, n=1, cutoff=0.5)
    return f"Did you mean {one_line(by_name[near[0]], 60)!r}?" if near else ""
