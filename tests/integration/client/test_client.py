"""The blocking client against a real server."""

from __future__ import annotations

import collections
import threading

import grpc
import pytest

from leptond.v1 import chat_pb2, generation_pb2, management_pb2, model_pb2, tokenization_pb2
from leptond_client import (
    Cancelled,
    Client,
    DeadlineExceeded,
    FinishReason,
    InternalError,
    InvalidRequest,
    LeptonError,
    Message,
    ModelState,
    NotFound,
    ResourceExhausted,
    RetryPolicy,
    ServingStatus,
    Unavailable,
    Unsupported,
    Usage,
    health_messages,
)
from tests.integration.client.scripted import (
    GENERATIVE,
    PATIENCE_S,
    REQUEST_ID,
    ScriptedDaemon,
    answers,
    commit,
    lists,
    model,
    piece,
    pieces,
    refuse,
    says,
    streams,
    waits_until_cancelled,
)


# --------------------------------------------------------------------------------------- answers
def test_generate_returns_the_whole_answer(daemon, client):
    daemon.behaviours["Generate"] = answers("hello")
    result = client.generate("toy", "hi", max_tokens=5, temperature=0.0, stop="END", seed=7)
    assert result.text == "hello"
    assert result.token_ids == tuple(map(ord, "hello"))
    assert result.finish_reason is FinishReason.LENGTH
    assert result.usage == Usage(prompt_tokens=5, completion_tokens=5)
    assert result.timing.first_token_ms == 120.0
    assert (result.model, result.model_version) == ("toy:fake", 3)
    (request,) = daemon.requests("Generate")
    assert request.model == "toy"
    assert request.input.text == "hi"
    assert list(request.sampling.stop) == ["END"]
    assert request.sampling.temperature == 0.0
    assert request.sampling.HasField("temperature")
    assert not request.sampling.HasField("top_p")


def test_a_prompt_may_be_tokens(daemon, client):
    daemon.behaviours["Generate"] = answers("x")
    client.generate("toy", [1, 2, 3])
    (request,) = daemon.requests("Generate")
    assert list(request.input.token_ids.ids) == [1, 2, 3]


def test_a_stream_brings_each_piece_and_then_the_whole(daemon, client):
    daemon.behaviours["GenerateStream"] = streams("one ", "two ", "three")
    stream = client.generate_stream("toy", "hi", stream_interval_tokens=2)
    with pytest.raises(RuntimeError, match="read to its end"):
        _ = stream.result
    deltas = list(stream)
    assert [delta.text for delta in deltas] == ["one ", "two ", "three"]
    assert [delta.finish_reason for delta in deltas] == [None, None, FinishReason.STOP]
    assert stream.result.text == "one two three"
    assert stream.result.token_ids == tuple(map(ord, "one two three"))
    assert stream.result.matched_stop == 2
    assert stream.result.server_request_id == REQUEST_ID
    assert list(stream) == []
    assert daemon.requests("GenerateStream")[0].stream.stream_interval_tokens == 2


def test_chat_sends_the_conversation(daemon, client):
    daemon.behaviours["Chat"] = says("Good day.")
    result = client.chat(
        "toy", [Message("system", "Be polite."), {"role": "user", "content": "Hello"}]
    )
    assert result.text == "Good day."
    (request,) = daemon.requests("Chat")
    said = [(message.role, message.content[0].text) for message in request.input.messages]
    assert said == [(1, "Be polite."), (3, "Hello")]


def test_chat_stream_is_a_stream_of_the_same_kind(daemon, client):
    def behave(request, context):
        commit(context)
        for message in pieces("Good ", "day."):
            yield chat_pb2.ChatStreamResponse.FromString(message.SerializeToString())

    daemon.behaviours["ChatStream"] = behave
    stream = client.chat_stream("toy", [Message("user", "Hello")])
    assert "".join(delta.text for delta in stream) == stream.result.text == "Good day."


