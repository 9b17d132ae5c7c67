"""What makes mutants: sessions broken on purpose, which the conformance suite must catch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from leptond.backend import SessionKind
from leptond.backend.fake import FakeBatchSession, FakeModel, FakeOptions, FakeRuntime

MUTANTS: dict[str, tuple[type, str]] = {}
"""By name: the class, and the name of the test of the suite that has to fail for it."""


def caught_by(test: str) -> Callable[[type], type]:
    """Enter the class among the mutants."""

    def register(session_class):
        MUTANTS[session_class.__name__] = (session_class, test)
        return session_class

    return register


class ModelOf(FakeModel):
    """A fake model whose sessions are of a broken class."""

    def __init__(self, session_class):
        is_batch = issubclass(session_class, FakeBatchSession)
        super().__init__(FakeOptions(SessionKind.BATCH if is_batch else SessionKind.STEP, slots=4))
        self._session_class = session_class

    @property
    def capabilities(self):
        return replace(super().capabilities, **getattr(self._session_class, "declared", {}))

    def open_session(self, options):
        runtime = FakeRuntime(self.options, time.sleep)
        if self.options.kind is SessionKind.STEP:
            return self._session_class(self._language, runtime, options)
        return self._session_class(
            self._language, runtime, max_rows=4, max_tokens=options.max_tokens
        )
