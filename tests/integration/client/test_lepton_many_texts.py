"""`lepton embed`, `classify`, `rerank`, `translate` and `score` in a pipe."""

from __future__ import annotations

import json
import sys

import grpc
import numpy as np
import pytest

from leptond.v1 import model_pb2
from tests.integration.client.scripted import embeds_in_bulk, lists, model, refuse
from tests.integration.client.test_many_texts import (
    classifies,
    embeds,
    reranks,
    scores,
    translates,
)

TASKS = (
    model_pb2.TASK_EMBED,
    model_pb2.TASK_CLASSIFY,
    model_pb2.TASK_RERANK,
    model_pb2.TASK_TRANSLATE,
    model_pb2.TASK_SCORE,
)


@pytest.fixture(autouse=True)
def _able(daemon):
    daemon.behaviours |= {
        "ListModels": lists(model("toy", *TASKS)),
        "Embed": embeds,
        "EmbedStream": embeds_in_bulk("wrong"),
        "Classify": classifies,
        "Rerank": reranks,
        "Translate": translates,
        "Score": scores,
    }


def objects(ended):
    return [json.loads(line) for line in ended.out.splitlines()]


# ----------------------------------------------------------------------------------------- embed
def test_vectors_of_arguments_are_json_lines(lepton):
    ended = lepton("embed", "a", "bcd")
    assert ended.code == 0
    assert objects(ended) == [
        {"line": 1, "embedding": [1.0, 1.0], "num_tokens": 1},
        {"line": 2, "embedding": [3.0, 1.0], "num_tokens": 3},
    ]


def test_standard_input_has_a_text_per_line(lepton):
    ended = lepton("embed", stdin=b"a\n\nbc\r\nlast")
    assert [found["embedding"][0] for found in objects(ended)] == [1.0, 0.0, 2.0, 4.0]


def test_a_file_can_hold_json_lines(lepton, tmp_path):
    source = tmp_path / "texts"
    source.write_text('{"id": 1, "body": "abc"}\n{"body": "d"}\n')
    ended = lepton("embed", "--input", str(source), "--json-lines", "body")
    assert [found["embedding"][0] for found in objects(ended)] == [3.0, 1.0]


def test_texts_can_end_with_zero_bytes(lepton):
    ended = lepton("embed", "--null", stdin=b"a\nb\0cdef\0g")
    assert [found["embedding"][0] for found in objects(ended)] == [3.0, 4.0, 1.0]


def test_options_arrive(daemon, lepton):
    words = ["--normalize", "--prompt-name", "query", "--dimensions", "2", "--truncate", "right"]
    setups = []

    def remember(given, context):
        first, *rest = given
        setups.append(first.setup)
        return embeds_in_bulk()(iter([first, *rest]), context)

    daemon.behaviours["EmbedStream"] = remember
    assert lepton("embed", "-m", "other", *words, "--element-type", "int8", "a").code == 0
    (setup,) = setups
    assert (setup.model, setup.embedding.prompt_name, setup.embedding.dimensions) == (
        "other",
        "query",
        2,
    )
    assert setup.embedding.normalize
    assert setup.embedding.HasField("truncation")


def test_one_bad_line_is_named_and_does_not_end_the_rest(lepton):
    ended = lepton("embed", stdin=b"a\n\xff\nwrong\nbc\n")
    assert ended.code == 1
    first, second, third, last = objects(ended)
    assert (first["line"], last["line"], last["embedding"][0]) == (1, 4, 2.0)
    assert (second["line"], third["line"]) == (2, 3)
    assert "UTF-8" in second["error"]
    assert "wrong is wrong" in third["error"]
    told = ended.err.splitlines()
    assert told[0].startswith("lepton: line 2: ")
    assert told[1].startswith("lepton: line 3: ")
    assert told[2] == "lepton: 2 of 4 texts failed"


def test_bad_lines_at_the_end_are_named_too(lepton):
    ended = lepton("embed", "--json-lines", "t", stdin=b'{"t": "a"}\n{"u": "b"}\nnothing\n')
    assert ended.code == 1
    assert [found.get("error", "")[:11] for found in objects(ended)] == [
        "",
        "it is no JS",
        "it is no JS",
    ]


def test_vectors_become_an_npy_file_with_a_row_per_line(lepton, tmp_path):
    path = tmp_path / "vectors.npy"
    lines = [b"x" * length for length in range(1, 200)]
    lines[100] = b"\xff"
    ended = lepton("embed", "--output", str(path), "--batch-size", "16", stdin=b"\n".join(lines))
    assert (ended.code, ended.out) == (1, "")
    found = np.load(path)
    assert (found.dtype, found.shape) == (np.float32, (199, 2))
    assert found[100].tolist() == [0.0, 0.0]
    assert np.delete(found[:, 0], 100).tolist() == [n for n in range(1, 200) if n != 101]


