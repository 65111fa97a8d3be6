"""The dry run's request and answer survive the way through JSON, and nonsense is told in words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from qlora_tui.errors import ConfigError
from qlora_tui.memory.dryrun_request import DryRunAnswer, DryRunRequest
from qlora_tui.memory.recipe import LORA_ON_SIXTEEN_BIT, MIB, Recipe

PLAIN = Recipe(micro_batch=2, sequence=512)


@pytest.mark.parametrize(
    "recipe",
    [
        PLAIN,
        replace(PLAIN, targets=frozenset({"q_proj", "v_proj"}), packed=True, attention="varlen"),
        replace(PLAIN, quantization="none", regime=LORA_ON_SIXTEEN_BIT),
    ],
)
def test_a_request_comes_back_as_it_was(recipe: Recipe) -> None:
    request = DryRunRequest(Path("somewhere"), recipe, 64 * MIB)
    assert DryRunRequest.from_json(request.to_json()) == request


def test_what_is_left_out_of_a_request_has_its_default() -> None:
    text = json.dumps({"model": "m", "recipe": {"micro_batch": 2, "sequence": 512}})
    assert DryRunRequest.from_json(text) == DryRunRequest(Path("m"), PLAIN)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"model": "m", "recipe": {"batch": 1}}', '{"model": 1, "recipe": 2}']
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="request is not understood"):
        DryRunRequest.from_json(text)


def test_an_answer_comes_back_as_it_was() -> None:
    answer = DryRunAnswer(7, 1.25, {"training": 7, "loading": 3}, {"weights": 7}, ("a note",))
    assert DryRunAnswer.from_report(json.loads(answer.to_json())) == answer
    with pytest.raises(ValueError, match="not an answer"):
        DryRunAnswer.from_report({"allocated": 7})
