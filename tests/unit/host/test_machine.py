from __future__ import annotations

import os

import pytest

from leptond.host import available_cores, available_memory_bytes

GIB = 2**30


@pytest.fixture
def root(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 4194304 kB\n")
    return tmp_path


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def put(root, path, text):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(f"{text}\n")


def test_without_control_groups_all_of_the_affinity_counts(root):
    assert available_cores(root) == 8
    assert available_memory_bytes(root) == 4 * GIB


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 8), ("300000 100000", 3), ("150000 100000", 1), ("50000 100000", 1), ("x", 8)],
)
def test_a_quota_of_the_group_cuts_the_cores(root, quota, cores):
    put(root, "proc/self/cgroup", "0::/system.slice/leptond.service")
    put(root, "sys/fs/cgroup/system.slice/leptond.service/cpu.max", quota)
    assert available_cores(root) == cores


def test_the_smallest_quota_on_the_way_up_counts(root):
    put(root, "proc/self/cgroup", "0::/a/b")
    put(root, "sys/fs/cgroup/a/b/cpu.max", "600000 100000")
    put(root, "sys/fs/cgroup/a/cpu.max", "200000 100000")
    assert available_cores(root) == 2


def test_old_control_groups_count_too(root):
    put(root, "proc/self/cgroup", "3:cpu,cpuacct:/x\n2:memory:/x\n1:name=systemd:/")
    put(root, "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "400000")
    put(root, "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000")
    put(root, "sys/fs/cgroup/memory/x/memory.limit_in_bytes", str(2 * GIB))
    put(root, "sys/fs/cgroup/memory/x/memory.usage_in_bytes", str(GIB))
    assert available_cores(root) == 4
    assert available_memory_bytes(root) == GIB


def test_no_quota_in_old_control_groups_is_no_limit(root):
    put(root, "proc/self/cgroup", "3:cpu:/")
    put(root, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1")
    put(root, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
    assert available_cores(root) == 8


@pytest.mark.parametrize(
    ("limit", "used", "available"),
    [("max", "1", 4 * GIB), (str(2 * GIB), str(GIB // 2), 3 * GIB // 2), (str(GIB), "x", GIB),
     (str(GIB), str(2 * GIB), 0)],
)  # fmt: skip
def test_a_memory_limit_of_the_group_cuts_what_is_free(root, limit, used, available):
    put(root, "proc/self/cgroup", "0::/x")
    put(root, "sys/fs/cgroup/x/memory.max", limit)
    put(root, "sys/fs/cgroup/x/memory.current", used)
    assert available_memory_bytes(root) == available


def test_a_machine_that_hides_its_memory_is_an_error(root):
    (root / "proc/meminfo").write_text("MemTotal: 9 kB\n")
    with pytest.raises(OSError, match="has no MemAvailable"):
        available_memory_bytes(root)


def test_this_machine_can_be_read():
    assert available_cores() >= 1
    assert available_memory_bytes() > 0