def test_a_stream_without_its_final_message_is_an_error(daemon, client):
    daemon.behaviours["GenerateStream"] = lambda request, context: iter(pieces("a", "b")[:1])
    with pytest.raises(InternalError, match="without its final message"):
        list(client.generate_stream("toy", "hi"))


def test_tokenize_and_detokenize(daemon, client):
    tokens = tokenization_pb2.TokenizedText(token_ids=[5, 6], rendered="<user>hi")
    daemon.behaviours["Tokenize"] = lambda request, context: tokenization_pb2.TokenizeResponse(
        results=[tokens]
    )
    daemon.behaviours["Detokenize"] = lambda request, context: tokenization_pb2.DetokenizeResponse(
        results=[tokenization_pb2.DetokenizedText(text="hi")]
    )
    assert client.tokenize("toy", "hi", parse_special=False).token_ids == (5, 6)
    assert client.tokenize("toy", [Message("user", "hi")]).rendered == "<user>hi"
    assert client.detokenize("toy", [5, 6]) == "hi"
    text, chat = daemon.requests("Tokenize")
    assert text.inputs[0].text == "hi"
    assert text.HasField("parse_special")
    assert chat.inputs[0].chat.messages[0].content[0].text == "hi"
    assert list(daemon.requests("Detokenize")[0].inputs[0].ids) == [5, 6]


def test_models_are_listed_loaded_and_unloaded(daemon, client):
    toy = model("toy", *GENERATIVE)
    daemon.behaviours["ListModels"] = lists(toy)
    daemon.behaviours["LoadModel"] = lambda request, context: iter([
        management_pb2.LoadModelResponse(
            model="toy:fake", state=model_pb2.MODEL_STATE_LOADING, stage="weights", fraction=0.5
        ),
        management_pb2.LoadModelResponse(
            model="toy:fake",
            state=model_pb2.MODEL_STATE_READY,
            fraction=1.0,
            variant=toy.variants[0],
        ),
    ])  # fmt: skip
    daemon.behaviours["UnloadModel"] = lambda request, context: management_pb2.UnloadModelResponse(
        models=["toy:fake"], freed_bytes=7
    )
    (listed,) = client.models()
    assert listed.default is not None
    assert listed.default.tasks == ("generate", "chat", "tokenize")
    assert listed.default.state is ModelState.READY
    stream = client.load_model("toy")
    assert [(step.stage, step.fraction) for step in stream] == [("weights", 0.5), ("", 1.0)]
    assert stream.result == listed.default
    assert client.unload_model("toy").freed_bytes == 7


def test_load_is_reported(daemon, client):
    daemon.behaviours["GetLoad"] = lambda request, context: management_pb2.GetLoadResponse(
        models=[management_pb2.ModelLoad(model="toy:fake", num_running=2, num_slots=16)],
        num_calls=3,
        uptime_ms=1500,
    )
    load = client.get_load()
    assert (load.num_calls, load.uptime_s) == (3, 1.5)
    assert (load.models[0].num_running, load.models[0].num_slots) == (2, 16)


def test_health_is_asked_followed_and_listed(daemon, client):
    def response(status):
        return health_messages.HealthCheckResponse(status=status)

    daemon.behaviours["Check"] = lambda request, context: response(1)
    daemon.behaviours["Watch"] = lambda request, context: map(response, (3, 2, 1))
    listing = health_messages.HealthListResponse()
    listing.statuses["toy"].status = 2
    daemon.behaviours["List"] = lambda request, context: listing
    assert client.check("toy") is ServingStatus.SERVING
    assert list(client.watch("toy")) == [
        ServingStatus.SERVICE_UNKNOWN,
        ServingStatus.NOT_SERVING,
        ServingStatus.SERVING,
    ]
    assert client.health() == {"toy": ServingStatus.NOT_SERVING}
    assert daemon.requests("Check")[0].service == "toy"


