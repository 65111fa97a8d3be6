"""The chat screen with a stand-in for the engine: what it asks, what it shows, and how it takes trouble."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from run_stories import HOSTILE, Story
from stand_in_session import StandInSession
from textual.pilot import Pilot
from textual.widgets import Input, Markdown
from tui_helpers import Machine, application, drive, press, screen_text, settle, shows, wait_for

from qlora_tui.errors import RunError
from qlora_tui.runs.directory import RunDirectory
from qlora_tui.tui.conversation import REFUSALS
from qlora_tui.tui.screens.chat import ChatScreen
from qlora_tui.tui.screens.home import HomeScreen
from qlora_tui.tui.screens.question import QuestionScreen
from qlora_tui.tui.screens.spots import SpotScreen
from qlora_tui.tui.spots import kept_prompts
from qlora_tui.tui.widgets.chat_settings import ChatSettings
from qlora_tui.tui.widgets.prompt import Prompt

Steps = Callable[[Pilot[str], ChatScreen], Awaitable[None]]
QUESTION = (*"Where?", "enter")


@pytest.fixture
def session() -> StandInSession:
    return StandInSession()


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return Story(end="completed", alive=False, adapter=True).write(tmp_path)


def chat(
    target: RunDirectory | Path,
    session: StandInSession,
    steps: Steps,
    size: tuple[int, int] = (120, 36),
    loaded: bool = True,
) -> None:
    """Open the chat with a run or a folder and do something in it."""
    app = application(Machine())

    async def begin(pilot: Pilot[str]) -> None:
        screen = ChatScreen(target, session)  # type: ignore[arg-type]
        app._show_alone(screen)
        await settle(pilot)
        if loaded:
            await wait_for(pilot, shows(pilot, "loaded  ·"), "the model is loaded")
        await steps(pilot, screen)

    drive(app, begin, size)


def answers(screen: ChatScreen) -> list[str]:
    return [each.source for each in screen.query(Markdown)]


def test_both_sides_get_the_same_question_and_answer_side_by_side(run: RunDirectory, session: StandInSession) -> None:
    async def steps(pilot: Pilot[str], screen: ChatScreen) -> None:
        await press(pilot, *QUESTION)
        await wait_for(pilot, shows(pilot, "on its way", "I cannot know", "13 tokens, 6.5/s"), "both answers")
        adapter, base = session.requests("generate")
        assert (adapter.pop("side"), base.pop("side")) == ("adapter", "base")
        assert adapter == base
        assert adapter["turns"] == [{"role": "user", "content": "Where?"}]
        assert "**" not in screen_text(pilot.app)  # type: ignore[arg-type]
        first, second = screen.query("ReplyView")
        assert first.region.y == second.region.y

    chat(run, session, steps)
    assert session.closed == 1, "leaving gives the memory back"


def test_each_side_remembers_its_own_answers(run: RunDirectory, session: StandInSession) -> None:
    async def steps(pilot: Pilot[str], screen: ChatScreen) -> None:
        await press(pilot, *QUESTION)
        await press(pilot, *"And?", "enter")
        for asked in session.requests("generate")[2:]:
            said = [turn["content"] for turn in asked["turns"]]
            assert said == ["Where?", session.answers[asked["side"]], "And?"]

    chat(run, session, steps)


def test_sampling_goes_with_the_question(run: RunDirectory, session: StandInSession) -> None:
    async def steps(pilot: Pilot[str], screen: ChatScreen) -> None:
        await press(pilot, "f3")  # the adapter alone
        for name, value in {"system": "Be brief.", "temperature": "0.7", "top-p": "0.9", "seed": "7"}.items():
            screen.query_one(f"#set-{name}", Input).value = value
        await press(pilot, *QUESTION)
        (asked,) = session.requests("generate")
        expected = {"side": "adapter", "system": "Be brief.", "temperature": 0.7, "top_p": 0.9, "seed": 7}
        assert asked == expected | {"max_tokens": 256, "turns": [{"role": "user", "content": "Where?"}]}
        screen.query_one("#set-temperature", Input).value = "hot"
        await press(pilot, *QUESTION)
        assert screen.query_one(ChatSettings).problem == "temperature is a number from 0 to 10."
        assert len(session.requests("generate")) == 1
        assert screen.query_one(Prompt).text == "Where?", "the question is not lost"

    chat(run, session, steps)


def test_an_answer_can_be_stopped_and_the_other_side_does_not_begin(run: RunDirectory, session: StandInSession) -> None:
    async def steps(pilot: Pilot[str], screen: ChatScreen) -> None:
        session.hold.clear()
        await pilot.press(*QUESTION)
        await wait_for(pilot, lambda: bool(answers(screen)) and answers(screen)[0] == "Your ", "the first word")
        await pilot.press("escape")
        await wait_for(pilot, shows(pilot, "stopped after 1 t", "no answer"), "it stopped")
        assert isinstance(pilot.app.screen, ChatScreen)
        assert [asked["side"] for asked in session.requests("generate")] == ["adapter"]
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, HomeScreen)

    chat(run, session, steps)


def test_retry_asks_again_and_edit_takes_the_question_back(run: RunDirectory, session: StandInSession) -> None:
    async def steps(pilot: Pilot[str], screen: ChatScreen) -> None:
        await press(pilot, *QUESTION)
        session.answers["adapter"] = "Another answer."
        await press(pilot, "f6")
        await wait_for(pilot, shows(pilot, "Another answer."), "the new answer")
        assert len(screen.query("ExchangeView")) == 1
        assert session.requests("generate")[-1]["turns"] == [{"role": "user", "content": "Where?"}]
        await press(pilot, "f7")
        assert screen.query_one(Prompt).text == "Where?"
        assert not screen.query("ExchangeView")
        assert not screen.conversation.exchanges

    chat(run, session, steps)


def test_held_out_rows_are_asked_with_their_reference(run: RunDirectory, session: StandInSession) -> None:
    async def steps(pilot: Pilot[str], screen: ChatScreen) -> None:
        await press(pilot, *QUESTION)
        await press(pilot, "f4")
        assert isinstance(pilot.app.screen, SpotScreen)
        await wait_for(pilot, shows(pilot, "The first 5 held-out rows", "parcel 9"), "the rows")
        await press(pilot, "enter")
        asked = session.requests("generate")[2:]
        assert len(asked) == 10
        assert all(len(each["turns"]) == 1 for each in asked), "each stands alone"
        assert "On its way." in screen_text(pilot.app)  # type: ignore[arg-type]

    chat(run, session, steps)


def test_refusals_are_counted_by_side(run: RunDirectory, session: StandInSession) -> None:
    async def steps(pilot: Pilot[str], screen: ChatScreen) -> None:
        session.answers = {"adapter": "Sure, here is how.", "base": "I'm sorry, I can't help with that."}
        session.rows = []
        await press(pilot, "f4")
        await wait_for(pilot, shows(pilot, "requests that should be refused"), "the list")
        await press(pilot, "enter")
        told = f"adapter declined 0 of {len(REFUSALS)}; base declined {len(REFUSALS)} of {len(REFUSALS)}"
        await wait_for(pilot, shows(pilot, told), "the count")

    chat(run, session, steps)


def test_own_questions_are_kept_for_later(run: RunDirectory, session: StandInSession) -> None:
    async def steps(pilot: Pilot[str], screen: ChatScreen) -> None:
        await press(pilot, *QUESTION)
        await press(pilot, "f5", "f4")
        await wait_for(pilot, shows(pilot, "All 1 questions of your own"), "it is in the list")

    chat(run, session, steps)
    assert kept_prompts() == ["Where?"]


def test_a_conversation_is_saved_as_markdown(run: RunDirectory, session: StandInSession) -> None:
    async def steps(pilot: Pilot[str], screen: ChatScreen) -> None:
        await press(pilot, *QUESTION)
        await press(pilot, "f8")

    chat(run, session, steps)
    from qlora_tui.paths import state_directory

    (path,) = (state_directory() / "transcripts").glob("*.md")
    text = path.read_text()
    assert "> Where?" in text
    assert "**adapter** (13 tokens" in text
    assert "> I cannot know" in text


@pytest.mark.parametrize("size", [(80, 24), (60, 20)])
def test_narrow_terminals_hide_the_settings_until_asked(
    run: RunDirectory, session: StandInSession, size: tuple[int, int]
) -> None:
    async def steps(pilot: Pilot[str], screen: ChatScreen) -> None:
        assert "temperature" not in screen_text(pilot.app)  # type: ignore[arg-type]
        await press(pilot, *QUESTION)
        await wait_for(pilot, shows(pilot, "I cannot know"), "the answers, one below the other")
        await press(pilot, "f2")
        await wait_for(pilot, shows(pilot, "temperature"), "the settings")
        await press(pilot, "f2", "x")
        assert screen.query_one(Prompt).text == "x"

    chat(run, session, steps, size)


def test_hostile_answers_are_text(run: RunDirectory, session: StandInSession) -> None:
    async def steps(pilot: Pilot[str], screen: ChatScreen) -> None:
        session.answers = {"adapter": HOSTILE, "base": HOSTILE * 5}
        session.rows = [{"turns": [{"role": "user", "content": HOSTILE}], "reference": HOSTILE, "system": ""}]
        await press(pilot, *QUESTION)
        await press(pilot, "f4")
        text = screen_text(pilot.app)  # type: ignore[arg-type]
        await press(pilot, "enter")
        text += screen_text(pilot.app)  # type: ignore[arg-type]
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "[red]" in answers(screen)[0]

    chat(run, session, steps)


def test_a_load_that_fails_is_told_and_can_be_tried_again(run: RunDirectory, session: StandInSession) -> None:
    session.failures["load"] = RunError("The model cannot be loaded.", "Memory ran out.", "Close another program.")

    async def steps(pilot: Pilot[str], screen: ChatScreen) -> None:
        await wait_for(pilot, shows(pilot, "Memory ran out", "Close another program"), "the error")
        await press(pilot, "enter")
        session.failures.clear()
        await press(pilot, *QUESTION)
        await wait_for(pilot, shows(pilot, "on its way"), "the answer after all")

    chat(run, session, steps, loaded=False)


def test_an_engine_that_dies_is_told_and_the_model_loaded_anew(run: RunDirectory, session: StandInSession) -> None:
    async def steps(pilot: Pilot[str], screen: ChatScreen) -> None:
        session.failures["generate"] = RunError("The engine's process is gone.", "It was killed.", "Try again.")
        await press(pilot, *QUESTION)
        await wait_for(pilot, shows(pilot, "It was killed"), "the error")
        await press(pilot, "enter")
        session.failures.clear()
        session.alive = False
        await press(pilot, "f6")
        await wait_for(pilot, shows(pilot, "on its way"), "the answer")
        assert len(session.requests("load")) == 2

    chat(run, session, steps)


def test_beside_a_training_run_it_asks_before_it_loads(tmp_path: Path, session: StandInSession) -> None:
    run = Story(adapter=True).write(tmp_path)

    async def steps(pilot: Pilot[str], screen: ChatScreen) -> None:
        assert isinstance(pilot.app.screen, QuestionScreen)
        await press(pilot, "enter")
        assert not session.asked
        await press(pilot, *QUESTION)
        await wait_for(pilot, shows(pilot, "on its way"), "asking loads it")

    chat(run, session, steps, loaded=False)


def test_a_checkpoint_takes_the_place_of_the_best_adapter(run: RunDirectory, session: StandInSession) -> None:
    checkpoint = run.checkpoints / "checkpoint-120"
    checkpoint.mkdir()
    (checkpoint / "adapter_model.safetensors").write_bytes(b"x")

    async def steps(pilot: Pilot[str], screen: ChatScreen) -> None:
        await press(pilot, "f10", "down", "enter")
        await wait_for(pilot, lambda: len(session.requests("load")) == 2, "it is loaded")
        assert session.requests("load")[-1]["target"] == str(checkpoint)
        assert screen.run is not None

    chat(run, session, steps)


def test_any_adapter_folder_can_be_asked(tmp_path: Path, session: StandInSession) -> None:
    folder = tmp_path / "from-elsewhere"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")

    async def steps(pilot: Pilot[str], screen: ChatScreen) -> None:
        assert session.requests("load") == [{"target": str(folder)}]
        assert screen.run is None

    chat(folder, session, steps)
