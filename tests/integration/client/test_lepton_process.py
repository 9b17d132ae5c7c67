"""The `lepton` command as a process, and on a terminal."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import threading

import grpc
import pytest

from leptond.v1 import generation_pb2
from tests.integration.client.scripted import (
    GENERATIVE,
    PATIENCE_S,
    answers,
    commit,
    lists,
    model,
    never_answers,
    pieces,
    refuse,
    streams,
    waits_until_cancelled,
)
from tests.integration.client.terminal import LEPTON, environment, on_terminal
from tests.integration.client.test_lepton import loads_in_two_steps

PROMPT = "> "


@pytest.fixture
def lepton(daemon, tmp_path):
    """Start `lepton` with pipes; the test communicates with it."""
    started = []

    def start(*words: str | bytes) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [LEPTON, "--address", daemon.address, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(tmp_path),
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def chat(daemon, tmp_path):
    """A conversation on a terminal, at its first prompt."""
    with on_terminal("--address", daemon.address, "chat", "-m", "toy", home=tmp_path) as terminal:
        terminal.expect(PROMPT)
        yield terminal


# -------------------------------------------------------------------------------------- in a pipe
def test_it_works_as_a_process(daemon, lepton):
    daemon.behaviours["Generate"] = answers("hello")
    process = lepton("generate", "-m", "toy", "--json")
    out, err = process.communicate("Once upon\n", PATIENCE_S)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["text"] == "hello"
    assert daemon.requests("Generate")[0].input.text == "Once upon"


def test_bytes_that_are_no_text_are_refused_in_one_line(lepton):
    process = lepton("generate", "-m", "toy", b"caf\xe9")
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert err.splitlines()[-1] == "Error: Invalid value for '[PROMPT]': it is not valid UTF-8"


def test_an_output_that_lacks_characters_shows_others(daemon, tmp_path):
    daemon.behaviours["GenerateStream"] = streams("Grüße")
    run = subprocess.run(
        [LEPTON, "--address", daemon.address, "generate", "-m", "toy", "hi"],
        env={**environment(tmp_path), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert (run.stdout, run.stderr) == (b"Gr??e\n", b"")


def test_ctrl_c_cancels_a_stream(daemon, lepton):
    gone = threading.Event()
    daemon.behaviours["GenerateStream"] = waits_until_cancelled(gone)
    process = lepton("generate", "-m", "toy", "hi")
    assert process.stdout.read(len("first")) == "first"
    process.send_signal(signal.SIGINT)
    assert gone.wait(PATIENCE_S)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (130, "\n", "lepton: interrupted\n")


def test_ctrl_c_cancels_a_call(daemon, lepton):
    gone = threading.Event()
    daemon.behaviours["Generate"] = never_answers(gone)
    process = lepton("generate", "-m", "toy", "--json", "hi")
    assert daemon.arrived.wait(PATIENCE_S)
    process.send_signal(signal.SIGINT)
    assert gone.wait(PATIENCE_S)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (130, "lepton: interrupted\n")


def test_a_closed_output_ends_it_quietly_and_cancels(daemon, lepton):
    gone = threading.Event()

    def behave(request, context):
        if not context.add_callback(gone.set):
            gone.set()
        commit(context)
        while not gone.is_set():
            yield generation_pb2.GenerateStreamResponse(chunk=pieces("more")[0].chunk)

    daemon.behaviours["GenerateStream"] = behave
    process = lepton("generate", "-m", "toy", "hi")
    assert process.stdout.read(4) == "more"
    process.stdout.close()
    assert gone.wait(PATIENCE_S)
    assert process.wait(PATIENCE_S) == 1
    assert process.stderr.read() == ""


# ---------------------------------------------------------------------------------- on a terminal
def test_an_answer_cannot_drive_the_terminal(daemon, tmp_path):
    daemon.behaviours["GenerateStream"] = streams("red \x1b[31m", "title \x1b]0;x\x07", "\x9b2J\r!")
    words = ("--address", daemon.address, "generate", "-m", "toy", "hi")
    with on_terminal(*words, home=tmp_path) as terminal:
        assert terminal.ends() == 0
    assert "red ␛[31mtitle ␛]0;x␇\ufffd2J!".encode() in terminal.raw
    answer = terminal.raw.partition(b"!")[0]
    assert b"\x1b" not in answer
    assert b"\x07" not in answer


def test_an_answer_is_followed_by_what_it_cost(daemon, tmp_path):
    daemon.behaviours["GenerateStream"] = streams("Once ", "upon")
    words = ("--address", daemon.address, "generate", "-m", "toy", "hi")
    with on_terminal(*words, home=tmp_path) as terminal:
        terminal.expect("Once upon\n")
        terminal.expect("9 tokens · 16.0 tokens/s · first token after 0.12 s")
        assert terminal.ends() == 0


def test_a_load_shows_its_progress(daemon, tmp_path):
    daemon.behaviours["LoadModel"] = loads_in_two_steps
    words = ("--address", daemon.address, "models", "load", "toy")
    with on_terminal(*words, home=tmp_path) as terminal:
        terminal.expect("━")
        terminal.expect("toy:fake is ready")
        assert terminal.ends() == 0


def test_models_are_a_table(daemon, tmp_path):
    daemon.behaviours["ListModels"] = lists(model("toy", *GENERATIVE), model("[red]b", *GENERATIVE))
    words = ("--address", daemon.address, "models", "list")
    with on_terminal(*words, home=tmp_path) as terminal:
        terminal.expect("model")
        terminal.expect("toy:fake")
        terminal.expect("[red]b:fake")
        assert terminal.ends() == 0


def test_a_chat_remembers_what_was_said(daemon, chat):
    daemon.behaviours["ChatStream"] = streams("Good ", "day.")
    chat.type("Hello\n")
    chat.expect("Good day.")
    chat.expect("tokens/s")
    chat.expect(PROMPT)
    chat.type("And you?\n")
    chat.expect("Good day.")
    chat.expect(PROMPT)
    chat.type("\x04")
    assert chat.ends() == 0
    messages = daemon.requests("ChatStream")[1].input.messages
    said = [message.content[0].text for message in messages]
    assert said == ["Hello", "Good day.", "And you?"]


def test_ctrl_c_cancels_the_request_and_not_the_chat(daemon, chat):
    gone = threading.Event()
    daemon.behaviours["ChatStream"] = waits_until_cancelled(gone)
    chat.type("Hello\n")
    chat.expect("first")
    chat.interrupt()
    assert gone.wait(PATIENCE_S)
    chat.expect("stopped")
    chat.expect(PROMPT)
    daemon.behaviours["ChatStream"] = streams("Good ", "day.")
    chat.type("Again\n")
    chat.expect("Good day.")
    chat.expect(PROMPT)
    chat.type("/quit\n")
    assert chat.ends() == 0
    said = [message.content[0].text for message in daemon.requests("ChatStream")[1].input.messages]
    assert said == ["Hello", "first", "Again"]


def test_ctrl_c_twice_at_the_prompt_leaves(chat):
    chat.interrupt_prompt("Ctrl-C again, or Ctrl-D, leaves")
    chat.interrupt_prompt("lepton: interrupted")
    assert chat.ends() == 130


def test_a_chat_survives_an_error(daemon, chat):
    daemon.behaviours["ChatStream"] = lambda request, context: refuse(
        context, grpc.StatusCode.INVALID_ARGUMENT, "too long"
    )
    chat.type("Hello\n")
    chat.expect("lepton: too long (INVALID_ARGUMENT")
    chat.expect(PROMPT)
    daemon.behaviours["ChatStream"] = streams("Good ", "day.")
    chat.type("Shorter\n")
    chat.expect("Good day.")
    chat.expect(PROMPT)
    chat.type("/quit\n")
    assert chat.ends() == 0
    assert len(daemon.requests("ChatStream")[1].input.messages) == 1


def test_a_text_of_several_lines_is_one_message(daemon, chat):
    daemon.behaviours["ChatStream"] = streams("yes")
    chat.type('"""one\n')
    chat.expect("… ")
    chat.type('two"""\n')
    chat.expect("yes")
    chat.expect(PROMPT)
    chat.type("one\\\n")
    chat.expect("… ")
    chat.type("two\n")
    chat.expect("yes")
    chat.expect(PROMPT)
    chat.type("/quit\n")
    assert chat.ends() == 0
    for request in daemon.requests("ChatStream"):
        assert request.input.messages[-1].content[0].text == "one\ntwo"


def test_the_lines_of_a_chat_are_kept_for_the_next(daemon, chat, tmp_path):
    daemon.behaviours["ChatStream"] = streams("yes")
    chat.type("Hello\n")
    chat.expect("yes")
    chat.expect(PROMPT)
    chat.type("/quit\n")
    assert chat.ends() == 0
    history = tmp_path / "lepton" / "history"
    assert history.read_text() == "Hello\n/quit\n"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    with on_terminal("--address", daemon.address, "chat", "-m", "toy", home=tmp_path) as again:
        again.expect(PROMPT)
        again.type("\x1b[A\x1b[A\n")  # twice up
        again.expect("yes")
        again.expect(PROMPT)
        again.type("\x04")
        assert again.ends() == 0
    said = daemon.requests("ChatStream")[1].input.messages[0].content[0].text
    assert said == "Hello"
