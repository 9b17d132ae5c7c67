"""`python -m leptond` is the `leptond` command."""

from __future__ import annotations

from leptond.cli import main

main()
