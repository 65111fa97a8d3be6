"""Screenshots as files: the SVG that Textual exports, and a PNG drawn from it where cairosvg is installed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

Write = Callable[[str, str], None]

ROOT = Path(__file__).resolve().parent.parent
SIZES = ((80, 24), (120, 36))
THEMES = ("qlora-dark", "qlora-light")
_CELL_HEIGHT = 24.4
"""Of Textual's SVG, in its own units."""
_TEXT = re.compile(r'<text class="([^"]+)" x="([\d.]+)" y="([\d.]+)" textLength="([\d.]+)"[^>]*>([^<]*)</text>')
_ENTITY = re.compile(r"&#?\w+;|.", re.DOTALL)
_DOTS = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))
"""Column and row of the bits of a braille character, from the lowest on."""


def writer(folder: Path, size: tuple[int, int], theme: str) -> Write:
    """A function that writes the picture of a name, given as SVG."""
    try:
        from cairosvg import svg2png
    except ImportError:
        svg2png = None

    def write(name: str, svg: str) -> None:
        path = folder / f"{name}-{size[0]}x{size[1]}-{theme.removeprefix('qlora-')}.svg"
        path.write_text(svg, encoding="utf-8")
        if svg2png is not None:
            # The font of the SVG is fetched by a browser; here one that is installed takes its place.
            drawn = with_dots(svg).replace("Fira Code", "DejaVu Sans Mono").encode()
            svg2png(bytestring=drawn, write_to=str(path.with_suffix(".png")))
        print(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)

    return write


def with_dots(svg: str) -> str:
    """The picture with circles for braille, which few fixed-width fonts have."""
    return _TEXT.sub(_drawn, svg)


def _drawn(match: re.Match[str]) -> str:
    style, left, base, length, text = match.groups()
    characters = _ENTITY.findall(text)
    if not any("\u2800" <= character <= "\u28ff" for character in characters):
        return match[0]
    width = float(length) / len(characters)
    top = float(base) - 0.76 * _CELL_HEIGHT
    circles = []
    for place, character in enumerate(characters):
        if not "\u2800" <= character <= "\u28ff":
            continue
        characters[place] = "&#160;"
        for bit, (column, row) in enumerate(_DOTS):
            if ord(character) - 0x2800 >> bit & 1:
                x = float(left) + width * (place + 0.25 + 0.5 * column)
                circles.append(
                    f'<circle class="{style}" cx="{x:.1f}" cy="{top + _CELL_HEIGHT * (row + 0.5) / 4:.1f}" r="1.6"/>'
                )
    return match[0].replace(text, "".join(characters)) + "".join(circles)
