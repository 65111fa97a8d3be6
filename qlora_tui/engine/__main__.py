"""``python -m qlora_tui.engine COMMAND``: the entry of every engine process."""

from __future__ import annotations

import os
import sys


def _prepare_environment() -> None:
    """What has to be set before torch or huggingface_hub are imported."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # The order in which NVML, and so everything that the user is shown, counts the cards.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    # One card: TRL refuses to train in one process that sees several.
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")


def main(arguments: list[str]) -> int:
    """Run one engine command; its exit status."""
    _prepare_environment()
    if arguments[:1] == ["train"] and len(arguments) in (2, 3):
        from qlora_tui.engine.life import run_training

        return run_training(arguments[1], resume="--resume" in arguments[2:])
    if arguments[:1] == ["chat"]:
        from qlora_tui.engine.chat import main as chat

        return chat(arguments[1:])
    if arguments == ["inspect"]:
        from qlora_tui.engine.inspect_command import main as inspect

        return inspect()
    if arguments[:1] == ["serve"]:
        from qlora_tui.engine.serve import main as serve

        return serve()
    if arguments[:1] == ["selftest"]:
        from qlora_tui.engine.selftest import main as selftest

        return selftest()
    if arguments[:1] == ["dryrun"]:
        from qlora_tui.engine.dryrun import main as dryrun

        return dryrun(arguments[1:])
    commands = "train RUN_DIR [--resume] | chat … | serve | inspect | selftest | dryrun REQUEST.json"
    sys.stderr.write(f"usage: python -m qlora_tui.engine {commands}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
