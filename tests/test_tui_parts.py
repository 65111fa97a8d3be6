"""The parts of the application that need no screen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from player import HOSTILE
from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from tui_helpers import CARD, INSPECTION, PREVIEW, card, machine

from qlora_tui.advice.fitting import fastest_that_fits
from qlora_tui.advice.presets import PRESETS, PresetName, preset_of
from qlora_tui.memory.fit import fit_of
from qlora_tui.tui.answers import Answers, first_recipe, with_values
from qlora_tui.tui.base_models import listed_models
from qlora_tui.tui.data_files import files_near
from qlora_tui.tui.devices import device_for
from qlora_tui.tui.draft import draft_file, drop_draft, load_draft, save_draft
from qlora_tui.tui.fields import DATA_FIELDS, FIELDS, problem, shown_text, with_text
from qlora_tui.tui.fit_view import four_bit_size, parts
from qlora_tui.tui.inspecting import Stage
from qlora_tui.tui.inspections import Seen, key_of, rows_of
from qlora_tui.tui.line_filters import AsciiFilter, SafeFilter, to_ascii
from qlora_tui.tui.plain_words import sentences
from qlora_tui.tui.preferences import Preferences, load_preferences, preferences_file, save_preferences
from qlora_tui.tui.screens.data import located
from qlora_tui.tui.screens.review import obstacles
from qlora_tui.tui.view import summaries, view_of
from qlora_tui.tui.widgets.columns import fitted
from qlora_tui.tui.widgets.form import description, reason
from qlora_tui.tui.widgets.lengths import length_lines
from qlora_tui.tui.widgets.memory_bar import VERDICTS, bar, legend, words
from qlora_tui.tui.widgets.tokens import FORMS, row_text, row_title
from qlora_tui.tui.words import about, count, gib, plural, value_text

LARGE = Answers().with_value("model.source", "Qwen/Qwen3-8B")


# Words


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (4022, "4,022"), (9_999, "9,999"), (43_100, "43.1k"), (134_515_008, "135M"), (999_885_952, "1.0B"),
     (8_030_261_248, "8.0B"), (70e9, "70.0B"), (1.5e12, "1.5T")],
)  # fmt: skip
def test_counts_are_short(number: float, text: str) -> None:
    assert count(int(number)) == text


@pytest.mark.parametrize(
    ("stage", "text"),
    [
        (Stage("rows", 0, 50_000, "rows"), "rows …"),
        (Stage("rows", 12_000, 50_000, "rows"), "rows: 12.0k of 50.0k rows"),
        (Stage("rows before data.split", 512, None, "rows"), "rows before data.split: 512 rows"),
        (Stage("fingerprint", 50 << 20, 200 << 20, "bytes"), "fingerprint: 25%"),
        (Stage("fingerprint", 50 << 20, None, "bytes"), "fingerprint: 50 MiB"),
    ],
)
def test_a_long_phase_shows_that_it_moves(stage: Stage, text: str) -> None:
    assert stage.words() == text


def test_sizes_and_durations_read_well() -> None:
    assert (gib(None), gib(50 << 20), gib(3 << 29)) == ("–", "50 MiB", "1.5 GiB")
    assert [about(s) for s in (4, 99, 720, 12_000, 200_000)] == ["4 s", "99 s", "12 min", "3 h 20 min", "2.3 days"]
    assert (plural(1, "row"), plural(1200, "row")) == ("1 row", "1,200 rows")


@pytest.mark.parametrize("value", [None, True, 16, 0.05, 2e-4, 1e-3, 32.0, "cosine", ["q_proj", "k_proj"], {"a": "b"}])
def test_values_are_shown_as_they_are_typed(value: object) -> None:
    expected = {None: "", True: "yes", 2e-4: "2e-4", 32.0: "32"}
    if not isinstance(value, list | dict) and value in expected:
        assert value_text(value) == expected[value]
    else:
        assert value_text(value)


@given(st.text(max_size=40), st.integers(1, 30))
def test_a_cell_is_as_wide_as_its_column(text: str, width: int) -> None:
    assert len(fitted(text, width)) == max(width, 2)
    assert fitted(text, width).endswith(" ")


# ASCII


@given(st.text(max_size=60))
def test_ascii_takes_as_many_cells(text: str) -> None:
    found = to_ascii(text)
    assert found.isascii()
    assert len(found) == sum(max(cell_len(c), 1 if c.isascii() else cell_len(c)) for c in text)


def test_every_glyph_of_ours_has_an_ascii_form() -> None:
    sources = Path(__file__).parent.parent.joinpath("qlora_tui", "tui").rglob("*.py")
    glyphs = {c for path in sources if path.name != "line_filters.py" for c in path.read_text() if not c.isascii()}
    assert {glyph for glyph in glyphs if to_ascii(glyph) == "?"} == set()


def test_the_filter_keeps_styles() -> None:
    before = [Segment("✓ fits ⟦so⟧")]
    assert AsciiFilter().apply(before, Color(0, 0, 0)) == [Segment("+ fits [so]")]


@given(st.text(max_size=60))
def test_nothing_on_a_line_acts_on_the_terminal(text: str) -> None:
    found = SafeFilter().apply([Segment(text + HOSTILE)], Color(0, 0, 0))[0].text
    assert not set(found) & {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0x202E)}
    assert "not markup" in found


# Preferences and drafts


def test_preferences_come_back() -> None:
    chosen = Preferences(theme="nord", ascii=True, motion=False, keymap={"wizard.next": "f8"})
    save_preferences(chosen)
    assert load_preferences() == chosen


@pytest.mark.parametrize("text", ["", "{", "[]", '{"theme": 3, "ascii": "yes", "keymap": [1]}', '{"keymap": {"a": 1}}'])
def test_damaged_preferences_are_the_defaults(text: str) -> None:
    preferences_file().parent.mkdir(parents=True, exist_ok=True)
    preferences_file().write_text(text)
    assert load_preferences() == Preferences()


def test_the_environment_names_the_theme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTUAL_THEME", "nord")
    assert load_preferences().theme == "nord"


def test_a_draft_comes_back_and_can_be_dropped() -> None:
    answers = replace(LARGE, model_chosen=True, card="RTX 3090", step=4, unusable={"adapter.rank": "x"})
    save_draft(answers)
    assert load_draft() == answers
    drop_draft()
    assert load_draft() is None


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"version": 99}', '{"version": 1, "config": {"name": "a b"}}'])
def test_a_damaged_draft_is_no_draft(text: str) -> None:
    draft_file().parent.mkdir(parents=True, exist_ok=True)
    draft_file().write_text(text)
    assert load_draft() is None


def test_nothing_answered_is_nothing_to_lose() -> None:
    assert not Answers().begun
    assert LARGE.begun


# Fields


def test_every_field_has_a_reason_and_a_value() -> None:
    for spec in (*FIELDS, *DATA_FIELDS):
        assert description(spec.path), spec.path
        assert reason(spec.path), spec.path
        assert shown_text(Answers(), spec.path) in spec.options or not spec.options, spec.path


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [("adapter.rank", "32", 32), ("adapter.alpha", "16.5", 16.5), ("training.learning_rate", "2e-4", 2e-4),
     ("training.learning_rate", "auto", "auto"), ("data.packing", "no", False), ("data.packing", "auto", "auto"),
     ("adapter.target_modules", "q_proj, v_proj", ["q_proj", "v_proj"]), ("training.epochs", "1.5", 1.5),
     ("adapter.target_modules", "all-linear", "all-linear"), ("data.columns", "prompt: q, completion: a",
     {"prompt": "q", "completion": "a"}), ("data.columns", "", {}), ("training.micro_batch", "4", 4)],
)  # fmt: skip
def test_what_is_typed_is_taken(path: str, text: str, value: object) -> None:
    answers = with_text(Answers(), path, text)
    assert answers.value(path) == value
    assert not answers.unusable


@pytest.mark.parametrize(
    ("path", "text"),
    [("adapter.rank", ""), ("adapter.rank", "0"), ("adapter.rank", "many"), ("training.micro_batch", "3"),
     ("adapter.dropout", "1"), ("adapter.target_modules", ""), ("training.learning_rate", "nan"),
     ("data.max_length", "9" * 40)],
)  # fmt: skip
def test_what_cannot_be_taken_is_kept_and_told(path: str, text: str) -> None:
    spec = next(spec for spec in FIELDS if spec.path == path)
    answers = with_text(Answers(), path, text)
    assert answers.config == first_recipe()
    assert shown_text(answers, path) == text
    assert problem(answers, spec)
    assert not with_text(answers, path, shown_text(Answers(), path)).unusable


# Presets and the fastest that fits


@pytest.mark.parametrize("name", [preset.name for preset in PRESETS])
def test_a_preset_is_recognised(name: PresetName) -> None:
    assert preset_of(Answers().with_preset(name).config) == name


def test_a_preset_clears_what_could_not_be_used() -> None:
    answers = with_text(Answers(), "adapter.rank", "x").with_preset("light")
    assert not answers.unusable
    assert answers.value("adapter.rank") == 8


@pytest.mark.parametrize(("free", "outcome"), [(24, "The fastest that fits"), (8, "It fits with rows"), (1, "Nothing")])
def test_the_fastest_that_fits(free: int, outcome: str) -> None:
    device = device_for(None, 0, machine(card(total=32, free=free)))
    shape = next(model.shape for model in listed_models() if model.source == "Qwen/Qwen3-8B")
    assert device is not None
    assert shape is not None
    config = with_values(LARGE.config, {"data.max_length": 8192, "training.micro_batch": 8})
    found, told = fastest_that_fits(config, lambda recipe: fit_of(shape, recipe, device))
    assert told.startswith(outcome)
    assert (found == config) == (outcome == "Nothing")
    if outcome != "Nothing":
        assert fit_of(shape, found, device).fits == "yes"


# Device, fit and view


def test_the_parts_add_up_to_what_is_needed() -> None:
    fit = view_of(LARGE, machine(CARD)).fit
    assert fit is not None
    assert abs(sum(size for _, size in parts(fit)) - fit.process.point) <= 2
    assert {name for name, _ in parts(fit)} >= {"weights", "adapter", "activations"}


def test_a_model_of_many_sizes_is_small_in_four_bits() -> None:
    sizes = [(model.parameters, four_bit_size(model.shape)) for model in listed_models() if model.shape]
    assert all(size < 2 * (parameters or 0) for parameters, size in sizes)


def test_an_unknown_card_of_an_old_draft_is_passed_over() -> None:
    device = device_for("no such card", 0, machine(CARD))
    assert device is not None
    assert device.name == CARD.name


def test_a_gpu_that_is_gone_is_another_one() -> None:
    device = device_for(None, 7, machine(CARD))
    assert device is not None
    assert device.name == CARD.name


def test_the_bar_is_as_wide_as_it_should_be() -> None:
    fit = view_of(LARGE, machine(CARD)).fit
    assert fit is not None
    for width in (10, 33, 78, 200):
        assert bar(fit, width).cell_length == width
    assert VERDICTS[fit.fits][1] in words(fit).plain
    assert "weights" in legend(fit).plain


def test_what_is_short_is_told() -> None:
    view = view_of(LARGE, machine(card(free=2)))
    assert view.fit is not None
    assert "short" in words(view.fit).plain
    assert "too large" in words(view.fit).plain


def test_rows_that_were_read_decide_steps() -> None:
    answers = LARGE.with_value("data.source", "/data/spam.jsonl")
    seen = Seen(key_of(answers.config), inspection=INSPECTION)
    rows = rows_of(seen, answers.config)
    assert rows.packed is True
    assert rows.tokens == round(43_100 * 0.95)
    apart = answers.with_value("data.packing", False)
    assert rows_of(seen, apart.config).sequences == round(398 * 0.95)


def test_an_inspection_of_other_data_does_not_count() -> None:
    answers = LARGE.with_value("data.source", "/data/spam.jsonl")
    seen = Seen(key_of(answers.config), inspection=INSPECTION)
    assert view_of(answers, None, seen).seen is seen
    assert view_of(answers.with_value("data.split", "train[:5]"), None, seen).seen is None
    assert view_of(answers.with_value("training.epochs", 3), None, seen).seen is seen


def test_obstacles_are_told_one_by_one() -> None:
    answers = with_text(Answers(card="RTX 4090"), "adapter.rank", "x")
    told = list(obstacles(view_of(answers, machine(CARD))))
    assert ["step 2" in told[0], "step 3" in told[1], "adapter.rank" in told[2], "RTX 4090" in told[3]] == [True] * 4


def test_a_rank_that_makes_no_sense_is_an_obstacle() -> None:
    answers = replace(Answers().with_value("adapter.rank", 1024), model_chosen=True)
    assert any("rank" in told for told in obstacles(view_of(answers, machine(CARD))))


def test_the_words_name_everything_that_matters() -> None:
    answers = LARGE.with_value("data.source", "/data/spam.jsonl").with_value("adapter.rank", 24)
    text = " ".join(sentences(view_of(answers, machine(CARD))))
    for wanted in ("Qwen/Qwen3-8B", "8.2B", "RTX 3060", "rank 24", "/data/spam.jsonl", "5%", "1 pass"):
        assert wanted in text
    assert summaries(view_of(replace(answers, step=5), machine(CARD)))[4] == "rank 24, 1 epoch"


# Rows


@pytest.mark.parametrize("form", FORMS)
def test_hostile_rows_are_only_text(form: str) -> None:
    row = replace(PREVIEW, raw=HOSTILE, rendered=HOSTILE, tokens=((HOSTILE, True),), pieces=((0, 1),), problem=HOSTILE)
    shown = row_text(row, form)
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\x08"} & set(shown.plain)
    assert "[bold red]not markup[/bold red]" in shown.plain


def test_a_row_of_any_size_is_shown() -> None:
    row = replace(PREVIEW, raw="x" * 10_000_000, tokens=(("y", False),) * 5000)
    assert len(row_text(row, FORMS[2]).plain) < 7000
    assert "3,800 more tokens" in row_text(row, FORMS[0]).plain
    assert "5,000 tokens" in row_title(row).plain


def test_pieces_and_sequences_of_a_row_are_told() -> None:
    row = replace(PREVIEW, tokens=(("a", True), ("b", True)), pieces=((0, 1), (1, 2)), sequences=3)
    assert row_text(row, FORMS[0]).plain == "⟦a│✂b⟧"
    assert "the longest of its 3 sequences" in row_title(row).plain


def test_trained_tokens_are_marked_without_colour() -> None:
    assert "⟦spam│<|im_end|>⟧" in row_text(PREVIEW, FORMS[0]).plain


def test_what_is_cut_away_is_not_called_trained() -> None:
    row = replace(PREVIEW, pieces=((0, 13),))
    assert "⟦" not in row_text(row, FORMS[0]).plain


def test_the_cut_stands_where_it_is() -> None:
    lines = [line.plain for line in length_lines(INSPECTION.histogram, 80)]
    assert "cut at 512" in lines[-2]
    assert lines[1].strip().endswith("180")


# Files


def test_files_near_at_hand_are_found(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.txt", "c/d.ndjson", ".hidden/e.jsonl", "f/g/h/i.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert {path.name for path in files_near(tmp_path)} == {"a.jsonl", "d.ndjson"}


def test_sources_are_kept_as_they_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("{}")
    assert located("rows.jsonl") == str(tmp_path / "rows.jsonl")
    assert located("owner/name") == "owner/name"
    assert located("bundled:spam") == "bundled:spam"
    assert located("./none.jsonl") == str(tmp_path / "none.jsonl")
