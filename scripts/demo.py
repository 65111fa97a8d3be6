"""The demo: trains a spam filter on SmolLM2-135M, shows what it learnt, and lets base and adapter answer side by side.

    make demo

Everything stays below ``demo/`` in this folder; running it again starts afresh.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / "demo"
CONFIG = ROOT / "examples" / "demo.yaml"
NAME = "spam-triage"


def command(*arguments: str) -> list[str]:
    """The console script of this very environment."""
    return [str(Path(sys.executable).with_name("qlora-tui")), *arguments]


def show(heading: str) -> None:
    """A heading between the parts."""
    print(f"\n== {heading} ==", flush=True)


def two_questions() -> list[str]:
    """One spam and one ham prompt from the held-out rows that were only measured, never learnt from."""
    questions: dict[str, str] = {}
    for line in (ROOT / "examples" / "spam-heldout.jsonl").read_text(encoding="utf-8").splitlines():
        prompt, answer = json.loads(line)["messages"]
        questions.setdefault(answer["content"], prompt["content"])
    return [questions["spam"], questions["ham"]]


def main() -> int:
    """Run the demo; the exit status of the first step that fails, else 0."""
    environment = {**os.environ, "QLORA_TUI_HOME": os.environ.get("QLORA_TUI_HOME", str(HOME))}
    started = time.monotonic()
    show("Training a spam filter on SmolLM2-135M in 4 bits")
    trained = subprocess.run(command("--config", str(CONFIG), "--overwrite"), env=environment, cwd=ROOT)
    if trained.returncode:
        return trained.returncode
    show("The same e-mails to the base model and to the adapter (spam first, then ham)")
    for question in two_questions():
        print(f"\n{question}\n", flush=True)
        answer = command("chat", NAME, "--prompt", question, "--compare", "--max-tokens", "12")
        answered = subprocess.run(answer, env=environment, cwd=ROOT)
        if answered.returncode:
            return answered.returncode
    show(f"Done in {time.monotonic() - started:.0f} s")
    shown_home = environment["QLORA_TUI_HOME"]
    print("Go on with an e-mail of your own:")
    print(f'  QLORA_TUI_HOME={shown_home} {command()[0]} chat {NAME} --compare --prompt "Subject: …"')
    return 0


if __name__ == "__main__":
    sys.exit(main())
