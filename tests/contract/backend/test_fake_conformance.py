from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from leptond.backend import BatchRow, SessionKind
from leptond.backend.conformance import (
    BatchSessionConformance,
    BatchTensorConformance,
    StepSessionConformance,
)
from leptond.backend.fake import FakeModel, FakeOptions


class TestFakeStepSession(StepSessionConformance):
    @pytest.fixture
    def model(self):
        model = FakeModel(FakeOptions(slots=4))
        yield model
        model.close()


class ModestModel(FakeModel):
    """Promises as little as it can; the suite then asks for less."""

    @property
    def capabilities(self):
        return replace(
            super().capabilities, is_deterministic=False, is_streaming=False, is_cancellable=False
        )


class TestModestStepSession(StepSessionConformance):
    num_slots = 3

    @pytest.fixture
    def model(self):
        model = ModestModel()
        yield model
        model.close()


class TestStepSessionWithATolerance(StepSessionConformance):
    logit_tolerance = 0.0

    @pytest.fixture
    def model(self):
        model = FakeModel()
        yield model
        model.close()


class TestFakeTranslator(BatchSessionConformance):
    @pytest.fixture
    def model(self):
        model = FakeModel(FakeOptions(SessionKind.BATCH))
        yield model
        model.close()


class TestFakeEncoder(BatchTensorConformance):
    @pytest.fixture
    def model(self):
        model = FakeModel(FakeOptions(SessionKind.BATCH))
        yield model
        model.close()

    def rows(self, model):
        return [BatchRow(row.token_ids, options={"task": "embed"}) for row in super().rows(model)]


class TestModestEncoder(TestFakeEncoder):
    @pytest.fixture
    def model(self):
        model = ModestModel(FakeOptions(SessionKind.BATCH))
        yield model
        model.close()


class TestFakeTensorModel(BatchTensorConformance):
    @pytest.fixture
    def model(self):
        model = FakeModel(FakeOptions(SessionKind.BATCH))
        yield model
        model.close()

    def rows(self, model):
        return [
            BatchRow(tensors={"x": np.full((2, n), n, np.float32), "n": np.array(n)})
            for n in (1, 2, 5)
        ]

    def bad_row(self, model):
        return BatchRow(tensors={"x": np.array(["text"])})
