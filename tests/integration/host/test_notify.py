"""Messages to the service manager, on real sockets."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Iterator
from itertools import count

import pytest

from leptond.host import Notifier, keep_watchdog


class Manager:
    """A service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.settimeout(10)

    def receive(self) -> str:
        return self._socket.recv(4096).decode()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path) -> Iterator[Manager]:
    name = f"@leptond-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "s")
    made = Manager(name)
    yield made
    made.close()


def test_every_message_follows_the_protocol(manager):
    notifier = Notifier(manager.address)
    assert notifier.is_heard
    for send, message in [
        (lambda: notifier.ready("serving 2 models"), "READY=1\nSTATUS=serving 2 models"),
        (notifier.ready, "READY=1"),
        (lambda: notifier.status("loading"), "STATUS=loading"),
        (lambda: notifier.stopping("draining"), "STOPPING=1\nSTATUS=draining"),
        (notifier.watchdog, "WATCHDOG=1"),
        (lambda: notifier.main_pid(4242), "MAINPID=4242"),
        (lambda: notifier.extend_timeout(2.5), "EXTEND_TIMEOUT_USEC=2500000"),
    ]:
        assert send()
        assert manager.receive() == message
    assert notifier.reloading()
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", manager.receive())


def test_a_status_cannot_carry_another_assignment(manager):
    Notifier(manager.address).status("one\nSTOPPING=1\r\n two " + "x" * 5_000)
    message = manager.receive()
    assert message.startswith("STATUS=one STOPPING=1 two xxx")
    assert len(message) < 600


def test_without_a_service_manager_nothing_is_sent():
    notifier = Notifier("")
    assert not notifier.is_heard
    assert not notifier.ready()


def test_an_empty_status_is_no_message(manager):
    assert not Notifier(manager.address).status("  ")


def test_a_service_manager_that_went_away_stops_nobody(tmp_path, caplog):
    assert not Notifier(str(tmp_path / "gone")).ready()
    assert "service manager not told message='READY=1'" in caplog.text


def test_a_healthy_daemon_gives_signs_of_life_and_a_sick_one_none(manager, caplog):
    health = {3: False, 4: False, 6: False}
    num_looks = count(1)
    done = asyncio.Event()

    def is_healthy() -> bool:
        look = next(num_looks)
        if look == 7:
            done.set()
        return health.get(look, True)

    async def main() -> None:
        task = asyncio.create_task(keep_watchdog(Notifier(manager.address), 0.001, is_healthy))
        await asyncio.wait_for(done.wait(), 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    assert [manager.receive() for _ in range(4)] == ["WATCHDOG=1"] * 4
    silences = [r.getMessage() for r in caplog.records if "watchdog silent" in r.getMessage()]
    assert len(silences) == 2
