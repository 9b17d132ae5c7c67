from __future__ import annotations

import itertools

import numpy as np
import pytest

from leptond.backend.fake import (
    END_OF_TURN,
    START_OF_TURN,
    VOCAB_SIZE,
    FakeLanguage,
    FakeOptions,
    TokenHistory,
    expected_tokens,
)

PROMPT = list(b"Tell me a story\n")
STOP = frozenset({END_OF_TURN})


@pytest.fixture(scope="module")
def language():
    return FakeLanguage()


def text_of(tokens):
    return bytes(token for token in tokens if token < 256).decode()


def test_answers_never_change_between_releases():
    # Documentation shows such texts, and clients compare with them.
    assert text_of(expected_tokens(PROMPT, 33)) == "Titi mé, salizi fidofo bevi zöd"


def test_a_text_is_made_of_words_and_sentences():
    text = text_of(expected_tokens(PROMPT, 2000, FakeOptions(mean_sentences=0)))
    words = text.replace(",", "").replace(".", "").split()
    assert len(words) > 200
    assert all(3 <= len(word.encode()) <= 13 or word == words[-1] for word in words)
    assert len(set(words)) > len(words) / 2
    sentences = text.split(". ")
    assert len(sentences) > 10
    assert all(sentence[0].isupper() for sentence in sentences if sentence)
    assert not text.isascii(), "some characters take two tokens"


@pytest.mark.parametrize(
    "other",
    [
        PROMPT[:-1],
        PROMPT[1:],
        [PROMPT[1], PROMPT[0], *PROMPT[2:]],
        [*PROMPT, PROMPT[-1]],
        [START_OF_TURN, *PROMPT],
        [0, *PROMPT],
        [],
    ],
    ids=["cut", "headless", "swapped", "doubled", "longer", "padded", "empty"],
)
def test_every_token_of_the_history_counts(language, other):
    histories = [TokenHistory(tokens) for tokens in (PROMPT, other)]
    one, two = (language.logits(history, len(history)) for history in histories)
    assert not np.array_equal(one, two)
    assert expected_tokens(PROMPT, 40) != expected_tokens(other, 40)


def test_models_of_different_seeds_differ():
    texts = {tuple(expected_tokens(PROMPT, 40, FakeOptions(seed=seed))) for seed in range(5)}
    assert len(texts) == 5


def test_the_greedy_token_leads_its_logits_by_one(language):
    history = TokenHistory(PROMPT)
    for _ in range(500):
        logits = language.logits(history, len(history))
        assert logits.shape == (VOCAB_SIZE,)
        assert logits.dtype == np.float32
        second, best = np.sort(logits)[-2:]
        assert best - second >= 1 - 1e-5
        token = language.next_token(history)
        assert token == int(logits.argmax())
        history.extend((token,))
    assert history.tokens[len(PROMPT) :] == expected_tokens(PROMPT, 500)


def test_the_logits_of_a_prefix_are_those_of_a_shorter_history(language):
    whole = TokenHistory(PROMPT)
    for length in range(len(PROMPT) + 1):
        shorter = TokenHistory(PROMPT[:length])
        assert np.array_equal(language.logits(whole, length), language.logits(shorter, length))


def test_a_truncated_history_and_a_prefix_equal_a_fresh_one():
    history = TokenHistory(PROMPT)
    prefix = history.prefix(5)
    history.truncate(5)
    fresh = TokenHistory(PROMPT[:5])
    for other in (prefix, history):
        assert (other.tokens, other.hashes) == (fresh.tokens, fresh.hashes)
    prefix.extend((1,))
    assert len(history) == 5


def test_an_answer_ends_itself_after_some_sentences():
    prompts = [list(f"question {number}\n".encode()) for number in range(100)]
    answers = [expected_tokens(prompt, 5000, stop_token_ids=STOP) for prompt in prompts]
    assert all(answer[-1] == END_OF_TURN for answer in answers)
    assert all(END_OF_TURN not in answer[:-1] for answer in answers)
    sentences = [text_of(answer).count(".") for answer in answers]
    assert 3 < sum(sentences) / len(sentences) < 5


@pytest.mark.parametrize(("mean_sentences", "ends_after"), [(1, 1), (0, None)])
def test_an_answer_may_be_told_when_to_end(mean_sentences, ends_after):
    options = FakeOptions(mean_sentences=mean_sentences)
    answer = expected_tokens(PROMPT, 3000, options, stop_token_ids=STOP)
    if ends_after is None:
        assert len(answer) == 3000
    else:
        assert text_of(answer).count(".") == ends_after


def test_expected_tokens_are_as_many_as_asked_for():
    assert expected_tokens(PROMPT, 0) == []
    ten = expected_tokens(PROMPT, 10)
    assert expected_tokens(PROMPT, 7) == ten[:7]
    assert list(itertools.islice(FakeLanguage().generate(PROMPT), 10)) == ten


@pytest.mark.parametrize("last", [0x80, 0xFF, ord("7"), ord("-"), ord("\t")])
def test_a_prompt_may_end_in_anything(language, last):
    assert language.next_token(TokenHistory([last])) == ord(" ")


def test_an_embedding_depends_on_every_token_and_has_length_one(language):
    one, two = language.embed(PROMPT, 32), language.embed(PROMPT[::-1], 32)
    assert one.dtype == np.float32
    assert np.linalg.norm(one) == pytest.approx(1)
    assert not np.array_equal(one, two)
