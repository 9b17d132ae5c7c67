"""What `lepton` shows of many texts on a terminal."""

from __future__ import annotations

import importlib.util

import pytest

from tests.integration.client.scripted import embeds_in_bulk
from tests.integration.client.terminal import on_terminal
from tests.integration.client.test_many_texts import classifies, reranks, scores, translates


@pytest.fixture(autouse=True)
def _able(daemon):
    daemon.behaviours |= {
        "EmbedStream": embeds_in_bulk("wrong"),
        "Classify": classifies,
        "Rerank": reranks,
        "Translate": translates,
        "Score": scores,
    }


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["embed", "abc"], ["dimensions", "3.0000 1.0000"]),
        (["classify", "a\x1b[31mgood"], ["score", "␛[31mgood", "1.0000"]),
        (["rerank", "query", "one", "two"], ["document", "two", "one"]),
        (["translate", "abc"], ["ABC"]),
        (["score", "abc"], ["perplexity", "-3.000"]),
    ],
)
def test_results_are_shown_to_people(daemon, tmp_path, words, shown):
    command, *rest = words
    with on_terminal(
        "--address", daemon.address, command, "-m", "toy", *rest, home=tmp_path
    ) as terminal:
        for text in shown:
            terminal.expect(text)
        assert terminal.ends() == 0
    assert b"\x1b[31mgood" not in terminal.raw


@pytest.mark.skipif(not importlib.util.find_spec("numpy"), reason="the light client has no numpy")
def test_a_bar_shows_how_far_a_file_is(daemon, tmp_path):
    source = tmp_path / "texts"
    source.write_text("abc\n" * 200 + "wrong\n")
    words = ["embed", "-m", "toy", "-i", str(source), "-o", str(tmp_path / "vectors.npy")]
    with on_terminal("--address", daemon.address, *words, home=tmp_path) as terminal:
        terminal.expect("201 texts")
        terminal.expect("lepton: 1 of 201 texts failed")
        assert terminal.ends() == 1


def test_texts_are_not_awaited_from_a_terminal(daemon, tmp_path):
    words = ["--address", daemon.address, "embed", "-m", "toy"]
    with on_terminal(*words, home=tmp_path) as terminal:
        terminal.expect("give texts as arguments")
        assert terminal.ends() == 2
