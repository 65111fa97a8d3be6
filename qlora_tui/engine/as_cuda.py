"""Makes fake CPU tensors take the memory that CUDA tensors would.

A torch build without CUDA has no device guard for it, so fake tensors of device ``cuda`` cannot pass autograd. Fake CPU
tensors can; where the two differ in what they allocate, the context manager here puts CUDA's way in place and takes it
away again: autocast's lists, fused attention, dropout's mask, TRL's Triton kernels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import patch

import bitsandbytes
import torch
import transformers.masking_utils
import trl.kernels.chunked_logprob
import trl.trainer.utils
from torch.utils._pytree import tree_map

from qlora_tui.engine.fused_attention import fused_attention
from qlora_tui.engine.liger_without_triton import NoKernel, cdiv
from qlora_tui.engine.liveness import Liveness

_FP32: Final = (
    *("acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log2", "log1p", "reciprocal", "rsqrt", "sinh"),
    *("tan", "pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar", "softplus", "layer_norm", "native_layer_norm"),
    *("rms_norm", "group_norm", "cosine_similarity", "nll_loss", "kl_div", "logsumexp"),
)
"""``torch/include/ATen/autocast_mode.h``, ``AT_FORALL_FP32``: what a language model may call of it."""
_FP32_RESULT: Final = (
    *("prod", "prod.dim_int", "softmax.int", "log_softmax.int", "cumprod", "cumsum", "linalg_vector_norm", "sum"),
    "sum.dim_IntList",
)
"""``AT_FORALL_FP32_SET_OPT_DTYPE``: these compute in fp32 unless they are told a dtype."""
_LOWER: Final = (torch.bfloat16, torch.float16)
_AUTOCAST: Final = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)


@dataclass(slots=True)
class Told:
    """What a batch's position ids and mask say, which cannot be looked at.

    Attributes:
        packed: Positions begin anew within a row.
        padded: The mask has zeros.
    """

    packed: bool
    padded: bool


@contextmanager
def as_cuda(told: Told) -> Iterator[None]:
    """Allocate as CUDA does, for batches that are as told at the time."""

    def rows_of(position_ids: torch.Tensor) -> torch.Tensor | None:
        return torch.zeros_like(position_ids) if told.packed else None

    kernels = trl.kernels.chunked_logprob
    with ExitStack() as stack:
        stack.enter_context(_autocast_lists())
        # bitsandbytes makes its table of scales once for the process; one without data is of no use to anyone else.
        stack.enter_context(patch.dict(bitsandbytes.functional.name2qmap, clear=True))
        for target, name, value in (
            (torch.nn.functional, "scaled_dot_product_attention", fused_attention),
            (torch.nn.functional, "dropout", _dropout),
            (torch, "is_autocast_enabled", _autocast_enabled(torch.is_autocast_enabled)),
            (kernels, "_forward_kernel", NoKernel()),
            (kernels, "_backward_kernel", NoKernel()),
            (kernels, "triton", SimpleNamespace(cdiv=cdiv)),
            (kernels, "_use_triton", lambda device: True),
            (kernels, "_addmm_fp32", lambda total, left, right: None),
            (trl.trainer.utils, "_use_triton", lambda device: True),
            (transformers.masking_utils, "find_packed_sequence_indices", rows_of),
            (transformers.masking_utils, "is_tracing", lambda *tensors: False),
            (transformers.masking_utils, "fast_all", lambda mask: not told.padded),
        ):
            stack.enter_context(patch.object(target, name, value, create=True))
        yield


def _index(live: Liveness, source: torch.Tensor, indices: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """Selecting by a boolean mask gives as many rows as the mask is true: all of them at worst."""
    mask = indices[0]
    if mask is None or mask.dtype != torch.bool:
        return torch.ops.aten.index.Tensor(source, indices)
    return source.new_empty((mask.numel(), *source.shape[mask.ndim :]))


def _index_put(live: Liveness, target: torch.Tensor, indices: Any, values: torch.Tensor, *_rest: Any) -> torch.Tensor:
    """``index_backward`` writes into zeros of its own; only under tensor subclasses does it copy them first."""
    return target


def _look(live: Liveness, number: torch.Tensor) -> bool | int | float:
    """A number that the model's code looks at decides which way it goes: truth values are taken for false."""
    return number.dtype != torch.bool


