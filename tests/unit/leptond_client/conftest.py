"""What the tests of the client need beside the client."""

from __future__ import annotations

import importlib.util

# The light client is tested where numpy is not installed, too.
collect_ignore = [] if importlib.util.find_spec("numpy") else ["test_vectors.py"]
