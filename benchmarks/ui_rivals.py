"""Other terminal programs to start beside ours, each in an environment that holds it and nothing else."""

from __future__ import annotations

import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from platformdirs import user_cache_path


@dataclass(frozen=True, slots=True)
class Program:
    """A program as its package installs it.

    Attributes:
        requirements: What is installed besides, for a fair comparison.
        useful: Words of its first screen that a person can act on.
    """

    name: str
    package: str
    version: str
    useful: str
    requirements: tuple[str, ...] = ()


RIVALS: Final = (
    Program("flameforge", "flameforge", "0.1.0", "Welcome to FlameForge"),
    Program("flameforge, with torch", "flameforge", "0.1.0", "Welcome to FlameForge", ("torch==2.13.0",)),
    Program("harlequin", "harlequin", "2.17.0", "Catalog"),
)


def installed(program: Program) -> Path | None:
    """Where its command lies; None if the registry does not have it. Made on first use."""
    extras = "".join(f"-{each.partition('==')[0]}" for each in program.requirements)
    folder = user_cache_path("qlora-tui") / "benchmarks" / f"{program.package}-{program.version}{extras}"
    done = folder / ".installed"
    if not done.exists():
        print(f"Installing {program.name} {program.version} into {folder} ...", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        wanted = [f"{program.package}=={program.version}", *program.requirements]
        if subprocess.run([*pip, *wanted], check=False).returncode:
            return None
        done.touch()
    return folder / "bin" / program.package
