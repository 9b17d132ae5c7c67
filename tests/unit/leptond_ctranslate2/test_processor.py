from __future__ import annotations

import os

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


@pytest.fixture
def cpuinfo(tmp_path, monkeypatch):
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(processor, "_CPUINFO", path)
    return path


def test_an_x86_processor_is_read(cpuinfo):
    cpuinfo.write_text("model name\t: A CPU\nflags\t\t: sse avx2 avx512_vnni\nmodel name\t: B\n")
    assert processor.cpu_model() == "A CPU"
    assert processor.instruction_sets() == ("avx2", "avx512_vnni")


def test_an_arm_processor_is_read(cpuinfo):
    cpuinfo.write_text("Features\t: fp asimd i8mm\n")
    assert processor.cpu_model() == ""
    assert processor.instruction_sets() == ("asimd", "i8mm")


def test_a_system_without_the_file_is_unknown(cpuinfo):
    assert processor.cpu_model() == ""
    assert processor.instruction_sets() == ()


def test_hyper_threads_of_a_core_count_once(tmp_path, monkeypatch):
    monkeypatch.setattr(processor, "_CPUS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    for cpu in (0, 1, 2):
        topology = tmp_path / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text("0\n")
        (topology / "core_id").write_text(f"{cpu // 2}\n")
    assert processor.num_available_cores() == 3  # 0 with 1, 2, and 3 of which nothing is known
