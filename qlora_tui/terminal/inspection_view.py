"""An inspection for people: calm, complete at 80 columns, and readable without colour.

Only text objects are made, and every text from the data passes :func:`qlora_tui.text.visible`: nothing in a row acts
on the terminal, and nothing in it stays hidden.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qlora_tui.config import RunConfig
from qlora_tui.data.inspection import Finding, Histogram, Inspection
from qlora_tui.data.preview import Preview
from qlora_tui.text import one_line, visible

OPEN, CLOSE, BETWEEN, CUT = "⟦", "⟧", "│", "✂"
"""Around what is trained, between tokens, and between the pieces of a row that is split."""
_MARKS = {"serious": ("!!", "bold red"), "warning": ("! ", "yellow"), "notice": ("- ", "")}
_BAR = 30
_BRIEF_LINES, _BRIEF_TOKENS = 8, 90
_WHOLE_LINES, _WHOLE_TOKENS = 400, 4000


def inspection_view(inspection: Inspection, config: RunConfig, *, whole_row: bool = False) -> RenderableType:
    """Everything there is to say, the row last.

    Args:
        whole_row: Show all of the row; else only how it begins and where its trained tokens are.
    """
    parts: list[RenderableType] = [
        _facts(inspection, config),
        Text(),
        *_lengths(inspection.histogram, inspection.quantiles[100]),
        Text(),
    ]
    parts += [*_findings(inspection.findings), Text()]
    for sample in inspection.samples:
        parts += preview_view(sample, whole=whole_row)
    return Group(*parts)


def _facts(inspection: Inspection, config: RunConfig) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for name, value in _fact_rows(inspection, config):
        grid.add_row(Text(name), Text(visible(value)))
    return grid


def _fact_rows(inspection: Inspection, config: RunConfig) -> Iterator[tuple[str, str]]:
    tokens, lengths = inspection.tokens, inspection.quantiles
    yield "data", one_line(inspection.source, 160)
    yield "format", inspection.reason
    dropped = inspection.rows - inspection.kept
    yield "rows", f"{inspection.rows:,} read, {inspection.kept:,} kept" + (f", {dropped:,} dropped" if dropped else "")
    share = tokens.trained / tokens.total if tokens.total else 0.0
    yield "tokens", f"{tokens.total:,}, of which {tokens.trained:,} ({share:.1%}) are trained"
    yield (
        "lengths",
        f"half have at most {lengths[50]:,} tokens, 95 % at most {lengths[95]:,}, the longest {lengths[100]:,}",
    )
    if config.data.train_on == "assistant" or inspection.end_of_turn_trained:
        yield (
            "end of turn",
            "trained" if inspection.end_of_turn_trained else "NOT trained: the model will not learn to stop",
        )
    if inspection.evaluation_rows is not None:
        yield "evaluation", f"{inspection.evaluation_rows:,} rows, {inspection.eval_overlap:,} of them also trained on"
    elif config.data.evaluation.fraction:
        yield "evaluation", f"{config.data.evaluation.fraction:.1%} of the rows will be held out"
    licences = inspection.licences
    yield "licences", f"data: {licences.data or 'none named'}; model: {licences.model or 'none named'}"
    if inspection.redacted:
        yield "redacted", ", ".join(f"{count:,} {kind}" for kind, count in inspection.redacted.items())


def _lengths(histogram: Histogram, longest: int) -> Iterator[Text]:
    """The histogram, with a line where rows are cut."""
    yield Text("rows by length in tokens", style="bold")
    most, edges = max(histogram.counts) or 1, histogram.edges
    cut_told = False
    for number, count in enumerate(histogram.counts):
        low = edges[number]
        high = edges[number + 1] - 1 if number + 1 < len(edges) else max(low, longest)
        label = f"{low:,}–{high:,}" if high > low else f"{low:,}"
        if not cut_told and histogram.cut < low:
            yield _cut_line(histogram.cut)
            cut_told = True
        bar = "█" * max(round(_BAR * count / most), int(count > 0))
        yield Text.assemble(f"{label:>18} ", (bar, "cyan" if histogram.cut >= high else "yellow"), f" {count:,}")
    if not cut_told and any(histogram.counts):
        yield _cut_line(histogram.cut)


def _cut_line(cut: int) -> Text:
    return Text(f"{'':>18} ── cut at {cut:,} (data.max_length) ──", style="yellow")


def _findings(found: tuple[Finding, ...]) -> Iterator[RenderableType]:
    if not found:
        yield Text("nothing to find fault with", style="green")
        return
    yield Text("findings", style="bold")
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for finding in found:
        mark, style = _MARKS[finding.severity]
        grid.add_row(Text(mark, style=style), Text(visible(finding.message), style=style))
        grid.add_row(Text(), Text(visible(finding.advice), style="dim"))
        for line in _evidence(finding):
            grid.add_row(Text(), line)
    yield grid


def _evidence(finding: Finding) -> Iterator[Text]:
    """One row in words, the others by number."""
    for each in finding.examples[:1]:
        side = "evaluation row" if each.part == "evaluation" else "row"
        yield Text(f"{side} {each.row:,}: {visible(each.text)}", no_wrap=True, overflow="ellipsis")
    if others := finding.examples[1:]:
        more = " …" if finding.rows > len(finding.examples) else ""
        yield Text(f"also {', '.join(f'{each.row:,}' for each in others)}{more}", style="dim")


def preview_view(preview: Preview, *, whole: bool) -> Iterator[RenderableType]:
    """A row raw, rendered, and as tokens."""
    name = "" if preview.which in ("first", str(preview.row)) else f", the {preview.which} one"
    lines = _WHOLE_LINES if whole else _BRIEF_LINES
    if whole:
        yield Text(f"row {preview.row:,}{name}, as it stands in the data", style="bold")
        yield Text(_first_lines(visible(preview.raw), lines))
        yield Text()
    if preview.problem is not None:
        yield Text(f"row {preview.row:,}{name} is not trained on: {visible(preview.problem)}", style="yellow")
    if preview.rendered is None:
        if not whole:
            yield Text(_first_lines(visible(preview.raw), lines))
        return
    if whole:
        yield Text(f"row {preview.row:,} as the model reads it", style="bold")
        yield Text(_first_lines(visible(preview.rendered), lines))
        yield Text()
    total, trained = len(preview.tokens), preview.trained
    yield Text(f"row {preview.row:,}{name} as {total:,} tokens; {OPEN}trained{CLOSE}: {trained:,}", style="bold")
    if preview.sequences > 1:
        yield Text(f"trained as {preview.sequences} sequences; this is the longest", style="dim")
    yield token_text(preview, _WHOLE_TOKENS if whole else _BRIEF_TOKENS)


def _first_lines(text: str, most: int) -> str:
    lines = text.split("\n")
    return text if len(lines) <= most else "\n".join([*lines[:most], f"… and {len(lines) - most:,} more lines"])


def token_text(preview: Preview, most: int) -> Text:
    """The tokens with bars between them and brackets around what is trained; what is cut away is struck out.

    Args:
        most: Tokens shown; of a longer row the beginning and the surroundings of the first trained ones.
    """
    kept = {place for start, stop in preview.pieces for place in range(start, stop)}
    cuts = {start for start, _ in preview.pieces if start}
    learnt = [trained and (place in kept) for place, (_, trained) in enumerate(preview.tokens)]
    shown = _shown(learnt, most)
    result, before, last = Text(), False, -1
    for place in shown:
        if place != last + 1:
            result.append((CLOSE if before else "") + f" … {place - last - 1:,} tokens … ", style="dim")
            before = False
        if learnt[place] != before:
            result.append(OPEN if learnt[place] else CLOSE, style="bold green")
        elif place > 0 and place == last + 1:
            result.append(BETWEEN, style="dim")
        if place in cuts:
            result.append(CUT, style="yellow")
        text = visible(preview.tokens[place][0])
        style = "green underline" if learnt[place] else "" if place in kept else "dim strike"
        # A token that ends a line would otherwise not be seen to do so.
        result.append(text.replace("\n", "⏎\n").replace("\t", "⇥\t"), style=style)
        before, last = learnt[place], place
    if before:
        result.append(CLOSE, style="bold green")
    if last + 1 < len(learnt):
        result.append(f" … {len(learnt) - last - 1:,} tokens", style="dim")
    return result


def _shown(learnt: list[bool], most: int) -> list[int]:
    if len(learnt) <= most:
        return list(range(len(learnt)))
    first = learnt.index(True) if True in learnt else 0
    if first < most // 2:
        return list(range(most))
    head = most // 3
    start = max(head, first - most // 6)
    return [*range(head), *range(start, min(len(learnt), start + most - head))]
