"""Rows of decoders and translators among each other: streams, ends, interrupts, odd company."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from leptond.backend import BatchRow
from leptond.errors import BackendFault, InvalidRequest, RequestTooLarge
from leptond.types import SamplingParams
from tests.integration.leptond_ctranslate2.conftest import Answer, ask

PROMPTS = {"llama": [[5, 6, 7], [9], [11, 12, 13, 14, 15, 16, 17], [9, 8]], "nllb": []}
PROMPTS["nllb"] = [[108, *prompt, 2] for prompt in PROMPTS["llama"]]
STREAMED = ["llama", "nllb"]


def rows_of(name, **options):
    return [BatchRow(prompt, options={"max_tokens": 8, **options}) for prompt in PROMPTS[name]]


@pytest.mark.parametrize("name", STREAMED)
def test_a_row_is_answered_alone_as_in_odd_company(open_session, name):
    """With a one-token prompt beside longer ones the engine alone would answer with prompts."""
    session = open_session(name)
    rows = rows_of(name)
    alone = [ask(session, [row])[0] for row in rows]
    for order in (rows, rows[::-1], rows[1:], rows[::2]):
        for row, answer in zip(order, ask(session, order), strict=True):
            expected = alone[rows.index(row)]
            assert answer.token_ids == expected.token_ids
            np.testing.assert_allclose(answer.scores, expected.scores, atol=1e-4)


def test_a_row_without_content_does_not_shift_the_others(open_session):
    """The engine skips such a row, and would give the tokens of the next row to it."""
    session = open_session("t5-relu")
    full = [BatchRow(ids, options={"max_tokens": 5}) for ids in ([20, 21, 1], [30], [40])]
    empty = BatchRow([1, 1], options={"max_tokens": 5})  # longer than some that are not
    expected = [ask(session, [row])[0].token_ids for row in full]
    answers = ask(session, [empty, full[0], empty, full[1], full[2], empty])
    assert [answer.token_ids for answer in answers] == [
        [], expected[0], [], expected[1], expected[2], [],
    ]  # fmt: skip
    assert [answer.token_ids for answer in ask(session, [empty])] == [[]]


@pytest.mark.parametrize("name", STREAMED)
def test_every_token_comes_in_a_chunk_of_its_own_with_its_logprob(open_session, name):
    chunks = []

    def emit(index, chunk):
        chunks.append(chunk)
        return True

    open_session(name).run(rows_of(name)[:1], emit)
    assert [len(chunk.token_ids) for chunk in chunks] == [1] * 8
    assert [chunk.is_final for chunk in chunks] == [False] * 7 + [True]
    assert all(chunk.scores[0] <= 0 for chunk in chunks)


@pytest.mark.parametrize("name", STREAMED)
def test_a_reader_that_wants_no_more_ends_its_row_at_once_and_no_other(open_session, name):
    session = open_session(name)
    rows = rows_of(name)
    whole = ask(session, rows)
    answers = [Answer() for _ in rows]

    def emit(index, chunk):
        answers[index].take(chunk)
        return index != 2 or len(answers[2].token_ids) < 3

    session.run(rows, emit)
    assert answers[2].token_ids == whole[2].token_ids[:3]
    assert not answers[2].is_final
    for index in (0, 1, 3):
        assert answers[index].token_ids == whole[index].token_ids


@pytest.mark.parametrize("name", STREAMED)
def test_an_interrupt_from_another_thread_ends_every_row_at_its_next_token(open_session, name):
    session = open_session(name)
    rows = rows_of(name)
    whole = ask(session, rows)
    answers = [Answer() for _ in rows]

    def emit(index, chunk):
        answers[index].take(chunk)
        if len(answers[index].token_ids) == 2:
            thread = threading.Thread(target=session.interrupt)
            thread.start()
            thread.join()
        return True

    session.run(rows, emit)
    assert sum(len(answer.token_ids) for answer in answers) <= 2 * len(rows)
    assert not any(answer.is_final for answer in answers)
    assert ask(session, rows)[0].token_ids == whole[0].token_ids


@pytest.mark.parametrize("name", STREAMED)
def test_what_the_reader_raised_is_raised_and_the_session_lives(open_session, name):
    session = open_session(name)

    def emit(index, chunk):
        raise LookupError("the reader broke")

    with pytest.raises(LookupError, match="the reader broke"):
        session.run(rows_of(name), emit)
    assert len(ask(session, rows_of(name))) == 4


@pytest.mark.parametrize("name", STREAMED)
def test_rows_may_differ_in_how_many_tokens_they_want(open_session, name):
    session = open_session(name)
    rows = rows_of(name)
    whole = ask(session, rows)
    wanted = [3, 0, 8, 1]
    differing = [
        replace(row, options={"max_tokens": count}) for row, count in zip(rows, wanted, strict=True)
    ]
    for count, answer, full in zip(wanted, ask(session, differing), whole, strict=True):
        assert answer.token_ids == full.token_ids[:count]


@pytest.mark.parametrize("name", STREAMED)
def test_rows_that_differ_in_how_they_are_decoded_are_refused(open_session, name):
    first, second, *_ = rows_of(name)
    other = replace(second, options={**second.options, "stop_token_ids": (3,)})
    with pytest.raises(InvalidRequest, match="stop_token_ids differs"):
        open_session(name).run([first, other], lambda index, chunk: True)


@pytest.mark.parametrize("name", STREAMED)
def test_a_stop_token_is_the_last_of_its_answer(open_session, name):
    session = open_session(name)
    rows = rows_of(name)
    whole = ask(session, rows)[0].token_ids
    stop = whole[3]
    answer = ask(session, [replace(rows[0], options={"max_tokens": 8, "stop_token_ids": (stop,)})])
    assert answer[0].token_ids == whole[: whole.index(stop) + 1]


def test_a_generator_holds_stop_tokens_back_until_the_minimum(open_session):
    session = open_session("llama")
    row = rows_of("llama")[0]
    stop = ask(session, [row])[0].token_ids[0]
    options = {"max_tokens": 8, "stop_token_ids": (stop,)}
    (early,) = ask(session, [replace(row, options=options)])
    (late,) = ask(session, [replace(row, options={**options, "min_tokens": 4})])
    assert early.token_ids == [stop]
    assert stop not in late.token_ids[:4]
    assert len(late.token_ids) > 4
    assert late.scores == []


@pytest.mark.parametrize(("name", "room"), [("llama", 17), ("nllb", 60), ("marian", 64)])
def test_without_a_bound_an_answer_ends_where_the_room_does(open_session, name, room):
    session = open_session(name, max_tokens=20)
    prompt = [5, 6, 7]
    (answer,) = ask(session, [BatchRow(prompt, options={"stop_token_ids": ()})])
    assert len(answer.token_ids) == room
    wide = BatchRow(prompt, options={"stop_token_ids": (), "max_tokens": 10_000})
    assert ask(session, [wide])[0].token_ids == answer.token_ids


@pytest.mark.parametrize("name", STREAMED)
def test_random_answers_differ_and_greedy_ones_do_not(open_session, name):
    session = open_session(name)
    row = rows_of(name)[0]
    greedy = ask(session, [row])[0].token_ids
    for sampling, is_random in (
        (SamplingParams(temperature=0, top_k=5), False),
        (SamplingParams(temperature=1, top_k=1), False),
        (SamplingParams(temperature=1, top_p=1e-6), False),
        (SamplingParams(temperature=2), True),
    ):
        rows = [replace(row, options={"max_tokens": 8, "sampling": sampling})] * 16
        texts = {tuple(answer.token_ids) for answer in ask(session, rows)}
        assert (len(texts) > 1) is is_random
        assert is_random or texts == {tuple(greedy)}


def test_sampling_stays_among_the_k_best(open_session):
    session = open_session("llama")
    row = BatchRow(PROMPTS["llama"][0], options={"max_tokens": 1})
    best = set()
    for token in range(2):
        sampling = SamplingParams(top_k=token + 1, temperature=5)
        rows = [replace(row, options={"max_tokens": 1, "sampling": sampling})] * 32
        best |= {answer.token_ids[0] for answer in ask(session, rows)}
    assert len(best) == 2


def test_a_translator_penalises_what_it_said(open_session):
    session = open_session("nllb")
    row = rows_of("nllb")[0]
    plain = ask(session, [row])[0].token_ids
    assert len(set(plain)) < len(plain)
    sampling = SamplingParams(temperature=0, repetition_penalty=1000.0)
    (answer,) = ask(session, [replace(row, options={"max_tokens": 8, "sampling": sampling})])
    assert len(set(answer.token_ids)) == len(answer.token_ids)
    assert answer.scores == []


@pytest.mark.parametrize("name", STREAMED)
def test_beams_come_whole_and_best_first(open_session, name):
    session = open_session(name)
    rows = rows_of(name, beam_size=3, num_hypotheses=2)
    alone = [ask(session, [row])[0].tensors for row in rows]
    for answer, expected in zip(ask(session, rows), alone, strict=True):
        assert answer.token_ids == []
        scores, hypotheses = answer.tensors["scores"], answer.tensors["hypotheses"]
        assert scores.dtype == np.float32
        assert hypotheses.dtype == np.int64
        assert scores[0] >= scores[1]
        np.testing.assert_array_equal(hypotheses, expected["hypotheses"])
        np.testing.assert_allclose(scores, expected["scores"], atol=1e-4)


@pytest.mark.parametrize("name", STREAMED)
def test_several_random_answers_come_whole(open_session, name):
    sampling = SamplingParams(temperature=2)
    (answer,) = ask(open_session(name), rows_of(name, num_hypotheses=4, sampling=sampling)[:1])
    assert len(answer.tensors["hypotheses"]) == 4
    assert len({tuple(line) for line in answer.tensors["hypotheses"].tolist()}) > 1


def test_a_length_penalty_changes_the_score(open_session):
    session = open_session("nllb")
    scores = [
        ask(session, rows_of("nllb", beam_size=2, length_penalty=penalty)[:1])[0].tensors["scores"]
        for penalty in (0.0, 1.0)
    ]
    assert scores[0][0] == pytest.approx(8 * scores[1][0], rel=1e-4)


def test_a_prefix_begins_the_answer_and_is_not_given_back(open_session):
    session = open_session("nllb")
    row = rows_of("nllb")[0]
    (whole,) = ask(session, [row])
    prefix = {"target_prefix": np.array(whole.token_ids[:3])}
    for options, count in (({"max_tokens": 5}, 5), ({"max_tokens": 0}, 0)):
        (rest,) = ask(session, [replace(row, tensors=prefix, options=options)])
        assert rest.token_ids == whole.token_ids[3 : 3 + count]
    beams = {"max_tokens": 5, "beam_size": 2}
    (found,) = ask(session, [replace(row, tensors=prefix, options=beams)])
    assert found.tensors["hypotheses"].shape == (1, 5)


def test_prefixes_of_one_call_may_differ_in_length(open_session):
    session = open_session("nllb")
    rows = rows_of("nllb")
    prefixes = [np.array(ids, np.int64) for ids in ([], [20, 21, 22], [30], [40, 41])]
    batch = [
        replace(row, tensors={"target_prefix": prefix})
        for row, prefix in zip(rows, prefixes, strict=True)
    ]
    for row, answer in zip(batch, ask(session, batch), strict=True):
        assert answer.token_ids == ask(session, [row])[0].token_ids
        assert len(answer.token_ids) == 8


@pytest.mark.parametrize(
    ("name", "bad", "error"),
    [
        ("llama", BatchRow(), InvalidRequest),
        ("llama", BatchRow([-1]), InvalidRequest),
        ("llama", BatchRow([5] * 256), RequestTooLarge),
        ("llama", BatchRow([5], options={"task": "embed"}), InvalidRequest),
        ("llama", BatchRow([5], options={"sampling": SamplingParams(seed=3)}), InvalidRequest),
        ("llama", BatchRow([5], outputs={"logits": np.zeros(3)}), InvalidRequest),
        ("llama", BatchRow([5], options={"task": "score", "beam_size": 2}), InvalidRequest),
        ("nllb", BatchRow([5] * 65), RequestTooLarge),
        ("nllb", BatchRow([5], tensors={"target_prefix": np.array([999])}), InvalidRequest),
        ("nllb", BatchRow([5], tensors={"target_prefix": np.zeros(3)}), InvalidRequest),
        ("nllb", BatchRow([5], tensors={"target_prefix": np.full(65, 5)}), RequestTooLarge),
        ("embedder", BatchRow([5], options={"task": "classify"}), InvalidRequest),
        ("embedder", BatchRow([5], options={"pooling": "max"}), InvalidRequest),
        ("embedder", BatchRow([5], options={"size": 3}), InvalidRequest),
        ("embedder", BatchRow([5], tensors={"token_type_ids": np.array([2])}), InvalidRequest),
        ("embedder", BatchRow([5], tensors={"token_type_ids": np.array([0, 0])}), InvalidRequest),
        ("bert-classifier", BatchRow([5], options={"pooling": "cls"}), InvalidRequest),
    ],
)
def test_a_bad_row_is_refused_before_anything_ran(open_session, name, bad, error):
    def emit(index, chunk):
        pytest.fail("a chunk beside a bad row")

    good = BatchRow([5, 6], options=bad.options)
    for batch in ([bad], [good, bad], [bad, good]):
        with pytest.raises(error):
            open_session(name).run(batch, emit)


@pytest.mark.parametrize("name", ["llama", "nllb", "embedder"])
def test_no_rows_are_no_work(open_session, name):
    open_session(name).run([], lambda index, chunk: pytest.fail("a chunk of nothing"))


@pytest.mark.parametrize("name", ["llama", "nllb", "embedder"])
def test_what_the_engine_refuses_is_a_fault_of_that_call_alone(open_session, monkeypatch, name):
    session = open_session(name)
    row = BatchRow([5, 6], options={} if name == "embedder" else {"max_tokens": 2})
    engine = next(
        attribute
        for attribute in ("_generator", "_translator", "_encoder")
        if hasattr(session, attribute)
    )

    class Broken:
        def __getattr__(self, verb):
            def fail(*args, **arguments):
                raise RuntimeError("cannot allocate")

            return fail

    with monkeypatch.context() as patch:
        patch.setattr(session, engine, Broken())
        with pytest.raises(BackendFault, match="cannot allocate"):
            session.run([row], lambda index, chunk: True)
    ask(session, [row])
