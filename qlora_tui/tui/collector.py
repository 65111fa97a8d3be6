"""Keeps the garbage collector from standing in the way of a key.

A full collection looks at everything that is alive: modules, stylesheets, widgets. That takes longer than drawing does,
and it comes every few seconds, for each picture makes many short-lived objects. So objects get more time to go by
themselves before they are looked at; and what a screen has loaded once it is open stays, so it is looked through once
and then left alone: collections after that see only what came since.
"""

from __future__ import annotations

import gc

from textual._styles_cache import StylesCache

SETTLE_SECONDS = 1.0
"""After a screen has opened: by then it has loaded what it needs."""
YOUNG_OBJECTS = 5_000
"""New objects until they are looked at; a picture makes thousands, which go with the next one."""


def relax() -> None:
    """Collect less often than the interpreter does by itself."""
    gc.set_threshold(YOUNG_OBJECTS)


def settle() -> None:
    """Let go of what the screens before have left, and set what is alive now apart from later collections."""
    # This cache holds the pictures of widgets that are gone, up to 1,024 of them: Textualize/textual issue 6665.
    StylesCache.get_inner_outer.cache_clear()
    gc.unfreeze()
    gc.collect()
    gc.freeze()
