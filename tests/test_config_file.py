"""Config files: every mistake at its line and in plain words, and what is written reads back equal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from qlora_tui.config import RunConfig
from qlora_tui.config_file import config_schema, dump_config, load_config, parse_config
from qlora_tui.errors import ConfigError, ExitCode

EXAMPLES = Path(__file__).parents[1] / "examples"
BASE = "name: run\ndata: {source: rows.jsonl}\n"


def refusal(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "run.yaml")
    error = caught.value
    assert error.what == "Cannot use run.yaml."
    assert error.exit_code is ExitCode.USAGE
    assert error.hint.endswith(".")
    for jargon in ("Input should", "pydantic", "function-", "literal", "<unicode string>"):
        assert jargon not in error.why
    return error


def refusals(text: str) -> list[str]:
    return refusal(text).why.split("\n")


def file_refusal(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.what == f"Cannot use {path}."
    return caught.value


# --- one mistake in an otherwise good file; it stands on line 3 or below it

MISTAKES = [
    (
        "training: {epochs: three}",
        '3: training.epochs: "three" is not a number; use a number above 0 and at most 1000.',
    ),
    ("training:\n  epochs: -1", "4: training.epochs: -1 is not allowed; use a number above 0 and at most 1000."),
    (
        "training: {micro_batch: 0}",
        "3: training.micro_batch: 0 is not allowed; use a whole number of at least 1, or auto.",
    ),
    (
        "training: {learning_rate: '1e-4'}",
        '3: training.learning_rate: "1e-4" is text; remove the quotes (use a number above 0 and at most 1, or auto).',
    ),
    (
        "training: {seed: 1.5}",
        "3: training.seed: 1.5 is not a whole number; use a whole number of at least 0 and below 4294967296.",
    ),
    (
        "training: {max_grad_norm: .inf}",
        "3: training.max_grad_norm: .inf is not allowed; use a number above 0.",
    ),
    ("training: {max_grad_norm: .nan}", "3: training.max_grad_norm: .nan is not allowed; use a number above 0."),
    (
        "adapter: {rank: true}",
        "3: adapter.rank: true is not allowed; use a whole number of at least 1 and at most 1024.",
    ),
    (
        "adapter: {rank:}",
        "3: adapter.rank: an empty value is not allowed; use a whole number of at least 1 and at most 1024.",
    ),
    (
        "adapter:\n  target_modules:\n    - q_proj\n    - 3",
        "6: adapter.target_modules[1]: 3 is not read as text; put it in quotes.",
    ),
    (
        "adapter: {target_modules: []}",
        "3: adapter.target_modules: an empty list is not allowed; use all-linear, or a list of text (at least one).",
    ),
    (
        "quantization: {type: nf8}",
        '3: quantization.type: "nf8" is not allowed; use nf4, fp4 or none (did you mean nf4?).',
    ),
    (
        "quantization: {double_quant: 'yes'}",
        '3: quantization.double_quant: "yes" is text; remove the quotes (use true or false).',
    ),
    ("quantization: {double_quant: often}", '3: quantization.double_quant: "often" is not allowed; use true or false.'),
    (
        "evaluation: {metrics: [accuracy, blue]}",
        '3: evaluation.metrics[1]: "blue" is not allowed; use accuracy, exact_match, rouge or bleu '
        "(did you mean bleu?).",
    ),
    (
        "evaluation: {metrics: accuracy}",
        '3: evaluation.metrics: "accuracy" is not allowed; use a list of accuracy, exact_match, rouge or bleu.',
    ),
    ("model: {source: ''}", '3: model.source: "" is not allowed; use text that is not empty.'),
    ("model: {revision: 1234567}", "3: model.revision: 1234567 is not read as text; put it in quotes."),
    (
        "training: fast",
        '3: training: "fast" is not allowed; use settings such as epochs on indented lines below it.',
    ),
    ("training: {epoch: 3}", "3: training.epoch: unknown setting; did you mean training.epochs?"),
    ("trainning: {epochs: 3}", "3: trainning: unknown setting; did you mean training?"),
    ("rank: 16", "3: rank: not a setting of this section; did you mean adapter.rank?"),
    ("adapter: {lr: 1}", "3: adapter.lr: not a setting of this section; did you mean training.learning_rate?"),
    (
        "source: x",
        "3: source: not a setting of this section; did you mean model.source or data.source or data.evaluation.source?",
    ),
    ("training.epochs: 3", "3: training.epochs: settings are nested; write epochs on an indented line under training."),
    (
        "tracking: {zzz: 3}",
        "3: tracking.zzz: unknown setting; known here: report_to.",
    ),
    ("version: 0", "3: version: 0 is not allowed; use 1."),
    ("version: 2\nzzz: 1", "3: version: 2 is newer than this program, which reads version 1."),
    ("model: {source: a}\nmodel: {source: b}", "4: model: given twice, first on line 3; keep one."),
    ("model:\n  source: a\n  source: b", "5: model.source: given twice, first on line 4; keep one."),
    ("model: {source: !!binary aGk=}", "3: model.source: cannot be read as !!binary; write a plain value."),
    ("model: !!python/name:os.system", "3: model: cannot be read as !!python/name:os.system; write a plain value."),
    ("training: {seed: !!int seven}", "3: training.seed: cannot be read as !!int; write a plain value."),
    ("? [a, b]\n: 1", "3: top level: a key must be a plain name."),
    ("<<: {rank: 3}", None),
    (
        "training:\n  effective_batch: 8\n  micro_batch: 3",
        "5: training.micro_batch 3 does not divide training.effective_batch 8; choose one of 1, 2, 4, 8.",
    ),
    (
        "adapter:\n  rslora: on\n  dora: on",
        "5: adapter.dora and adapter.rslora change the same scale; choose one of them.",
    ),
    ("model: [a", "3:10: a bracket that is not closed, or a comma that is missing."),
    ("model: [", "3:9: a value is missing here, or a bracket above is not closed."),
    (
        "model:\n\tsource: a",
        "4:1: a character that cannot start a value: indent with spaces, quote text that begins so.",
    ),
    ("model: a: b", "3:9: a ':' out of place: check the indentation, and quote text with ': ' in it."),
    ("model: 'a\n", "4:1: a quote that is not closed (begun on line 3)."),
    ("model\n", "4:1: a key without ':' after it (begun on line 3)."),
    ("---\na: 1", "3:1: a second document begins ('---'); a config is one document (begun on line 1)."),
    ("model: &m {source: a}\noutput: *m", "4:9: aliases (*name) are not read; write the value out."),
    ("model: " + "[" * 40, "3:23: more than 16 levels of nesting."),
    ("model: {source: a\x00b}", "3: the character U+0000 is not allowed in YAML."),
]


@pytest.mark.parametrize(("mistake", "expected"), MISTAKES, ids=[mistake[:40] for mistake, _ in MISTAKES])
def test_one_mistake_gives_one_sentence(mistake: str, expected: str | None) -> None:
    found = refusals(BASE + mistake)
    assert len(found) == 1
    assert expected is None or found == [f"run.yaml:{expected}"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: no\ndata: {source: a}", "1: name: no is not read as text; put it in quotes."),
        ("name: 12\ndata: {source: a}", "1: name: 12 is not read as text; put it in quotes."),
        (
            "name: a/b\ndata: {source: a}",
            "1: name: \"a/b\" is not allowed; a name starts with a letter or digit, holds only letters, digits, '.', "
            "'_' and '-' (at most 64), and does not end with '.'.",
        ),
        ("name: a\ndata:\n  split: train", "2: data.source: missing (Hub id, file, folder, or bundled:NAME)."),
        ("name: a\n", "1: data.source: missing (Hub id, file, folder, or bundled:NAME)."),
        (
            "name: a\ndata:\n  source: a\n  split: train[",
            '4: data.split: "train[" is not allowed; a split is a name, or a name with a slice such as train[:2%].',
        ),
        (
            "name: a\ndata:\n  source: a\n  columns: {on: 3}",
            "4: data.columns.on: 3 is not read as text; put it in quotes.",
        ),
        ("- name: a\n", "1: the file holds a list instead of settings."),
        ('{"a": 1}\n{"a": 2}\n', "2:1: this is not a config; rows in a .jsonl file belong in data.source."),
        ("  name: a\ndata: {source: a}", "2:1: the indentation does not line up with the lines above."),
        ("spam", "1: the file holds plain text instead of settings."),
    ],
)
def test_whole_files(text: str, expected: str) -> None:
    assert refusals(text) == [f"run.yaml:{expected}"]


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing but a comment\n", "---\n"])
def test_empty_files_say_what_a_config_needs(text: str) -> None:
    error = refusal(text)
    assert error.why == "The file is empty."
    assert "name: my-run" in error.hint


def test_all_mistakes_at_once_in_the_order_of_the_file() -> None:
    error = refusal(
        "data:\n  split: train\ntraining:\n  epochs: three\n  micro_batch: 3\n  epochs: 2\nrank: 3\n"
        "adapter:\n  dora: on\n  rslora: on\nname: !!set {}\n"
    )
    assert [line.split(":")[1:3] for line in error.why.split("\n")] == [
        ["1", " data.source"],
        ["4", " training.epochs"],
        ["6", " training.epochs"],
        ["7", " rank"],
        ["9", " adapter.dora and adapter.rslora change the same scale; choose one of them."],
        ["11", " name"],
    ]
    assert error.hint == "Correct these places; `qlora-tui schema` lists every setting."


def test_a_flood_of_mistakes_is_cut() -> None:
    found = refusals(BASE + "".join(f"zz{number}: 1\n" for number in range(50)))
    assert len(found) == 21
    assert found[-1] == "And 30 more."


def test_a_file_of_something_else_is_refused_quickly() -> None:
    found = refusals("".join(f"zz{number}: 1\n" for number in range(20_000)))
    assert "run.yaml:1: top level: more than 500 keys; is this the config?" in found


def test_a_newer_version_says_what_to_do() -> None:
    assert refusal(BASE + "version: 2").hint == "Upgrade qlora-tui, or write the file for version 1."


def test_foreign_text_cannot_act_on_the_terminal() -> None:
    (found,) = refusals(BASE + '"a\\x1b[31mb\\ny": 1\n')
    assert "\x1b" not in found
    with pytest.raises(ConfigError) as caught:
        parse_config("- a", "ru\x1b[31mn\n.yaml")
    assert caught.value.what == "Cannot use run .yaml."


def test_long_values_are_cut() -> None:
    (found,) = refusals(BASE + f"training: {{epochs: {'x' * 5000}}}")
    assert len(found) < 200
    (found,) = refusals(BASE + f"training: {{seed: {'9' * 5000}}}")
    assert found == "run.yaml:3: training.seed: cannot be read as !!int; write a plain value."


# --- what is accepted


@pytest.mark.parametrize(
    ("written", "value"),
    [("1e-4", 1e-4), ("2E-4", 2e-4), ("1.0e-3", 1e-3), (".5", 0.5), ("1", 1.0), ("0.000_1", 1e-4), ("auto", "auto")],
)
def test_learning_rates_as_people_write_them(written: str, value: float | str) -> None:
    assert parse_config(f"{BASE}training: {{learning_rate: {written}}}", "run.yaml").training.learning_rate == value


@pytest.mark.parametrize(("written", "value"), [("on", True), ("yes", True), ("off", False), ("No", False)])
def test_switches_as_people_write_them(written: str, value: bool) -> None:
    config = parse_config(f"{BASE}model: {{trust_remote_code: {written}}}", "run.yaml")
    assert config.model.trust_remote_code is value


def test_whole_numbers_may_be_written_as_powers_of_ten() -> None:
    steps = parse_config(BASE + "training: {max_steps: 1e3}", "run.yaml").training.max_steps
    assert (steps, type(steps)) == (1000, int)


@pytest.mark.parametrize("name", ["2024-01-01", "007", "1.2.3", "0x1F"])
def test_text_that_older_yaml_takes_for_something_else(name: str) -> None:
    assert parse_config(f"name: {name}\ndata: {{source: a}}", "run.yaml").name == name


def test_empty_sections_hold_their_defaults() -> None:
    text = "name: run\ndata:\n  source: rows.jsonl\n  evaluation:\ntraining:\n  # epochs: 3\nadapter:\n"
    assert parse_config(text, "run.yaml") == parse_config(BASE, "run.yaml")


def test_keys_are_text() -> None:
    config = parse_config("name: run\ndata: {source: a, columns: {on: no_, 1: b, null: c}}", "run.yaml")
    assert config.data.columns == {"on": "no_", "1": "b", "null": "c"}


# --- files


def test_a_file_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + BASE.replace("\n", "\r\n").encode())
    assert load_config(path) == parse_config(BASE, "run.yaml")


def test_messages_of_a_file_carry_its_path(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(BASE + "rank: 3\n")
    assert file_refusal(path).why.startswith(f"{path}:3: rank: ")


def test_a_missing_file(tmp_path: Path) -> None:
    assert file_refusal(tmp_path / "absent.yaml").why == "There is no such file."


def test_a_folder(tmp_path: Path) -> None:
    error = file_refusal(tmp_path)
    assert (error.why, error.hint) == ("It is a folder.", "Give the path of the config file itself.")
    (tmp_path / "config.yaml").write_text(BASE)
    assert file_refusal(tmp_path).hint == f"Give {tmp_path / 'config.yaml'}."


def test_a_path_through_a_file(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(BASE)
    assert file_refusal(tmp_path / "run.yaml" / "x").why == "It cannot be read: Not a directory."


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(BASE)
    path.chmod(0)
    assert file_refusal(path).why == "It cannot be read: Permission denied."


def test_a_file_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(BASE.encode() + "output: {directory: Läufe}".encode("latin-1"))
    assert file_refusal(path).why == f"{path}:3: the file is not UTF-8 text."


def test_a_large_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"x" * 999_999 + "é".encode())
    assert file_refusal(path).why == "It is larger than 1 MB."


# --- writing

awkward = ["", "no", "1e-4", "null", "~", "1:30", "<<", "a: b", "# a", " a\n b\n\n", "\x85", "\u2028", "a\r\nb"]
text = st.text(max_size=60) | st.sampled_from(awkward)
positive = st.integers(1, 10**12)
auto = st.just("auto")


def above_zero(most: float) -> st.SearchStrategy[float]:
    return st.floats(0, most, exclude_min=True)


sections: dict[str, st.SearchStrategy[Any]] = {
    "model": st.fixed_dictionaries({"source": text.filter(bool), "revision": st.none() | text}),
    "adapter": st.fixed_dictionaries(
        {
            "rank": st.integers(1, 1024),
            "alpha": above_zero(4096),
            "dropout": st.floats(0, 1, exclude_max=True),
            "target_modules": st.just("all-linear") | st.lists(text, min_size=1, max_size=3),
            "rslora": st.booleans(),
        }
    ),
    "data": st.fixed_dictionaries(
        {
            "source": text.filter(bool),
            "columns": st.dictionaries(text, text, max_size=3),
            "template": st.none() | text,
            "system_prompt": st.none() | text,
            "packing": st.booleans() | auto,
        }
    ),
    "training": st.fixed_dictionaries(
        {
            "epochs": above_zero(1000),
            "max_steps": st.none() | positive,
            "learning_rate": above_zero(1) | auto,
            "warmup": st.floats(0, allow_infinity=False),
            "max_grad_norm": st.floats(0, exclude_min=True, allow_infinity=False),
            "micro_batch": st.sampled_from([1, 2, 4, "auto"]),
            "seed": st.integers(0, 2**32 - 1),
        }
    ),
    "evaluation": st.fixed_dictionaries(
        {
            "every": positive | auto,
            "patience": st.none() | positive,
            "metrics": st.lists(st.sampled_from(["accuracy", "exact_match", "rouge", "bleu"]), max_size=3),
            "prompts": st.lists(text, max_size=3),
        }
    ),
    "output": st.fixed_dictionaries({"directory": st.none() | text, "overwrite": st.booleans()}),
}
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}[A-Za-z0-9]", fullmatch=True)
configs = st.fixed_dictionaries({"name": names, **sections})


@given(configs)
@example({"name": "1e4", "data": {"source": "\x85a\u2028\ufeff\t \n"}, "training": {"learning_rate": 5e-324}})
@example({"name": "007", "data": {"source": "x", "system_prompt": "\n  Hi\n\nthere  \n", "template": "a " * 300}})
def test_what_is_written_reads_back_equal(values: dict[str, Any]) -> None:
    config = RunConfig.model_validate(values)
    written = dump_config(config)
    again = parse_config(written, "run.yaml")
    assert again == config
    assert dump_config(again) == written


@given(text)
def test_other_yaml_readers_see_the_same_text(prompt: str) -> None:
    config = RunConfig.model_validate({"name": "run", "data": {"source": "x", "system_prompt": prompt}})
    assert yaml.safe_load(dump_config(config))["data"]["system_prompt"] == prompt


@given(st.text(alphabet="aé:-[]{}#&*!|>'\"%@`,? \n\t0.eE~<=\\", max_size=40))
def test_no_text_gets_past_the_reader_but_as_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_config(text, "run.yaml")


def test_the_written_file_is_readable() -> None:
    values = {"name": "run", "data": {"source": "x", "system_prompt": "Be brief.\nBe kind.\n"}}
    written = dump_config(RunConfig.model_validate(values | {"training": {"learning_rate": 2e-5, "epochs": 3.0}}))
    assert written.startswith("version: 1\nname: run\nmodel:\n  source: bundled:smollm2-135m\n")
    assert "  system_prompt: |\n    Be brief.\n    Be kind.\n" in written
    assert "  epochs: 3\n" in written
    assert "  learning_rate: 2.0e-05\n" in written
    assert list(yaml.safe_load(written)) == list(RunConfig.model_fields)


# --- examples


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_examples_load_and_survive_a_round_trip(path: Path) -> None:
    config = load_config(path)
    assert parse_config(dump_config(config), path.name) == config


def test_the_demo_is_what_the_readme_shows() -> None:
    demo = load_config(EXAMPLES / "demo.yaml")
    assert (demo.name, demo.model.source, demo.data.split) == ("spam-triage", "bundled:smollm2-135m", "train[:240]")
    assert demo.data.evaluation.source == "examples/spam-heldout.jsonl"
    assert (demo.training.learning_rate, demo.training.effective_batch) == (1e-3, 2)


def test_the_full_example_holds_every_setting_at_its_default() -> None:
    path = EXAMPLES / "every-field.yaml"
    assert load_config(path) == RunConfig.model_validate({"name": "my-run", "data": {"source": "rows.jsonl"}})
    schema = config_schema()

    def names(values: dict[str, Any], part: dict[str, Any]) -> None:
        assert list(values) == list(part["properties"])
        for name, settings in part["properties"].items():
            if "$ref" in settings:
                names(values[name], schema["$defs"][settings["$ref"].rsplit("/", 1)[-1]])

    names(yaml.safe_load(path.read_text()), schema)


@pytest.mark.parametrize("name", ["chat-8b.yaml", "every-field.yaml"])
def test_every_line_of_the_annotated_examples_says_why(name: str) -> None:
    lines = [line for line in (EXAMPLES / name).read_text().splitlines() if line.strip() and line[0] != "#"]
    bare = [line for line in lines if "#" not in line and not line.endswith(":") and "- " not in line]
    assert [line for line in bare if line.split(":")[0] not in ("version", "name")] == []
