"""What a live run is telling: findings with their evidence and what to change, computed from the run's own events.

:class:`Health` is fed every event as it is written and answers with what has become noticeable. It keeps a bounded
window, so a run of any length costs the same; the checks themselves are in :mod:`~qlora_tui.advice.learning_signs` and
:mod:`~qlora_tui.advice.machine_signs`.
"""

from __future__ import annotations

from collections.abc import Iterable

from qlora_tui.advice import learning_signs, machine_signs
from qlora_tui.advice.window import Finding, Window
from qlora_tui.runs.events import Advice, Eval, Memory, Record, Step

__all__ = ["Finding", "Health"]

REARM_STEPS = 100
"""A finding that went away for so many steps is told again when it comes back."""


class Health:
    """Watches one run.

    Args:
        history: Events of earlier lives of the run: they are looked at, and what they advised is not told again at
            once.
    """

    def __init__(self, history: Iterable[Record] = ()) -> None:
        self._window = Window()
        self._seen_at: dict[str, int] = {}
        for record in history:
            if isinstance(record.event, Advice):
                self._seen_at[record.event.topic] = self._window.step
            else:
                self._window.take(record)

    def take(self, record: Record) -> list[Finding]:
        """Take in one event; what is to be told now, each thing once as long as it lasts."""
        self._window.take(record)
        if not isinstance(record.event, Step | Eval | Memory):
            return []
        told = []
        for check in (*learning_signs.CHECKS, *machine_signs.CHECKS):
            if (finding := check(self._window)) is None:
                continue
            last = self._seen_at.get(finding.topic)
            if last is None or self._window.step - last > REARM_STEPS:
                told.append(finding)
            self._seen_at[finding.topic] = self._window.step
        return told
