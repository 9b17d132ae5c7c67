"""The `lepton` command in a pipe: what it prints, and its exit codes."""

from __future__ import annotations

import threading

import grpc
import pytest

from leptond.v1 import (
    common_pb2,
    generation_pb2,
    logprobs_pb2,
    management_pb2,
    model_pb2,
    tokenization_pb2,
)
from leptond_client import health_messages
from tests.integration.client.scripted import (
    GENERATIVE,
    REQUEST_ID,
    answers,
    info,
    lists,
    model,
    refuse,
    says,
    streams,
    waits_until_cancelled,
)

USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 5,
    "cached_tokens": 0,
    "reasoning_tokens": 0,
    "draft_tokens": 0,
    "accepted_draft_tokens": 0,
    "truncated_tokens": 0,
}
TIMING = {
    "load_ms": 0.0,
    "tokenize_ms": 0.0,
    "queue_ms": 0.0,
    "prefill_ms": 0.0,
    "decode_ms": 500.0,
    "delivery_ms": 0.0,
    "first_token_ms": 120.0,
    "total_ms": 700.0,
}


# -------------------------------------------------------------------------------------- generate
def test_generate_prints_one_json_object(daemon, lepton):
    daemon.behaviours["Generate"] = answers("hello")
    words = ["generate", "-m", "toy", "--max-tokens", "5", "--temperature", "0", "--json"]
    ended = lepton(*words, "Once upon")
    assert ended.code == 0
    assert ended.json == {
        "text": "hello",
        "token_ids": [104, 101, 108, 108, 111],
        "finish_reason": "length",
        "usage": USAGE,
        "timing": TIMING,
    }
    assert ended.out.count("\n") == 1
    assert ended.err == ""
    (request,) = daemon.requests("Generate")
    assert (request.model, request.input.text) == ("toy", "Once upon")
    assert request.sampling.max_tokens == 5
    assert request.sampling.temperature == 0.0
    assert request.sampling.HasField("temperature")


def test_generate_prints_plain_text_as_it_comes(daemon, lepton):
    daemon.behaviours["GenerateStream"] = streams("Once ", "\x1b[31mred", "")
    ended = lepton("generate", "-m", "toy", "hi")
    assert (ended.code, ended.out, ended.err) == (0, "Once \x1b[31mred\n", "")


def test_generate_reads_its_prompt_from_a_pipe(daemon, lepton):
    daemon.behaviours["GenerateStream"] = streams("x\n")
    ended = lepton("generate", "-m", "toy", stdin="Grüße\n\n".encode())
    assert (ended.code, ended.out) == (0, "x\n")
    assert daemon.requests("GenerateStream")[0].input.text == "Grüße\n"


def test_every_sampling_flag_reaches_the_daemon(daemon, lepton):
    daemon.behaviours["GenerateStream"] = streams("x")
    flags = """--max-tokens 9 --temperature 0.5 --top-k 4 --top-p 0.75 --min-p 0.125 --seed 3
        --stop a --stop b --repetition-penalty 1.5 --frequency-penalty 0.25
        --presence-penalty -0.5 --no-parse-special"""
    lepton("generate", "-m", "toy", *flags.split(), "hi")
    (request,) = daemon.requests("GenerateStream")
    sampled = {name.name: value for name, value in request.sampling.ListFields()}
    assert sampled == {
        "max_tokens": 9,
        "temperature": 0.5,
        "top_k": 4,
        "top_p": 0.75,
        "min_p": 0.125,
        "seed": 3,
        "stop": ["a", "b"],
        "repetition_penalty": 1.5,
        "frequency_penalty": 0.25,
        "presence_penalty": -0.5,
    }
    assert request.input.HasField("parse_special")


def test_flags_that_are_left_out_are_not_sent(daemon, lepton):
    daemon.behaviours["GenerateStream"] = streams("x")
    lepton("generate", "-m", "toy", "hi")
    (request,) = daemon.requests("GenerateStream")
    assert request.sampling.ListFields() == []
    assert request.output.ListFields() == []
    assert not request.input.HasField("parse_special")


