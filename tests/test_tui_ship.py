"""The ship screen with a stand-in for the engine: what there is, merging, ways to serve, pushing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from run_stories import HOSTILE, Story
from stand_in_session import StandInSession
from textual.pilot import Pilot
from textual.widgets import Button, Checkbox, Input, Static
from tui_helpers import Machine, application, drive, press, screen_text, settle

from qlora_tui.errors import EnvironmentFault
from qlora_tui.hardware import Memory
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.runs.merges import MERGE_FILE, Fidelity, MergeReport
from qlora_tui.tui.screens.card import CardScreen
from qlora_tui.tui.screens.home import HomeScreen
from qlora_tui.tui.screens.question import QuestionScreen
from qlora_tui.tui.screens.ship import ShipScreen

Steps = Callable[[Pilot[str], ShipScreen], Awaitable[None]]
FIDELITY = Fidelity(
    rows=32, positions=1024, held_out=True, kl=0.0004, kl_max=0.02, agreement=0.998,
    loss_adapter=0.98, loss_merged=0.981, dtype="bfloat16",
)  # fmt: skip


@pytest.fixture
def session() -> StandInSession:
    return StandInSession()


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return Story(end="completed", alive=False, adapter=True).write(tmp_path)


def ship(run: RunDirectory, session: StandInSession, steps: Steps, size: tuple[int, int] = (120, 36)) -> list[str]:
    """Open the screen and do something in it; what was copied."""
    app = application(Machine())
    copied: list[str] = []
    app.copy_to_clipboard = copied.append  # type: ignore[method-assign, assignment]

    async def begin(pilot: Pilot[str]) -> None:
        screen = ShipScreen(run, session)  # type: ignore[arg-type]
        app._show_alone(screen)
        await settle(pilot)
        await steps(pilot, screen)

    drive(app, begin, size)
    return copied


def text_of(screen: ShipScreen, name: str) -> str:
    return str(screen.query_one(f"#{name}", Static).content)


def report(output: Path, fidelity: Fidelity | None = FIDELITY, note: str = "") -> MergeReport:
    return MergeReport(
        output=str(output), method="exact", base="b", dtype="bfloat16", size=10**9, seconds=3.0, fidelity=fidelity,
        note=note,
    )  # fmt: skip


def let_merge(session: StandInSession, found: MergeReport) -> None:
    """Let the engine leave a merge behind."""

    def leave() -> None:
        Path(found.output).mkdir(exist_ok=True)
        Path(found.output, MERGE_FILE).write_text(found.model_dump_json())
        Path(found.output, "config.json").write_text("{}")

    session.results["merge"] = {"report": found.model_dump(mode="json")}
    session.effects["merge"] = leave


def test_what_there_is_to_ship(run: RunDirectory, session: StandInSession) -> None:
    async def steps(pilot: Pilot[str], screen: ShipScreen) -> None:
        shown = screen_text(pilot.app)  # type: ignore[arg-type]
        for text in ("4 files, 5.0 MB", str(run.adapter)[:40], "PeftModel", "Merge into 16-bit weights"):
            assert text in shown
        await press(pilot, "d")
        assert isinstance(pilot.app.screen, CardScreen)
        assert "A LoRA adapter" in screen_text(pilot.app)  # type: ignore[arg-type]
        assert "license: mit" not in screen_text(pilot.app)  # type: ignore[arg-type]
        await press(pilot, "escape", "escape")
        assert isinstance(pilot.app.screen, HomeScreen)

    ship(run, session, steps)
    assert session.closed == 1


@pytest.mark.parametrize(("available", "sign"), [(64 << 30, "✓ memory 19.5 GB"), (2 << 30, "✗ memory 19.5 GB")])
def test_a_merge_says_beforehand_whether_there_is_room(
    run: RunDirectory, session: StandInSession, monkeypatch: pytest.MonkeyPatch, available: int, sign: str
) -> None:
    monkeypatch.setattr("qlora_tui.tui.shipping.read_memory", lambda: Memory(64 << 30, available))

    async def steps(pilot: Pilot[str], screen: ShipScreen) -> None:
        assert sign in text_of(screen, "ship-cost")
        assert "disk 16.1 GB" in text_of(screen, "ship-cost")

    ship(run, session, steps)


def test_a_merge_shows_how_faithful_it_is_and_can_be_repeated(run: RunDirectory, session: StandInSession) -> None:
    output = run.path / "merged-exact"
    let_merge(session, report(output))

    async def steps(pilot: Pilot[str], screen: ShipScreen) -> None:
        await press(pilot, "m")
        (asked,) = session.requests("merge")
        assert asked == {"target": str(run.path), "output": str(output), "exact": True, "overwrite": False}
        assert "✓ The merged model answers as base and adapter did." in text_of(screen, "ship-merged")
        assert "99.80% of 1,024 positions" in text_of(screen, "ship-merged")
        assert str(screen.query_one("#ship-merge", Button).label) == "Merge again"
        await press(pilot, "m")
        assert isinstance(pilot.app.screen, QuestionScreen)
        await press(pilot, "right", "enter")
        assert session.requests("merge")[-1]["overwrite"] is True

    ship(run, session, steps)


def test_the_other_base_can_be_chosen(run: RunDirectory, session: StandInSession) -> None:
    let_merge(session, report(run.path / "merged"))

    async def steps(pilot: Pilot[str], screen: ShipScreen) -> None:
        screen.query_one("#ship-method").focus()
        await press(pilot, "right", "m")
        (asked,) = session.requests("merge")
        assert (asked["exact"], asked["output"]) == (False, str(run.path / "merged"))

    ship(run, session, steps)


def test_a_merge_that_was_not_measured_or_failed_says_so(run: RunDirectory, session: StandInSession) -> None:
    let_merge(session, report(run.path / "merged-exact", None, "The model does not fit twice."))

    async def steps(pilot: Pilot[str], screen: ShipScreen) -> None:
        await press(pilot, "m")
        assert "not measured: The model does not fit twice." in text_of(screen, "ship-merged")
        session.failures["merge"] = EnvironmentFault("Nothing was merged.", "The disk is full.", "Free some space.")
        await press(pilot, "m", "right", "enter")
        shown = screen_text(pilot.app)  # type: ignore[arg-type]
        assert all(text in shown for text in ("Nothing was merged.", "The disk is full.", "Free some space."))

    ship(run, session, steps)


def test_every_way_to_serve_is_shown_and_copied(run: RunDirectory, session: StandInSession) -> None:
    async def steps(pilot: Pilot[str], screen: ShipScreen) -> None:
        screen.query_one("#ship-server").focus()
        await press(pilot, "y", "right", "y")

    first, second = ship(run, session, steps)
    assert "PeftModel.from_pretrained" in first
    assert "vllm serve" in second


def test_a_push_is_confirmed_private_by_default_and_forgets_the_token(
    run: RunDirectory, session: StandInSession
) -> None:
    session.results["push"] = {"address": "https://hub.example/me/shop"}

    async def steps(pilot: Pilot[str], screen: ShipScreen) -> None:
        screen.query_one("#push-name", Input).value = "me/shop"
        screen.query_one("#push-token", Input).value = "hf_secret"
        screen.query_one("#push-go", Button).press()
        await settle(pilot)
        shown = screen_text(pilot.app)  # type: ignore[arg-type]
        assert "Push to me/shop?" in shown
        assert "Only you can see it there." in shown
        assert "hf_secret" not in shown
        await press(pilot, "right", "enter")
        expected = {"folder": str(run.adapter), "repository": "me/shop", "private": True, "token": "hf_secret"}
        assert session.requests("push") == [expected]
        assert screen.query_one("#push-token", Input).value == ""
        assert "✓ https://hub.example/me/shop" in text_of(screen, "push-note")
        screen.query_one("#push-private", Checkbox).value = False
        screen.query_one("#push-go", Button).press()
        await settle(pilot)
        assert "Everybody can see it" in screen_text(pilot.app)  # type: ignore[arg-type]
        await press(pilot, "enter")
        assert len(session.requests("push")) == 1

    ship(run, session, steps)


def test_leaving_while_the_engine_works_asks_first(run: RunDirectory, session: StandInSession) -> None:
    async def steps(pilot: Pilot[str], screen: ShipScreen) -> None:
        screen._busy = "The engine is busy (merge)."
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, QuestionScreen)
        await press(pilot, "enter")
        assert isinstance(pilot.app.screen, ShipScreen)
        await press(pilot, "escape", "right", "enter")
        assert isinstance(pilot.app.screen, HomeScreen)

    ship(run, session, steps)


@pytest.mark.parametrize("size", [(80, 24), (200, 50)])
def test_a_run_without_an_adapter_has_nothing_to_ship(
    tmp_path: Path, session: StandInSession, size: tuple[int, int]
) -> None:
    run = Story().write(tmp_path)

    async def steps(pilot: Pilot[str], screen: ShipScreen) -> None:
        assert "no adapter yet" in text_of(screen, "ship-head")
        await press(pilot, "m", "y", "d")
        assert isinstance(pilot.app.screen, ShipScreen)
        assert not session.asked

    assert ship(run, session, steps, size) == []


def test_a_hostile_card_is_text(run: RunDirectory, session: StandInSession) -> None:
    (run.adapter / "README.md").write_text(HOSTILE * 20)

    async def steps(pilot: Pilot[str], screen: ShipScreen) -> None:
        await press(pilot, "d")
        shown = screen_text(pilot.app)  # type: ignore[arg-type]
        assert "[red]" in shown
        assert "\x1b" not in shown

    ship(run, session, steps)
