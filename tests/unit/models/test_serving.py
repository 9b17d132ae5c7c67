"""The loader with the fake engine: what it promises is what the scheduler takes."""

from __future__ import annotations

import pytest

from leptond.backend.fake import FakeOptions
from leptond.backend.registry import get_backend
from leptond.daemon import fake_variant
from leptond.memory import MemoryBudget
from leptond.models import LoaderOptions, ModelLoader, ModelSizes
from leptond.scheduler import ComputeBudget


def make_loader(sizes):
    return ModelLoader(
        LoaderOptions(sizes_of=lambda name: sizes),
        budget=MemoryBudget(1 << 30),
        compute=ComputeBudget(1),
        flush=lambda: None,
        find_backend=get_backend,
    )


@pytest.mark.parametrize(
    ("max_context_tokens", "kv_share", "expected"), [(0, 1.0, 256), (100, 1.0, 100), (0, 0.25, 64)]
)
def test_the_context_is_what_model_configuration_and_memory_allow(
    tmp_path, max_context_tokens, kv_share, expected
):
    variant = fake_variant("toy", FakeOptions(context=256), tmp_path)
    slot_bytes = make_loader(ModelSizes()).estimate(variant).slot_bytes
    sizes = ModelSizes(
        max_context_tokens=max_context_tokens, kv_bytes=int(slot_bytes * kv_share), num_slots=4
    )
    loader = make_loader(sizes)
    assert loader.plan(variant).max_context_tokens == expected
    model = loader.load(variant, lambda stage, fraction: None, lambda error: None)
    try:
        assert model.max_context_tokens == expected == model.scheduler.max_context_tokens
        assert model.reserved_bytes == loader.plan(variant).needed_bytes
    finally:
        model.close()