def test_logprobs_are_printed_with_their_alternatives(daemon, lepton):
    top = logprobs_pb2.TopLogprobs(token_ids=[7, 8], token_bytes=[b"a", b"\xff"], logprobs=[-1, -2])
    found = logprobs_pb2.Logprobs(token_ids=[7], token_bytes=[b"a"], logprobs=[-1], top=[top])
    choice = generation_pb2.GenerationChoice(text="a", token_ids=[7], logprobs=found)
    daemon.behaviours["Generate"] = lambda request, context: generation_pb2.GenerateResponse(
        choices=[choice], info=info(1)
    )
    ended = lepton("generate", "-m", "toy", "--json", "--logprobs", "2", "hi")
    first = {"token_id": 7, "token": "a", "logprob": -1.0}
    second = {"token_id": 8, "token": "\ufffd", "logprob": -2.0}
    assert ended.json["logprobs"] == [{**first, "top": [first, second]}]
    assert daemon.requests("Generate")[0].output.logprobs == 2


# ------------------------------------------------------------------------------ the model to take
def test_the_only_model_need_not_be_named(daemon, lepton):
    embedder = model("embedder", model_pb2.TASK_EMBED)
    daemon.behaviours["ListModels"] = lists(embedder, model("toy", *GENERATIVE))
    daemon.behaviours["GenerateStream"] = streams("x")
    assert lepton("generate", "hi").code == 0
    assert daemon.requests("GenerateStream")[0].model == "toy"


def test_the_model_can_come_from_the_environment(daemon, lepton, monkeypatch):
    monkeypatch.setenv("LEPTON_MODEL", "toy")
    daemon.behaviours["GenerateStream"] = streams("x")
    assert lepton("generate", "hi").code == 0
    assert daemon.requests("GenerateStream")[0].model == "toy"


def test_several_models_must_be_told_apart(daemon, lepton):
    daemon.behaviours["ListModels"] = lists(model("b", *GENERATIVE), model("a", *GENERATIVE))
    ended = lepton("generate", "hi")
    assert ended.code == 2
    assert "say with -m which model is meant: a, b" in ended.err


def test_no_model_for_a_task_is_said(daemon, lepton):
    daemon.behaviours["ListModels"] = lists(model("embedder", model_pb2.TASK_EMBED))
    ended = lepton("chat", "hi")
    assert ended.code == 2
    assert "has no model for chat" in ended.err


# ------------------------------------------------------------------------------------------ chat
def test_chat_answers_one_message(daemon, lepton):
    daemon.behaviours["ChatStream"] = streams("Good ", "day.")
    ended = lepton("chat", "-m", "toy", "--system", "Be polite.", "Hello")
    assert (ended.code, ended.out) == (0, "Good day.\n")
    (request,) = daemon.requests("ChatStream")
    said = [message.content[0].text for message in request.input.messages]
    assert said == ["Be polite.", "Hello"]


def test_chat_answers_a_pipe(daemon, lepton):
    daemon.behaviours["ChatStream"] = streams("yes")
    assert lepton("chat", "-m", "toy", stdin=b"two\nlines\n").out == "yes\n"
    (request,) = daemon.requests("ChatStream")
    assert request.input.messages[0].content[0].text == "two\nlines"


def test_chat_prints_one_json_object(daemon, lepton):
    daemon.behaviours["Chat"] = says("Good day.")
    ended = lepton("chat", "-m", "toy", "--json", "Hello")
    assert ended.json["text"] == "Good day."
    assert ended.json["finish_reason"] == "stop"
    assert ended.json.keys() == {"text", "token_ids", "finish_reason", "usage", "timing"}


# ---------------------------------------------------------------------------------------- tokens
@pytest.fixture
def tokens(daemon):
    daemon.behaviours["Tokenize"] = lambda request, context: tokenization_pb2.TokenizeResponse(
        results=[tokenization_pb2.TokenizedText(token_ids=[3, 1, 4])]
    )
    daemon.behaviours["Detokenize"] = lambda request, context: tokenization_pb2.DetokenizeResponse(
        results=[tokenization_pb2.DetokenizedText(text="pi")]
    )


