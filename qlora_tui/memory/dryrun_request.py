"""What a dry run is asked and what it answers: one JSON file in, one JSON line out. No torch here.

``python -m qlora_tui.engine dryrun REQUEST.json`` reads ``{"model": folder, "recipe": {}, "device": {"workspace": n}}``
and prints ``{"allocated": n, "seconds": x, "peaks": {}, "components": {}, "notes": []}``; where it cannot, it prints
``{"error": {"what", "why", "hint"}}`` and ends with the exit code of that error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from qlora_tui.errors import ConfigError
from qlora_tui.memory.recipe import DeviceFacts, Recipe, Regime
from qlora_tui.text import one_line

_WORKSPACE = DeviceFacts().workspace


@dataclass(frozen=True, slots=True)
class DryRunRequest:
    """One dry run.

    Attributes:
        model: A folder with ``config.json``; weights are not read.
        recipe: Every choice made, as for the estimate.
        workspace: cuBLAS buffers in bytes, which are part of what torch counts.
    """

    model: Path
    recipe: Recipe
    workspace: int = _WORKSPACE

    def to_json(self) -> str:
        """What the child process reads."""
        recipe = asdict(self.recipe)
        recipe["targets"] = None if self.recipe.targets is None else sorted(self.recipe.targets)
        return json.dumps({"model": str(self.model), "recipe": recipe, "device": {"workspace": self.workspace}})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The reverse of :meth:`to_json`.

        Raises:
            ConfigError: if the text is no such request.
        """
        try:
            request = json.loads(text)
            recipe = dict(request["recipe"])
            if recipe.get("targets") is not None:
                recipe["targets"] = frozenset(recipe["targets"])
            if "regime" in recipe:
                recipe["regime"] = Regime(**recipe["regime"])
            device = request.get("device", {})
            return cls(Path(request["model"]), Recipe(**recipe), int(device.get("workspace", _WORKSPACE)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                "The dry run cannot be started.",
                f"Its request is not understood: {one_line(str(error), 200)}.",
                f"It needs model, recipe ({', '.join(each.name for each in fields(Recipe))}) and device.",
            ) from error


@dataclass(frozen=True, slots=True)
class DryRunAnswer:
    """What a dry run found.

    Attributes:
        allocated: Peak of a training step, bytes; predicts ``torch.cuda.max_memory_allocated()``.
        seconds: How long it took, imports apart.
        peaks: Peak of each phase in bytes: ``training`` always, ``evaluation`` and ``loading`` where they could be run.
        components: Bytes at the training peak by part, as far as they can be told apart; they add up to ``allocated``.
        notes: What the figures leave out.
    """

    allocated: int
    seconds: float
    peaks: Mapping[str, int]
    components: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """One line."""
        return json.dumps(
            {
                "allocated": self.allocated,
                "seconds": round(self.seconds, 3),
                "peaks": dict(self.peaks),
                "components": dict(self.components),
                "notes": list(self.notes),
            }
        )

    @classmethod
    def from_report(cls, report: Mapping[str, Any]) -> Self:
        """The reverse of :meth:`to_json`, once parsed.

        Raises:
            ValueError: if it is no answer.
        """
        try:
            return cls(
                allocated=int(report["allocated"]),
                seconds=float(report["seconds"]),
                peaks={str(name): int(size) for name, size in report["peaks"].items()},
                components={str(name): int(size) for name, size in report.get("components", {}).items()},
                notes=tuple(str(note) for note in report.get("notes", ())),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not an answer of the dry run: {error!r}") from error
