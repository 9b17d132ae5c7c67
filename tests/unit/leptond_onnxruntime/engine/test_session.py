from __future__ import annotations

import gc

import numpy as np
import pytest

from leptond.backend import RowPick, SessionOptions, StepRow
from leptond.errors import (
    BackendCrashed,
    BackendFault,
    InvalidRequest,
    InvariantViolation,
    RequestTooLarge,
)
from leptond_onnxruntime.arena import ArenaLayout, HostArena
from leptond_onnxruntime.body_runner import MAX_RANGES
from leptond_onnxruntime.device import CpuDevice
from leptond_onnxruntime.graphs import Graph
from leptond_onnxruntime.importer import GraphSpec
from leptond_onnxruntime.importer import graph_io as io
from leptond_onnxruntime.options import EngineOptions
from leptond_onnxruntime.runs import RunLimits
from leptond_onnxruntime.session import OnnxStepSession
from leptond_onnxruntime.slots import MAX_HOLES

TEXT = np.random.default_rng(0).integers(3, 290, 400).tolist()


class FailingBinding:
    """Fails every run for as long as its graph says so."""

    def __init__(self, binding, graph):
        self._binding = binding
        self._graph = graph

    def __getattr__(self, name):
        return getattr(self._binding, name)

    def run(self):
        self._binding.run()
        if self._graph.error is not None:
            raise self._graph.error


class FailingGraph:
    """A graph whose runs do their work and then fail with `error`, if there is one."""

    def __init__(self, graph):
        self._graph = graph
        self.error = None

    def bind(self):
        return FailingBinding(self._graph.bind(), self)


@pytest.fixture
def open_session(tiny_source):
    """Open sessions with limits and graphs of the test's choice."""
    directory = tiny_source().directory
    spec = GraphSpec.read(directory)
    options = EngineOptions(num_threads=1)
    graphs = [
        Graph.open(directory / file, CpuDevice(), options) for file in (io.BODY_FILE, io.HEAD_FILE)
    ]
    sessions = []

    def opened(*, num_slots=4, max_tokens=500, wrap=lambda graph: graph, **limits):
        layout = ArenaLayout.fitted(
            num_layers=spec.num_layers,
            num_slots=num_slots,
            num_kv_heads=spec.num_kv_heads,
            min_len=max_tokens + 64,
            head_dim=spec.head_dim,
            dtype=np.dtype(spec.kv_dtype),
        )
        body, head = map(wrap, graphs)
        session = OnnxStepSession(
            spec,
            body,
            head,
            HostArena(layout),
            max_tokens=max_tokens,
            limits=RunLimits(**limits),
        )
        sessions.append(session)
        return session

    yield opened
    for session in sessions:
        session.shutdown()


def answers(session, text, num_logits):
    slot = session.open()
    logits = session.step([StepRow(slot, text, num_logits=num_logits)]).logits.copy()
    session.close(slot)
    return logits


def test_a_long_prompt_is_answered_alike_in_one_run_and_in_many(open_session):
    whole = answers(open_session(max_run_tokens=1000), TEXT, 300)
    pieces = answers(open_session(ride_along_tokens=8, max_run_tokens=64), TEXT, 300)
    assert np.abs(whole - pieces).max() < 1e-4


def test_lines_come_in_the_order_of_the_rows_whatever_the_runs(open_session):
    session = open_session(ride_along_tokens=8, max_run_tokens=64, num_slots=6)
    texts = [TEXT[:n] for n in (3, 100, 1, 20, 20, 150)]
    expected = [answers(session, text, min(3, len(text))) for text in texts]
    rows = [StepRow(session.open(), text, num_logits=min(3, len(text))) for text in texts]
    for order in ([0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 4, 2]):
        logits = session.step([rows[index] for index in order]).logits
        wanted = np.concatenate([expected[index] for index in order])
        assert np.abs(logits - wanted).max() < 1e-4
        for row in rows:
            session.truncate(row.slot, 0)


def test_a_full_slot_runs_beside_a_chunk_that_pads_it(open_session):
    session = open_session(max_tokens=100)
    expected = answers(session, TEXT[:100], 1)
    full = session.open()
    session.step([StepRow(full, TEXT[:99], num_logits=0)])
    rows = [StepRow(full, TEXT[99:100]), StepRow(session.open(), TEXT[:64], num_logits=0)]
    assert np.abs(session.step(rows).logits - expected).max() < 1e-4


def test_an_empty_step_answers_nothing(open_session):
    result = open_session().step([])
    assert result.logits.shape[0] == result.candidate_ids.shape[0] == 0


def failing_session(open_session):
    """A session, and its two graphs by name."""
    graphs = []

    def wrap(graph):
        graphs.append(FailingGraph(graph))
        return graphs[-1]

    session = open_session(wrap=wrap)
    return session, dict(zip(("body", "head"), graphs, strict=True))


@pytest.mark.parametrize("part", ["body", "head"])
def test_a_failed_run_leaves_every_slot_as_it_was(open_session, part):
    session, graphs = failing_session(open_session)
    expected = answers(session, TEXT[:9], 9)
    slots = [session.open() for _ in range(2)]
    session.step([StepRow(slot, TEXT[:5], num_logits=0) for slot in slots])
    failing = graphs[part]
    failing.error = BackendFault("the run failed")
    # Other tokens than those that follow: what they leave behind must not be seen.
    with pytest.raises(BackendFault):
        session.step([StepRow(slot, TEXT[50:60]) for slot in slots])
    assert [session.length(slot) for slot in slots] == [5, 5]
    failing.error = None
    rows = [StepRow(slot, TEXT[5:9], num_logits=4) for slot in slots]
    logits = session.step(rows).logits
    assert np.abs(logits - np.concatenate([expected[5:], expected[5:]])).max() < 1e-4


