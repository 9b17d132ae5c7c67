from __future__ import annotations

import os
from pathlib import Path

import pytest

from leptond.host import AddressInUse, AddressLock
from leptond.host.locks import lock_path


def test_a_held_address_names_its_holder(tmp_path):
    with AddressLock.acquire(tmp_path, "127.0.0.1:8600") as lock:
        assert lock.path == tmp_path / "127.0.0.1:8600.lock"
        assert lock.path.read_text() == f"{os.getpid()}\n"
        with pytest.raises(AddressInUse) as caught:
            AddressLock.acquire(tmp_path, "127.0.0.1:8600")
    assert caught.value.pid == os.getpid()
    assert str(caught.value).startswith(
        f"127.0.0.1:8600 is already served by process {os.getpid()} (lock file "
    )


def test_addresses_do_not_get_in_each_other_s_way(tmp_path):
    with (
        AddressLock.acquire(tmp_path, "127.0.0.1:8600"),
        AddressLock.acquire(tmp_path, "127.0.0.1:8601"),
        AddressLock.acquire(tmp_path, "unix:/run/leptond/leptond.sock"),
    ):
        assert len(list(tmp_path.iterdir())) == 3


def test_a_released_address_leaves_nothing_and_can_be_taken_again(tmp_path):
    lock = AddressLock.acquire(tmp_path, "a:1")
    lock.release()
    lock.release()
    assert list(tmp_path.iterdir()) == []
    AddressLock.acquire(tmp_path, "a:1").release()


def test_a_file_that_was_left_behind_is_no_obstacle(tmp_path):
    lock_path(tmp_path, "a:1").write_text("123456789 and what a longer line left\n")
    with AddressLock.acquire(tmp_path, "a:1") as lock:
        assert lock.path.read_text() == f"{os.getpid()}\n"


def test_a_holder_that_has_not_written_its_pid_is_unnamed(tmp_path):
    with AddressLock.acquire(tmp_path, "a:1") as lock:
        lock.path.write_text("")
        with pytest.raises(AddressInUse, match="by another process"):
            AddressLock.acquire(tmp_path, "a:1")


@pytest.mark.parametrize("appears_again", [True, False])
def test_a_lock_whose_name_went_away_meanwhile_is_taken_anew(tmp_path, monkeypatch, appears_again):
    path = lock_path(tmp_path, "a:1")
    real_open = os.open  # the race: between our open and our lock the holder releases
    first: list[int] = []

    def opening(name, *arguments):
        descriptor = real_open(name, *arguments)
        if not first:
            first.append(descriptor)
            path.unlink()
            if appears_again:
                path.write_text("other\n")
        return descriptor

    monkeypatch.setattr(os, "open", opening)
    with AddressLock.acquire(tmp_path, "a:1") as lock:
        assert lock.path.read_text() == f"{os.getpid()}\n"


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path):
    target = tmp_path / "target"
    lock_path(tmp_path, "a:1").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        AddressLock.acquire(tmp_path, "a:1")
    assert not target.exists()


def test_a_missing_directory_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        AddressLock.acquire(tmp_path / "none", "a:1")


def test_every_address_has_a_file_of_its_own():
    addresses = ["unix:/a/b", "unix:/a%2Fb", "unix:/a%252Fb", "[::1]:1"]
    paths = {lock_path(Path("/r"), address) for address in addresses}
    assert len(paths) == 4
    assert all(path.parent == Path("/r") for path in paths)