# ------------------------------------------------------------------------------------- transport
def test_an_answer_may_be_longer_than_grpc_allows_by_default(daemon, client):
    text = "x" * (6 << 20)
    daemon.behaviours["Generate"] = lambda request, context: generation_pb2.GenerateResponse(
        choices=[generation_pb2.GenerationChoice(text=text)]
    )
    assert client.generate("toy", text).text == text


def test_an_answer_beyond_the_limit_is_refused(daemon):
    daemon.behaviours["Generate"] = answers("x" * 2000)
    narrow = Client(daemon.address, max_message_bytes=1000)
    with narrow as client, pytest.raises(ResourceExhausted, match="larger than max"):
        client.generate("toy", "hi")


def test_it_talks_over_tcp():
    with ScriptedDaemon("127.0.0.1:0").running() as daemon, Client(daemon.address) as client:
        daemon.behaviours["GenerateStream"] = streams("over ", "TCP")
        stream = client.generate_stream("toy", "hi")
        assert "".join(delta.text for delta in stream) == "over TCP"


def test_the_address_can_come_from_the_environment(daemon, monkeypatch):
    daemon.behaviours["Generate"] = answers("x")
    monkeypatch.setenv("LEPTON_ADDRESS", daemon.address)
    with Client() as client:
        assert client.address == daemon.address
        assert client.generate("toy", "hi").text == "x"


def test_metadata_goes_with_every_call(daemon):
    daemon.behaviours["Generate"] = answers("x")
    daemon.behaviours["GenerateStream"] = streams("x")
    with Client(daemon.address, metadata=(("authorization", "token"),)) as client:
        client.generate("toy", "hi")
        list(client.generate_stream("toy", "hi"))
    assert [metadata["authorization"] for _, _, metadata in daemon.calls] == ["token", "token"]


# ------------------------------------------------------------------------------------ the errors
def test_an_error_carries_all_that_the_daemon_said(daemon, client):
    daemon.behaviours["Generate"] = lambda request, context: refuse(
        context,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "16 requests wait",
        reason="QUEUE_FULL",
        field_path="model",
        retry_after_s=1.5,
    )
    with pytest.raises(ResourceExhausted, match="16 requests wait") as caught:
        client.generate("toy", "hi")
    error = caught.value
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (error.reason, error.field, error.request_id) == ("QUEUE_FULL", "model", REQUEST_ID)
    assert error.retry_after_s == 1.5
    assert error.is_from_daemon
    assert not error.was_admitted
    assert len(daemon.calls) == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequest),
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.INTERNAL, InternalError),
    ],
)
def test_a_stream_raises_the_same_errors(daemon, client, code, kind):
    daemon.behaviours["GenerateStream"] = lambda request, context: refuse(context, code)
    with pytest.raises(kind):
        list(client.generate_stream("toy", "hi"))
    assert len(daemon.calls) == 1


def test_a_method_that_the_daemon_lacks_is_unsupported(client):
    with pytest.raises(Unsupported):
        client.generate("toy", "hi")


def test_the_timeout_bounds_a_call(daemon, client):
    gone = threading.Event()
    daemon.behaviours["GenerateStream"] = waits_until_cancelled(gone)
    stream = client.generate_stream("toy", "hi", timeout=0.2)
    texts: list[str] = []
    with pytest.raises(DeadlineExceeded):
        texts.extend(delta.text for delta in stream)
    assert texts in ([], ["first"])  # a slow machine may not even have begun
    assert gone.wait(PATIENCE_S)


def test_the_client_can_have_a_timeout_for_all_calls(daemon):
    gone = threading.Event()
    daemon.behaviours["GenerateStream"] = waits_until_cancelled(gone)
    with Client(daemon.address, timeout=0.2) as client, pytest.raises(DeadlineExceeded):
        list(client.generate_stream("toy", "hi"))


def test_text_that_is_none_never_leaves(daemon, client):
    with pytest.raises(InvalidRequest, match=r"input\.text is not text") as caught:
        client.generate("toy", "\udcff")
    assert caught.value.field == "input.text"
    assert daemon.calls == []


