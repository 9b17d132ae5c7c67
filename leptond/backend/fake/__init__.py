"""The deterministic fake engine: what clients and the scheduler are tested with.

It keeps slots, takes time and fails like a real one, and answers in readable pseudo-words that
depend on every token of a row. Built in under the name `fake`; `leptond serve --fake-model` too.
"""

from __future__ import annotations

from leptond.backend.fake.assets import CHAT_TEMPLATE, write_fake_assets, write_fake_options
from leptond.backend.fake.batch_session import EMBEDDING_DIMENSIONS, FakeBatchSession
from leptond.backend.fake.engine import FakeBackend, FakeModel, fake_source
from leptond.backend.fake.language import (
    END_OF_TEXT,
    END_OF_TURN,
    START_OF_TURN,
    VOCAB_SIZE,
    FakeLanguage,
    TokenHistory,
    expected_tokens,
)
from leptond.backend.fake.options import FakeOptions, parse_fake_model
from leptond.backend.fake.runtime import FakeRuntime, Sleep
from leptond.backend.fake.step_session import TOKEN_BYTES, FakeStepSession

__all__ = [
    "CHAT_TEMPLATE",
    "EMBEDDING_DIMENSIONS",
    "END_OF_TEXT",
    "END_OF_TURN",
    "START_OF_TURN",
    "TOKEN_BYTES",
    "VOCAB_SIZE",
    "FakeBackend",
    "FakeBatchSession",
    "FakeLanguage",
    "FakeModel",
    "FakeOptions",
    "FakeRuntime",
    "FakeStepSession",
    "Sleep",
    "TokenHistory",
    "backend",
    "expected_tokens",
    "fake_source",
    "parse_fake_model",
    "write_fake_assets",
    "write_fake_options",
]

backend = FakeBackend()
"""The plug-in: what the registry finds under the name `fake`."""
