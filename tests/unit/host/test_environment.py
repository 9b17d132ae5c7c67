from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from leptond.host import HostEnvironment, UnsafeDirectory


def read(**environ: str) -> HostEnvironment:
    return HostEnvironment.read(environ)


@pytest.mark.parametrize(
    ("environ", "directory"),
    [
        ({"RUNTIME_DIRECTORY": "/run/leptond", "XDG_RUNTIME_DIR": "/run/user/1"}, "/run/leptond"),
        ({"RUNTIME_DIRECTORY": "/run/a:/run/b"}, "/run/a"),
        ({"XDG_RUNTIME_DIR": "/run/user/1"}, "/run/user/1/leptond"),
        ({}, f"{tempfile.gettempdir()}/leptond-{os.geteuid()}"),
    ],
)
def test_the_runtime_directory_comes_from_systemd_then_xdg(environ, directory):
    assert read(**environ).runtime_directory == Path(directory)


@pytest.mark.parametrize(
    ("environ", "directory", "origin"),
    [
        (
            {"STATE_DIRECTORY": "/var/lib/leptond:/x", "XDG_DATA_HOME": "/d"},
            "/var/lib/leptond",
            "STATE_DIRECTORY",
        ),
        ({"XDG_DATA_HOME": "/d"}, "/d/leptond", "XDG_DATA_HOME"),
        ({"HOME": "/home/you"}, "/home/you/.local/share/leptond", ""),
    ],
)
def test_the_state_directory_comes_from_systemd_then_xdg_then_home(environ, directory, origin):
    environment = read(**environ)
    assert environment.state_directory == Path(directory)
    assert environment.state_origin == origin


def test_without_a_home_the_account_s_own_is_taken():
    assert read().state_directory.parts[-3:] == (".local", "share", "leptond")


def test_the_process_s_own_environment_is_the_default(monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    assert HostEnvironment.read().notify_socket == "/run/x"


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_wants_a_sign_twice_per_limit(environ, interval_s):
    assert read(**environ).watchdog_interval_s == interval_s


def test_the_journal_is_known_by_its_stream(tmp_path):
    with (tmp_path / "journal").open("w") as stream:
        status = os.fstat(stream.fileno())
        environment = read(JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}")
        assert environment.is_journal(stream.fileno())
        assert not read().is_journal(stream.fileno())
        assert not read(JOURNAL_STREAM="1:1").is_journal(stream.fileno())
        closed = stream.fileno()
    assert not environment.is_journal(closed)


def test_the_runtime_directory_is_made_for_us_alone(tmp_path):
    environment = read(XDG_RUNTIME_DIR=str(tmp_path / "deep"))
    directory = environment.make_runtime_directory()
    assert directory == tmp_path / "deep" / "leptond"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert environment.make_runtime_directory() == directory


def test_a_runtime_directory_that_anybody_may_write_to_is_refused(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(UnsafeDirectory, match="anybody may write"):
        read(RUNTIME_DIRECTORY=str(tmp_path)).make_runtime_directory()


def test_a_link_is_no_runtime_directory(tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    link = tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(UnsafeDirectory, match="is not a directory"):
        read(RUNTIME_DIRECTORY=str(link)).make_runtime_directory()


def test_a_runtime_directory_of_somebody_else_is_refused(tmp_path, monkeypatch):
    owner = tmp_path.stat().st_uid
    if owner == 0:
        os.chown(tmp_path, 12345, -1)
        owner = 12345
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(UnsafeDirectory, match=f"belongs to user {owner}"):
        read(RUNTIME_DIRECTORY=str(tmp_path)).make_runtime_directory()
