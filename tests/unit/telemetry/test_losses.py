from __future__ import annotations

import logging

import pytest

from leptond.telemetry.losses import SpanLosses


@pytest.fixture
def now() -> list[float]:
    return [100.0]


@pytest.fixture
def losses(now) -> SpanLosses:
    return SpanLosses(clock=lambda: now[0])


def test_losses_are_counted_by_reason(losses):
    losses.add("queue_full", 1)
    losses.add("queue_full", 2)
    losses.add("export_failed", 4)
    assert losses.counts == {"queue_full": 3, "export_failed": 4}


def test_nothing_lost_is_nothing_told(losses, caplog):
    losses.report()
    losses.report(is_last=True)
    assert caplog.records == []


def test_losses_are_told_once_a_minute(losses, now, caplog):
    caplog.set_level(logging.WARNING)
    losses.add("queue_full", 5)
    losses.report()
    losses.add("export_failed", 2)
    now[0] += 59.0
    losses.report()
    assert [r.getMessage() for r in caplog.records] == [
        "spans lost num_spans=5 total=5 queue_full=5"
    ]
    now[0] += 1.0
    losses.report()
    losses.report()
    assert [r.getMessage() for r in caplog.records][1:] == [
        "spans lost num_spans=2 total=7 queue_full=5 export_failed=2"
    ]


def test_the_last_report_does_not_wait(losses, caplog):
    losses.add("queue_full", 1)
    losses.report()
    losses.add("shut_down", 1)
    losses.report(is_last=True)
    assert len(caplog.records) == 2
