"""Keyword arguments become requests, and answers become values."""

from __future__ import annotations

import pytest

from leptond.v1 import (
    chat_pb2,
    common_pb2,
    generation_pb2,
    logprobs_pb2,
    management_pb2,
    model_pb2,
    sampling_pb2,
    tokenization_pb2,
)
from leptond_client import (
    FinishReason,
    InternalError,
    InvalidRequest,
    Message,
    ModelState,
    TokenLogprob,
    calls,
    options,
    responses,
)


# -------------------------------------------------------------------------------------- requests
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (options.RequestOptions, common_pb2.RequestOptions),
        (options.SamplingOptions, sampling_pb2.SamplingParams),
        (options.OutputOptions, generation_pb2.OutputOptions),
        (options.PacingOptions, generation_pb2.StreamOptions),
        (options.RawPromptOptions, generation_pb2.GenerationInput),
        (options.ConversationOptions, chat_pb2.ChatInput),
    ],
)
def test_every_option_is_a_field_of_the_api(given, message):
    assert set(given.__annotations__) <= set(message.DESCRIPTOR.fields_by_name)


def test_every_option_finds_its_place():
    given: options.GenerateStreamOptions = {
        "model_version": 3,
        "request_id": "label",
        "priority": -1,
        "cache_salt": "salt",
        "deterministic": True,
        "temperature": 0.0,
        "logit_bias": {5: -1.5},
        "stop": ["a", "b"],
        "stop_token_ids": [7],
        "ignore_eos": True,
        "logprobs": 0,
        "skip_special_tokens": False,
        "parse_special": False,
        "stream_interval_tokens": 4,
        "timeout": 1.0,
    }
    call = calls.generate_stream("toy", "hi", given)
    request = generation_pb2.GenerateStreamRequest()
    request.model = "toy"
    request.model_version = 3
    request.options.request_id = "label"
    request.options.priority = -1
    request.options.cache_salt = "salt"
    request.options.deterministic = True
    request.input.text = "hi"
    request.input.parse_special = False
    request.sampling.temperature = 0.0
    request.sampling.logit_bias[5] = -1.5
    request.sampling.stop.extend(["a", "b"])
    request.sampling.stop_token_ids.append(7)
    request.sampling.ignore_eos = True
    request.output.logprobs = 0
    request.output.skip_special_tokens = False
    request.stream.stream_interval_tokens = 4
    assert call.request == request


def test_options_left_out_or_none_are_not_sent():
    bare = generation_pb2.GenerateRequest(model="toy")
    bare.input.text = "hi"
    assert calls.generate("toy", "hi", {}).request == bare
    assert calls.generate("toy", "hi", {"seed": None, "stop": None}).request == bare


def test_a_conversation_can_be_continued():
    call = calls.chat("toy", [Message("assistant", "Once")], {"continue_final_message": True})
    assert isinstance(call.request, chat_pb2.ChatRequest)
    assert call.request.input.continue_final_message
    assert call.request.input.messages[0].content[0].text == "Once"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"max_tokens": -1}, "sampling.max_tokens"),
        ({"max_tokens": 1 << 40}, "sampling.max_tokens"),
        ({"temperature": "hot"}, "sampling.temperature"),
        ({"stop": "\ud800"}, "sampling.stop"),
        ({"stop": [b"\xff"]}, "sampling.stop"),
        ({"logit_bias": {-1: 0.0}}, "sampling.logit_bias"),
        ({"stop_token_ids": [-1]}, "sampling.stop_token_ids"),
        ({"request_id": "\udcff"}, "options.request_id"),
        ({"logprobs": 0.5}, "output.logprobs"),
    ],
)
def test_what_a_message_cannot_hold_is_refused_by_its_path(given, field):
    with pytest.raises(InvalidRequest) as caught:
        calls.generate("toy", "hi", given)
    assert caught.value.field == field
    assert field in str(caught.value)


@pytest.mark.parametrize(
    ("prompt", "field"),
    [("\udcff", "input.text"), ([-1], "input.token_ids.ids"), (["a"], "input.token_ids.ids")],
)
def test_prompts_that_are_none_are_refused(prompt, field):
    with pytest.raises(InvalidRequest) as caught:
        calls.generate("toy", prompt, {})
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"role": "robot", "content": "x"}, "input.messages[0].role"),
        ({"role": "unspecified", "content": "x"}, "input.messages[0].role"),
        ({"role": "user", "content": "\udcff"}, "input.messages[0].content.text"),
        ({"role": "user"}, ""),
        ({"role": "user", "content": "x", "name": "y"}, ""),
    ],
)
def test_messages_that_are_none_are_refused(message, field):
    with pytest.raises(InvalidRequest) as caught:
        calls.chat("toy", [message], {})
    assert caught.value.field == field


