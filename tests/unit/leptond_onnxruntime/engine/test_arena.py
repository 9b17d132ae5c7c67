from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from leptond.memory import PAGE_BYTES
from leptond_onnxruntime.arena import ArenaLayout, HostArena
from leptond_onnxruntime.device import CudaArena

FACTS: dict[str, Any] = {
    "num_layers": 2,
    "num_slots": 3,
    "num_kv_heads": 3,
    "head_dim": 16,
    "dtype": np.dtype(np.float32),
}
LAYOUT = ArenaLayout.fitted(min_len=100, **FACTS)


class HostMemoryInPlaceOfCuda:
    """`StridedCopy` on addresses of this process."""

    def __init__(self):
        self.num_deferred = 0

    def copy(self, target, source, pitch, width, height):
        for line in range(height):
            ctypes.memmove(target + line * pitch, source + line * pitch, width)
        self.num_deferred += 1

    def wait(self):
        self.num_deferred = 0


def host_arena():
    return HostArena(LAYOUT)


def cuda_arena():
    memory = ort.OrtValue.ortvalue_from_shape_and_type([LAYOUT.num_bytes], np.uint8, "cpu", 0)
    return CudaArena(LAYOUT, memory, HostMemoryInPlaceOfCuda())


@pytest.fixture(params=[host_arena, cuda_arena])
def arena(request):
    arena = request.param()
    yield arena
    arena.close()


def slots_of(arena):
    """All of it as `[slab, slot, kv_head, position, element]`."""
    layout = arena.layout
    buffer = (ctypes.c_char * layout.num_bytes).from_address(arena.address)
    shape = (layout.num_slabs, *layout.shape(layout.num_slots))
    return np.frombuffer(buffer, layout.dtype).reshape(shape)


def test_slabs_are_whole_pages_and_no_longer_than_needed():
    assert LAYOUT.slab_bytes % PAGE_BYTES == 0
    assert 100 <= LAYOUT.max_len < 100 + PAGE_BYTES // LAYOUT.token_bytes
    exact = ArenaLayout.fitted(min_len=64, **FACTS)
    assert exact.max_len == 64


@pytest.mark.parametrize("head_dim", [16, 48, 64, 80, 96, 128])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_every_head_size_has_a_layout(head_dim, dtype):
    facts = {**FACTS, "head_dim": head_dim, "dtype": np.dtype(dtype)}
    layout = ArenaLayout.fitted(min_len=100, **facts)
    assert layout.slab_bytes % PAGE_BYTES == 0
    assert layout.max_len >= 100


def test_offsets_are_those_of_the_array(arena):
    slots = slots_of(arena)
    for slab in range(LAYOUT.num_slabs):
        for slot in range(LAYOUT.num_slots):
            expected = slots[slab, slot].ctypes.data - slots.ctypes.data
            assert LAYOUT.offset(slab, slot) == expected


def test_a_copy_takes_the_first_positions_of_every_slab_and_no_more(arena):
    slots = slots_of(arena)
    slots[:] = np.random.default_rng(0).standard_normal(slots.shape)
    before = slots.copy()
    arena.copy(0, 2, num_tokens=5)
    assert (slots[:, 2, :, :5] == before[:, 0, :, :5]).all()
    assert (slots[:, 2, :, 5:] == before[:, 2, :, 5:]).all()
    assert (slots[:, :2] == before[:, :2]).all()


def test_a_copy_of_nothing_changes_nothing(arena):
    slots = slots_of(arena)
    slots[:] = 1
    slots[:, 0] = 2
    arena.copy(0, 2, num_tokens=0)
    assert (slots[:, 2] == 1).all()


def test_copies_on_the_device_are_waited_for():
    runtime = HostMemoryInPlaceOfCuda()
    memory = ort.OrtValue.ortvalue_from_shape_and_type([LAYOUT.num_bytes], np.uint8, "cpu", 0)
    CudaArena(LAYOUT, memory, runtime).copy(0, 1, num_tokens=3)
    assert runtime.num_deferred == 0


def test_host_memory_is_resident_where_it_was_written_only():
    arena = host_arena()
    assert arena.resident_bytes() == 0
    slots = slots_of(arena)
    slots[:, 1, :, :4] = 1
    touched = arena.resident_bytes()
    assert touched == LAYOUT.num_slabs * LAYOUT.num_kv_heads * PAGE_BYTES
    arena.copy(1, 0, num_tokens=4)
    assert arena.resident_bytes() == 2 * touched
    arena.give_back(1)
    assert arena.resident_bytes() == touched
    assert (slots[:, 1] == 0).all()
    arena.close()
    assert arena.resident_bytes() == 0


def test_device_memory_is_resident_in_full_until_it_is_closed():
    arena = cuda_arena()
    arena.give_back(0)
    assert arena.resident_bytes() == LAYOUT.num_bytes
    arena.close()
    arena.close()
    assert arena.resident_bytes() == 0
