"""What the screens look like: sizes, themes, states. `pytest --snapshot-update` after looking at the report."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input
from tui_fits import use_round_fits
from tui_helpers import (
    CHOSEN,
    HOSTILE_INSPECTION,
    INSPECTION,
    LARGE,
    MIDDLE,
    NOW,
    SMALL,
    Machine,
    application,
    card,
    machine,
    overview,
    press,
    settle,
)

from qlora_tui.errors import DataError, RunError
from qlora_tui.tui.answers import Answers
from qlora_tui.tui.inspecting import Stage

pytestmark = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the pictures are those of Python 3.11")

DARK, LIGHT, TERMINAL = "qlora-dark", "qlora-light", "ansi-dark"
SIZES = pytest.mark.parametrize("size", [SMALL, MIDDLE, LARGE], ids=lambda size: f"{size[0]}x{size[1]}")
Compare = Callable[..., bool]

RUNS = [
    overview("spam-triage-2", "running", step=12, changed=NOW - 3),
    overview("spam-triage"),
    overview("support-replies", "failed", step=310, total_steps=900, best_loss=None, changed=NOW - 90_000),
    overview("first-look", "stopped", changed=NOW - 900_000),
    overview("lost", "interrupted", step=7, best_loss=None),
    overview("early", "early_stopped"),
]
_FILE = """version: 1
name: {config.name}
model:
  source: {config.model.source}
adapter: {{rank: {config.adapter.rank}, alpha: {config.adapter.alpha:g}}}
data:
  source: {config.data.source}
  max_length: {config.data.max_length}
training:
  epochs: {config.training.epochs:g}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with two data files, under a name that is always the same."""
    for name in ("heldout.jsonl", "spam.jsonl"):
        (tmp_path / name).write_text('{"prompt": "a", "completion": "b"}\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qlora_tui.tui.screens.data.located", lambda text: "/data/" + text.rpartition("/")[2])
    # The schema grows; what a picture is to show is that there is a file.
    monkeypatch.setattr("qlora_tui.tui.screens.review.dump_config", lambda config: _FILE.format(config=config))
    monkeypatch.setattr("qlora_tui.tui.screens.review.runs_directory", lambda: tmp_path.__class__("/home/me/runs"))


@pytest.fixture
def looks_the_same(snap_compare: Compare, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Compares a screen after some keys."""
    use_round_fits(monkeypatch)

    def check(
        stand_in: Machine,
        *keys: str,
        step: int | None = None,
        answers: Answers | None = None,
        size: tuple[int, int] = MIDDLE,
        theme: str = DARK,
        ascii_only: bool = False,
    ) -> None:
        async def walk(pilot: Pilot[str]) -> None:
            if answers is not None:
                app.change(answers)
                app.inspect()
            if step is not None:
                app.open_wizard(step)
            await settle(pilot)
            for key in keys:
                await press(pilot, key)
            for editor in pilot.app.screen.query(Input):
                editor.cursor_blink = False
            await settle(pilot)

        app = application(stand_in, theme=theme, ascii=ascii_only)
        assert snap_compare(app, terminal_size=size, run_before=walk)

    return check


@SIZES
def test_home_with_nothing(looks_the_same: Callable[..., None], size: tuple[int, int]) -> None:
    looks_the_same(Machine(), size=size)


@SIZES
def test_home_with_runs(looks_the_same: Callable[..., None], size: tuple[int, int]) -> None:
    looks_the_same(Machine(runs=RUNS), "tab", size=size)


@SIZES
def test_hardware(looks_the_same: Callable[..., None], size: tuple[int, int]) -> None:
    looks_the_same(Machine(), step=1, size=size)


def test_hardware_without_a_gpu(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(hardware=machine()), step=1, size=SMALL)


def test_hardware_with_several_gpus(looks_the_same: Callable[..., None]) -> None:
    cards = (card(0), card(1, "Tesla V100-SXM2-16GB", capability=(7, 0), total=16, free=2), card(2, memory=None))
    looks_the_same(Machine(hardware=machine(*cards)), "down", "enter", step=1)


def test_cards_to_plan_for(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(), "c", *"3090", step=1, size=SMALL)


def test_a_card_that_is_not_known(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(), "c", *"zzz", "enter", step=1, size=SMALL)


def test_hardware_planned(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(hardware=machine()), "c", *"4090", "enter", step=1)


@SIZES
def test_models(looks_the_same: Callable[..., None], size: tuple[int, int]) -> None:
    looks_the_same(Machine(), step=2, size=size)


