"""What is read of the processor."""

from __future__ import annotations

import os

import pytest

from leptond.backend import processor


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


def fake_cpus(home, cores):
    """A `/sys/devices/system/cpu` with processor i on core `cores[i]`; None hides it."""
    for cpu, core in enumerate(cores):
        topology = home / f"cpu{cpu}" / "topology"
        if core is not None:
            topology.mkdir(parents=True)
            (topology / "physical_package_id").write_text("0\n")
            (topology / "core_id").write_text(f"{core}\n")


@pytest.mark.parametrize(
    ("cores", "allowed", "expected"),
    [
        ([0, 1, 0, 1], {0, 1, 2, 3}, 2),  # two hyper-threads per core
        ([0, 1, 0, 1], {0, 2}, 1),  # both of one core
        ([0, 1, 2, 3], {1, 3}, 2),
        ([None, None], {0, 1}, 2),  # topology hidden
    ],
)
def test_only_cores_that_the_process_may_use_count(cores, allowed, expected, tmp_path, monkeypatch):
    fake_cpus(tmp_path, cores)
    monkeypatch.setattr(processor, "_CPUS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: allowed)
    assert processor.num_available_cores() == expected
