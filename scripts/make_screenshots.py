"""The pictures in ``screenshots/``: each step of the wizard, at two sizes and in two themes, as SVG and PNG.

The rows are read by the engine as they are for everyone, the estimate is the real one. The machine and the list of runs
are stand-ins (an RTX 3060 with 11 of 12 GiB free), so that the pictures are the same wherever they are made. Training,
chat and ship are those of a real run that has ended: the one of ``make demo``, or ``--run DIRECTORY``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path

from pictures import ROOT, SIZES, THEMES, Write, writer

from qlora_tui.runs.directory import RunDirectory
from qlora_tui.tui.answers import Answers, with_values
from qlora_tui.tui.app import QloraApp
from qlora_tui.tui.preferences import Preferences
from qlora_tui.tui.screens.pane import StepPane
from qlora_tui.tui.services import Services

sys.path.insert(0, str(ROOT / "tests"))

from tui_helpers import CARD, FINDINGS, NOW, machine, overview, settle, wait_for

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


async def _pictures(size: tuple[int, int], theme: str, write: Write) -> None:
    app = QloraApp(_services(), preferences=Preferences(theme=theme, motion=False))
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        write("home", app.export_screenshot())
        app.change(_answers())
        app.inspect()
        await wait_for(pilot, lambda: _is_read(app), "the data was not read", _INSPECTION_SECONDS)
        for number, name in STEPS[1:]:
            app.change(replace(app.answers, step=5))
            app.open_wizard(number)
            await settle(pilot)
            if name == "data":  # what is trained stands at the end of a row
                app.screen.query_one(f"#step-{number}", StepPane).scroll_end(animate=False)
                await settle(pilot)
            write(name, app.export_screenshot())


def _is_read(app: QloraApp) -> bool:
    return app.seen is not None and app.seen.inspection is not None


def main() -> None:
    """Make all pictures; PNGs only where cairosvg is installed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=ROOT / "demo" / "runs" / "spam-triage", metavar="DIRECTORY")
    parser.add_argument("--only-run", action="store_true", help="leave the wizard's pictures as they are")
    arguments = parser.parse_args()
    run = RunDirectory(arguments.run.absolute())
    folder = ROOT / "screenshots"
    folder.mkdir(exist_ok=True)
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as home:
        # Only the application's own state is kept apart: the cache may hold the model already.
        os.environ["QLORA_TUI_STATE"] = home
        os.environ["QLORA_TUI_RUNS"] = "/home/me/runs"
        for size, theme in product(SIZES, () if arguments.only_run else THEMES):
            asyncio.run(_pictures(size, theme, writer(folder, size, theme)))
        if run.adapter.is_dir():
            from run_pictures import pictures_of

            asyncio.run(pictures_of(run, folder))
        else:
            print(f"no pictures of a run: {run.path} has no adapter; `make demo` makes one", file=sys.stderr)


if __name__ == "__main__":
    main()
