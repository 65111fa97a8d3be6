"""Inputs of an estimate besides the model: the recipe in numbers, the dtype regime, the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

MIB: Final = 1 << 20
GIB: Final = 1 << 30

Quantization = Literal["nf4", "fp4", "none"]
Checkpointing = Literal["full", "every-2", "none"]
Attention = Literal["varlen", "sdpa", "eager", "flash_attention_2"]
LayerKernels = Literal["liger", "none"]
Optimizer = Literal["adamw", "adamw_8bit", "paged_adamw_8bit"]
LossPath = Literal["fused", "full", "full_kept", "full_shifted"]


@dataclass(frozen=True, slots=True)
class Regime:
    """Bytes per element of what the dtype of loading decides.

    Attributes:
        residual: Residual stream and whatever the norms give out.
        norm: Norm weights.
        embedding: Embedding and head.
        quantised_from: Dtype the 4-bit weights were made from; the backward pass dequantises to it.
        adapter: Adapter weights and their gradients.
        float16: The 16 bits are fp16's; bytes are the same but in eager attention.
    """

    residual: Literal[2, 4] = 2
    norm: Literal[2, 4] = 2
    embedding: Literal[2, 4] = 2
    quantised_from: Literal[2, 4] = 2
    adapter: Literal[2, 4] = 2
    float16: bool = False


SIXTEEN_BIT: Final = Regime()
"""Explicit 16-bit dtype on load, adapter cast to 16 bits: what this program pins for a quantised base."""
LORA_ON_SIXTEEN_BIT: Final = Regime(adapter=4)
"""A base without quantisation: peft keeps the adapter in fp32 and trl does not cast it."""
SCALED_FP16: Final = Regime(adapter=4, float16=True)
"""Cards without bf16: the gradient scaler needs the adapter in fp32."""
ALL_FP32: Final = Regime(residual=4, norm=4, embedding=4, quantised_from=4, adapter=4)
"""What a processor trains in."""
UNSPECIFIED: Final = Regime(residual=4, norm=4, embedding=4, quantised_from=4)
"""trl given a model id and no dtype: it loads in fp32 and quantises from that."""
PREPARED: Final = Regime(residual=4, norm=4, embedding=4, adapter=4)
"""peft's ``prepare_model_for_kbit_training``: everything that is not 4-bit is cast to fp32."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What of a run decides its memory and speed, every choice made.

    Attributes:
        micro_batch: Rows on the device at once.
        sequence: Tokens of the longest row after truncation; every row of a padded batch takes that much.
        packed: Rows are packed and the micro-batch is one row of ``micro_batch * sequence`` tokens.
        padded: Some batches hold padding, so sdpa needs a mask.
        accumulation: Micro-batches per update.
        targets: Names of the adapted matrices; None adapts all of them.
        embedding_gradient: The embeddings' output requires a gradient even without checkpoints, as in a process that
            trained the same model with checkpoints before.
        fused_adapters: A quantised matrix and its adapter are one operation while training, instead of peft's several.
        repeats_heads: Under sdpa, keys and values are repeated for all query heads: no kernel of the card shares them.
    """

    micro_batch: int
    sequence: int
    rank: int = 16
    accumulation: int = 1
    packed: bool = False
    padded: bool = False
    targets: frozenset[str] | None = None
    dropout: float = 0.0
    quantization: Quantization = "nf4"
    double_quant: bool = True
    checkpointing: Checkpointing = "full"
    attention: Attention = "sdpa"
    repeats_heads: bool = False
    embedding_gradient: bool = False
    layer_kernels: LayerKernels = "none"
    fused_adapters: bool = False
    optimizer: Optimizer = "paged_adamw_8bit"
    loss: LossPath = "fused"
    regime: Regime = SIXTEEN_BIT

    @property
    def tokens(self) -> int:
        """Tokens of one micro-batch, padding included."""
        return self.micro_batch * self.sequence


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What of the device enters the sum, in bytes.

    Attributes:
        free: Free memory now, None if unknown.
        context: CUDA context and libraries of one process; 0.5 GiB until this machine has been measured.
        workspace: cuBLAS buffers of one process.
        expandable_segments: torch's allocator setting of that name, which this program switches on.
        in_ram: There is no GPU: tensors are in the memory of the machine, which the C library hands out.
    """

    free: int | None = None
    context: int = GIB // 2
    workspace: int = 2 * 8_519_680
    expandable_segments: bool = True
    in_ram: bool = False

    @staticmethod
    def workspace_of(capability: tuple[int, int]) -> int:
        """cuBLAS buffers in bytes: one per thread that multiplies, the main one and autograd's.

        PyTorch takes 32 MiB each on Hopper and 8.125 MiB elsewhere (``CUDABlas.cpp``, ``parseChosenWorkspaceSize``).
        The H100 rows agree with twice 32 MiB to 2 MiB at the peak.
        """
        return 2 * 32 * MIB if capability[0] == 9 else 2 * 8_519_680
