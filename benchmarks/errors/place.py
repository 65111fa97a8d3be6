"""Where a case is staged: a folder with a home, a model, rows, a config and runs of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.errors.small_model import model_files
from qlora_tui.config import RunConfig
from qlora_tui.runs.directory import RunDirectory, create_run

NAME = "bad"
"""The name of every run, so that a next try under the same name can be made."""
# Copied once: cases may run in threads while others change the environment, and this machine's own folders and token
# are no part of any.
_INHERITED = {name: value for name, value in os.environ.items() if not name.startswith(("QLORA_TUI_", "HF_"))}


class CannotStage(Exception):
    """This machine does not allow what a case needs, such as mounting a file system."""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder for one case, with a home of its own, and what has to be undone after it."""

    folder: Path
    undo: ExitStack
    variables: dict[str, str] = field(default_factory=dict)
    """Environment variables of the case."""

    @property
    def runs(self) -> Path:
        """The default runs directory."""
        return self.folder / "home" / "runs"

    @property
    def model(self) -> Path:
        """A whole small model, made on first use."""
        path = self.folder / "model"
        if not path.exists():
            write_files(path, model_files())
        return path

    @property
    def environment(self) -> dict[str, str]:
        """What the console script is started with."""
        return {
            **_INHERITED,
            "QLORA_TUI_HOME": str(self.folder / "home"),
            "HF_HOME": str(self.folder / "hub"),
            "HF_HUB_OFFLINE": "1",
            "NO_PROXY": "127.0.0.1",
            **self.variables,
        }

    def values(self, **sections: Any) -> dict[str, Any]:
        """A config that trains two short steps, with some fields of some sections replaced."""
        values: dict[str, Any] = {
            "name": NAME,
            "model": {"source": str(self.model)},
            "data": {"source": "rows.jsonl", "max_length": 128, "evaluation": {"fraction": 0.25}},
            "training": {"effective_batch": 2, "max_steps": 2},
        }
        for section, fields in sections.items():
            values[section] = {**values.get(section, {}), **fields} if isinstance(fields, dict) else fields
        return values

    def config(self, **sections: Any) -> list[str]:
        """Write such a config, and good rows if the case has written none; the arguments that train it."""
        if not (self.folder / "rows.jsonl").exists():
            self.rows(*good_rows())
        return self.text(yaml.safe_dump(self.values(**sections)))

    def text(self, text: str) -> list[str]:
        """Write the text of a config; the arguments that train it."""
        path = self.folder / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return ["--config", str(path), "--json"]

    def rows(self, *lines: object, name: str = "rows.jsonl") -> Path:
        """Write lines of data: bytes as they are, text as a line, anything else as JSON."""
        path = self.folder / name
        path.write_bytes(b"".join(_line(each) + b"\n" for each in lines))
        return path

    def run(self, scenario: str) -> RunDirectory:
        """A run directory in which a player, in a process of its own, plays the part of the engine."""
        from player import start_player

        values = self.values(output={"directory": str(self.runs)})
        run = create_run(RunConfig.model_validate(values))
        process = start_player(run, scenario)
        if scenario == "stubborn":
            self.undo.callback(process.wait)
            self.undo.callback(process.kill)
        else:
            process.wait()
        return run

    def mount(self, options: str) -> Path:
        """A small file system in memory.

        Raises:
            CannotStage: if it cannot be mounted here.
        """
        path = self.folder / "mounted"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
            raise CannotStage("a small file system cannot be mounted here (root only)")
        self.undo.callback(subprocess.run, ["umount", "--lazy", str(path)], check=False)
        return path


def _line(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value)).encode()


def good_rows(count: int = 8) -> list[dict[str, str]]:
    """Rows that differ."""
    return [{"prompt": f"What follows {number}?", "completion": f"It is {number + 1}."} for number in range(count)]


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files into a new folder."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder
