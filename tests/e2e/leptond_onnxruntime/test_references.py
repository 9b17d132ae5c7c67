"""What the default chat model answers over gRPC, against transformers on the same weights."""

from __future__ import annotations

import sys
from itertools import takewhile
from typing import Any

import pytest

from leptond.v1 import chat_pb2, tokenization_pb2
from tests.fixtures.calls import chat, chat_input, ids_of, prompt, text_generation
from tests.fixtures.chat_store import CHAT_MODEL
from tests.fixtures.smollm2 import smollm2_reference

pytestmark = pytest.mark.timeout(300)  # the default model may have to be imported first

REFERENCE = smollm2_reference()
COMPLETIONS, CHATS = REFERENCE["completions"], REFERENCE["chats"]
# Two logits closer than this may swap places by rounding alone.
MIN_MARGIN = 0.02


@pytest.fixture
def report(capsys):
    """Print a line although the test passes."""

    def printed(line: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n  {line}")

    return printed


def messages_of(case: dict[str, Any]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in case["messages"]]


def tokenize(channel, **fields: Any) -> list[tokenization_pb2.TokenizedText]:
    request = tokenization_pb2.TokenizeRequest(model=CHAT_MODEL, **fields)
    return list(text_generation(channel).Tokenize(request).results)


def streams(channel, cases: list[dict[str, Any]], model: str, max_tokens: int) -> list[list[int]]:
    """The greedy tokens of completions and chats, all of them streamed side by side."""
    stub = text_generation(channel)
    calls = [
        stub.ChatStream(chat(*messages_of(case), model=model, max_tokens=max_tokens))
        if "messages" in case
        else stub.GenerateStream(prompt(case["prompt"], model=model, max_tokens=max_tokens))
        for case in cases
    ]
    return [ids_of(call) for call in calls]


def test_chats_are_rendered_and_tokenised_as_the_reference_does(chat_channel):
    inputs = [tokenization_pb2.TokenizeInput(chat=chat_input(*messages_of(c))) for c in CHATS]
    results = tokenize(chat_channel, inputs=inputs)
    assert [result.rendered for result in results] == [case["rendered"] for case in CHATS]
    assert [list(result.token_ids) for result in results] == [case["prompt_ids"] for case in CHATS]


@pytest.mark.parametrize(
    ("column", "parse_special"), [("ids_trusted_text", True), ("ids_user_text", False)]
)
def test_every_row_of_the_tokenization_is_the_same(chat_channel, report, column, parse_special):
    rows = REFERENCE["tokenization"]
    inputs = [tokenization_pb2.TokenizeInput(text=row["text"]) for row in rows]
    results = tokenize(chat_channel, inputs=inputs, parse_special=parse_special)
    for row, result in zip(rows, results, strict=True):
        assert list(result.token_ids) == row[column], row["text"]
    report(f"{column}: {len(rows)} rows")


def test_float32_writes_the_text_up_to_the_first_small_margin(chat_channel, report):
    cases = COMPLETIONS + CHATS
    longest = max(len(case["greedy_ids"]) for case in cases)
    answers = streams(chat_channel, cases, f"{CHAT_MODEL}:float32", longest)
    num_compared = 0
    for case, ids in zip(cases, answers, strict=True):
        margins = takewhile(lambda margin: margin >= MIN_MARGIN, case["top1_top2_margin"])
        num_decided = len(list(margins))
        assert ids[:num_decided] == case["greedy_ids"][:num_decided], case["greedy_text"]
        num_compared += num_decided
    report(f"float32: {num_compared} tokens of {len(cases)} texts")
    assert num_compared > 300


def test_int8_writes_mostly_the_same_first_tokens(chat_channel, report):
    cases = COMPLETIONS + CHATS
    answers = streams(chat_channel, cases, CHAT_MODEL, 8)
    pairs = [
        pair
        for case, ids in zip(cases, answers, strict=True)
        for pair in zip(ids, case["greedy_ids"][:8], strict=False)
    ]
    num_equal = sum(ours == theirs for ours, theirs in pairs)
    report(f"int8: {num_equal} of {len(pairs)} first tokens equal")
    assert len(pairs) == 8 * len(cases)
    assert num_equal >= 0.8 * len(pairs)


def test_a_chat_continues_its_last_message(chat_channel):
    case = CHATS[0]
    begun = "Gravity is a"
    input_ = chat_input(*messages_of(case), ("assistant", begun))
    input_.continue_final_message = True
    (result,) = tokenize(chat_channel, inputs=[tokenization_pb2.TokenizeInput(chat=input_)])
    assert result.rendered == case["rendered"] + begun
    request = chat_pb2.ChatRequest(model=f"{CHAT_MODEL}:float32", input=input_)
    request.sampling.temperature, request.sampling.max_tokens = 0, 12
    (choice,) = text_generation(chat_channel).Chat(request).choices
    assert case["greedy_text"].startswith(begun + choice.message.content[0].text)
