"""What the search for private data finds and what it invents, on texts labelled by faker; and whether redaction holds.

python -m benchmarks.privacy
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections import Counter
from typing import Any

import phonenumbers

from benchmarks.labelled_texts import KINDS, Labelled, LabelledTexts
from benchmarks.tables import publish, table
from qlora_tui.data.privacy import REGIONS, Hit, Redactor, scan

EACH, INNOCENT = 2000, 16_000
SEED = 2026
"""Not the one that the patterns were written with."""


def main() -> None:
    """Measure and publish."""
    maker = LabelledTexts(SEED)
    texts = {kind: list(maker.private(kind, EACH)) for kind in KINDS}
    innocent = list(maker.innocent(INNOCENT))
    start = time.process_time()
    found = {kind: [scan(each.text) for each in labelled] for kind, labelled in texts.items()}
    invented = [scan(each.text) for each in innocent]
    seconds = time.process_time() - start
    alarms: Counter[str] = Counter(hit.kind for hits in invented for hit in hits)
    rows, raw = [], {}
    for kind in KINDS:
        counts = _counts(kind, texts[kind], found[kind]) | {"false_alarms": alarms[kind]}
        raw[kind] = counts
        rows.append(
            [
                kind,
                f"{counts['values']:,}",
                f"{counts['values'] - counts['real']:,}",
                _share(counts, "named"),
                _share(counts, "unnamed"),
                f"{alarms[kind]:,} ({1000 * alarms[kind] / INNOCENT:.2f})",
            ]
        )
    total = len(innocent) + sum(map(len, texts.values()))
    publish(
        "privacy",
        table(
            [
                "kind",
                "values",
                "of those, cannot be real",
                "found where the text names the kind",
                "found elsewhere",
                "false alarms (per 1,000 texts)",
            ],
            rows,
        ),
        f"{EACH:,} texts with one value of each kind, {INNOCENT:,} with none; {1e6 * seconds / total:.0f} µs a text.",
        table(["redaction", ""], _redaction(texts)),
        raw=raw,
    )


def _counts(kind: str, labelled: list[Labelled], found: list[list[Hit]]) -> dict[str, Any]:
    """How many values there are and how many of those that can be real are found, whole and as their kind."""
    counts: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for each, hits in zip(labelled, found, strict=True):
        assert each.value is not None
        start = each.text.index(each.value)
        stop = start + len(each.value)
        whole = any(hit.kind == kind and hit.start <= start and hit.stop >= stop for hit in hits)
        real = _can_be_real(each)
        side = "named" if each.origin.endswith(", named") else "unnamed"
        counts.update({"values": 1, "real": real, f"real_{side}": real, f"found_{side}": real and whole})
        if real and not whole:
            missed[each.origin] += 1
    return {**counts, "missed": dict(missed.most_common(12))}


def _share(counts: dict[str, Any], side: str) -> str:
    return f"{counts[f'found_{side}'] / counts[f'real_{side}']:.1%} of {counts[f'real_{side}']:,}"


def _can_be_real(each: Labelled) -> bool:
    """Whether the value could be somebody's; faker makes numbers that nobody gives out."""
    if each.value is None:
        return False
    if each.kind == "card":  # no card has 13 digits any more; JCB has 3528 to 3589
        return "visa13" not in each.origin and ("jcb" not in each.origin or "3528" <= each.value[:4] <= "3589")
    if each.kind == "ip":
        return ipaddress.ip_address(each.value).is_global
    if each.kind != "phone":
        return True
    number = re.split("[xe]", each.value)[0]
    region = each.origin.split(",")[0].rpartition("_")[2]
    for where in {region, *REGIONS}:
        try:
            if phonenumbers.is_valid_number(phonenumbers.parse(number, where)):
                return True
        except phonenumbers.NumberParseException:
            continue
    return False


def _redaction(texts: dict[str, list[Labelled]]) -> list[list[str]]:
    """The same texts in two data sets: one placeholder for each value, and nothing left of it."""
    redactor = Redactor()
    labelled = [each for kind in KINDS for each in texts[kind]]
    training = [redactor.text(each.text) for each in labelled]
    evaluation = [redactor.text(f"Again: {each.text}") for each in labelled]
    same = sum(f"Again: {first}" == second for first, second in zip(training, evaluation, strict=True))
    left = sum(bool(scan(text)) for text in training)
    twice = sum(Redactor().text(text) != text for text in training)
    leaked = sum(
        each.value in text
        for each, text in zip(labelled, training, strict=True)
        if each.value is not None and any(each.text[hit.start : hit.stop] == each.value for hit in scan(each.text))
    )
    return [
        ["texts redacted alike in training and evaluation data", f"{same:,} of {len(labelled):,}"],
        ["texts in which something is found after redaction", f"{left:,}"],
        ["found values that can still be read", f"{leaked:,}"],
        ["texts that a second redaction changes", f"{twice:,}"],
    ]


if __name__ == "__main__":
    main()
