from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from leptond.backend import SessionOptions, StepRow
from leptond.backend.fake import TOKEN_BYTES, FakeModel, FakeOptions, expected_tokens
from leptond.errors import (
    BackendCrashed,
    BackendFault,
    InvariantViolation,
    MemoryBudgetExceeded,
    RequestTooLarge,
)

PROMPT = list(b"Hello\n")


class SimulatedTime:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now_s = 0.0

    def sleep(self, seconds):
        self.now_s += seconds


@pytest.fixture
def time():
    return SimulatedTime()


@pytest.fixture
def open_session(time):
    """Opens sessions of a model with these options, and shuts them down."""
    sessions = []

    def open_session(num_slots=4, max_tokens=64, **options):
        model = FakeModel(FakeOptions(**options), time.sleep)
        session = model.open_session(SessionOptions(num_slots, max_tokens))
        sessions.append(session)
        return session

    yield open_session
    for session in sessions:
        session.shutdown()


def decode(session, prompt, num_tokens):
    """Greedy tokens of a prompt that is alone."""
    slot = session.open()
    tokens: list[int] = []
    new = prompt
    while len(tokens) < num_tokens:
        new = [int(session.step([StepRow(slot, new)]).candidate_ids[0, 0])]
        tokens += new
    session.close(slot)
    return tokens


def test_a_decode_loop_gives_the_expected_tokens(open_session):
    session = open_session()
    assert decode(session, PROMPT, 20) == expected_tokens(PROMPT, 20)


def test_rows_that_share_steps_give_the_expected_tokens(open_session):
    session = open_session()
    prompts = [list(f"prompt {number}\n".encode()) for number in range(4)]
    slots = [session.open() for _ in prompts]
    tokens: list[list[int]] = [[] for _ in prompts]
    new = prompts
    for _ in range(10):
        result = session.step([StepRow(slot, ids) for slot, ids in zip(slots, new, strict=True)])
        new = [[int(ids[0])] for ids in result.candidate_ids]
        for answer, step in zip(tokens, new, strict=True):
            answer.extend(step)
    assert tokens == [expected_tokens(prompt, 10) for prompt in prompts]


def test_the_lowest_slot_that_was_never_used_comes_first(open_session):
    session = open_session()
    assert [session.open() for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(MemoryBudgetExceeded, match="all 4 slots"):
        session.open()


def test_a_view_of_the_logits_is_overwritten_by_the_next_step(open_session):
    session = open_session()
    slot = session.open()
    view = session.step([StepRow(slot, PROMPT)]).logits
    kept = view.copy()
    session.step([StepRow(slot, PROMPT)])
    assert not np.array_equal(view, kept)


def test_more_lines_than_slots_can_be_wanted(open_session):
    session = open_session(num_slots=1)
    slot = session.open()
    result = session.step([StepRow(slot, PROMPT, num_logits=6)])
    assert result.logits.shape[0] == 6


def test_tokens_in_slots_take_memory(open_session):
    session = open_session()
    slot = session.open()
    session.step([StepRow(slot, PROMPT)])
    assert session.resident_bytes() == len(PROMPT) * TOKEN_BYTES


def test_an_overlong_row_names_the_limit(open_session):
    session = open_session(max_tokens=8)
    with pytest.raises(RequestTooLarge, match="would hold 9 tokens; at most 8 fit"):
        session.step([StepRow(session.open(), [0] * 9)])


def test_a_step_takes_the_time_that_its_rows_and_tokens_cost(open_session, time):
    session = open_session(tokens_per_s=50, prefill_tokens_per_s=1000, row_ms=2)
    slots = [session.open() for _ in range(3)]
    session.step([StepRow(slots[0], [1])])
    assert time.now_s == pytest.approx(0.020 + 0.002)
    time.now_s = 0
    rows = [StepRow(slots[0], [1]), StepRow(slots[1], [1]), StepRow(slots[2], [1] * 31)]
    session.step(rows)
    assert time.now_s == pytest.approx(0.020 + 3 * 0.002 + 30 * 0.001)


def test_a_model_without_a_speed_takes_no_time(open_session, time):
    decode(open_session(), PROMPT, 5)
    assert time.now_s == 0


def test_a_fault_leaves_every_slot_as_it_was_and_the_session_usable(open_session):
    session = open_session(fault_at=2)
    slot = session.open()
    session.step([StepRow(slot, PROMPT)])
    with pytest.raises(BackendFault, match="failed call 2"):
        session.step([StepRow(slot, [1])])
    assert session.length(slot) == len(PROMPT)
    session.step([StepRow(slot, [1])])
    assert session.length(slot) == len(PROMPT) + 1


def test_a_poisonous_row_fails_every_step_that_it_is_in(open_session):
    session = open_session(poison_token=7)
    good, bad = session.open(), session.open()
    for _ in range(2):
        with pytest.raises(BackendFault, match="poisonous token 7"):
            session.step([StepRow(good, [1]), StepRow(bad, [3, 7])])
    session.step([StepRow(good, [1])])
    assert (session.length(good), session.length(bad)) == (1, 0)


def test_a_crash_ends_the_session(open_session):
    session = open_session(crash_at=1)
    slot = session.open()
    with pytest.raises(BackendCrashed, match="crashed in call 1"):
        session.step([StepRow(slot, PROMPT)])
    for use in (session.open, lambda: session.length(slot), lambda: session.step([])):
        with pytest.raises(BackendCrashed, match="session is dead"):
            use()


def test_a_stalled_step_hangs_once(open_session, time):
    session = open_session(stall_at=2, stall_s=30)
    slot = session.open()
    session.step([StepRow(slot, PROMPT)])
    assert time.now_s == 0
    session.step([StepRow(slot, [1])])
    session.step([StepRow(slot, [1])])
    assert time.now_s == 30


def test_a_session_that_was_shut_down_refuses_to_be_used(open_session):
    session = open_session()
    session.shutdown()
    with pytest.raises(InvariantViolation, match="after its shutdown"):
        session.open()
    assert session.resident_bytes() == 0


def test_another_thread_than_the_owner_is_refused(open_session):
    session = open_session()
    with ThreadPoolExecutor(1) as pool:
        for verb in (session.open, session.resident_bytes, session.shutdown):
            error = pool.submit(verb).exception()
            assert isinstance(error, InvariantViolation)
            assert "does not own it" in str(error)
    session.open()
