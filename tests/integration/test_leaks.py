"""The leak check of this tier finds what it is for."""

from __future__ import annotations

import socket
import threading

from tests.leaks import Belongings


def test_nothing_new_is_no_leak():
    before = Belongings.now()
    with socket.socket():
        pass
    assert before.left_behind() is None


def test_an_open_socket_is_a_leak():
    before = Belongings.now()
    with socket.socket() as held:
        left = before.left_behind(patience_s=0)
        assert left is not None
        assert str(held.fileno()) in left
        assert "socket:" in left


def test_a_running_thread_is_a_leak():
    before = Belongings.now()
    may_end = threading.Event()
    thread = threading.Thread(target=may_end.wait, name="forgotten")
    thread.start()
    try:
        left = before.left_behind(patience_s=0)
        assert left is not None
        assert "forgotten" in left
    finally:
        may_end.set()
        thread.join()
