"""The default chat model in every precision, loaded once per test session."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cache

import pytest

from leptond.backend import ModelSource
from leptond.models.store import Store
from leptond_onnxruntime.importer import Precision
from leptond_onnxruntime.model import OnnxModel
from tests.fixtures.chat_store import CHAT_MODEL


@pytest.fixture(scope="session")
def find_variant(default_chat_store) -> Callable[[Precision], ModelSource]:
    """Where the model of a precision lies; imports it unless it is there."""

    def found(precision: Precision) -> ModelSource:
        default_chat_store.variant(precision)
        stored = Store([default_chat_store.directory]).find(CHAT_MODEL)
        assert stored is not None
        return ModelSource(stored.variants[precision].directory, precision)

    return found


@pytest.fixture(scope="session")
def load_model(find_variant) -> Iterator[Callable[[Precision], OnnxModel]]:
    """The model of a precision, loaded."""
    models = []

    @cache
    def loaded(precision: Precision) -> OnnxModel:
        models.append(OnnxModel.load(find_variant(precision), lambda stage, share: None))
        return models[-1]

    yield loaded
    for model in models:
        model.close()


@pytest.fixture
def report(capsys) -> Callable[[str], None]:
    """Print a line although the test passes."""

    def printed(line: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n  {line}")

    return printed