def test_options_that_do_not_exist_are_refused_like_any_keyword():
    given: dict[str, float] = {"temprature": 1.0}
    with pytest.raises(TypeError, match="temprature"):
        calls.generate("toy", "hi", given)  # type: ignore[arg-type]  # what the test is about
    with pytest.raises(TypeError, match="stream_interval_ms"):
        calls.generate("toy", "hi", {"stream_interval_ms": 1})  # type: ignore[typeddict-unknown-key]  # likewise


# ------------------------------------------------------------------------------------- responses
def test_logprobs_come_with_bytes_and_alternatives():
    top = logprobs_pb2.TopLogprobs(
        token_ids=[7, 8], token_bytes=[b"\xf0", b"b"], logprobs=[-0.5, -1.0]
    )
    wire = logprobs_pb2.Logprobs(token_ids=[7], token_bytes=[b"\xf0"], logprobs=[-0.5], top=[top])
    fold = responses.GenerationFold()
    delta = fold.add(
        generation_pb2.GenerateStreamResponse(
            chunk=generation_pb2.TokenChunk(token_ids=[7], logprobs=wire)
        )
    )
    likeliest = TokenLogprob(7, b"\xf0", -0.5)
    entry = TokenLogprob(7, b"\xf0", -0.5, top=(likeliest, TokenLogprob(8, b"b", -1.0)))
    assert delta is not None
    assert delta.logprobs == (entry,)
    assert delta.finish_reason is None


def test_logprobs_need_no_alternatives():
    wire = logprobs_pb2.Logprobs(token_ids=[7], token_bytes=[b"a"], logprobs=[-0.5])
    choice = generation_pb2.GenerationChoice(token_ids=[7], logprobs=wire)
    whole = responses.generation(generation_pb2.GenerateResponse(choices=[choice]))
    assert whole.logprobs == (TokenLogprob(7, b"a", -0.5),)


def test_a_stream_gathers_what_its_pieces_bring():
    fold = responses.GenerationFold()
    prompt = generation_pb2.PromptInfo(token_ids=[1, 2])
    assert fold.add(generation_pb2.GenerateStreamResponse(prompt=prompt)) is None
    for text, token_id in (("a", 5), ("b", 6)):
        chunk = generation_pb2.TokenChunk(text=text, token_ids=[token_id])
        fold.add(generation_pb2.GenerateStreamResponse(chunk=chunk))
    end = generation_pb2.TokenChunk(finish_reason=common_pb2.FINISH_REASON_STOP, stop_string="END")
    info = common_pb2.ResponseInfo(model="toy:fake", usage=common_pb2.Usage(cached_tokens=2))
    fold.add(generation_pb2.GenerateStreamResponse(chunk=end, info=info))
    whole = fold.final()
    assert (whole.text, whole.token_ids, whole.prompt_token_ids) == ("ab", (5, 6), (1, 2))
    assert (whole.finish_reason, whole.matched_stop) == (FinishReason.STOP, "END")
    assert (whole.model, whole.usage.cached_tokens) == ("toy:fake", 2)


@pytest.mark.parametrize("fold", [responses.GenerationFold(), responses.LoadFold()])
def test_a_stream_that_was_cut_has_no_outcome(fold):
    with pytest.raises(InternalError):
        fold.final()


@pytest.mark.parametrize(
    ("convert", "empty"),
    [
        (responses.generation, generation_pb2.GenerateResponse()),
        (responses.chat, chat_pb2.ChatResponse()),
        (responses.tokenization, tokenization_pb2.TokenizeResponse()),
        (responses.detokenization, tokenization_pb2.DetokenizeResponse()),
    ],
)
def test_an_answer_without_a_result_is_the_daemons_fault(convert, empty):
    with pytest.raises(InternalError, match="the answer has 0"):
        convert(empty)


def test_values_that_are_newer_than_the_client_do_not_break_it():
    variant = model_pb2.ModelVariant(name="toy:fake")
    variant.MergeFromString(bytes([9 << 3, 99]))  # state = 99
    variant.capabilities.MergeFromString(bytes([1 << 3, 99]))  # tasks += 99
    wire = model_pb2.Model(name="toy", variants=[variant])
    (model,) = responses.models(management_pb2.ListModelsResponse(models=[wire]))
    assert model.variants[0].state is ModelState.UNSPECIFIED
    assert model.variants[0].tasks == ("99",)
    assert model.default is None


@pytest.mark.parametrize(
    ("wire", "prefix", "kind"),
    [
        (common_pb2.FinishReason, "FINISH_REASON_", FinishReason),
        (model_pb2.ModelState, "MODEL_STATE_", ModelState),
    ],
)
def test_every_value_of_the_api_has_a_name_here(wire, prefix, kind):
    assert [name.removeprefix(prefix) for name in wire.keys()] == list(kind.__members__)  # noqa: SIM118