def test_models_filtered(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(), "slash", *"llama 8b", step=2, size=SMALL)


def test_models_none_found(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(), "slash", *"zzz", step=2, size=SMALL)


def test_a_model_that_is_not_listed(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(), "slash", *"somebody/model-7b", step=2, size=SMALL)


def test_models_large_on_a_small_card(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(hardware=machine(card(0, free=7))), "slash", *"qwen3", step=2, theme=LIGHT)


def test_licence(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(), "slash", *"gemma", "enter", "enter", step=2, size=SMALL)


def test_data_to_choose(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(), step=3, size=SMALL)


@SIZES
def test_data(looks_the_same: Callable[..., None], size: tuple[int, int]) -> None:
    looks_the_same(Machine(), step=3, answers=CHOSEN, size=size)


def test_data_as_the_model_reads_it(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(), "v", step=3, answers=CHOSEN, theme=LIGHT)


def test_data_as_it_stands(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(), "v", "v", step=3, answers=CHOSEN, size=SMALL)


def test_data_under_way(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(said=[Stage("train rows", 12_000, 50_000, "rows")]), step=3, answers=CHOSEN, size=SMALL)


def test_data_that_cannot_be_read(looks_the_same: Callable[..., None]) -> None:
    refusal = DataError("Line 7 of 'rows.jsonl' cannot be read.", "It is not valid JSON [/bold].", "Correct the line.")
    looks_the_same(Machine(said=[], refusal=refusal), step=3, answers=CHOSEN, size=SMALL)


def test_data_that_is_hostile(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(said=[HOSTILE_INSPECTION]), step=3, answers=CHOSEN)


@SIZES
def test_recipe(looks_the_same: Callable[..., None], size: tuple[int, int]) -> None:
    looks_the_same(Machine(), step=4, answers=CHOSEN, size=size)


def test_recipe_light_theme(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(), step=4, answers=CHOSEN, size=SMALL, theme=LIGHT)


def test_recipe_terminal_colours(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(), step=4, answers=CHOSEN, size=SMALL, theme=TERMINAL)


def test_recipe_without_colour(looks_the_same: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    looks_the_same(Machine(), step=4, answers=CHOSEN, size=SMALL)


def test_recipe_ascii(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(), step=4, answers=CHOSEN, size=SMALL, ascii_only=True)


def test_recipe_with_a_mistake(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(), *"9999", step=4, size=SMALL)


def test_recipe_too_large(looks_the_same: Callable[..., None]) -> None:
    stand_in = Machine(hardware=machine(card(0, free=2)))
    looks_the_same(stand_in, "slash", *"qwen3 8b", "enter", "enter", "ctrl+n", "ctrl+n", step=2)


def test_recipe_on_a_processor(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(hardware=machine()), step=4)


def test_review_with_obstacles(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(), step=5, size=SMALL)


@SIZES
def test_review(looks_the_same: Callable[..., None], size: tuple[int, int]) -> None:
    looks_the_same(Machine(), step=5, answers=CHOSEN, size=size)


def test_review_light_theme(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(), step=5, answers=CHOSEN, theme=LIGHT)


def test_a_failed_launch(looks_the_same: Callable[..., None]) -> None:
    error = RunError("Cannot create the run spam.", "A run of that name exists in /home/me/runs.", "Choose another.")
    looks_the_same(Machine(failure=error), "s", step=5, answers=CHOSEN, size=SMALL)


def test_help(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(), "question_mark", step=4)


def test_help_small(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(), "question_mark", step=2, size=SMALL)


def test_palette(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(), "ctrl+p", step=4)


def test_question_before_deleting(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(runs=RUNS), "tab", "down", "x", size=SMALL)


def test_home_light_theme(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(runs=RUNS), "tab", theme=LIGHT, size=SMALL)


def test_home_ascii(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(runs=RUNS), "tab", size=SMALL, ascii_only=True)


def test_data_ascii(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(), step=3, answers=CHOSEN, ascii_only=True, size=MIDDLE)


def test_data_without_colour(looks_the_same: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    looks_the_same(Machine(), step=3, answers=CHOSEN, size=SMALL)


def test_sixty_columns(looks_the_same: Callable[..., None]) -> None:
    looks_the_same(Machine(), step=4, answers=CHOSEN, size=(60, 24))


def test_the_inspection_is_the_one_shown_everywhere() -> None:
    assert INSPECTION.kept + sum(INSPECTION.dropped.values()) == INSPECTION.rows
