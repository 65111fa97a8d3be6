"""Decoder layers as programs on a tape: what ``transformers/models/*/modeling_*.py`` of version 5.23 does, op by op.

Local variables matter: a tensor that a function of the model still names is alive, here as there.
"""

from __future__ import annotations

from qlora_tui.memory import operations as ops
from qlora_tui.memory.attention_program import Attention
from qlora_tui.memory.tape import Tensor


class Layer(Attention):
    """One decoder layer."""

    def __call__(self, hidden: Tensor) -> Tensor:
        """The layer's output for the stream."""
        try:
            return self._output(hidden)
        finally:
            self.weights = None

    def _output(self, hidden: Tensor) -> Tensor:
        return {
            "one after the other": self._sequential,
            "one after the other, named": self._sequential_named,
            "norms behind": self._normed_behind,
            "norms around": self._normed_around,
            "parallel": self._parallel,
            "parallel, two norms": self._parallel_two_norms,
            "parallel, in place": self._parallel_in_place,
            "parallel, two norms first": self._parallel_in_place,
        }[self.build.order](hidden)

    def _sequential(self, hidden: Tensor) -> Tensor:
        residual = hidden
        hidden = self.norm(hidden)
        hidden = self.attention(hidden)
        hidden = ops.added(self.tape, residual, self.addend(hidden))
        residual = hidden
        hidden = self.norm(hidden)
        hidden = self.mlp(hidden)
        return ops.added(self.tape, residual, self.addend(hidden))

    def _sequential_named(self, hidden: Tensor) -> Tensor:
        residual = hidden
        hidden = self.norm(hidden)
        attended = self.attention(hidden)
        residual = ops.added(self.tape, residual, attended)
        fed = self.addend(self.mlp(self.norm(residual)))
        output = ops.added(self.tape, residual, fed)
        del hidden, attended
        return output

    def _normed_behind(self, hidden: Tensor) -> Tensor:
        residual = hidden
        hidden = self.attention(hidden)
        hidden = self.norm(hidden)
        hidden = ops.added(self.tape, residual, hidden)
        residual = hidden
        hidden = self.mlp(hidden)
        hidden = self.norm(hidden)
        return ops.added(self.tape, residual, hidden)

    def _normed_around(self, hidden: Tensor) -> Tensor:
        residual = hidden
        hidden = self.norm(hidden)
        hidden = self.attention(hidden)
        hidden = self.norm(hidden)
        hidden = ops.added(self.tape, residual, hidden)
        residual = hidden
        hidden = self.norm(hidden)
        hidden = self.mlp(hidden)
        hidden = self.norm(hidden)
        return ops.added(self.tape, residual, hidden)

    def _parallel(self, hidden: Tensor) -> Tensor:
        residual = hidden
        hidden = self.norm(hidden)
        attended = self.addend(self.attention(hidden))
        fed = self.addend(self.mlp(hidden))
        return ops.added(self.tape, ops.added(self.tape, attended, fed), residual)

    def _parallel_two_norms(self, hidden: Tensor) -> Tensor:
        attended = self.addend(self.attention(self.norm(hidden)))
        fed = self.addend(self.mlp(self.norm(hidden)))
        return ops.added(self.tape, ops.added(self.tape, fed, attended), hidden)

    def _parallel_in_place(self, hidden: Tensor) -> Tensor:
        normed = self.norm(hidden)
        fed_with = self.norm(hidden) if self.build.order == "parallel, two norms first" else normed
        attended = self.attention(normed)
        fed = ops.added_in_place(self.tape, self.mlp(fed_with), attended)
        return ops.added(self.tape, self.addend(fed), hidden)

    def addend(self, hidden: Tensor) -> Tensor:
        """What is done to a result before it is added to the stream."""
        if self.build.scaled_residual:
            hidden = ops.scaled(self.tape, hidden)
        return ops.dropped(self.tape, hidden) if self.build.residual_dropout else hidden
