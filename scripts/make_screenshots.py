"""The pictures in ``screenshots/``: each step of the wizard, at two sizes and in two themes, as SVG and PNG.

The rows are read by the engine as they are for everyone, the estimate is the real one. The machine and the list of runs
are stand-ins (an RTX 3060 with 11 of 12 GiB free), so that the pictures are the same wherever they are made.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from qlora_tui.tui.answers import Answers, with_values
from qlora_tui.tui.app import QloraApp
from qlora_tui.tui.preferences import Preferences
from qlora_tui.tui.services import Services

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from tui_helpers import CARD, FINDINGS, NOW, machine, overview, settle, wait_for  # noqa: E402

SIZES = ((80, 24), (120, 36))
THEMES = ("qlora-dark", "qlora-light")
STEPS = ((0, "home"), (1, "hardware"), (2, "model"), (3, "data"), (4, "recipe"), (5, "review"))
_INSPECTION_SECONDS = 180.0
_RUNS = [
    overview("spam-triage-2", "running", step=12, changed=NOW - 3),
    overview("spam-triage"),
    overview("support-replies", "failed", step=310, total_steps=900, best_loss=None, changed=NOW - 90_000),
]


def _services() -> Services:
    return Services(
        hardware=lambda: machine(CARD),
        findings=lambda _hardware: FINDINGS,
        runs=lambda: _RUNS,
        cached=frozenset,
        now=lambda: NOW,
    )


def _answers() -> Answers:
    recipe = with_values(Answers().config, {"data.source": "examples/spam.jsonl", "name": "spam"})
    return Answers(recipe, model_chosen=True, step=5)


async def _pictures(size: tuple[int, int], theme: str, write: Callable[[str, str], None]) -> None:
    app = QloraApp(_services(), preferences=Preferences(theme=theme, motion=False))
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        write("home", app.export_screenshot())
        app.change(_answers())
        app.inspect()
        told = "the data was not read"
        await wait_for(
            pilot, lambda: app.seen is not None and app.seen.inspection is not None, told, _INSPECTION_SECONDS
        )
        for number, name in STEPS[1:]:
            app.change(replace(app.answers, step=5))
            app.open_wizard(number)
            await settle(pilot)
            write(name, app.export_screenshot())


def _is_read(app: QloraApp) -> bool:
    return app.seen is not None and app.seen.inspection is not None


def _writer(folder: Path, size: tuple[int, int], theme: str) -> Callable[[str, str], None]:
    try:
        from cairosvg import svg2png
    except ImportError:
        svg2png = None

    def write(name: str, svg: str) -> None:
        path = folder / f"{name}-{size[0]}x{size[1]}-{theme.removeprefix('qlora-')}.svg"
        path.write_text(svg, encoding="utf-8")
        if svg2png is not None:
            # The font of the SVG is fetched by a browser; here one that is installed takes its place.
            drawn = svg.replace("Fira Code", "DejaVu Sans Mono").encode()
            svg2png(bytestring=drawn, write_to=str(path.with_suffix(".png")))
        print(path.relative_to(ROOT))

    return write


def main() -> None:
    """Make all pictures; PNGs only where cairosvg is installed."""
    folder = ROOT / "screenshots"
    folder.mkdir(exist_ok=True)
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as home:
        # Only the application's own state is kept apart: the cache may hold the model already.
        os.environ["QLORA_TUI_STATE"] = home
        os.environ["QLORA_TUI_RUNS"] = "/home/me/runs"
        for size in SIZES:
            for theme in THEMES:
                asyncio.run(_pictures(size, theme, _writer(folder, size, theme)))


if __name__ == "__main__":
    main()
