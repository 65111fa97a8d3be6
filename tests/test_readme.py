"""What the README says is so: its commands, configs, rows, links, exit codes and JSON keys."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from qlora_tui.commands import app
from qlora_tui.config import DataSection
from qlora_tui.config_file import parse_config
from qlora_tui.data.detection import detect
from qlora_tui.data.formats import ROLES
from qlora_tui.data.mapping import RowMapper
from qlora_tui.data.reading import read_rows
from qlora_tui.data.source import find_source
from qlora_tui.errors import ExitCode
from qlora_tui.paths import all_paths
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.runs.overview import overview
from qlora_tui.terminal.outcome import Summary

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def blocks(text: str, language: str) -> list[str]:
    return [content for name, content in _BLOCK.findall(text) if name == language]


def code_spans(text: str) -> list[str]:
    return [" ".join(span.split()) for span in _CODE.findall(_BLOCK.sub("", text))]


def commands(text: str) -> list[str]:
    """Every command line of this program, in blocks and in sentences."""
    lines = [line.removeprefix("$ ") for block in blocks(text, "console") for line in block.splitlines()]
    return [line for line in [*lines, *code_spans(text)] if line.split(" ")[0] == "qlora-tui"]


def options(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts} | {"--help", "-h"}


def unknown_parts(line: str) -> list[str]:
    """What of a command line `--help` does not know: a command, or an option."""
    group: Any = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    named = bool(words) and not words[0].startswith("-")
    command = group.commands.get(words[0]) if named else group
    if command is None:
        return [words[0]]
    return [word for word in words if word.startswith("-") and word not in options(command)]


def table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    below = README.split(f"# {heading}\n", 1)[1]
    rows = f"\n{below}".split("\n\n|", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def json_keys(command: str) -> list[str]:
    values = {row[0].strip("`"): row[1] for row in table("Output for scripts")}
    return _CODE.findall(values[command])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_exists(page: Path) -> None:
    lines = commands(page.read_text(encoding="utf-8"))
    assert {line: unknown for line in lines if (unknown := unknown_parts(line))} == {}


def test_the_command_table_is_complete() -> None:
    group: Any = typer.main.get_command(app)
    rows = table("Commands")
    told = {row[0].strip("`").removeprefix("qlora-tui").split(" ")[1] for row in rows[2:]}
    assert told == set(group.commands)
    for row in rows[1:]:
        words = row[0].strip("`").split(" ")
        command = group.commands.get(words[1], group)
        mentioned = {span.split(" ")[0] for span in _CODE.findall(row[1])} | set(words)
        unknown = {word for word in mentioned if word.startswith("-")} - options(command)
        assert unknown == set(), row[0]


def test_the_check_for_commands_can_fail() -> None:
    assert unknown_parts("qlora-tui fly RUN") == ["fly"]
    assert unknown_parts("qlora-tui runs --loud") == ["--loud"]


@pytest.mark.parametrize("text", blocks(README, "yaml"))
def test_every_config_is_valid(text: str) -> None:
    parse_config(text, "README.md")


def test_every_data_format_is_shown_and_recognised(tmp_path: Path) -> None:
    found = []
    for number, block in enumerate(blocks(README, "jsonl")):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(block, encoding="utf-8")
        rows = list(read_rows(find_source(str(path))))
        mapping = detect(rows, DataSection(source=str(path)))
        mapper = RowMapper(mapping, None)
        assert all(mapper.example(row) for row in rows)
        found.append(mapping.format)
    assert set(found) == set(ROLES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = [link for link in _LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    headings = {
        re.sub(r"[^\w\- ]", "", line.lstrip("# ")).lower().replace(" ", "-")
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("#")
    }
    missing = [link for link in links if link.startswith("#") and link[1:] not in headings]
    missing += [link for link in links if not link.startswith("#") and not (page.parent / link).exists()]
    assert missing == []


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE)) | set(re.findall(r"\bbench-[a-z]+", makefile))
    targets |= {
        f"bench-{name}" for names in re.findall(r"addprefix bench-,([^)]*)", makefile) for name in names.split()
    }
    for page in PAGES:
        named = set(re.findall(r"(?:^\$ |`)make ([\w-]+)\b(?!-)", page.read_text(encoding="utf-8"), re.MULTILINE))
        assert named - targets - {"bench-"} == set(), page.name


def test_the_exit_codes_are_those_of_the_program() -> None:
    told = {int(code): name for code, name, _ in table("Exit codes")}
    assert told == {int(code): code.name.lower().replace("_", " ") for code in ExitCode}


def test_the_json_keys_are_those_of_the_program(tmp_path: Path) -> None:
    assert json_keys("qlora-tui --config FILE --json") == list(Summary(None, "completed", 0).__dataclass_fields__)
    assert json_keys("qlora-tui runs --json") == list(overview(RunDirectory(tmp_path)).as_values())
    assert json_keys("qlora-tui paths --json") == list(all_paths())


def test_the_environment_variables_are_those_of_the_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    variables = [row[0].strip("`") for row in table("Where files live")]
    assert variables[0] == "QLORA_TUI_HOME"
    for variable, name in zip(variables[1:], all_paths(), strict=True):
        monkeypatch.setenv(variable, str(tmp_path / variable))
        assert all_paths()[name] == tmp_path / variable
