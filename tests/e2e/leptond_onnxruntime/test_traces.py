"""The trace of a chat with the real model: its phases are those of a real engine."""

from __future__ import annotations

import pytest

from tests.e2e.tracing import check_streamed_chat, exporting_to
from tests.fixtures.chat_store import CHAT_MODEL
from tests.fixtures.otlp_receiver import otlp_receiver


@pytest.mark.timeout(300)  # the default model may have to be imported first
def test_a_collector_gets_the_whole_tree_of_a_streamed_chat(launch, connect, serve_chat):
    with otlp_receiver("grpc") as receiver:
        environ = exporting_to(receiver.endpoint, "grpc")
        daemon = launch(*serve_chat, environ=environ).wait_ready()
        check_streamed_chat(daemon, connect(daemon.address), receiver, CHAT_MODEL)
