from __future__ import annotations

import ctypes
import errno
import gc
from pathlib import Path

import numpy as np
import pytest

from leptond.errors import InvariantViolation, MemoryBudgetExceeded
from leptond.memory import PAGE_BYTES, MappedRegion, region, round_up_to_page


@pytest.fixture
def four_pages():
    mapped = MappedRegion(4 * PAGE_BYTES)
    yield mapped
    mapped.close()


def fail_with(code: int):
    def call(*_):
        ctypes.set_errno(code)
        return -1

    return call


def is_mapped(address: int) -> bool:
    spans = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines()]
    bounds = [span.split("-") for span in spans]
    return any(int(low, 16) <= address < int(high, 16) for low, high in bounds)


def test_sizes_are_rounded_up_to_whole_pages():
    assert round_up_to_page(0) == 0
    assert round_up_to_page(1) == PAGE_BYTES
    assert round_up_to_page(PAGE_BYTES) == PAGE_BYTES
    assert MappedRegion(PAGE_BYTES + 1).num_bytes == 2 * PAGE_BYTES


def test_I1_a_fresh_region_costs_nothing_and_reads_as_zeros():
    mapped = MappedRegion(64 << 30)
    assert mapped.resident_bytes() == 0
    assert not mapped.array((8,), np.float32, offset=32 << 30).any()


def test_only_touched_pages_are_resident(four_pages):
    four_pages.array((1,), np.uint8, offset=PAGE_BYTES)[:] = 1
    four_pages.array((2,), np.uint8, offset=3 * PAGE_BYTES - 1)[:] = 1
    assert four_pages.resident_bytes() == 3 * PAGE_BYTES
    assert four_pages.resident_bytes(0, PAGE_BYTES) == 0
    assert four_pages.resident_bytes(PAGE_BYTES + 7, 1) == PAGE_BYTES
    assert four_pages.resident_bytes(2 * PAGE_BYTES) == 2 * PAGE_BYTES
    assert four_pages.resident_bytes(PAGE_BYTES, 0) == 0


def test_a_huge_page_is_never_made_for_a_few_bytes():
    mapped = MappedRegion(64 << 20)
    mapped.array((1,), np.uint8, offset=32 << 20)[:] = 1
    assert mapped.resident_bytes() == PAGE_BYTES


def test_resident_bytes_are_counted_over_more_pages_than_one_call_asks_for(monkeypatch):
    monkeypatch.setattr(region, "_MINCORE_CHUNK_PAGES", 3)
    mapped = MappedRegion(8 * PAGE_BYTES)
    for page in (0, 2, 3, 7):
        mapped.array((1,), np.uint8, offset=page * PAGE_BYTES)[:] = 1
    assert mapped.resident_bytes() == 4 * PAGE_BYTES


def test_an_array_has_the_shape_the_type_and_the_address_that_were_asked_for(four_pages):
    array = four_pages.array((2, 3, 5), np.float16, offset=PAGE_BYTES)
    assert (array.shape, array.dtype) == ((2, 3, 5), np.float16)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert array.ctypes.data == four_pages.address + PAGE_BYTES
    assert four_pages.address % PAGE_BYTES == 0


def test_arrays_over_the_same_bytes_see_each_other(four_pages):
    four_pages.array((4,), np.uint32)[:] = 0x01010101
    assert four_pages.array((16,), np.uint8).tolist() == [1] * 16


def test_I2_give_back_leaves_the_neighbours_on_shared_pages_alone(four_pages):
    everything = four_pages.array((four_pages.num_bytes,), np.uint8)
    everything[:] = 7
    given = four_pages.give_back(PAGE_BYTES - 10, 2 * PAGE_BYTES + 20)
    assert given == 2 * PAGE_BYTES
    assert four_pages.resident_bytes() == 2 * PAGE_BYTES
    assert (everything[:PAGE_BYTES] == 7).all()
    assert not everything[PAGE_BYTES : 3 * PAGE_BYTES].any()
    assert (everything[3 * PAGE_BYTES :] == 7).all()


@pytest.mark.parametrize("length", [0, 1, PAGE_BYTES - 1, 2 * PAGE_BYTES - 2])
def test_a_range_without_a_whole_page_gives_nothing_back(four_pages, length):
    four_pages.array((four_pages.num_bytes,), np.uint8)[:] = 1
    assert four_pages.give_back(1, length) == 0
    assert four_pages.resident_bytes() == 4 * PAGE_BYTES


def test_pages_that_were_given_back_can_be_written_again(four_pages):
    array = four_pages.array((4,), np.int64)
    array[:] = 3
    four_pages.give_back(0, PAGE_BYTES)
    array[:] = 5
    assert array.tolist() == [5] * 4
    assert four_pages.resident_bytes() == PAGE_BYTES


def test_I3_close_gives_the_pages_back_while_arrays_live_and_the_space_with_the_last(four_pages):
    address = four_pages.address
    array = four_pages.array((4,), np.int64)
    array[:] = 3
    four_pages.close()
    four_pages.close()
    assert four_pages.is_closed
    assert array.tolist() == [0] * 4
    assert is_mapped(address)
    del array
    gc.collect()
    assert not is_mapped(address)


@pytest.mark.parametrize(
    "use",
    [
        lambda mapped: mapped.address,
        lambda mapped: mapped.array((1,), np.uint8),
        lambda mapped: mapped.give_back(0, PAGE_BYTES),
        lambda mapped: mapped.resident_bytes(),
    ],
)
def test_a_closed_region_refuses_to_be_used(four_pages, use):
    four_pages.close()
    with pytest.raises(InvariantViolation, match="closed region"):
        use(four_pages)


@pytest.mark.parametrize(
    "use",
    [
        lambda mapped: mapped.array((4 * PAGE_BYTES + 1,), np.uint8),
        lambda mapped: mapped.array((1,), np.uint8, offset=-1),
        lambda mapped: mapped.give_back(PAGE_BYTES, 4 * PAGE_BYTES),
        lambda mapped: mapped.resident_bytes(0, -1),
        lambda mapped: mapped.resident_bytes(5 * PAGE_BYTES),
    ],
)
def test_a_range_beyond_the_region_is_refused(four_pages, use):
    with pytest.raises(InvariantViolation, match="of a region of"):
        use(four_pages)


def test_a_region_without_bytes_is_refused():
    with pytest.raises(InvariantViolation, match="a region of 0 bytes"):
        MappedRegion(0)


@pytest.mark.parametrize("num_bytes", [1 << 62, 1 << 70])
def test_more_address_space_than_there_is_exceeds_the_memory(num_bytes):
    with pytest.raises(MemoryBudgetExceeded, match="cannot map"):
        MappedRegion(num_bytes)


def test_a_kernel_without_huge_pages_will_do(monkeypatch):
    monkeypatch.setattr(region, "_MADVISE", fail_with(errno.EINVAL))
    assert MappedRegion(1).num_bytes == PAGE_BYTES


def test_what_the_kernel_refuses_is_told(four_pages, monkeypatch):
    monkeypatch.setattr(region, "_MINCORE", fail_with(errno.EFAULT))
    with pytest.raises(InvariantViolation, match="mincore failed: Bad address"):
        four_pages.resident_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(region, "_MADVISE", fail_with(errno.EINVAL))
        with pytest.raises(InvariantViolation, match=r"madvise.* failed: Invalid argument"):
            four_pages.give_back(0, PAGE_BYTES)
