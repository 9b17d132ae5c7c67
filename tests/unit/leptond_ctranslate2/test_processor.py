from __future__ import annotations

import pytest

from leptond_ctranslate2 import processor


@pytest.mark.parametrize(
    ("sets", "limit"),
    [
        (("avx", "avx2", "fma"), 64),
        (("avx", "avx2", "avx512bw", "avx512f"), 64),
        (("avx", "avx2", "avx_vnni"), 127),
        (("avx", "avx2", "avx512_vnni", "avx512f"), 127),
        (("amx_int8", "avx", "avx2", "avx512f"), 127),
        (("asimd", "asimddp"), 127),
        ((), 127),
    ],
)
def test_I1_full_range_bytes_need_vnni_on_x86(sets, limit):
    assert processor.safe_int8_limit(sets) == limit


def test_I1_two_products_with_the_reduced_range_fit_sixteen_bits():
    assert 2 * 255 * processor.safe_int8_limit(("avx2",)) < 2**15
