"""``qlora-tui estimate``: the fit of a recipe, without torch and without a download."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from qlora_tui.config import RunConfig
from qlora_tui.errors import ModelError, UsageError
from qlora_tui.located import located
from qlora_tui.memory.answer import Answer, answer_of
from qlora_tui.memory.settings import Rows, sample_of_lengths
from qlora_tui.models.known import known_model
from qlora_tui.recipe_options import Overrides, device_for, recipe_of


def estimate(config: Path | None, overrides: Overrides, *, gpu: str | None, as_json: bool, exact: bool = False) -> str:
    """The estimate of a config file, or of a recipe made of options: a table, or one JSON object.

    Raises:
        QloraError: if config, model or card cannot be used.
    """
    if config is None and overrides.model is None:
        raise UsageError(
            "There is nothing to estimate.",
            "Neither a config nor a model is given.",
            "Add --config run.yaml, or --model with a hub id or a folder.",
        )
    answer = estimate_of(recipe_of(config, overrides), config, gpu=gpu, exact=exact)
    if as_json:
        return json.dumps(answer.as_values(), ensure_ascii=False)
    from qlora_tui.terminal.fit_table import fit_table

    return fit_table(answer)


def estimate_of(config: RunConfig, path: Path | None, *, gpu: str | None, exact: bool = False) -> Answer:
    """The estimate of a recipe on a card of this machine, or on another kind of card.

    Args:
        path: Where the config comes from: relative paths are looked for beside it too.
        gpu: A card or an amount of memory; None for this machine.
        exact: Whether to run a step of the real libraries dry.
    """
    beside = (path.absolute() if path is not None else Path.cwd() / "config").parent
    source = located(config.model.source, beside, ModelError, ())
    model = replace(known_model(config.model.model_copy(update={"source": source})), id=config.model.source)
    device, told = device_for(gpu)
    rows = rough_rows(config, beside) if path is not None else Rows()
    if not exact:
        return answer_of(model, config, device, rows, told=told)
    from qlora_tui.memory.exact import exact_fit

    return answer_of(model, config, device, rows, told=told, exactly=exact_fit)


def rough_rows(config: RunConfig, beside: Path) -> Rows:
    """What the size of a local data file tells of its rows; nothing if there is no such file."""
    from qlora_tui.data.rough import rough_lengths

    lengths = rough_lengths(config, beside)
    if not lengths:
        return Rows()
    from qlora_tui.advice.playbook import wants_packing

    longest = config.data.max_length
    packed = config.data.packing if config.data.packing != "auto" else wants_packing(lengths, longest)[0]
    tokens = sum(lengths)
    return Rows(
        packed=packed,
        row=max(1, round(sum(length * length for length in lengths) / tokens)) if packed else None,
        sequences=max(1, -(-tokens // longest)) if packed else len(lengths),
        tokens=tokens,
        lengths=() if packed else sample_of_lengths(lengths),
    )
