from __future__ import annotations

import asyncio
import logging
import os
import signal

import pytest
import uvloop

from leptond.host import StopSignals


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request):
    with asyncio.Runner(loop_factory=request.param) as made:
        yield made


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_stops_and_the_second_forces(runner, number, caplog):
    async def main() -> None:
        async with StopSignals() as signals:
            states = [(signals.is_stopping, signals.is_forced)]
            send(number)
            await asyncio.wait_for(signals.wait(), 10)
            states.append((signals.is_stopping, signals.is_forced))
            send(signal.SIGTERM)
            await asyncio.wait_for(signals.wait_forced(), 10)
            states.append((signals.is_stopping, signals.is_forced))
            assert states == [(False, False), (True, False), (True, True)]

    caplog.set_level(logging.INFO)
    runner.run(main())
    assert [r.getMessage() for r in caplog.records if r.name == "leptond.host.signals"] == [
        f"signal, stopping signal={number.name}",
        "signal again, not waiting any longer signal=SIGTERM",
    ]


def test_a_hangup_does_not_kill_the_daemon(runner, caplog):
    async def main() -> None:
        async with StopSignals() as signals:
            send(signal.SIGHUP)
            send(signal.SIGTERM)
            await asyncio.wait_for(signals.wait(), 10)
            assert not signals.is_forced

    runner.run(main())
    assert "signal ignored signal=SIGHUP" in caplog.text


def test_the_signals_are_given_back(runner):
    async def main() -> None:
        async with StopSignals():
            assert signal.getsignal(signal.SIGTERM) is not before

    before = signal.getsignal(signal.SIGTERM)
    runner.run(main())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
