"""The parts of a decoder layer as programs on a tape: norms, linear layers with adapters, the feed-forward part."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from qlora_tui.memory import kernel_operations as kernels
from qlora_tui.memory import operations as ops
from qlora_tui.memory.build import Build, LayerType, Names, Settings
from qlora_tui.memory.tape import Tape, Tensor

_Method = TypeVar("_Method", bound=Callable[..., Any])


def module(method: _Method) -> _Method:
    """A method that stands for a module of the model: while it runs, its caller's arguments are alive."""

    @wraps(method)
    def call(*arguments: Any, **keywords: Any) -> Any:
        return method(*arguments, **keywords)

    return cast("_Method", call)


class Modules:
    """What every decoder layer is made of besides its attention."""

    def __init__(self, tape: Tape, build: Build, settings: Settings, names: Names, kind: LayerType) -> None:
        self.tape = tape
        self.build = build
        self.settings = settings
        self.names = names
        self.kind = kind
        self.weights: Tensor | None = None
        """Of eager attention, which the layer's forward pass names to its end."""

    @property
    def kernels(self) -> bool:
        """Whether liger has replaced norms and rotation."""
        return self.settings.liger and self.build.norm in ("rms", "rms then cast", "gemma")

    @module
    def norm(self, hidden: Tensor, statistics: str = "one", *, plain: bool = False) -> Tensor:
        """The family's norm.

        Args:
            plain: Not replaced by liger, whatever the settings.
        """
        tape = self.tape
        if self.settings.liger and not plain and self.build.norm in ("rms", "rms then cast", "gemma"):
            return kernels.kernel_normed(tape, hidden, statistics, in_place=self.build.kernel_norm_in_place)
        if self.build.norm == "layer":
            return ops.layer_normed(tape, hidden, statistics)
        if self.build.norm == "cohere":
            return self._cohere_normed(hidden, statistics)
        given = hidden.bytes
        hidden = ops.cast(tape, hidden, 4)
        hidden = ops.rms_scaled(tape, hidden, statistics)
        if self.build.norm == "rms":
            return ops.multiplied_by_constant(tape, ops.cast(tape, hidden, given))
        hidden = ops.multiplied_by_constant(tape, hidden)
        return ops.cast(tape, hidden, given)

    def _cohere_normed(self, hidden: Tensor, statistics: str) -> Tensor:
        tape = self.tape
        given = hidden.bytes
        hidden = ops.cast(tape, hidden, 4)
        mean = ops.mean(tape, hidden, statistics)
        average = ops.mean(tape, ops.powered(tape, ops.less(tape, hidden, mean)), statistics)
        root = ops.root(tape, average)
        hidden = ops.multiplied_by_rows(tape, ops.less(tape, hidden, mean), root)
        hidden = ops.multiplied_by_constant(tape, hidden)
        return ops.cast(tape, hidden, given)

    @module
    def mlp(self, hidden: Tensor) -> Tensor:
        """The feed-forward part."""
        names, tape = self.names, self.tape
        if not self.build.gated:
            hidden = self.linear(hidden, names.up, "intermediate")
            hidden = self._activated(hidden)
            return self.linear(hidden, names.down, "hidden")
        if self.build.fused_gate_up:
            both = self.linear(hidden, names.fused_gate_up, "gate_up")
            gate, up = ops.parts(tape, both, ("intermediate", "intermediate"), together=True)
            del both
            if self.settings.liger:
                return self.linear(kernels.gated_in_place(tape, gate, up, halves=True), names.down, "hidden")
            up = ops.multiplied(tape, up, self._activated(gate))
            return self.linear(up, names.down, "hidden")
        if self.settings.liger:
            product = kernels.gated_in_place(
                tape, self.linear(hidden, names.gate, "intermediate"), self.linear(hidden, names.up, "intermediate")
            )
            return self.linear(product, names.down, "hidden")
        return self.linear(
            ops.multiplied(
                tape,
                self._activated(self.linear(hidden, names.gate, "intermediate")),
                self.linear(hidden, names.up, "intermediate"),
            ),
            names.down,
            "hidden",
        )

    def _activated(self, hidden: Tensor) -> Tensor:
        if self.build.activation == "kernel":
            return ops.activated(self.tape, hidden)
        return ops.gelu_by_hand(self.tape, hidden)

    @module
    def linear(self, source: Tensor, name: str, width: str) -> Tensor:
        """A frozen matrix, and the adapter on it."""
        tape, settings = self.tape, self.settings
        adapted = name in settings.adapted
        if settings.quantised and not self.build.plain_linear:
            if adapted and settings.fused_adapters and source.bytes == settings.adapter_bytes:
                return kernels.adapted_linear(
                    tape, source, name, width, nested=settings.double_quant, kept=settings.kept_gradients
                )
            result = kernels.quantised_linear(tape, source, name, width, nested=settings.double_quant)
            if not adapted:
                return result
            result = ops.copy(tape, result)
        else:
            result = kernels.frozen_linear(tape, source, width)
            if not adapted:
                return result
            source = ops.cast(tape, source, settings.adapter_bytes) if settings.adapter_bytes == 4 else source
        output = ops.scaled(tape, self._adapter(source, name, width))
        return ops.added(tape, result, output)

    def _adapter(self, source: Tensor, name: str, width: str) -> Tensor:
        tape, size = self.tape, self.settings.adapter_bytes
        dropped = ops.dropped(tape, source) if self.settings.dropout else source
        low = kernels.trained_linear(tape, dropped, "rank", f"{name} A", size, kept=self.settings.kept_gradients)
        del dropped
        return kernels.trained_linear(tape, low, width, f"{name} B", size, kept=self.settings.kept_gradients)
