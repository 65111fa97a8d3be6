"""The time an inspection takes against the bare tokenizer, its first answers, its memory on 1 GB, and its cache.

python -m benchmarks.inspection [speed] [large]
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from faker import Faker

from benchmarks.tables import RESULTS, publish, table
from qlora_tui.config import RunConfig
from qlora_tui.data.encode import Encoder
from qlora_tui.data.inspection import Inspection
from qlora_tui.data.prepare import CHUNK_ROWS, Preparation, collector_paused
from qlora_tui.data.reading import read_rows
from qlora_tui.data.source import find_source
from qlora_tui.engine.inspection import Inspector
from qlora_tui.runs.launch import engine_environment

ROWS, ROUNDS, GIGABYTE, SENTENCES = 50_000, 5, 1_000_000_000, 200_000


def main() -> None:
    """Measure what is asked for, or all, and publish each part with what was measured before."""
    parts = sys.argv[1:] or ["speed", "large"]
    home = Path(tempfile.mkdtemp(prefix="qlora-tui-inspection-"))
    os.environ["QLORA_TUI_HOME"] = str(home)
    results = RESULTS / "inspection.json"
    raw: dict[str, Any] = json.loads(results.read_bytes()) if results.exists() else {}
    for part, measure in (("speed", _measured_speed), ("large", _measured_large)):
        if part in parts:
            raw[part] = measure(home / f"{part}.jsonl")
            publish("inspection", *_speed_tables(raw.get("speed")), *_large_table(raw.get("large")), raw=raw)


def _measured_speed(path: Path) -> dict[str, Any]:
    _write_rows(path, ROWS)
    config = _config(path)
    Inspector(config).encoder  # noqa: B018 - takes the tokenizer out of the bundled model, once
    load = os.getloadavg()[0]
    ways = _speed(config, path)
    _forget()
    first, again = _answers(config), _answers(config)
    _change_a_byte(path)
    changed = _answers(config)
    if (first["cached"], again["cached"], changed["cached"]) != (False, True, False):
        raise RuntimeError("the cache does not answer what it should")
    return {
        "bytes": path.stat().st_size, "load": load, "ways": ways, "first": first, "again": again, "changed": changed
    }  # fmt: skip


def _change_a_byte(path: Path) -> None:
    """Another letter at the end of the last answer, which ends with a full stop."""
    with path.open("r+b") as file:
        file.seek(-len('x."}\n'), os.SEEK_END)
        file.write(b"#")


def _measured_large(path: Path) -> dict[str, Any]:
    _write_rows(path, None)
    Inspector(_config(path)).encoder  # noqa: B018 - as above
    load = os.getloadavg()[0]
    whole = _watched(_config(path))
    again = _watched(_config(path))
    return {"load": load, "whole": whole, "again": again, "cancel": _cancelled(_config(path, "train[:-1]"))}


def _speed_tables(found: dict[str, Any] | None) -> Iterator[str]:
    if found is None:
        return
    yield table(
        ["50,000 rows, one process", "seconds", "against the bare tokenizer", "processor time against it"],
        [
            [name, f"{seconds:.2f}", f"{ratio:.2f} ×", f"{used:.2f} ×"]
            for name, (seconds, ratio, used) in found["ways"].items()
        ],
    )
    yield f"Medians of {ROUNDS} turns; ratios are those of each turn. {found['bytes'] / 1e6:.0f} MB. {_load(found)}"
    yield table(
        ["50,000 rows, a process of its own", "from its start", "of it processor time, all cores"],
        [
            ["format, and one row as tokens", *_times(found["first"], "glance")],
            ["the whole answer", *_times(found["first"], "done")],
            ["the same question again, answered from the cache", *_times(found["again"], "done")],
            [
                "once more with one byte of the file changed, which is noticed: answered anew",
                *_times(found["changed"], "done"),
            ],
        ],
    )


def _times(found: dict[str, Any], event: str) -> tuple[str, str]:
    used = found.get(f"{event} cpu")
    return f"{found[event]:.2f} s", "" if used is None else f"{used:.2f} s"


def _load(found: dict[str, Any]) -> str:
    return f"Load of the machine before: {found['load']:.1f} on {os.cpu_count()} cores."


def _large_table(found: dict[str, Any] | None) -> Iterator[str]:
    if found is None:
        return
    whole = found["whole"]
    yield table(
        [f"1 GB, {whole['rows']:,} rows, a process of its own", "", "processor time, all cores"],
        [
            ["format, and one row as tokens", *_times(whole, "glance")],
            ["the whole answer", *_times(whole, "done")],
            ["peak of resident memory", f"{whole['peak'] / 1e6:,.0f} MB", ""],
            ["longest time without news of progress", *_times(whole, "gap")],
            ["again, from the cache", *_times(found["again"], "done")],
            ["from cancelling in the middle to the end of the process", f"{found['cancel']:.2f} s", ""],
        ],
    )
    yield _load(found)


def _config(path: Path, split: str = "train") -> RunConfig:
    return RunConfig.model_validate({"name": "inspection", "data": {"source": str(path), "split": split}})


def _write_rows(path: Path, count: int | None) -> None:
    """Rows with alpaca's columns and lengths; None writes until the file has a gigabyte."""
    fake = Faker("en_US")
    fake.seed_instance(1)
    words = sorted({fake.word() for _ in range(20_000)})
    dice = random.Random(1)
    weights = [1 / (place + 5) for place in range(len(words))]

    # Sentences come again in other rows, as in life; whole rows do not.
    sentences = [
        " ".join(dice.choices(words, weights, k=dice.randint(5, 20))).capitalize() + "." for _ in range(SENTENCES)
    ]

    with path.open("w", encoding="utf-8") as file:
        number = size = 0
        while number < count if count is not None else size < GIGABYTE:
            number += 1
            answer = " ".join(dice.choices(sentences, k=max(1, int(dice.expovariate(1 / 3.5)))))
            row = {
                "instruction": dice.choice(sentences),
                "input": dice.choice(sentences) if dice.random() < 0.4 else "",
                "output": answer if dice.random() > 0.002 else f"{answer} Write to {fake.email()}.",
            }
            size += file.write(json.dumps(row) + "\n")


