from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from leptond.config.reference import render_reference

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_reference_is_up_to_date():
    """`python -m leptond.config.reference > docs/configuration.md` makes it so."""
    assert PAGE.read_text(encoding="utf-8") == render_reference()


def test_the_module_writes_the_reference():
    command = [sys.executable, "-m", "leptond.config.reference"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == render_reference()
