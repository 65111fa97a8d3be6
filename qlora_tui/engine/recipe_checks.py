"""Recipes that this machine or this model cannot run, refused with words before the time is spent."""

from __future__ import annotations

from typing import Any

from qlora_tui.config import RunConfig
from qlora_tui.engine.attention import supports_varlen
from qlora_tui.engine.kernels import layer_kernels_available
from qlora_tui.errors import ConfigError, EnvironmentFault


def check_model_supports(config: RunConfig, model_config: Any) -> None:
    """Refuse demands that the loaded model cannot meet; ``data.packing`` must be decided already.

    Raises:
        ConfigError: if variable-length attention is demanded where it would be wrong.
        EnvironmentFault: if layer kernels are demanded that cannot run here.
    """
    if config.training.attention == "varlen":
        why = _against_varlen(config, model_config)
        if why:
            raise ConfigError(
                "The run cannot use variable-length attention.",
                f"training.attention is varlen, and {why}.",
                "Set training.attention: auto, which takes varlen wherever it is right.",
            )
    if config.training.layer_kernels == "liger" and not layer_kernels_available(model_config.model_type):
        raise EnvironmentFault(
            "The run cannot use the layer kernels that it asks for.",
            "training.layer_kernels is liger, and liger-kernel cannot be used here or does not know "
            f"the family {model_config.model_type}.",
            "Set training.layer_kernels: auto, or on a CUDA machine install `pip install 'qlora-tui[liger]'`.",
        )


def _against_varlen(config: RunConfig, model_config: Any) -> str | None:
    if config.data.packing is not True:
        return "data.packing is off; it takes packed rows only"
    if not supports_varlen(model_config):
        return f"this model ({model_config.model_type}) has attention dropout, windows or capping, which it lacks"
    return None


def position_warning(config: RunConfig, model_config: Any) -> str | None:
    """A sentence if rows may be longer than the model has positions for, else None."""
    positions = getattr(model_config, "max_position_embeddings", None)
    if not isinstance(positions, int) or config.data.max_length <= positions:
        return None
    return (
        f"data.max_length is {config.data.max_length} tokens, and this model was made for {positions}; "
        "rows beyond that teach positions that it has never seen."
    )
