"""`docs/config.md` is what the schema says now."""

from __future__ import annotations

import runpy
from pathlib import Path

from qlora_tui.config_schema import setting_names

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "config.md"


def test_the_page_is_up_to_date() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "make_config_reference.py"))["reference"]()
    assert PAGE.read_text(encoding="utf-8") == made, "run: python scripts/make_config_reference.py"


def test_every_setting_has_a_row_with_its_description() -> None:
    rows = [line.split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    described = [cells[0].strip("|` ") for cells in rows if len(cells) == 4 and all(cell.strip("| ") for cell in cells)]
    # In the page a section's heading stands for the first part of the name.
    assert described == [name.split(".", 1)[-1] for name in setting_names(())]
