"""The bridge between worker threads and the event loop: the only place where the two meet."""

from __future__ import annotations

from leptond.streaming.blocking import BlockingPool
from leptond.streaming.bridge import LoopBridge
from leptond.streaming.futures import wait_future
from leptond.streaming.queue_sink import QueueSink
from leptond.streaming.sink import ResponseSink
from leptond.streaming.stream import ResponseStream

__all__ = [
    "BlockingPool",
    "LoopBridge",
    "QueueSink",
    "ResponseSink",
    "ResponseStream",
    "wait_future",
]