@pytest.mark.usefixtures("tokens")
def test_tokenize_prints_the_token_ids(daemon, lepton):
    words = ("tokenize", "-m", "toy", "--no-parse-special", "--no-add-special", "--json", "<s>")
    assert lepton(*words).json == {"token_ids": [3, 1, 4]}
    assert lepton("tokenize", "-m", "toy", stdin=b"<s>").out == "3 1 4\n"
    literal, piped = daemon.requests("Tokenize")
    assert literal.HasField("parse_special")
    assert not literal.parse_special
    assert literal.HasField("add_special_tokens")
    assert not piped.HasField("parse_special")
    assert literal.inputs[0].text == piped.inputs[0].text == "<s>"


@pytest.mark.usefixtures("tokens")
def test_detokenize_prints_the_text(daemon, lepton):
    assert lepton("detokenize", "-m", "toy", "3", "1", "4").out == "pi\n"
    ended = lepton("detokenize", "-m", "toy", "--keep-special", "--json", "3")
    assert ended.json == {"text": "pi"}
    first, second = daemon.requests("Detokenize")
    assert list(first.inputs[0].ids) == [3, 1, 4]
    assert first.skip_special_tokens
    assert not second.skip_special_tokens


# ---------------------------------------------------------------------------------------- models
def test_models_list_is_plain_in_a_pipe(daemon, lepton):
    daemon.behaviours["ListModels"] = lists(model("toy", *GENERATIVE))
    row = "toy:fake\tdefault\tready\tfloat32\tfake\tgenerate,chat,tokenize\t2048\t3 MiB\n"
    assert lepton("models", "list").out == row


def test_models_list_prints_one_json_object(daemon, lepton):
    daemon.behaviours["ListModels"] = lists(model("toy", *GENERATIVE))
    (found,) = lepton("models", "list", "toy", "--json").json["models"]
    assert found["name"] == "toy"
    assert found["variants"][0]["state"] == "ready"
    assert daemon.requests("ListModels")[0].model == "toy"


def loads_in_two_steps(request, context):
    variant = model("toy", *GENERATIVE).variants[0]
    yield management_pb2.LoadModelResponse(model="toy:fake", stage="weights", fraction=0.5)
    yield management_pb2.LoadModelResponse(model="toy:fake", fraction=1.0, variant=variant)


def test_models_load_shows_no_progress_in_a_pipe(daemon, lepton):
    daemon.behaviours["LoadModel"] = loads_in_two_steps
    ended = lepton("models", "load", "toy")
    assert (ended.code, ended.out, ended.err) == (0, "toy:fake is ready\n", "")
    assert lepton("models", "load", "toy", "--json").json["name"] == "toy:fake"


def test_models_unload_says_what_it_did(daemon, lepton):
    responses = iter([["toy:fake"], [], ["toy:fake"]])
    daemon.behaviours["UnloadModel"] = lambda request, context: management_pb2.UnloadModelResponse(
        models=next(responses), freed_bytes=9
    )
    assert lepton("models", "unload", "toy").out == "unloaded toy:fake\n"
    assert lepton("models", "unload", "toy").out == "toy was not loaded\n"
    assert lepton("models", "unload", "toy", "--json").json == {
        "models": ["toy:fake"],
        "freed_bytes": 9,
    }


# ---------------------------------------------------------------------------------------- health
@pytest.mark.parametrize(("status", "word", "code"), [(1, "serving", 0), (2, "not_serving", 1)])
def test_health_tells_by_word_and_exit_code(daemon, lepton, status, word, code):
    daemon.behaviours["Check"] = lambda request, context: health_messages.HealthCheckResponse(
        status=status
    )
    assert (lepton("health").out, lepton("health").code) == (f"{word}\n", code)
    ended = lepton("health", "toy", "--json")
    assert (ended.json, ended.code) == ({"name": "toy", "status": word}, code)


def test_health_watch_prints_each_change(daemon, lepton):
    daemon.behaviours["Watch"] = lambda request, context: iter(
        [health_messages.HealthCheckResponse(status=status) for status in (2, 1)]
    )
    assert lepton("health", "--watch").out == "not_serving\nserving\n"


