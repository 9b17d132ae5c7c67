from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from leptond.memory import PAGE_BYTES, MappedRegion

NUM_PAGES = 6
NUM_BYTES = NUM_PAGES * PAGE_BYTES
OFFSETS = st.integers(0, NUM_BYTES)


@given(written=st.sets(st.integers(0, NUM_PAGES - 1)), ends=st.tuples(OFFSETS, OFFSETS).map(sorted))
def test_giving_back_any_range_frees_its_whole_pages_and_nothing_else(written, ends):
    start, end = ends
    region = MappedRegion(NUM_BYTES)
    pages = region.array((NUM_PAGES, PAGE_BYTES), np.uint8)
    for page in written:
        pages[page] = page + 1
    assert region.resident_bytes() == len(written) * PAGE_BYTES

    inside = {
        p for p in range(NUM_PAGES) if start <= p * PAGE_BYTES and (p + 1) * PAGE_BYTES <= end
    }
    assert region.give_back(start, end - start) == len(inside) * PAGE_BYTES
    assert region.resident_bytes() == len(written - inside) * PAGE_BYTES
    for page in range(NUM_PAGES):
        expected = page + 1 if page in written - inside else 0
        assert (pages[page] == expected).all()
    region.close()
