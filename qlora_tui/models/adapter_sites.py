"""Where LoRA adapters go, by the names that peft understands."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from qlora_tui.errors import ModelError
from qlora_tui.models.layers import LayerGroup
from qlora_tui.text import one_line

ALL_LINEAR = "all-linear"


@dataclass(frozen=True, slots=True)
class AdapterSite:
    """A place for an adapter: matrices of (rank · multiple, in) and (out, rank · multiple) elements."""

    name: str
    count: int
    """How often it occurs in the model."""
    in_features: int
    out_features: int
    multiple: int = 1

    def parameters(self, rank: int) -> int:
        """Elements of all its adapters."""
        return self.count * rank * self.multiple * (self.in_features + self.out_features)


def target_names(groups: Sequence[LayerGroup]) -> tuple[str, ...]:
    """The names that can be asked for, each once: last parts of paths."""
    matrices = (m.name.rpartition(".")[2] for group in groups for m in group.matrices if m.adapted)
    stacks = (target for group in groups for stack in group.stacks for target in stack.targets)
    return tuple(dict.fromkeys((*matrices, *stacks)))


def adapter_sites(groups: Sequence[LayerGroup], family: str, targets: str | Collection[str]) -> list[AdapterSite]:
    """What gets an adapter in a model of these layers.

    ``all-linear`` is every linear layer except the output layer, and the stacks; names are compared as peft compares
    them, with the path of a layer or its last parts.

    Raises:
        ModelError: if a name fits nothing in this model, or only half of a stack.
    """
    names = {targets} if isinstance(targets, str) else set(targets)
    every = names == {ALL_LINEAR}
    if not every:
        _check(groups, family, names)
    sites = []
    for group in groups:
        for matrix in group.matrices:
            if matrix.adapted and (every or any(matrix.matches(name) for name in names)):
                sites.append(AdapterSite(matrix.name, group.count, matrix.in_features, matrix.out_features))
        for stack in group.stacks:
            if every or names >= set(stack.targets):
                multiple = stack.count * len(stack.targets)
                sites.append(AdapterSite(stack.name, group.count, stack.in_features, stack.out_features, multiple))
    return sites


def _check(groups: Sequence[LayerGroup], family: str, names: set[str]) -> None:
    stacks = [set(stack.targets) for group in groups for stack in group.stacks]
    for name in sorted(names):
        fused = next((targets for targets in stacks if name in targets), None)
        if fused is not None and not fused <= names:
            raise ModelError(
                f"No adapter can be put on {one_line(name, 60)!r} alone.",
                f"In this {family} model it shares one tensor with {', '.join(sorted(fused - names))}.",
                f"Name {' and '.join(sorted(fused))}, or use {ALL_LINEAR}.",
            )
        if fused is None and not any(m.adapted and m.matches(name) for group in groups for m in group.matrices):
            raise ModelError(
                f"No adapter can be put on {one_line(name, 60)!r}.",
                f"No linear layer of this {family} model is called that.",
                f"Use {ALL_LINEAR}, or some of: {', '.join(target_names(groups))}.",
            )