# ------------------------------------------------------------------------------------ exit codes
def test_a_refusal_is_one_line_and_exit_code_1(daemon, lepton):
    daemon.behaviours["GenerateStream"] = lambda request, context: refuse(
        context,
        grpc.StatusCode.INVALID_ARGUMENT,
        "sampling.temperature is nan;\n\x1b[2J it must be finite",
        reason="INVALID_REQUEST",
    )
    ended = lepton("generate", "-m", "toy", "--temperature", "nan", "hi")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == (
        "lepton: sampling.temperature is nan; \u241b[2J it must be finite "
        f"(INVALID_REQUEST, request {REQUEST_ID})\n"
    )


def test_a_full_queue_says_when_to_come_again(daemon, lepton):
    daemon.behaviours["GenerateStream"] = lambda request, context: refuse(
        context, grpc.StatusCode.RESOURCE_EXHAUSTED, "16 wait", retry_after_s=1.5
    )
    ended = lepton("generate", "-m", "toy", "hi")
    assert ended.code == 1
    assert "try again in 1.5 s" in ended.err


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "-m", "toy", "--max-tokens", "-1", "hi"],
        ["generate", "-m", "toy", "--logprobs", "1", "hi"],
        ["generate", "-m", "toy", "\udcff"],
        ["generate", "-m", "\udcff", "hi"],
        ["detokenize", "-m", "toy"],
        ["--timeout", "0", "health"],
        ["no-such-command"],
    ],
)
def test_a_wrong_command_line_is_exit_code_2(daemon, lepton, words):
    ended = lepton(*words)
    assert ended.code == 2
    assert ended.err.startswith("Usage: lepton")
    assert daemon.calls == []


def test_a_prompt_that_is_not_utf_8_is_exit_code_2(daemon, lepton):
    ended = lepton("generate", "-m", "toy", stdin=b"\xff")
    assert ended.code == 2
    assert "standard input is not valid UTF-8" in ended.err


def test_an_address_that_is_none_is_exit_code_2(lepton):
    ended = lepton("health", address="nowhere")
    assert ended.code == 2
    assert "neither host:port nor unix:/path" in ended.err


def test_no_daemon_is_exit_code_3(lepton, tmp_path):
    ended = lepton("health", address=f"unix:{tmp_path}/nobody.sock")
    assert ended.code == 3
    assert ended.err.startswith(f"lepton: no daemon answers at unix:{tmp_path}/nobody.sock: ")
    assert ended.err.count("\n") == 1


def test_a_daemon_that_stops_is_exit_code_3(daemon, lepton):
    daemon.behaviours["Check"] = lambda request, context: refuse(
        context, grpc.StatusCode.UNAVAILABLE, "the daemon drains", pushback_ms="-1"
    )
    ended = lepton("health")
    assert ended.code == 3
    assert "the daemon drains" in ended.err


def test_waiting_for_a_daemon_has_an_end(lepton, tmp_path):
    assert lepton("--wait", "0.3", "health", address=f"unix:{tmp_path}/nobody.sock").code == 3


def test_the_timeout_is_exit_code_4(daemon, lepton):
    daemon.behaviours["GenerateStream"] = waits_until_cancelled(threading.Event())
    ended = lepton("--timeout", "0.2", "generate", "-m", "toy", "hi")
    assert ended.code == 4
    assert ended.err.startswith("lepton: the timeout of 0.2 s passed (DEADLINE_EXCEEDED")


def test_help_says_the_exit_codes(lepton):
    ended = lepton("--help")
    assert ended.code == 0
    for code in (0, 1, 2, 3, 4, 130):
        assert f"  {code:>3}  " in ended.out


def test_what_cut_an_answer_is_no_error(daemon, lepton):
    chunk = generation_pb2.TokenChunk(
        text="x", finish_reason=common_pb2.FINISH_REASON_CONTEXT_LENGTH
    )
    daemon.behaviours["GenerateStream"] = lambda request, context: iter(
        [generation_pb2.GenerateStreamResponse(chunk=chunk, info=info(1))]
    )
    assert lepton("generate", "-m", "toy", "hi").code == 0
