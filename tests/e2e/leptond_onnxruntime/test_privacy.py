"""Nothing leaves the machine by itself, not from the engine's own libraries either."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.calls import ids_of, prompt, text_generation
from tests.fixtures.chat_store import CHAT_MODEL


@pytest.mark.timeout(300)  # the default model may have to be imported first
def test_the_engine_neither_calls_its_maker_nor_keeps_a_file_for_it(
    launch, connect, serve_chat, tmp_path
):
    home = tmp_path / "home"
    home.mkdir()
    daemon = launch(*serve_chat, environ={"HOME": str(home)}).wait_ready()
    with_a_call = text_generation(connect(daemon.address)).GenerateStream(
        prompt("Hello", model=CHAT_MODEL)
    )
    assert ids_of(with_a_call)
    assert daemon.num_tcp_sockets == 2  # it listens, and this test is connected
    targets = {str(entry.readlink()) for entry in Path(f"/proc/{daemon.pid}/fd").iterdir()}
    assert not any(target.startswith(str(home)) for target in targets)
    assert daemon.stop() == 0
    assert list(home.iterdir()) == []