# -------------------------------------------------------------------------------------- to leave
def test_leaving_the_loop_cancels_the_call(daemon, client):
    gone = threading.Event()
    daemon.behaviours["GenerateStream"] = waits_until_cancelled(gone)
    stream = client.generate_stream("toy", "hi")
    for delta in stream:
        assert delta.text == "first"
        break
    assert gone.wait(PATIENCE_S)
    with pytest.raises(Cancelled):
        list(stream)


def test_an_error_in_the_loop_cancels_the_call(daemon, client):
    gone = threading.Event()
    daemon.behaviours["GenerateStream"] = waits_until_cancelled(gone)

    def fail(delta):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collections.deque(map(fail, client.generate_stream("toy", "hi")))
    assert gone.wait(PATIENCE_S)


def test_the_end_of_the_block_cancels_the_call(daemon, client):
    gone = threading.Event()
    daemon.behaviours["GenerateStream"] = waits_until_cancelled(gone)
    with client.generate_stream("toy", "hi"):
        assert daemon.arrived.wait(PATIENCE_S)
    assert gone.wait(PATIENCE_S)


def test_another_thread_can_cancel(daemon, client):
    gone = threading.Event()
    daemon.behaviours["GenerateStream"] = waits_until_cancelled(gone)
    stream = client.generate_stream("toy", "hi")
    reader = iter(stream)
    assert next(reader).text == "first"
    other = threading.Thread(target=stream.cancel)
    other.start()
    with pytest.raises(Cancelled, match="by its reader"):
        next(reader)
    other.join()
    assert gone.wait(PATIENCE_S)


def test_closing_the_client_ends_its_calls(daemon, client):
    gone = threading.Event()
    daemon.behaviours["GenerateStream"] = waits_until_cancelled(gone)
    reader = iter(client.generate_stream("toy", "hi"))
    assert next(reader).text == "first"
    client.close()
    with pytest.raises(Cancelled, match="closed"):
        next(reader)
    assert gone.wait(PATIENCE_S)


# --------------------------------------------------------------------------------- the retry rule
def fails_first(num_failures, then, fail):
    """Fail so often, then behave."""
    left = [num_failures]

    def behave(request, context):
        if left[0]:
            left[0] -= 1
            fail(context)
        return then(request, context)

    return behave


def unavailable(context):
    refuse(context, grpc.StatusCode.UNAVAILABLE, "loading", retry_after_s=0.01)


def test_a_call_that_was_not_admitted_is_repeated(daemon, client):
    daemon.behaviours["Generate"] = fails_first(2, answers("at last"), unavailable)
    assert client.generate("toy", "hi").text == "at last"
    assert len(daemon.calls) == 3


def test_a_stream_that_was_not_admitted_is_repeated(daemon, client):
    daemon.behaviours["GenerateStream"] = fails_first(7, streams("at ", "last"), unavailable)
    stream = client.generate_stream("toy", "hi")
    assert "".join(delta.text for delta in stream) == "at last"
    assert len(daemon.calls) == 8


def test_a_call_that_the_daemon_cancelled_unseen_is_repeated(daemon, client):
    daemon.behaviours["Generate"] = fails_first(
        1, answers("x"), lambda context: refuse(context, grpc.StatusCode.CANCELLED)
    )
    assert client.generate("toy", "hi").text == "x"


def test_a_call_that_was_admitted_is_not_repeated(daemon, client):
    def behave(request, context):
        commit(context)
        unavailable(context)

    daemon.behaviours["Generate"] = behave
    with pytest.raises(Unavailable) as caught:
        client.generate("toy", "hi")
    assert caught.value.was_admitted
    assert len(daemon.calls) == 1


