"""The application stays light: nothing heavy is loaded by a walk through all of its questions, and keys act at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tui_helpers import card, machine

from qlora_tui.tui.answers import Answers
from qlora_tui.tui.view import view_of

HEAVY = (
    "torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets", "gguf", "scipy", "sacrebleu",
    "rouge_score", "sklearn", "pandas", "pyarrow", "nltk", "tokenizers", "jinja2",
)  # fmt: skip
_WALK = """
import json, sys, time
start = time.perf_counter()
import qlora_tui.tui.app
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tui_helpers import Machine, application, drive, press
import qlora_tui.tui.inspection_process
stand_in = Machine()
app = application(stand_in)

async def steps(pilot):
    await press(pilot, "enter", "ctrl+n", "enter", "ctrl+n")
    source = app.screen.query_one("#data-source")
    source.focus()
    source.value = sys.argv[2]
    await press(pilot, "enter", "v", "v", "ctrl+n", "8", "ctrl+n", "question_mark", "escape", "ctrl+p", "escape", "s")

drive(app, steps, (120, 36))
print(json.dumps({"launched": len(stand_in.launched), "modules": sorted({name.split(".")[0] for name in sys.modules})}))
"""


def test_a_walk_up_to_launch_loads_nothing_heavy(tmp_path: Path) -> None:
    rows = Path(__file__).parent.parent / "examples" / "spam.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", _WALK, str(Path(__file__).parent), str(rows)],
        capture_output=True,
        text=True,
        timeout=120,
        env=dict(os.environ),
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["launched"] == 1
    assert [name for name in HEAVY if name in told["modules"]] == []


def test_the_first_screen_needs_neither_a_parser_nor_a_schema_nor_numbers() -> None:
    code = """
import sys
import qlora_tui.cli
from qlora_tui.tui.app import QloraApp
from qlora_tui.tui.screens.home import HomeScreen
assert not QloraApp().begun
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    unwanted = {
        "pydantic", "yaml", "psutil", "pynvml", "numpy", "tokenizers", "jinja2", "huggingface_hub", "httpx2", "typer",
        "textual_plot",
    }  # fmt: skip
    assert unwanted & set(done.stdout.split()) == set()


def test_an_answer_and_its_fit_take_less_than_a_frame() -> None:
    answers, hardware = Answers().with_value("model.source", "Qwen/Qwen3-8B"), machine(card())
    view_of(answers, hardware)
    spent = []
    for rank in range(1, 51):
        start = time.process_time()
        view_of(answers.with_value("adapter.rank", rank), hardware)
        spent.append(time.process_time() - start)
    assert sorted(spent)[25] < 0.016, f"{sorted(spent)[25] * 1000:.1f} ms of processor time"
