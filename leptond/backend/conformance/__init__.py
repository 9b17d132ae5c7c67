"""A pytest suite that any plug-in runs against itself; it needs pytest and the plug-in's engine.

    @pytest.fixture(scope="module")
    def model():
        model = backend.load(ModelSource(directory, "float32"), lambda stage, fraction: None)
        yield model
        model.close()

    class TestMyEngine(StepSessionConformance):
        num_slots = 8

Engines of whole calls take `BatchSessionConformance`, or `BatchTensorConformance` when they answer
with tensors. What the suite needs to be told stands in the attributes of its classes.
"""

from __future__ import annotations

import pytest

# Before the modules are imported: a failing assert then shows its values.
for _module in ("batch", "comparing", "step_answers", "step_picks", "step_requests", "step_slots"):
    pytest.register_assert_rewrite(f"{__name__}.{_module}")

from leptond.backend.conformance.batch import (  # noqa: E402 - see above
    BatchSessionConformance,
    BatchTensorConformance,
)
from leptond.backend.conformance.step import StepSessionConformance  # noqa: E402 - see above

__all__ = ["BatchSessionConformance", "BatchTensorConformance", "StepSessionConformance"]
