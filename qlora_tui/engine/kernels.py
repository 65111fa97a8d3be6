"""Whether fused layer kernels exist for a model family here."""

from __future__ import annotations


def layer_kernels_available(model_type: str) -> bool:
    """Whether liger-kernel is installed, usable, and patches this family's layers."""
    try:
        from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN
    except ImportError:
        return False
    return model_type in MODEL_TYPE_TO_APPLY_LIGER_FN
