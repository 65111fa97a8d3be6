"""An inspection as a few lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from textual.content import Content

from qlora_tui.config import RunConfig
from qlora_tui.text import one_line, visible
from qlora_tui.tui.words import count, plural

if TYPE_CHECKING:
    from qlora_tui.data.inspection import Finding, Inspection

_MARKS = {"serious": ("✗", "$error"), "warning": ("!", "$warning"), "notice": ("–", "dim")}


def summary_lines(inspection: Inspection, config: RunConfig) -> Iterator[Content]:
    """What becomes of the rows, and what of them is learnt."""
    tokens, dropped = inspection.tokens, inspection.rows - inspection.kept
    yield Content.styled("✓ ", "$success").append(Content(one_line(inspection.reason, 300)))
    lost = f", {plural(dropped, 'row')} dropped" if dropped else ""
    cut = f", {plural(inspection.truncated, 'row')} cut" if inspection.truncated else ", none cut"
    share = tokens.trained / max(1, tokens.total)
    yield _line(
        "rows",
        f"{inspection.rows:,} read, {inspection.kept:,} kept{lost}{cut}; {inspection.untrained_rows:,} untrained",
    )
    yield _line("tokens", f"{count(tokens.total)}, of which {count(tokens.trained)} ({share:.0%}) are trained")
    yield _line("lengths", f"half have at most {tokens.p50:,}, 95 % at most {tokens.p95:,}, the longest {tokens.max:,}")
    twice = inspection.duplicates + inspection.near_duplicates
    yield _line(
        "repeated",
        f"{inspection.duplicates:,} rows exactly, {inspection.near_duplicates:,} almost" if twice else "none",
    )
    if inspection.evaluation_rows is not None:
        overlap = f"{inspection.eval_overlap:,} of them also trained on"
        yield _line("held out", f"{plural(inspection.evaluation_rows, 'row')}, {overlap}")
    elif config.data.evaluation.fraction:
        yield _line("held out", f"{100 * config.data.evaluation.fraction:g}% of the rows, taken from these")
    if config.data.train_on == "assistant" and not inspection.end_of_turn_trained:
        yield _line("end of turn", "not trained: the model will not learn to stop")


def _line(name: str, value: str) -> Content:
    return Content.styled(f"  {name:<12}", "dim").append(Content(value))


def finding_lines(found: tuple[Finding, ...]) -> Iterator[Content]:
    """The findings, the gravest first, each with what to do and a row that shows it."""
    if not found:
        yield Content.styled("✓ nothing to find fault with", "$success")
    for finding in found:
        mark, colour = _MARKS[finding.severity]
        yield Content.styled(f"{mark} ", colour).append(Content(one_line(visible(finding.message), 300)))
        yield Content.styled(f"  → {one_line(visible(finding.advice), 300)}", "$primary")
        for each in finding.examples[:1]:
            side = "evaluation row" if each.part == "evaluation" else "row"
            yield Content.styled(f"  {side} {each.row:,}: {one_line(visible(each.text), 200)}", "dim")