def test_a_file_that_cannot_be_written_is_named(lepton, tmp_path):
    ended = lepton("embed", "--output", str(tmp_path / "none" / "x.npy"), "a")
    assert ended.code == 1
    assert "none/x.npy" in ended.err


def test_without_numpy_only_files_of_it_cannot_be_written(lepton, monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "leptond_client.arrays", raising=False)
    monkeypatch.setitem(sys.modules, "numpy", None)
    ended = lepton("embed", "--output", str(tmp_path / "x.npy"), "a")
    assert ended.code == 2
    assert "--output needs numpy: install leptond[numpy]" in ended.err
    assert objects(lepton("embed", "a"))[0]["embedding"] == [1.0, 1.0]


def test_texts_come_from_one_place(lepton):
    ended = lepton("embed", "--input", "-", "a")
    assert ended.code == 2
    assert "not both" in ended.err


def test_stored_numbers_need_a_file(lepton):
    assert lepton("embed", "--as-stored", "a").code == 2


def test_ctrl_c_says_how_far_it_came(daemon, lepton, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("leptond_client.cli.embedding.print_json", interrupt)
    ended = lepton("embed", "a")
    assert (ended.code, ended.err) == (130, "lepton: interrupted after 0 texts\n")


# -------------------------------------------------------------------------------------- the others
def test_labels_are_json_lines(daemon, lepton):
    ended = lepton("classify", "--top-k", "1", stdin=b"good\nbad\n")
    assert [(found["line"], found["labels"][0]["label"]) for found in objects(ended)] == [
        (1, "good"),
        (2, "bad"),
    ]
    assert daemon.requests("Classify")[0].top_k == 1


def test_pairs_are_separated_by_tabs(daemon, lepton):
    assert lepton("classify", "--pairs", stdin=b"a\tb\n").code == 0
    (given,) = daemon.requests("Classify")[0].inputs
    assert (given.text, given.text_pair) == ("a", "b")
    ended = lepton("classify", "--pairs", stdin=b"a\tb\nc\n")
    assert ended.code == 2
    assert "line 2" in ended.err


def test_documents_come_best_first(lepton):
    ended = lepton("rerank", "query", stdin=b"a\nb\n")
    assert [(found["line"], found["document"]) for found in objects(ended)] == [(2, "b"), (1, "a")]


def test_translations_are_json_lines_or_plain(lepton):
    ended = lepton("translate", "-s", "de", "-t", "en", stdin=b"a\nb\n")
    assert [(found["line"], found["text"]) for found in objects(ended)] == [(1, "A"), (2, "B")]
    assert lepton("translate", "--plain", stdin=b"a\nb\n").out == "A\nB\n"
    assert lepton("translate", "--plain", "--json", "a").code == 2


def test_many_lines_are_several_calls_in_their_order(daemon, lepton):
    lines = [f"text {number}" for number in range(150)]
    ended = lepton("translate", "--plain", stdin="\n".join(lines).encode())
    assert ended.out.splitlines() == [line.upper() for line in lines]
    assert [len(one.inputs) for one in daemon.requests("Translate")] == [64, 64, 22]


def test_scores_are_json_lines(daemon, lepton):
    ended = lepton("score", "--prompt", "before", stdin=b"ab\n")
    (found,) = objects(ended)
    assert (found["line"], found["logprob"], found["num_tokens"]) == (1, -2.0, 1)
    assert found["perplexity"] == pytest.approx(np.exp(2.0))
    (given,) = daemon.requests("Score")[0].inputs
    assert given.prompt.text == "before"


def test_an_error_names_the_line(daemon, lepton):
    daemon.behaviours["Classify"] = lambda request, context: refuse(
        context, grpc.StatusCode.INVALID_ARGUMENT, "too long", field_path="inputs[1].text"
    )
    ended = lepton("classify", stdin=b"a\nb\n")
    assert ended.code == 1
    assert ended.err.startswith("lepton: line 2: too long (INVALID_ARGUMENT")


@pytest.mark.parametrize("command", ["classify", "translate", "score"])
def test_no_texts_are_a_wrong_command_line(lepton, command):
    ended = lepton(command)
    assert ended.code == 2
    assert "there are no texts" in ended.err