def test_after_a_crash_the_session_is_dead_and_can_be_shut_down(open_session):
    session, graphs = failing_session(open_session)
    slot = session.open()
    graphs["body"].error = BackendCrashed("the device is gone")
    for call in (
        lambda: session.step([StepRow(slot, [5])]),
        lambda: session.step([StepRow(slot, [5])]),
        session.open,
        lambda: session.close(slot),
    ):
        with pytest.raises(BackendCrashed):
            call()
    session.shutdown()


def test_an_error_of_the_engine_is_a_fault_with_its_text(open_session):
    session = open_session()
    hidden = np.zeros((1, 3), np.float32)  # a width that the head does not take
    with pytest.raises(BackendFault, match="hidden"):
        session._head.run(hidden, [None])


def many_open(session, text):
    slots = [session.open() for _ in range(MAX_HOLES + 4)]
    session.step([StepRow(slot, text[:-1], num_logits=0) for slot in slots])
    return slots


def test_many_holes_are_closed_while_handles_stay(open_session):
    session = open_session(num_slots=MAX_HOLES + 4)
    text = TEXT[:12]
    expected = answers(session, text, 1)
    slots = many_open(session, text)
    keep = slots[-2:]
    for slot in slots[:-2]:
        session.close(slot)
    before = session.resident_bytes()
    indices = set()
    for _ in range(3):
        logits = session.step([StepRow(slot, text[-1:]) for slot in keep]).logits
        assert np.abs(logits - expected).max() < 1e-4
        indices.add(tuple(session._slots.get(slot).index for slot in keep))
        for slot in keep:
            session.truncate(slot, len(text) - 1)
    assert (MAX_HOLES + 2, 0) in indices, "one slot moves per step"
    assert session.resident_bytes() <= before
    session._slots.check_integrity()


def test_a_bad_row_is_refused_with_slot_and_limit(open_session):
    session = open_session(max_tokens=64)
    slot = session.open()
    with pytest.raises(RequestTooLarge, match=rf"slot {slot} would hold 65 tokens; at most 64"):
        session.step([StepRow(slot, TEXT[:65])])
    with pytest.raises(InvalidRequest, match="token 300 is not in the vocabulary of 300") as error:
        session.step([StepRow(slot, [1, 300])])
    assert error.value.field == "token_ids"
    with pytest.raises(InvalidRequest, match=r"bias is float64 \[300\], not float32 \[300\]"):
        session.step([StepRow(slot, [1], pick=RowPick(bias=np.zeros(300, np.float64)))])
    assert session.length(slot) == 0


def test_a_session_is_not_used_after_its_shutdown(open_session):
    session = open_session()
    slot = session.open()
    session.shutdown()
    for call in (
        session.open,
        lambda: session.length(slot),
        lambda: session.step([StepRow(slot, [5])]),
    ):
        with pytest.raises(InvariantViolation):
            call()
    assert session.resident_bytes() == 0


def test_bindings_of_many_ranges_are_kept_up_to_a_limit(open_session):
    session = open_session(num_slots=20)
    slots = [session.open() for _ in range(20)]
    for first in range(20):
        for last in range(first, 20, 3):
            for slot in {slots[first], slots[last]}:
                session.truncate(slot, 0)
            session.step([StepRow(slot, [7]) for slot in {slots[first], slots[last]}])
    assert session._body.num_ranges == MAX_RANGES


def test_models_refuse_sessions_that_they_cannot_open(tiny_model):
    for options, message in (
        (SessionOptions(0, 64), "num_slots is 0, not from 1 to 256"),
        (SessionOptions(257, 64), "num_slots is 257"),
        (SessionOptions(1, 2049), "max_tokens is 2049, not from 1 to 2048"),
        (SessionOptions(1, 64, num_threads=2), "num_threads is 0 for a session"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            tiny_model.open_session(options)


def test_a_model_is_closed_after_its_sessions(tiny_model):
    session = tiny_model.open_session(SessionOptions(1, 64))
    with pytest.raises(InvariantViolation, match="closed before its session"):
        tiny_model.close()
    session.shutdown()
    tiny_model.close()
    tiny_model.close()
    with pytest.raises(InvariantViolation, match="closed model"):
        tiny_model.open_session(SessionOptions(1, 64))


def test_a_closed_model_frees_its_graphs(tiny_model):
    import weakref

    graphs = [weakref.ref(graph) for graph in tiny_model._graphs]
    session = tiny_model.open_session(SessionOptions(1, 64))
    session.step([StepRow(session.open(), [5])])
    session.shutdown()
    del session
    tiny_model.close()
    gc.collect()
    assert all(graph() is None for graph in graphs)


def test_a_model_forgets_sessions_that_are_over(tiny_model):
    import weakref

    first = tiny_model.open_session(SessionOptions(1, 64))
    first.shutdown()
    gone = weakref.ref(first)
    del first
    second = tiny_model.open_session(SessionOptions(1, 64))
    gc.collect()
    assert gone() is None
    second.shutdown()
