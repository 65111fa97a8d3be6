"""Does it fit: the need by part against the free memory of the card, in one line of blocks and one of words."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content

from qlora_tui.memory.fit import Fit
from qlora_tui.tui.fit_view import OVERHEAD, parts
from qlora_tui.tui.widgets.words import Words
from qlora_tui.tui.words import GIB, gib

FILLS = {"weights": "█", "adapter": "▓", "activations": "▒", "loss": "░", OVERHEAD: "▚"}
"""Each part has its own texture, so that the bar can be read without colour."""
VERDICTS = {
    "yes": ("✓", "fits", "$success"),
    "tight": ("≈", "tight", "$warning"),
    "no": ("✗", "too large", "$error"),
    "unknown": ("?", "unknown", "dim"),
}
"""Mark, word and colour of each verdict."""
_COLOURS = {
    "weights": "$primary",
    "adapter": "$success",
    "activations": "$primary 60%",
    "loss": "$primary 60%",
    OVERHEAD: "$secondary",
}


def verdict_text(verdict: str, *, word: bool = True) -> Content:
    """Mark and word of a verdict, in its colour."""
    mark, name, colour = VERDICTS[verdict]
    return Content.styled(f"{mark} {name}" if word else mark, colour)


def bar(fit: Fit, width: int) -> Content:
    """The parts as blocks; the line of blocks ends where the larger of need and card ends."""
    width = max(10, width)
    scale = max(fit.device.total or fit.device.free or 0, fit.process.high, 1)
    content, used, drawn = Content(""), 0, 0
    for name, size in parts(fit):
        used += size
        end = min(width, round(used / scale * width))
        cells = max(0, end - drawn)
        content = content.append(Content.styled(FILLS[name] * cells, _COLOURS[name]))
        drawn += cells
    doubt = max(0, min(width, round(fit.process.high / scale * width)) - drawn)
    content = content.append(Content.styled("╌" * doubt, "$warning"))
    drawn += doubt
    limit = None if fit.device.free is None else min(width - 1, round(fit.device.free / scale * width))
    rest = "·" * (width - drawn)
    content = content.append(Content.styled(rest, "dim"))
    if limit is not None and limit < width - 1:
        plain, mark = content, Content.styled("┃", "bold $foreground")
        content = plain[:limit].append(mark).append(plain[limit + 1 :])
    return content


def words(fit: Fit) -> Content:
    """The need with its band, the free memory, the verdict."""
    band, device = fit.process, fit.device
    low, high = gib(band.low, unit=False), gib(band.high, unit=False)
    need = gib(band.point) if low == high else f"{low}–{high} GiB"
    room = "" if device.free is None else f" of {gib(device.free)} free"
    kind = " of RAM" if device.kind == "cpu" else ""
    where = f"{device.name}{', planned' if device.planned else ''}"
    short = f" · {gib(fit.short)} short" if fit.fits in ("no", "tight") and fit.short else ""
    return verdict_text(fit.fits).append(Content(f"  needs {need}{room}{kind}{short} · {where}"))


class MemoryBar(Vertical):
    """The bar at the foot of every step from the second on."""

    def __init__(self) -> None:
        super().__init__(id="memory")
        self._shown: tuple[Fit | None, str] = (None, "")

    def compose(self) -> ComposeResult:
        yield Words(id="memory-blocks")
        yield Words(id="memory-words")

    def show(self, fit: Fit | None, missing: str = "") -> None:
        """Draw a fit, or say in words why there is none."""
        self._shown = (fit, missing)
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        fit, missing = self._shown
        blocks, text = self.query_one("#memory-blocks", Words), self.query_one("#memory-words", Words)
        width = max(10, self.content_size.width)
        if fit is None:
            blocks.say(Content.styled("·" * width, "dim"))
            text.say(Content.styled(missing, "dim"))
            return
        blocks.say(bar(fit, width))
        text.say(words(fit))


def legend(fit: Fit) -> Content:
    """Each part with its texture and its GiB; a part is never torn apart at the end of a line."""
    named = [
        Content.styled(FILLS[name], _COLOURS[name]).append(
            Content(f"\N{NO-BREAK SPACE}{name}\N{NO-BREAK SPACE}{_size(size)}")
        )
        for name, size in parts(fit)
    ]
    return Content("  ").join(named)


def _size(size: int) -> str:
    return f"{size / GIB:.2f}" if size < GIB // 10 else f"{size / GIB:.1f}"