def _speed(config: RunConfig, path: Path) -> dict[str, tuple[float, float, float]]:
    """Seconds of each way through the rows, and its ratios in seconds and in processor time.

    They are taken turn by turn, so that all meet the same neighbours.
    """
    encoder = Inspector(config).encoder
    texts = list(_rendered(encoder, config, path))
    ways: dict[str, Callable[[], object]] = {
        "bare tokenizer, rendered text at hand": lambda: _tokenised(encoder, texts),
        "read, detect, map, render, encode with mask": lambda: _encoded(encoder, config, path),
        "the whole inspection": lambda: _fresh(config),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    used: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start, start_used = time.perf_counter(), time.process_time()
            way()
            seconds[name].append(time.perf_counter() - start)
            used[name].append(time.process_time() - start_used)
    return {name: (statistics.median(seconds[name]), _ratio(name, seconds), _ratio(name, used)) for name in ways}


def _tokenised(encoder: Encoder, texts: list[str]) -> None:
    for start in range(0, len(texts), CHUNK_ROWS):
        encoder.tokenizer.encode_batch(texts[start : start + CHUNK_ROWS], add_special_tokens=False)


def _encoded(encoder: Encoder, config: RunConfig, path: Path) -> None:
    with collector_paused():  # as in training and in an inspection
        for _ in Preparation(read_rows(find_source(str(path))), encoder, config.data).chunks():
            pass


def _ratio(name: str, taken: dict[str, list[float]]) -> float:
    """How much more one way takes than the first, turn by turn."""
    bare = next(iter(taken.values()))
    return statistics.median(one / other for one, other in zip(taken[name], bare, strict=True))


def _rendered(encoder: Encoder, config: RunConfig, path: Path) -> Iterator[str]:
    preparation = Preparation(read_rows(find_source(str(path))), encoder, config.data)
    for raw in read_rows(find_source(str(path))):
        yield encoder.rendered(preparation.mapper.example(raw))


def _fresh(config: RunConfig) -> Inspection:
    """An inspection that finds nothing remembered."""
    _forget()
    return Inspector(config).inspect()


def _forget() -> None:
    for remembered in Path(os.environ["QLORA_TUI_HOME"]).glob("cache/inspections/*.json"):
        remembered.unlink()


def _start(config: RunConfig) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "qlora_tui.engine", "inspect"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=engine_environment(torch=False),
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"config": config.model_dump(mode="json")}).encode() + b"\n")
    process.stdin.close()
    return process


def _answers(config: RunConfig) -> dict[str, Any]:
    """Seconds from the start of the process to each kind of answer, and the longest silence."""
    start = last = time.perf_counter()
    found: dict[str, Any] = {"gap": 0.0}
    process = _start(config)
    last_used = 0.0
    for line in process.stdout or ():
        now, used = time.perf_counter(), _processor_time(process)
        event = json.loads(line)
        if now - last > found["gap"]:
            found |= {"gap": now - last, "gap cpu": used - last_used, "gap before": event.get("name", event["event"])}
        last, last_used = now, used
        if event["event"] in ("glance", "done"):
            found |= {event["event"]: now - start, f"{event['event']} cpu": used}
        if event["event"] == "done":
            found |= {"rows": event["inspection"]["rows"], "cached": event["inspection"]["cached"]}
        if event["event"] == "error":
            raise RuntimeError(line.decode())
    process.wait()
    return found


def _processor_time(process: subprocess.Popen[bytes]) -> float:
    used = psutil.Process(process.pid).cpu_times()
    return used.user + used.system


def _watched(config: RunConfig) -> dict[str, Any]:
    """The same with the peak of resident memory of the process."""
    peak, over = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.2):
            for child in psutil.Process().children():
                try:
                    peak = max(peak, child.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        found = _answers(config)
        return found | {"peak": peak}
    finally:
        over.set()
        watcher.join()


def _cancelled(config: RunConfig) -> float:
    """Seconds from SIGTERM, in the middle of the rows, to the end of the process."""
    process = _start(config)
    for line in process.stdout or ():
        event = json.loads(line)
        if event["event"] == "progress" and event["name"] == "train rows" and event["done"] > 50_000:
            break
    start = time.perf_counter()
    process.terminate()
    process.wait()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
