"""What the ship screen shows, read from the run's folders; it may block, so it is called from a thread."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from textual.content import Content

from qlora_tui.hardware import read_memory
from qlora_tui.runs.adapters import ADAPTER_FILE, adapter_of, loadable_base, merged_folders
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.runs.events import Phase, from_line
from qlora_tui.runs.merges import MergeReport, describe_fidelity, read_merge
from qlora_tui.runs.serving import Snippet, adapter_snippets, merged_snippets
from qlora_tui.runs.telling import size
from qlora_tui.text import one_line

BYTES_PER_PARAMETER = 2
MEMORY_SHARE = 1.15
MEMORY_BASE = 1 << 30
CARD_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Way:
    """One way to serve one folder."""

    kind: str
    """What is served: adapter, merge, exact merge."""
    folder: Path
    snippet: Snippet

    @property
    def label(self) -> str:
        """For a list of them."""
        return f"{self.snippet.title}, {self.kind}"


@dataclass(frozen=True, slots=True)
class Shipment:
    """Everything there is to ship."""

    head: Content
    adapter: Path | None
    card: str
    parameters: int | None
    quantised: bool
    memory: int
    disk: int | None
    merges: dict[str, MergeReport]
    ways: tuple[Way, ...]

    @property
    def folders(self) -> dict[str, Path]:
        """What can be pushed."""
        return {way.kind: way.folder for way in self.ways}

    def way(self, label: str) -> Way | None:
        """The way of that label."""
        return next((way for way in self.ways if way.label == label), None)


def read_shipment(run: RunDirectory) -> Shipment:
    """Look at a run's folders.

    Raises:
        QloraError: if its config cannot be read.
    """
    config = run.read_config()
    folder = adapter_of(run.path)
    adapter = folder if (folder / ADAPTER_FILE).is_file() else None
    merges: dict[str, MergeReport] = {
        found.method: found for path in merged_folders(run) if (found := read_merge(path)) is not None
    }
    ways = []
    if adapter is not None:
        for snippet in adapter_snippets(adapter, config, loadable_base(config)):
            ways.append(Way("adapter", adapter, snippet))
    for path in merged_folders(run):
        kind = "exact merge" if path.name.endswith("exact") else "merge"
        ways += [Way(kind, path, snippet) for snippet in merged_snippets(path, config)]
    return Shipment(
        head=_head(run, adapter),
        adapter=adapter,
        card=_card(adapter),
        parameters=_parameters(run),
        quantised=config.quantization.type != "none",
        memory=read_memory().available,
        disk=_free(run.path),
        merges=merges,
        ways=tuple(ways),
    )


def _head(run: RunDirectory, adapter: Path | None) -> Content:
    text = Content.styled(one_line(run.name, 64), "bold")
    if adapter is None:
        return text.append(Content.styled("  no adapter yet: it is written at the first evaluation", "$warning"))
    files = [path for path in adapter.iterdir() if path.is_file()]
    facts = f"{len(files)} files, {size(sum(path.stat().st_size for path in files))}"
    return text.append(Content(f"  {facts}\n")).append(Content.styled(one_line(str(adapter), 300), "dim"))


def _card(adapter: Path | None) -> str:
    if adapter is None:
        return ""
    try:
        with (adapter / "README.md").open(encoding="utf-8", errors="replace") as handle:
            return handle.read(CARD_BYTES)
    except OSError:
        return ""


def _parameters(run: RunDirectory) -> int | None:
    """Parameters of the base, as the run counted them; the event stands near the beginning of the log."""
    try:
        with run.events.open("rb") as handle:
            for line in handle.read(1 << 20).splitlines():
                record = from_line(line) if b'"phase"' in line[:200] else None
                if record and isinstance(record.event, Phase) and "parameters" in record.event.details:
                    return int(record.event.details["parameters"])
    except (OSError, ValueError, TypeError):
        return None
    return None


def _free(path: Path) -> int | None:
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None


def cost_text(found: Shipment, method: str) -> Content:
    """What a merge needs and whether it is there."""
    if method == "exact" and not found.quantised:
        return Content.styled("The base was not quantised: the standard merge is the exact one.", "dim")
    if found.parameters is None:
        return Content.styled("What it needs is checked before it begins.", "dim")
    weights = BYTES_PER_PARAMETER * found.parameters
    needed = round(MEMORY_SHARE * weights) + MEMORY_BASE
    parts = [_against("memory", needed, found.memory)]
    if found.disk is not None:
        parts.append(_against("disk", weights, found.disk))
    return Content("   ").join(parts)


def _against(what: str, needed: int, there: int) -> Content:
    fits = needed <= there
    text = Content.styled("✓ " if fits else "✗ ", "$success" if fits else "$error")
    return text.append(Content(f"{what} {size(needed)} of {size(there)} free"))


def merge_text(report: MergeReport) -> Content:
    """A merge with its check."""
    if report.fidelity is None:
        return Content.styled(f"▲ merged, not measured: {one_line(report.note, 300)}", "$warning")
    verdict, *facts = describe_fidelity(report.fidelity)
    sign, colour = {"faithful": ("✓", "$success"), "close": ("≈", "$warning"), "different": ("✗", "$error")}[
        report.fidelity.verdict
    ]
    text = Content.styled(f"{sign} {verdict}", f"bold {colour}")
    for fact in facts:
        text = text.append(Content(f"\n  {fact}"))
    tail = f"\n  {size(report.size)} of {report.dtype} weights in {one_line(report.output, 300)}"
    return text.append(Content.styled(tail, "dim"))
