"""What an audit found, in words: what is the case, how grave it is, what to do, and rows that show it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from qlora_tui.config import DataSection
from qlora_tui.data.audit import EXAMPLES, Audit, Tally
from qlora_tui.data.duplicates import MOST_SKETCHES
from qlora_tui.data.inspection import SEVERITIES, Evidence, Finding, Licences, Severity
from qlora_tui.data.licence import concern
from qlora_tui.data.mapping import NO_ANSWER
from qlora_tui.data.prepare import CUT_UNTRAINED, UNTRAINED
from qlora_tui.data.privacy import Kind, masked, scan
from qlora_tui.data.report import PreparationReport
from qlora_tui.data.text_trouble import Trouble
from qlora_tui.text import one_line, visible

EXCERPT = 72
"""Characters of a row that are shown as evidence."""
ODD_SCRIPT_SHARE = 0.05
"""A script that fewer rows than this share are in looks like a stray."""

_REDACT = "Set data.redact to true, or remove it from the rows"
_PRIVATE: dict[Kind, tuple[Severity, str]] = {
    "secret": ("serious", "keys, tokens or passwords"),
    "card": ("serious", "payment card numbers whose check digit is right"),
    "iban": ("serious", "bank account numbers (IBAN)"),
    "ssn": ("serious", "US social security numbers"),
    "email": ("warning", "e-mail addresses"),
    "phone": ("warning", "telephone numbers"),
    "ip": ("notice", "public IP addresses"),
}
_TROUBLE: dict[Trouble, tuple[Severity, str, str]] = {
    "mojibake": (
        "warning",
        "look as if read in the wrong encoding (such as Ã© for é)",
        "Export the data as UTF-8 again, or repair it with `ftfy`.",
    ),
    "replacement_character": (
        "warning",
        "hold the replacement character \N{REPLACEMENT CHARACTER}, where a character was lost",
        "Export the data again from its source; what is lost cannot be mended.",
    ),
    "control_character": ("warning", "hold control characters", "Remove them; the model would learn to write them."),
    "hidden_character": (
        "warning",
        "hold characters that cannot be seen or that reorder text",
        "Look at one with --row; such characters can hide instructions. Remove them.",
    ),
    "mixed_script": (
        "warning",
        "hold words that mix Latin with Cyrillic or Greek letters",
        "Such look-alike letters get other tokens; spell the words in one script.",
    ),
    "markup": ("notice", "hold several HTML tags or entities", "Clean the text, unless the model is to write HTML."),
}


def findings(
    report: PreparationReport,
    audit: Audit,
    evaluation: Audit | None,
    section: DataSection,
    licences: Licences,
    redacted: dict[str, int],
) -> list[Finding]:
    """Everything worth telling, the gravest first. Evidence has row numbers only, see :func:`with_excerpts`."""
    found = [
        *_losses(report, section),
        *_reading(report, section),
        *_repetition(audit),
        *_answers(audit),
        *(_overlap(evaluation) if evaluation is not None else ()),
        *_private(audit, section),
        *_trouble(audit),
        *_scripts(audit),
        *_template(report),
        *_redacted(redacted),
        *concern(licences),
    ]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def _evidence(rows: Iterable[int], part: str = "train") -> tuple[Evidence, ...]:
    side = "evaluation" if part == "evaluation" else "train"
    return tuple(Evidence(int(row), part=side) for row, _ in zip(rows, range(EXAMPLES), strict=False))  # type: ignore[arg-type]


_ONE = {
    "are": "is", "repeat": "repeats", "give": "gives", "have": "has", "hold": "holds", "share": "shares",
    "look": "looks", "lose": "loses", "answer": "answers", "stand": "stands",
}  # fmt: skip


def _rows(count: int, does: str, total: int | None = None, name: str = "row") -> str:
    """A sentence on so many rows; ``does`` begins with a verb for many. A share is told if there is a total."""
    share = "" if total is None else f" ({count / max(1, total):.1%})"
    if count == 1:
        verb, _, rest = does.partition(" ")
        return f"1 {name}{share} {_ONE.get(verb, verb)} {rest}."
    return f"{count:,} {name}s{share} {does}."


def _losses(report: PreparationReport, section: DataSection) -> Iterator[Finding]:
    """Rows and tokens that do not reach training."""
    kinds = {NO_ANSWER: "empty_answer", UNTRAINED: "untrained", CUT_UNTRAINED: "untrained"}
    for reason, count in report.dropped.items():
        share = count / report.rows
        yield Finding(
            kinds.get(reason, "dropped"),
            count,
            "serious" if share > 0.2 else "warning",
            _rows(count, f"cannot be used: {reason}", report.rows),
            "Raise data.max_length." if reason == CUT_UNTRAINED else "Correct them, or leave them out.",
            _evidence([report.first_dropped[reason]]),
        )
    if report.truncated:
        yield _truncated(report, section)
    if report.straddling_rows:
        yield Finding(
            "straddling",
            report.straddling_rows,
            "notice",
            _rows(report.straddling_rows, "have a token that covers the prompt's end and the answer's start"),
            "Let answers begin without white space.",
        )
    share = report.tokens.trained / report.tokens.total
    if share < 0.02:
        yield Finding(
            "few_trained",
            report.kept,
            "notice",
            f"Only {share:.1%} of the tokens are learnt; the others are read.",
            "This is right for short answers to long prompts; else check data.columns and data.train_on.",
        )


def _truncated(report: PreparationReport, section: DataSection) -> Finding:
    share = report.truncated / report.rows
    lost = report.tokens_lost / max(1, report.tokens.total + report.tokens_lost)
    lengths = f"95 % of the rows have at most {report.tokens.p95} tokens"
    if section.long_rows == "split":
        return Finding(
            "truncated",
            report.truncated,
            "notice",
            _rows(report.truncated, f"lose pieces in which nothing is learnt, {lost:.1%} of all tokens", report.rows),
            f"Raise data.max_length ({lengths}), if the answers need what is lost.",
        )
    return Finding(
        "truncated",
        report.truncated,
        "serious" if share > 0.2 else "warning",
        _rows(report.truncated, f"are cut at {section.max_length} tokens, {lost:.1%} of all tokens lost", report.rows),
        f"Raise data.max_length ({lengths}), or set data.long_rows to split or drop. A cut answer has no end to "
        "learn from.",
    )


def _reading(report: PreparationReport, section: DataSection) -> Iterator[Finding]:
    """What becomes of rows that reach training otherwise than one would think."""
    for note in report.notes:
        yield Finding("reading", report.kept, "notice", note, "Set data.columns or data.format if this is not meant.")
    if report.split:
        yield Finding(
            "split",
            report.split,
            "notice",
            _rows(report.split, f"are cut into {report.pieces:,} pieces of at most {section.max_length} tokens"),
            "A piece begins without what stands before it; raise data.max_length if memory allows.",
        )
    if report.unrolled:
        yield Finding(
            "unrolled",
            report.unrolled,
            "notice",
            _rows(report.unrolled, f"are trained as {report.sequences:,} sequences"),
            "The chat template renders earlier answers otherwise once later ones follow, such as without their "
            "reasoning; so each is learnt as the model gives it.",
        )
    for what, count in report.unseen.items():
        yield Finding(
            "left_out",
            count,
            "warning",
            _rows(count, f"have something that the chat template leaves out: {what}", report.rows),
            "The model neither reads nor learns it; choose a model whose template knows it, if it matters.",
        )
    if report.open_ends:
        yield Finding(
            "open_end",
            report.open_ends,
            "warning",
            _rows(report.open_ends, "have no trained end token at their end", report.rows),
            "The model may not learn to stop; add the token, and train it.",
        )


def _repetition(audit: Audit) -> Iterator[Finding]:
    compared = audit.compare()
    repeated = compared.repeated
    total = max(1, len(audit.numbers))
    if len(repeated):
        yield Finding(
            "duplicate",
            len(repeated),
            "warning" if len(repeated) / total > 0.01 else "notice",
            _rows(len(repeated), "repeat an earlier row exactly", total),
            "Remove them unless their weight is meant; the model learns them by heart.",
            _evidence(repeated),
        )
    almost = compared.almost
    if len(almost):
        limit = f" (the first {MOST_SKETCHES:,} rows were compared)" if audit.sketches.full else ""
        yield Finding(
            "near_duplicate",
            len(almost),
            "warning" if len(almost) / total > 0.05 else "notice",
            _rows(len(almost), f"are almost the same as an earlier one{limit}", total),
            f"Compare row {almost[0]} with row {compared.firsts[0]}; remove what adds nothing. Held-out rows that "
            "resemble training rows flatter the result.",
            _evidence(almost),
        )


def _answers(audit: Audit) -> Iterator[Finding]:
    total = max(1, len(audit.numbers))
    for repeated in audit.compare().answers:
        yield Finding(
            "repeated_answer",
            repeated.rows,
            "warning",
            _rows(repeated.rows, "give the very same long answer", total),
            "Check that it is meant; refusals and error messages get in like this.",
            _evidence(repeated.first),
        )
    against = audit.compare().contradicting
    if len(against):
        yield Finding(
            "contradiction",
            len(against),
            "warning" if len(against) / total > 0.01 else "notice",
            _rows(len(against), "have a prompt that another row answers differently", total),
            "Keep one answer, unless variety is meant.",
            _evidence(against),
        )
    if audit.echoes.rows:
        yield _tallied("echo", audit.echoes, "warning", "answer with the prompt itself", "Check data.columns.")
    if audit.empty_turns.rows:
        advice = "Remove the empty turns; an empty answer teaches silence."
        yield _tallied("empty_turn", audit.empty_turns, "warning", "hold a turn without text", advice)


def _tallied(kind: str, tally: Tally, severity: Severity, what: str, advice: str) -> Finding:
    return Finding(kind, tally.rows, severity, _rows(tally.rows, what), advice, _evidence(tally.first))


def _overlap(evaluation: Audit) -> Iterator[Finding]:
    found, total = evaluation.compare().overlap, max(1, len(evaluation.numbers))
    kinds: tuple[tuple[str, tuple[int, ...], Severity, str], ...] = (
        ("eval_overlap", found.same, "serious", "stand among the training rows too"),
        ("eval_same_prompt", found.asked, "warning", "have the prompt of a training row"),
        ("eval_near_overlap", found.near, "warning", "are almost the same as a training row"),
    )
    for kind, rows, severity, what in kinds:
        if rows:
            yield Finding(
                kind,
                len(rows),
                severity,
                _rows(len(rows), what, total, "evaluation row"),
                "Remove them from one side; the result would say how well rows are remembered.",
                _evidence(rows, "evaluation"),
            )


def _private(audit: Audit, section: DataSection) -> Iterator[Finding]:
    for kind, (severity, what) in _PRIVATE.items():
        if (tally := audit.private.get(kind)) is not None:
            count = audit.private_values[kind]
            yield _tallied(
                kind,
                tally,
                severity,
                f"hold {what} ({count:,} in all)",
                "They were found after redaction; remove them by hand." if section.redact else f"{_REDACT}.",
            )


def _trouble(audit: Audit) -> Iterator[Finding]:
    for kind, (severity, what, advice) in _TROUBLE.items():
        if (tally := audit.trouble.get(kind)) is not None:
            yield _tallied(kind, tally, severity, what, advice)


def _scripts(audit: Audit) -> Iterator[Finding]:
    total = sum(tally.rows for tally in audit.scripts.values())
    for script, tally in sorted(audit.scripts.items(), key=lambda item: -item[1].rows):
        if tally.rows < ODD_SCRIPT_SHARE * total:
            main = max(audit.scripts, key=lambda name: audit.scripts[name].rows)
            yield _tallied(
                "odd_script",
                tally,
                "notice",
                f"are written in {script.capitalize()} letters, while most are in {main.capitalize()}",
                "Check that they belong to the data.",
            )


def _template(report: PreparationReport) -> Iterator[Finding]:
    for warning in report.template_warnings:
        severity: Severity = "serious" if not report.end_of_turn_trained and "stop" in warning else "notice"
        yield Finding("template", report.kept, severity, warning, "Choose an instruct model, if this is not meant.")


def _redacted(redacted: dict[str, int]) -> Iterator[Finding]:
    if count := sum(redacted.values()):
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in redacted.items())
        yield Finding(
            "redacted",
            0,
            "notice",
            f"{count:,} private values are replaced by placeholders before training: {kinds}.",
            "Read a few rows; names and addresses of people are not recognised.",
        )


def with_excerpts(found: list[Finding], text_of: Callable[[str, int], str | None]) -> list[Finding]:
    """The findings with a masked excerpt of each row that shows them.

    Args:
        text_of: The text of a row by its part and number; None if it cannot be had.
    """
    from dataclasses import replace

    return [
        replace(
            finding,
            examples=tuple(
                replace(each, text=excerpt(finding.kind, text) if (text := text_of(each.part, each.row)) else "")
                for each in finding.examples
            ),
        )
        for finding in found
    ]


_WHERE: dict[str, re.Pattern[str]] = {
    "control_character": re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\x80-\x9f]"),
    "hidden_character": re.compile(
        "[\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\U000e0000-\U000e007f]"
    ),
    "replacement_character": re.compile("\N{REPLACEMENT CHARACTER}"),
    "mojibake": re.compile("[ÃÂâÐÑ][\x80-\xff\u0152-\u2122]"),
}


def excerpt(kind: str, text: str) -> str:
    """One line of ``text`` that shows what was found, everything private masked and nothing hidden."""
    hits = scan(text)
    wanted = next((hit for hit in hits if hit.kind == kind), None)
    place = 0
    if wanted is not None:
        place = wanted.start
    elif (pattern := _WHERE.get(kind)) is not None and (match := pattern.search(text)) is not None:
        place = match.start()
    start = max(0, place - EXCERPT // 3)
    # The cut must not leave a part of something private that is too short to be recognised.
    start = min((hit.start for hit in hits if hit.start <= start < hit.stop), default=start)
    ahead = masked(text[:start], [hit for hit in hits if hit.stop <= start])
    whole = masked(text, hits)[len(ahead) :]
    line = " ".join(visible(whole[: 4 * EXCERPT]).split())
    shown = line if len(line) <= EXCERPT else line[: EXCERPT - 1] + "…"
    return one_line(("…" if start else "") + shown, EXCERPT + 1)
