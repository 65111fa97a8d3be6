"""Folders that cannot hold a run, and commands on runs that are not there or not in the right state."""

from __future__ import annotations

import json
from collections.abc import Sequence

from benchmarks.errors.case import ENVIRONMENT, USAGE, Case, Prepare, command
from benchmarks.errors.place import NAME, Place, write_files


def file_in_the_way(place: Place) -> Sequence[str]:
    (place.folder / "taken").write_text("a file", encoding="utf-8")
    return place.config(output={"directory": "taken/runs"})


def read_only_folder(place: Place) -> Sequence[str]:
    return place.config(output={"directory": str(place.mount("size=1m,ro"))})


def read_only_home(place: Place) -> Sequence[str]:
    place.variables.update(QLORA_TUI_HOME=str(place.mount("size=1m,ro")))
    return place.config()


def full_disk(place: Place) -> Sequence[str]:
    """There is room for the first checkpoints, but not for all that are to be kept."""
    return place.config(
        data={"packing": False},
        training={"effective_batch": 1, "max_steps": 6},
        checkpoints={"every": 1, "keep": 6},
        output={"directory": str(place.mount("size=2m"))},
    )


def name_is_taken(place: Place) -> Sequence[str]:
    place.run("completed")
    return place.config()


def folder_is_no_run(place: Place) -> Sequence[str]:
    (place.runs / NAME).mkdir(parents=True)
    (place.runs / NAME / "mine.txt").write_text("mine", encoding="utf-8")
    return [*place.config(), "--overwrite"]


def on_run(scenario: str, *arguments: str) -> Prepare:
    """A command on a run that has got as far as ``scenario`` says."""

    def prepare(place: Place) -> Sequence[str]:
        place.run(scenario)
        return arguments

    return prepare


def chat_with_a_folder(place: Place) -> Sequence[str]:
    return ["chat", str(place.model), "--prompt", "Hello"]


def chat_with_half_an_adapter(place: Place) -> Sequence[str]:
    settings = json.dumps({"base_model_name_or_path": str(place.model), "peft_type": "LORA"})
    folder = write_files(place.folder / "adapter", {"adapter_config.json": settings.encode()})
    return ["chat", str(folder), "--prompt", "Hello"]


RUN_CASES = (
    Case("output: a file in the way", file_in_the_way, ENVIRONMENT, ("taken", "output.directory")),
    Case("output: read-only", read_only_folder, ENVIRONMENT, ("read-only", "output.directory")),
    Case("output: read-only home", read_only_home, ENVIRONMENT, ("read-only",)),
    Case("output: disk full while saving", full_disk, ENVIRONMENT, ("free", "resume"), full=True, again=False),
    Case("output: a run of that name", name_is_taken, USAGE, (NAME, "exists", "overwrite"), again=False),
    Case("output: a folder that is no run", folder_is_no_run, USAGE, ("not a run", "left alone"), again=False),
    Case("resume: a finished run", on_run("completed", "resume", NAME, "--json"), USAGE, ("completed", "chat"),
         again=False),
    Case("resume: a running run", on_run("stubborn", "resume", NAME, "--json"), USAGE,
         ("training right now", "attach"), again=False),
    Case("resume: no such run", command("resume", "nobody", "--json"), USAGE, ("no run nobody",)),
    Case("attach: no such run", command("attach", "nobody"), USAGE, ("no run nobody",)),
    Case("stop: no such run", command("stop", "nobody"), USAGE, ("no run nobody",)),
    Case("stop: a run that is over", on_run("completed", "stop", NAME), USAGE, ("not running", "completed"),
         again=False),
    Case("chat: no such run", command("chat", "nobody", "--prompt", "Hello"), USAGE, ("no run nobody",)),
    Case("chat: a folder without an adapter", chat_with_a_folder, USAGE, ("adapter_config.json",)),
    Case("chat: an adapter without weights", chat_with_half_an_adapter, USAGE, ("adapter_model.safetensors",),
         full=True),
    Case("chat: no prompt", command("chat", "nobody"), USAGE, ("--prompt",)),
)  # fmt: skip