def test_a_stream_that_brought_something_is_not_repeated(daemon, client):
    def behave(request, context):
        yield generation_pb2.GenerateStreamResponse(chunk=piece("some"))
        unavailable(context)

    daemon.behaviours["GenerateStream"] = behave
    texts: list[str] = []
    with pytest.raises(Unavailable):
        texts.extend(delta.text for delta in client.generate_stream("toy", "hi"))
    assert texts == ["some"]
    assert len(daemon.calls) == 1


def test_the_daemon_can_forbid_a_repetition(daemon, client):
    daemon.behaviours["Generate"] = lambda request, context: refuse(
        context, grpc.StatusCode.UNAVAILABLE, pushback_ms="-1"
    )
    with pytest.raises(Unavailable):
        client.generate("toy", "hi")
    assert len(daemon.calls) == 1


def test_nothing_is_repeated_where_that_is_wanted(daemon):
    daemon.behaviours["Generate"] = lambda request, context: unavailable(context)
    once = Client(daemon.address, retry=RetryPolicy(max_wait_s=0))
    with once as client, pytest.raises(Unavailable):
        client.generate("toy", "hi")
    assert len(daemon.calls) == 1


def test_repetitions_end_before_the_timeout_does(daemon, client):
    daemon.behaviours["Generate"] = lambda request, context: refuse(
        context, grpc.StatusCode.UNAVAILABLE, "draining", retry_after_s=60.0
    )
    with pytest.raises(Unavailable, match="draining"):
        client.generate("toy", "hi", timeout=5.0)
    assert len(daemon.calls) == 1


def test_cancelling_ends_the_wait_for_a_repetition(daemon):
    refused = threading.Event()

    def behave(request, context):
        refused.set()
        refuse(context, grpc.StatusCode.UNAVAILABLE, retry_after_s=60.0)

    daemon.behaviours["GenerateStream"] = behave
    with Client(daemon.address, retry=RetryPolicy(max_wait_s=100.0)) as client:
        stream = client.generate_stream("toy", "hi")
        ended = []

        def read():
            try:
                list(stream)
            except LeptonError as error:
                ended.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        assert refused.wait(PATIENCE_S)
        stream.cancel()
        reader.join(PATIENCE_S)
    assert [type(error) for error in ended] == [Cancelled]


def test_a_daemon_that_never_was_there_is_an_error_at_once(tmp_path):
    with Client(f"unix:{tmp_path}/nobody.sock") as client, pytest.raises(Unavailable) as caught:
        client.generate("toy", "hi")
    assert not caught.value.is_from_daemon


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_restart_between_calls_goes_unnoticed(daemon, client, monkeypatch, is_streamed):
    def call():
        if is_streamed:
            stream = client.generate_stream("toy", "hi")
            return "".join(delta.text for delta in stream)
        return client.generate("toy", "hi").text

    daemon.behaviours["Generate"] = answers("x")
    daemon.behaviours["GenerateStream"] = streams("x")
    assert call() == "x"
    daemon.stop()
    failures = restart_after_first_failure(daemon, monkeypatch)
    assert call() == "x"
    assert failures


def restart_after_first_failure(daemon, monkeypatch):
    """Start the daemon once an attempt has failed; returns the list of failures."""
    from leptond_client.connection import Attempts

    failures: list[grpc.RpcError] = []
    delay_after = Attempts.delay_after

    def observed(self, failure, **options):
        if not failures:
            daemon.start()
        failures.append(failure)
        return delay_after(self, failure, **options)

    monkeypatch.setattr(Attempts, "delay_after", observed)
    return failures


def test_a_patient_client_waits_for_its_daemon(tmp_path, monkeypatch):
    daemon = ScriptedDaemon(f"unix:{tmp_path}/daemon.sock")
    daemon.behaviours["Generate"] = answers("x")
    patient = RetryPolicy(max_wait_s=PATIENCE_S, waits_for_daemon=True)
    with Client(daemon.address, retry=patient) as client:
        failures = restart_after_first_failure(daemon, monkeypatch)
        try:
            assert client.generate("toy", "hi").text == "x"
        finally:
            daemon.stop()
    assert failures
