"""The engine's exceptions as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from leptond.errors import BackendCrashed, BackendFault

__all__ = ["engine_errors"]


@contextmanager
def engine_errors() -> Iterator[None]:
    """Turn the engine's exceptions into ours.

    The engine keeps nothing between calls, so a failed call leaves it as it was; but after a CUDA
    failure other than a lack of memory, every later call fails.
    """
    try:
        yield
    except (RuntimeError, ValueError, IndexError, MemoryError) as error:
        message = f"CTranslate2 failed: {error}"
        if "CUDA" in str(error) and "out of memory" not in str(error):
            raise BackendCrashed(message) from error
        raise BackendFault(message) from error
