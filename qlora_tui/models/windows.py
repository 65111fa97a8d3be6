"""Which layers of a model look back only so far, and which rotate no positions."""

from __future__ import annotations

from qlora_tui.models.config_fields import Fields
from qlora_tui.models.layers import SlidingWindow
from qlora_tui.models.traits import Traits


def read_window(traits: Traits, fields: Fields, layers: int) -> SlidingWindow | None:
    if traits.window == "none":
        return None
    asked = traits.window in ("all", "pattern") or fields.flag("use_sliding_window")
    size = fields.optional_size("sliding_window") if asked else None
    if size is None:
        return None
    types = None if traits.window in ("all", "opted") else fields.items("layer_types", layers)
    if types is not None:
        chosen = [layer for layer, kind in enumerate(types) if kind == "sliding_attention"]
    else:
        chosen = [layer for layer in range(layers) if _slides(traits, fields, layers, layer)]
    return SlidingWindow(size, tuple(chosen)) if chosen else None


def _slides(traits: Traits, fields: Fields, layers: int, layer: int) -> bool:
    match traits.window:
        case "late":
            return layer >= fields.size("max_window_layers", minimum=0)
        case "early":
            return (layer + 1) % 2 == 1 and layer < fields.size("max_window_layers", minimum=0)
        case "pattern":
            # Only these two families ever wrote the pattern as a number into their configurations.
            own = traits.window_pattern in (4, 6) and fields.has("sliding_window_pattern")
            return (layer + 1) % (fields.size("sliding_window_pattern") if own else traits.window_pattern) != 0
        case "unrotated":
            return layer in _listed_unrotated(fields, layers)
        case _:
            return True


def read_unrotated(traits: Traits, fields: Fields, layers: int, window: SlidingWindow | None) -> tuple[int, ...]:
    if traits.unrotated == "listed":
        return _listed_unrotated(fields, layers)
    if traits.unrotated == "full":
        sliding = window.layers if window else ()
        return tuple(layer for layer in range(layers) if layer not in sliding)
    return ()


def _listed_unrotated(fields: Fields, layers: int) -> tuple[int, ...]:
    rotated = fields.items("no_rope_layers", layers)  # 1 where positions are rotated, despite its name
    if rotated is not None:
        return tuple(layer for layer, value in enumerate(rotated) if not value)
    interval = fields.size("no_rope_layer_interval")
    return tuple(layer for layer in range(layers) if (layer + 1) % interval == 0)
