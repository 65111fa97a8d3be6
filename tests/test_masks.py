"""Masks and renderings against TRL's templates and transformers, over a part of the benchmark's conversations."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from benchmarks.conversations import Conversation, conversations
from benchmarks.masks import FOLDER, Candidate, compare, renderings, with_marks

SOME: list[Conversation] = [
    each
    for index, each in enumerate(conversations())
    if index % 9 == 0 or "tool" in each.name or each.name.startswith("reasoning, ")
]
QUICK = ("deepseek_r1_distill", "diffusion_gemma", "gptoss", "idefics3", "llama3", "qwen3")


def each_of(paths: Iterable[Path]) -> list[object]:
    """A few templates for every change, all of them in the full tier."""
    return [
        pytest.param(path, id=path.stem, marks=[] if path.stem.removesuffix("_training") in QUICK else pytest.mark.full)
        for path in paths
    ]


@pytest.mark.parametrize("path", each_of(with_marks()))
def test_masks_are_those_of_the_marks(path: Path, tokenizer_folder: Path) -> None:
    tally = compare(Candidate(path, tokenizer_folder / "tokenizer.json"), SOME)
    assert (tally.wrong, tally.alone_wrong) == ([], [])
    assert tally.same + tally.forgotten > len(SOME) // 2
    assert tally.alone_same > len(SOME) // 3


@pytest.mark.parametrize("path", each_of(sorted(FOLDER.glob("*.jinja"))))
def test_renderings_are_those_of_transformers(path: Path, tokenizer_folder: Path) -> None:
    same, wrong = renderings(Candidate(path, tokenizer_folder / "tokenizer.json"), SOME[::3])
    assert wrong == []
    assert same == 2 * len(SOME[::3])
