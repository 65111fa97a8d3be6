"""Merging, copying and pushing from the command line: the engine works in a child process, this tells its progress."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from qlora_tui.errors import EnvironmentFault, QloraError, RunError, UsageError
from qlora_tui.runs.adapters import adapter_of, config_of, find_adapter, loadable_base, merged_folders, run_of
from qlora_tui.runs.files import replace_folder
from qlora_tui.runs.merges import MergeReport, describe_fidelity, merge_folder
from qlora_tui.runs.serving import Snippet, adapter_snippets, merged_snippets
from qlora_tui.runs.session import Session
from qlora_tui.text import one_line, printable

SERVERS = ("transformers", "vllm", "ollama")


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to do with what was trained."""

    merged: bool = False
    output: Path | None = None
    server: str | None = None
    push: str | None = None
    public: bool = False


def merge(
    reference: str, output: Path | None, *, exact: bool, base: str | None, overwrite: bool, as_json: bool
) -> MergeReport:
    """Merge an adapter; progress and the check go to stderr, the folder (or the report) to stdout.

    Raises:
        QloraError: if it cannot be merged.
    """
    target = find_adapter(reference)
    run = run_of(target)
    if output is None and run is None:
        raise UsageError(
            "It is not clear where the merged model should go.",
            "The adapter does not lie in a run.",
            "Name a folder with --output.",
        )
    folder = output or merge_folder(run, "exact" if exact else "standard")  # type: ignore[arg-type]
    values = {"target": str(target), "output": str(folder.expanduser().absolute()), "exact": exact}
    answer = _ask("merge", **values, base=base, overwrite=overwrite)
    report = MergeReport.model_validate(answer["report"])
    if as_json:
        _write(json.dumps(report.model_dump(mode="json")))
        return report
    for line in describe_fidelity(report.fidelity) if report.fidelity else []:
        _talk(line)
    if report.note:
        _talk(report.note)
    if report.fidelity is not None and report.fidelity.verdict != "faithful" and not exact:
        _talk("`--exact` merges into the base as it was quantised in training, which stays closer.")
    _talk(f"{report.size / 1e9:,.2f} GB of {report.dtype} weights in {report.seconds:.0f} s. A card lies beside them.")
    _write(report.output)
    return report


def export(reference: str, request: ExportRequest, *, as_json: bool) -> None:
    """Show how to serve something that was trained, and copy or push it if asked to.

    Raises:
        QloraError: if there is nothing to export, or it cannot be copied or pushed.
    """
    if request.server is not None and request.server.lower() not in SERVERS:
        raise UsageError(
            f"There is no server {one_line(request.server, 40)!r}.",
            f"Known: {', '.join(SERVERS)}.",
            "Choose one of them.",
        )
    request = replace(request, server=request.server.lower() if request.server else None)
    target = find_adapter(reference)
    folder = _chosen_folder(target, request)
    if request.output is not None:
        folder = _copy(folder, request.output)
    address = None
    if request.push is not None:
        answer = _ask("push", folder=str(folder), repository=request.push, private=not request.public)
        address = str(answer["address"])
        _talk(f"pushed to {one_line(address, 200)}")
    snippets = _snippets(target, folder, request)
    if as_json:
        _write(json.dumps({"folder": str(folder), "address": address, "snippets": [asdict(each) for each in snippets]}))
        return
    if request.push is None and request.output is None:
        _write("\n\n".join(_shown(snippet) for snippet in snippets))
    else:
        _write(address or str(folder))


def _chosen_folder(target: Path, request: ExportRequest) -> Path:
    run = run_of(target)
    if not (request.merged or request.server == "ollama"):
        return adapter_of(target)
    found = merged_folders(run) if run is not None else []
    if not found:
        raise RunError(
            "There is no merged model yet.",
            "Ollama and a push with --merged need one." if request.server else "Nothing was merged for this run.",
            f"Make one with `qlora-tui merge {run.name if run else target}`.",
        )
    return found[0]


def _snippets(target: Path, folder: Path, request: ExportRequest) -> list[Snippet]:
    config = config_of(target)
    merged = (folder / "config.json").is_file()
    found = merged_snippets(folder, config) if merged else adapter_snippets(folder, config, loadable_base(config))
    return [snippet for snippet in found if request.server in (None, snippet.title.lower())]


def _shown(snippet: Snippet) -> str:
    note = f"# {snippet.note}\n" if snippet.note else ""
    return f"# {snippet.title}\n{note}{snippet.text}"


def _copy(folder: Path, output: Path) -> Path:
    output = output.expanduser().absolute()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"Cannot write to {output}.", "It exists and is not empty.", "Choose another --output.")
    staging = output.with_name(f".{output.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        shutil.copytree(folder, staging)
        replace_folder(staging, output)
    except OSError as error:
        raise EnvironmentFault(
            f"Cannot copy to {output}.",
            f"The system says: {error.strerror or error}.",
            "Check the free space and the permissions, or choose another --output.",
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return output


def _ask(do: str, **values: Any) -> dict[str, Any]:
    """Let the engine do something and tell its progress; what it answers at the end.

    Raises:
        QloraError: if it cannot.
    """
    return asyncio.run(_asked(do, values))


async def _asked(do: str, values: dict[str, Any]) -> dict[str, Any]:
    session = Session()
    last: dict[str, Any] = {}
    try:
        async for event in session.request(do, **values):
            last = event
            if event["event"] == "progress":
                _talk(one_line(str(event.get("message", "")), 300))
    except QloraError as error:
        if error.kind == "session":
            error.hint = f"{error.hint} Log: {session.log}"
        raise
    finally:
        await session.close()
    return last


def _talk(text: str) -> None:
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()


def _write(text: str) -> None:
    sys.stdout.write(printable(text) + "\n")
    sys.stdout.flush()
