"""A terminal as people use it: a shell in tmux, keys sent to it, and what it shows read back."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType


class Tmux:
    """A shell in a tmux server of its own.

    Args:
        folder: Where the server's socket lies and the shell starts.
        environment: All that the shell knows of the outside.
    """

    def __init__(self, folder: Path, size: tuple[int, int], environment: Mapping[str, str]) -> None:
        self._server = ["tmux", "-S", str(folder / "tmux.sock"), "-f", "/dev/null"]
        self.record: list[str] = []
        """What was done, and the screen after it."""
        shell = ["env", "-i", *(f"{name}={value}" for name, value in environment.items()), "sh"]
        width, height = map(str, size)
        self._tmux("new-session", "-d", "-x", width, "-y", height, "-c", str(folder), *shell)

    def _tmux(self, *arguments: str) -> str:
        command = [*self._server, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout

    def __enter__(self) -> Tmux:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tmux("kill-server")

    @property
    def screen(self) -> str:
        """What is shown now."""
        return self._tmux("capture-pane", "-p")

    def press(self, *keys: str) -> None:
        """Press keys, by tmux's names for them."""
        self._tmux("send-keys", *keys)

    def type(self, text: str) -> None:
        """Type a text as it stands."""
        self._tmux("send-keys", "-l", text)

    def wait(self, *words: str, seconds: float = 60.0) -> str:
        """The screen as soon as it shows all of the words.

        Raises:
            AssertionError: if it does not in time.
        """
        what = ", ".join(words)
        shown = self.until(lambda screen: all(word in screen for word in words), f"shows {what}", seconds)
        self.record.append(f"--- {what}\n{shown}")
        return shown

    def until(self, is_so: Callable[[str], bool], what: str, seconds: float = 60.0) -> str:
        """The screen as soon as it is so.

        Raises:
            AssertionError: if it is not in time.
        """
        end = time.monotonic() + seconds
        while not is_so(shown := self.screen):
            assert time.monotonic() < end, f"waited until it {what}, and the screen is\n{shown}"
            time.sleep(0.1)
        return shown


def plain_environment(**more: str) -> dict[str, str]:
    """What a login shell would know, this test process's share of the cores, and ``more``."""
    kept = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS") if name in os.environ}
    return kept | {"TERM": "xterm-256color", "LANG": "C.UTF-8"} | more
