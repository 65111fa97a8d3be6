"""A row for people to read: as it stands, as the model reads it, and as tokens with the trained ones marked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from textual.content import Content

from qlora_tui.text import one_line, visible

if TYPE_CHECKING:
    from qlora_tui.data.preview import Preview

OPEN, CLOSE, CUT = "⟦", "⟧", "✂"
"""Around what is trained, and between the pieces of a row that is split: readable without colour."""
FORMS: Final = ("tokens", "as the model reads it", "as it stands")
_MOST_TOKENS: Final = 1200
_MOST_CHARACTERS: Final = 6000


def row_text(preview: Preview, form: str) -> Content:
    """A row in one of the :data:`FORMS`; nothing in it acts on the terminal or is markup."""
    if form == "as it stands" or preview.rendered is None:
        return Content(_cut(preview.raw))
    if form == "as the model reads it":
        return Content(_cut(preview.rendered))
    return token_text(preview)


def row_title(preview: Preview) -> Content:
    """Which row it is and how much of it is learnt."""
    name = "" if preview.which in ("first", str(preview.row)) else f", the {one_line(preview.which, 20)} one"
    title = Content.styled(f"Row {preview.row:,}{name}", "bold")
    if preview.tokens:
        title = title.append(
            Content.styled(f"  {len(preview.tokens):,} tokens, {preview.trained:,} trained ({OPEN}so{CLOSE})", "dim")
        )
    if preview.sequences > 1:
        title = title.append(Content.styled(f"  the longest of its {preview.sequences} sequences", "dim"))
    return title


def token_text(preview: Preview) -> Content:
    """Trained tokens bright and in brackets, the others plain, what is cut away struck out."""
    cuts = {start for start, _ in preview.pieces if start}
    kept = {place for start, stop in preview.pieces for place in range(start, stop)}
    learnt = [trained and place in kept for place, (_, trained) in enumerate(preview.tokens)]
    parts: list[Content] = []
    before = False
    for place in range(min(len(learnt), _MOST_TOKENS)):
        if learnt[place] != before:
            parts.append(Content.styled(OPEN if learnt[place] else CLOSE, "bold $success"))
        elif place:
            parts.append(Content.styled("│", "dim"))
        style = "$success underline" if learnt[place] else "" if place in kept else "dim strike"
        if place in cuts:
            parts.append(Content.styled(CUT, "$warning"))
        parts.append(Content.styled(_seen(preview.tokens[place][0]), style))
        before = learnt[place]
    if before:
        parts.append(Content.styled(CLOSE, "bold $success"))
    if len(learnt) > _MOST_TOKENS:
        parts.append(Content.styled(f" … {len(learnt) - _MOST_TOKENS:,} more tokens", "dim"))
    return Content("").join(parts)


def _seen(text: str) -> str:
    """A token that ends a line would otherwise not be seen to do so."""
    return visible(text).replace("\n", "⏎\n").replace("\t", "⇥")


def _cut(text: str) -> str:
    """Text of any size, its beginning safe to show."""
    shown = visible(text[:_MOST_CHARACTERS])
    return (
        shown if len(text) <= _MOST_CHARACTERS else f"{shown}\n… and {len(text) - _MOST_CHARACTERS:,} more characters"
    )
