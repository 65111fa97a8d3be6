"""Recipes that the model or this machine cannot train."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from benchmarks.errors.case import ENVIRONMENT, OK, USAGE, Case, Prepare, with_sections
from benchmarks.errors.model_cases import with_settings
from benchmarks.errors.place import CannotStage, Place

PACKED = {"packing": True, "evaluation": {"fraction": 0}}


def without_package(package: str, **sections: Any) -> Prepare:
    """The config asks for what needs a package that is not installed."""

    def prepare(place: Place) -> Sequence[str]:
        if find_spec(package) is not None:
            raise CannotStage(f"{package} is installed here")
        return place.config(**sections)

    return prepare


RECIPE_CASES = (
    Case("recipe: layers the model lacks", with_sections(adapter={"target_modules": ["query"]}), USAGE,
         ("query", "adapter.target_modules", "all-linear"), full=True),
    Case("recipe: varlen on this machine", with_sections(training={"attention": "varlen"}, data=PACKED), OK, (),
         full=True),
    Case("recipe: varlen without packing",
         with_sections(training={"attention": "varlen"}, data={"packing": False}), USAGE,
         ("training.attention", "packing"), full=True),
    Case("recipe: varlen with adapter dropout",
         with_sections(training={"attention": "varlen"}, data=PACKED, adapter={"dropout": 0.1}), OK, (), full=True),
    Case("recipe: varlen with attention dropout",
         with_settings({"attention_dropout": 0.1}, training={"attention": "varlen"}, data=PACKED), USAGE,
         ("training.attention", "dropout"), full=True),
    Case("recipe: flash_attention_2 without its package",
         without_package("flash_attn", training={"attention": "flash_attention_2"}), ENVIRONMENT,
         ("flash", "training.attention"), full=True),
    Case("recipe: liger without its package", without_package("triton", training={"layer_kernels": "liger"}),
         ENVIRONMENT, ("training.layer_kernels",), full=True),
    Case("recipe: a tracker that is not installed", without_package("wandb", tracking={"report_to": "wandb"}),
         ENVIRONMENT, ("wandb", "install"), full=True),
)  # fmt: skip
