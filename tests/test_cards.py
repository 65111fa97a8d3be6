"""Cards by name: what is meant is found, what is not certain is asked back."""

from __future__ import annotations

import pytest

from qlora_tui.cards import CARDS, Card, card_named, plan_for
from qlora_tui.errors import UsageError

GIB = 1 << 30


def refusal(text: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        plan_for(text)
    error = caught.value
    for sentence in (error.what, error.why, error.hint):
        assert sentence.endswith((".", "?"))
        assert sentence.isprintable()
    return error


def test_the_table_is_large_and_its_names_differ() -> None:
    assert len(CARDS) >= 45
    assert len({card.name for card in CARDS}) == len(CARDS)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_every_card_is_plausible_and_found_by_its_names(card: Card) -> None:
    assert 0.9 <= card.memory / (card.size * GIB) <= 1.0, "a driver never reports more than the label"
    assert card.bandwidth is not None
    assert 100 < card.bandwidth <= 8000
    assert card.matrix_rate is None or 10 < card.matrix_rate <= 2250
    assert card.capability in {
        (6, 1),
        (7, 0),
        (7, 5),
        (8, 0),
        (8, 6),
        (8, 7),
        (8, 9),
        (9, 0),
        (10, 0),
        (12, 0),
        (12, 1),
    }
    assert card.bf16 == (card.capability >= (8, 0))
    assert card.bf16_rate == (card.matrix_rate if card.bf16 else None)
    for name in (card.name, card.name.upper(), f"NVIDIA GeForce {card.name}", *card.aliases):
        assert plan_for(name) == card


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("RTX 3060", "RTX 3060"),
        ("3060 12gb", "RTX 3060"),
        ("nvidia geforce rtx3060", "RTX 3060"),
        ("3060 laptop", "RTX 3060 Laptop"),
        ("A100-80", "A100 80GB SXM4"),
        ("a100 80 GB pcie", "A100 80GB PCIe"),
        ("3080 12gb", "RTX 3080 12GB"),
        ("4070tisuper", "RTX 4070 Ti SUPER"),
        ("4060ti 16gb", "RTX 4060 Ti 16GB"),
        ("L40", "L40"),
        ("l40s", "L40S"),
        ("a6000", "RTX A6000"),
        ("6000 ada", "RTX 6000 Ada"),
        ("h200", "H200 SXM5"),
        ("dgx spark", "DGX Spark GB10"),
        ("\x1b[31mRTX 5090\x1b[0m", "RTX 5090"),
    ],
)
def test_a_name_as_people_write_it(text: str, name: str) -> None:
    assert plan_for(text).name == name


@pytest.mark.parametrize(
    ("text", "amount"),
    [("12GiB", 12 * GIB), ("24 GB", 24 * GIB), ("16384 MiB", 16 * GIB), ("7.5gb", 15 * GIB // 2), (" 80g ", 80 * GIB)],
)
def test_an_amount_is_a_card_of_which_nothing_else_is_known(text: str, amount: int) -> None:
    card = plan_for(text)
    assert card.memory == amount
    assert (card.bandwidth, card.matrix_rate, card.capability, card.bf16) == (None, None, None, None)


@pytest.mark.parametrize(
    ("text", "candidates"),
    [
        ("A100", ["A100 40GB PCIe", "A100 40GB SXM4", "A100 80GB PCIe", "A100 80GB SXM4"]),
        ("h100 80gb", ["H100 PCIe", "H100 SXM5"]),
        ("3080", ["RTX 3080 10GB", "RTX 3080 12GB"]),
        ("rtx 6000", ["Quadro RTX 6000", "RTX 6000 Ada", "RTX PRO 6000 Blackwell"]),
    ],
)
def test_an_ambiguous_name_is_answered_with_its_candidates(text: str, candidates: list[str]) -> None:
    why = refusal(text).why
    assert all(candidate in why for candidate in candidates)


def test_a_wrong_size_is_answered_with_the_right_one() -> None:
    assert "RTX 3060 (12 GB)" in refusal("3060 8gb").why


@pytest.mark.parametrize(("text", "near"), [("RTX 3061", "RTX 3060"), ("RTX 4090 Super", "RTX 4090"), ("H10", "H100")])
def test_an_unknown_card_is_answered_with_the_nearest(text: str, near: str) -> None:
    error = refusal(text)
    assert "is not known" in error.what
    assert near in error.why


@pytest.mark.parametrize(
    "text", ["", "   ", "NVIDIA", "0GB", "-5GB", "- 5 GB", "9999999TB", "12", "🦙", "x" * 9999, "\x1b[2J", "GB", "."]
)
def test_nonsense_is_refused_in_three_sentences(text: str) -> None:
    refusal(text)


@pytest.mark.parametrize(
    ("name", "mib", "expected"),
    [
        ("NVIDIA A100-SXM4-80GB", 81920, "A100 80GB SXM4"),
        ("NVIDIA A100-PCIE-40GB", 40536, "A100 40GB PCIe"),
        ("NVIDIA H100 80GB HBM3", 81559, "H100 SXM5"),
        ("NVIDIA H100 PCIe", 81559, "H100 PCIe"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 16376, "RTX 4090 Laptop"),
        ("NVIDIA GeForce RTX 3080", 10240, "RTX 3080 10GB"),
        ("NVIDIA GeForce RTX 3080", None, None),
        ("NVIDIA GeForce RTX 3060", 8192, None),
        ("Tesla V100-SXM2-16GB", 16160, "V100 SXM2 16GB"),
        ("NVIDIA RTX 6000 Ada Generation", 49140, "RTX 6000 Ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", 97887, "RTX PRO 6000 Blackwell Max-Q"),
        ("NVIDIA GB10", None, "DGX Spark GB10"),
        ("Orin (nvgpu)", 62841, "Jetson AGX Orin 64GB"),
        ("NVIDIA GeForce RTX 2080 with Max-Q Design", 8192, None),
        ("", None, None),
        ("GPU", 8192, None),
    ],
)
def test_a_drivers_name_finds_its_card_or_none(name: str, mib: int | None, expected: str | None) -> None:
    card = card_named(name, None if mib is None else mib << 20)
    assert (card.name if card is not None else None) == expected
