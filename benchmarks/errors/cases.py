"""All cases, part by part."""

from __future__ import annotations

from benchmarks.errors.case import Case
from benchmarks.errors.config_cases import CONFIG_CASES
from benchmarks.errors.data_cases import DATA_CASES
from benchmarks.errors.estimate_cases import ESTIMATE_CASES
from benchmarks.errors.model_cases import MODEL_CASES
from benchmarks.errors.recipe_cases import RECIPE_CASES
from benchmarks.errors.run_cases import RUN_CASES

ALL_CASES: tuple[Case, ...] = (
    *CONFIG_CASES,
    *MODEL_CASES,
    *DATA_CASES,
    *RECIPE_CASES,
    *RUN_CASES,
    *ESTIMATE_CASES,
)
