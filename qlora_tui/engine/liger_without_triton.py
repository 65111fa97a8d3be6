"""liger-kernel's layers where Triton is missing or must not run: they allocate what they do, and compute nothing.

liger's autograd functions allocate their results in torch and fill them by launching Triton kernels. With launches
that do nothing they run under fake tensors, so the library is imported once with a stand-in for ``triton`` and kept
away from everyone else's imports.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from torch.nn import functional
from transformers.trainer_utils import unwrap_peft_model

_OWN_NAMES = ("triton", "liger_kernel")
_kept: dict[str, ModuleType] = {}


class NoKernel:
    """Stands for a Triton kernel: launched, it does nothing, for its results are allocated before."""

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *_args, **_keywords: None


def cdiv(number: int, divisor: int) -> int:
    """Quotient, rounded up: ``triton.cdiv``."""
    return -(-number // divisor)


class _Anything:
    """Whatever else a module asks of Triton while it is imported."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_args: Any, **_keywords: Any) -> Any:
        return self


class _NoTriton(ModuleType):
    __version__ = "3.5.0"
    cdiv = staticmethod(cdiv)

    @staticmethod
    def jit(function: Any = None, **_options: Any) -> Any:
        return NoKernel() if function is not None else lambda _function: NoKernel()

    @staticmethod
    def autotune(*_args: Any, **_keywords: Any) -> Callable[[Any], Any]:
        return lambda kernel: kernel

    heuristics = autotune

    @staticmethod
    def next_power_of_2(number: int) -> int:
        return 1 << (number - 1).bit_length()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()


class _Finder:
    """Finds ``triton`` and everything below it."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, _LOADER, is_package=True) if name.partition(".")[0] == "triton" else None


class _Loader(Loader):
    """Makes what is found."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _NoTriton(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


_LOADER = _Loader()


def _own() -> dict[str, ModuleType]:
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in _OWN_NAMES}


@contextmanager
def _importable() -> Iterator[None]:
    """Inside, ``liger_kernel`` is the one without Triton; outside, everything is as it was."""
    global _kept
    before = _own()
    for name in before:
        del sys.modules[name]
    sys.modules.update(_kept)
    sys.meta_path.insert(0, _Finder)
    try:
        yield
    finally:
        sys.meta_path.remove(_Finder)
        _kept = _own()
        for name in _kept:
            del sys.modules[name]
        sys.modules.update(before)


def has_layers(model_type: str) -> bool:
    """Whether liger has layers for this kind of model.

    Raises:
        ImportError: if liger-kernel is not installed.
    """
    with _importable():
        patches = importlib.import_module("liger_kernel.transformers.monkey_patch")
        return model_type in patches.MODEL_TYPE_TO_APPLY_LIGER_FN


@contextmanager
def layers_of(model: Any) -> Iterator[None]:
    """Put liger's layers into a model as the trainer does. What it changes in transformers is undone at the end."""
    base = unwrap_peft_model(model)
    modeling = sys.modules[type(base).__module__]
    before, cross_entropy = dict(vars(modeling)), functional.cross_entropy
    with _importable():
        transformers = importlib.import_module("liger_kernel.transformers")
        transformers._apply_liger_kernel_to_instance(model=base, fused_linear_cross_entropy=False)
        try:
            yield
        finally:
            vars(modeling).update(before)
            functional.cross_entropy = cross_entropy