def _softmax_backward(
    live: Liveness, gradient: torch.Tensor, output: torch.Tensor, dim: int, input_dtype: torch.dtype
) -> torch.Tensor:
    """``SoftMax.cu`` multiplies gradient and output into a tensor of its own before the kernel runs."""
    with live:
        result = torch.empty_like(output, dtype=input_dtype)
        torch.empty_like(output)
    return result


def _gemm_4bit(
    live: Liveness,
    rows: torch.Tensor,
    packed: torch.Tensor,
    shape: list[int],
    scales: torch.Tensor,
    blocksize: int,
    quant_type: str,
    bias: torch.Tensor | None = None,
    absmax_8bit: torch.Tensor | None = None,
    *_rest: Any,
) -> torch.Tensor:
    """``bitsandbytes/backends/cuda/ops.py``, ``_dequant_linear_fallback``: what runs beyond some hundred rows."""
    with live:
        held = [] if absmax_8bit is None else [torch.empty_like(absmax_8bit, dtype=torch.float32) for _ in range(2)]
        held.append(rows.new_empty(shape))
        return rows.new_empty((*rows.shape[:-1], shape[0]))


CUDA_OPERATIONS: Final[Mapping[Any, Callable[..., Any]]] = {
    torch.ops.aten.index.Tensor: _index,
    torch.ops.aten.index_put.default: _index_put,
    torch.ops.aten._local_scalar_dense.default: _look,
    torch.ops.aten._softmax_backward_data.default: _softmax_backward,
    torch.ops.bitsandbytes.gemm_4bit.default: _gemm_4bit,
}
"""What an operation gives or takes on the device where fake CPU tensors do not show it."""


def _autocast_enabled(original: Callable[..., bool]) -> Callable[..., bool]:
    """Without an argument torch means CUDA's state; peft asks it to decide whether to cast."""
    return lambda device_type="cpu": original(device_type)


def _dropout(values: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    """CUDA's fused kernel keeps the result and a boolean mask."""
    if not training or p == 0.0:
        return values
    return torch.native_dropout(values, p, True)[0]


@contextmanager
def _autocast_lists() -> Iterator[None]:
    """CUDA's autocast for CPU tensors: layer norms, softmax and powers, for example, then work in fp32."""
    library = torch.library.Library("aten", "IMPL")
    try:
        for names, wrapped in ((_FP32, _in_fp32), (_FP32_RESULT, _with_fp32_result)):
            for name in names:
                packet, _, overload = name.partition(".")
                operation = getattr(getattr(torch.ops.aten, packet), overload or "default")
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # overriding what is there is the purpose
                    library.impl(name, wrapped(operation), "AutocastCPU", allow_override=True)
        yield
    finally:
        library._destroy()


def _in_fp32(operation: Any) -> Callable[..., Any]:
    def cast(value: Any) -> Any:
        return value.float() if isinstance(value, torch.Tensor) and value.dtype in _LOWER else value

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
            return operation(*tree_map(cast, args), **tree_map(cast, kwargs))

    return kernel


def _with_fp32_result(operation: Any) -> Callable[..., Any]:
    position = [argument.name for argument in operation._schema.arguments].index("dtype")
    by_keyword = operation._schema.arguments[position].kwarg_only

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
            told = kwargs.get("dtype") is not None or (not by_keyword and len(args) > position and args[position])
            if args[0].dtype in _LOWER and not told:
                kwargs = {**kwargs, "dtype": torch.float32}
                args = args[:position] if not by_keyword else args
            return operation(*args, **kwargs)

    return kernel
