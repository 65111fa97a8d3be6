"""The card of a merged model: what it is, how faithful it is, how to serve it, and what the adapter's card says."""

from __future__ import annotations

import re
from pathlib import Path

from qlora_tui.engine.card_snippet import hub_header, public_name
from qlora_tui.engine.chat_session import ChatTarget
from qlora_tui.engine.markdown import code, fenced, table, text
from qlora_tui.models.sources import ModelFiles
from qlora_tui.runs.merges import Fidelity, MergeReport, describe_fidelity
from qlora_tui.runs.serving import merged_snippets

_METHODS = {
    "standard": "The base was loaded in 16 bits, as it was published, and the adapter was added to it.",
    "exact": "The base was quantised to 4 bits as in training, unpacked to 16 bits, and the adapter was added to that.",
}
_KEPT = ("Results", "Prompt format", "Data", "Recipe", "Limits", "Versions")


def merged_card(target: ChatTarget, files: ModelFiles, report: MergeReport, *, has_modelfile: bool) -> str:
    """The card as Markdown with YAML front matter."""
    config = target.config
    quantised = config.quantization.type != "none"
    parts = [
        hub_header(files, "finetune", "transformers", quantised=quantised),
        f"# {text(config.name)}",
        f"{code(public_name(files), in_table=False)} with a LoRA adapter merged into its weights ({report.dtype}), "
        f"made with qlora-tui. {_METHODS[report.method]}",
        "## Is the merge faithful?",
        _faithful(report),
        "## How to serve it",
    ]
    for snippet in merged_snippets(Path("."), config, has_modelfile):
        parts += [f"### {snippet.title}", fenced(snippet.text, snippet.language)]
        parts += [snippet.note] if snippet.note else []
    return "\n\n".join([*parts, *_from_adapter(target.adapter)]) + "\n"


def _faithful(report: MergeReport) -> str:
    if report.fidelity is None:
        return f"Not measured. {text(report.note)}"
    note = f"\n\n{text(report.note)}" if report.note else ""
    return f"{describe_fidelity(report.fidelity)[0]}\n\n{table(('', ''), _rows(report.fidelity))}{note}"


def _rows(found: Fidelity) -> list[tuple[str, str]]:
    kind = "held-out rows of the run" if found.held_out else "general prompts"
    return [
        ("compared on", f"{found.positions:,} next tokens in {found.rows} {kind}"),
        ("same likeliest token", f"{found.agreement:.2%}".replace("%", " %")),
        ("KL divergence from base and adapter", f"mean {found.kl:.2g}, at most {found.kl_max:.2g} nats"),
        ("loss with the adapter, merged", f"{found.loss_adapter:.4f}, {found.loss_merged:.4f}"),
        ("computed in", found.dtype),
    ]


def _from_adapter(adapter: Path) -> list[str]:
    """What the adapter's own card says of results, data and recipe; nothing if it is not one of ours."""
    try:
        content = (adapter / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    if "trained with qlora-tui" not in content:
        return []
    sections = re.split(r"^## ", content, flags=re.MULTILINE)[1:]
    kept = [section for section in sections if section.partition("\n")[0].strip() in _KEPT]
    return [f"## {section.strip()}" for section in kept]
