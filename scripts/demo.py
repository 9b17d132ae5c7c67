"""The shortest way to see leptond at work: one real answer, streamed over gRPC.

Called by `make demo`, and with `--import-only` by `make serve`. Imports the default chat model if
the store lacks it, starts `leptond serve` on a free port, streams one answer with `leptond_client`,
prints what was measured, and stops the daemon with SIGTERM. Everything goes through the commands
and the client that users have.
"""

from __future__ import annotations

import argparse
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from leptond_client import Client, LeptonError, ServingStatus

LEPTOND = Path(sys.executable).parent / "leptond"
SOURCE = "default:chat"
QUESTION = "Explain in three sentences why the sky is blue."
MAX_TOKENS = 128
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0


class DemoFailed(Exception):
    """The demonstration cannot go on; the message says why."""


def import_model(store: Path, model: str) -> None:
    """Import the default chat model as `model`, if the store has none of that name."""
    if (store / model / "model.toml").is_file():
        return
    print(f"Importing {SOURCE} into {store} (once) ...", flush=True)
    command = [str(LEPTOND), "import", SOURCE, "--store", str(store), "--name", model]
    if subprocess.run(command, check=False).returncode:
        raise DemoFailed(f"'leptond import {SOURCE}' failed")


@contextmanager
def served(store: Path, model: str) -> Iterator[str]:
    """Run the daemon with the model loaded; give its address, and stop it in the end."""
    command = [str(LEPTOND), "serve", "--store", str(store), "--preload", model]
    command += ["--listen", "127.0.0.1:0"]
    with tempfile.TemporaryFile("w+") as log:
        daemon = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            yield read_address(daemon, log)
        finally:
            code = stop(daemon)
    if code:
        raise DemoFailed(f"the daemon stopped with exit code {code}")
    print("The daemon was told to stop and ended cleanly.")


def read_address(daemon: subprocess.Popen[str], log: IO[str]) -> str:
    """Return the address that the daemon prints once it accepts connections."""
    output = daemon.stdout
    if output is None or not select.select([output], [], [], START_TIMEOUT_S)[0]:
        raise DemoFailed(f"the daemon printed no address within {START_TIMEOUT_S:g} s")
    line = output.readline().strip()
    if not re.fullmatch(r"127\.0\.0\.1:\d+", line):
        daemon.wait(STOP_TIMEOUT_S)
        log.seek(0)
        raise DemoFailed(f"the daemon did not start:\n{log.read() or line}")
    return line


def stop(daemon: subprocess.Popen[str]) -> int:
    """Tell the daemon to stop, as a service manager would, and return its exit code."""
    daemon.send_signal(signal.SIGTERM)
    try:
        daemon.communicate(timeout=STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.communicate()
        raise DemoFailed(f"the daemon did not stop within {STOP_TIMEOUT_S:g} s") from None
    return daemon.returncode


def ask(address: str, model: str) -> None:
    """Stream one answer to the terminal and print what it took."""
    with Client(address, timeout=START_TIMEOUT_S) as client:
        for status in client.watch():  # the model is loaded once the whole daemon serves
            if status is ServingStatus.SERVING:
                break
        print(f"Serving {model} on {address}\n\n> {QUESTION}\n", flush=True)
        started_at = time.monotonic()
        first_at: float | None = None
        stream = client.chat_stream(
            model,
            [{"role": "user", "content": QUESTION}],
            max_tokens=MAX_TOKENS,
            temperature=0.0,
        )
        for delta in stream:
            first_at = first_at or time.monotonic()
            print(delta.text, end="", flush=True)
        ended_at = time.monotonic()
    num_tokens = stream.result.usage.completion_tokens
    if first_at is None or ended_at == first_at:
        raise DemoFailed("the answer was not a stream of tokens")
    print(
        f"\n\ntime to first token {1e3 * (first_at - started_at):.0f} ms, "
        f"{(num_tokens - 1) / (ended_at - first_at):.0f} tokens/s "
        f"({num_tokens} tokens, {stream.result.usage.prompt_tokens} in the prompt)"
    )


def how_to_go_on() -> str:
    """Return what a newcomer may want to type next."""
    lepton = LEPTOND.with_name("lepton")
    if lepton.is_relative_to(Path.cwd()):
        lepton = lepton.relative_to(Path.cwd())
    return f"Next: 'make serve' keeps it running; '{lepton} chat' in another terminal talks to it."


def main() -> int:
    """Import, serve, ask; return 0 when all of it worked."""
    parser = argparse.ArgumentParser(description="Stream one real answer from a leptond daemon.")
    parser.add_argument("--store", type=Path, required=True, help="directory of models")
    parser.add_argument("--model", required=True, help="its name in the store")
    parser.add_argument("--import-only", action="store_true", help="do not start the daemon")
    options = parser.parse_args()
    try:
        import_model(options.store, options.model)
        if not options.import_only:
            with served(options.store, options.model) as address:
                ask(address, options.model)
            print(how_to_go_on())
    except (DemoFailed, LeptonError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
