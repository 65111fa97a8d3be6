"""What a merge left behind: its report, which stands beside the merged weights as ``merge.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from qlora_tui.runs.directory import RunDirectory

MERGE_FILE = "merge.json"
Method = Literal["standard", "exact"]
Verdict = Literal["faithful", "close", "different"]

FAITHFUL = (0.9, 0.01)
CLOSE = (0.8, 0.15)
"""Least agreement, and greatest mean KL in nats, of a merge that is called so. The KL decides: among a few dozen
positions there are ties, which any rounding turns over, and each costs some percent of agreement."""


class Fidelity(BaseModel):
    """How far the merged model, read back from the disk, answers as base and adapter did."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    rows: int
    positions: int
    """Tokens whose predictions were compared."""
    held_out: bool
    """Whether the rows are the run's held-out rows; else they are general prompts."""
    kl: float
    """Mean KL divergence of the merged model's next-token distribution from the adapter's, in nats."""
    kl_max: float
    agreement: float
    """Share of positions at which both find the same token likeliest."""
    loss_adapter: float
    loss_merged: float
    """Mean loss of the same tokens, in nats."""
    dtype: str
    """Arithmetic of both."""

    @property
    def verdict(self) -> Verdict:
        """The comparison in a word."""
        if self.agreement >= FAITHFUL[0] and self.kl <= FAITHFUL[1]:
            return "faithful"
        return "close" if self.agreement >= CLOSE[0] and self.kl <= CLOSE[1] else "different"


class MergeReport(BaseModel):
    """A merge that was done."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    output: str
    method: Method
    base: str
    dtype: str
    """Of the weights written."""
    size: int
    """Bytes of the weights."""
    seconds: float
    fidelity: Fidelity | None = None
    note: str = ""
    """Why something was not measured."""


def merge_folder(run: RunDirectory, method: Method) -> Path:
    """Where a merge of this run goes unless it is told otherwise."""
    return run.path / ("merged" if method == "standard" else "merged-exact")


def read_merge(folder: Path) -> MergeReport | None:
    """The report beside merged weights; None if there is none that can be read."""
    try:
        return MergeReport.model_validate_json((folder / MERGE_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def describe_fidelity(fidelity: Fidelity) -> list[str]:
    """The comparison in sentences, for people."""
    rows = "held-out rows" if fidelity.held_out else "general prompts"
    words = {
        "faithful": "The merged model answers as base and adapter did.",
        "close": "The merged model answers almost as base and adapter did.",
        "different": "The merged model answers differently from base and adapter.",
    }
    return [
        words[fidelity.verdict],
        f"same likeliest token at {fidelity.agreement:.2%} of {fidelity.positions:,} positions, {fidelity.rows} {rows}",
        f"mean KL divergence {fidelity.kl:.2g} nats, at most {fidelity.kl_max:.2g} (in {fidelity.dtype})",
        f"loss {fidelity.loss_adapter:.4f} with the adapter, {fidelity.loss_merged:.4f} merged",
    ]
