"""The state machine of one model, without threads."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from leptond.errors import InvariantViolation, ModelFailed, ModelLoading
from leptond.models.lifecycle import ModelEntry
from leptond.models.store import StoredVariant
from leptond.types import ModelState, Task


@pytest.fixture
def states():
    return []


@pytest.fixture
def entry(states):
    variant = StoredVariant(
        "toy", "int8", 1, "fake", "int8", frozenset({Task.GENERATE}), Path(), Path()
    )
    return ModelEntry(variant, lambda name, state: states.append((name, state)), lambda: 7.0)


@pytest.fixture
def model():
    return SimpleNamespace(name="toy:int8")


def load(entry, model):
    future, is_mine = entry.begin_load()
    assert is_mine
    entry.end_load(model)
    return future


def test_a_load_makes_it_ready(entry, model, states):
    future = load(entry, model)
    assert future.result(0) is model
    assert entry.state is ModelState.READY
    assert states == [("toy:int8", ModelState.LOADING), ("toy:int8", ModelState.READY)]


def test_those_who_ask_while_it_loads_share_the_load(entry, model):
    first, is_first = entry.begin_load()
    second, is_second = entry.begin_load()
    assert (first is second, is_first, is_second) == (True, True, False)
    entry.end_load(model)
    third, is_third = entry.begin_load()
    assert third.result(0) is model
    assert not is_third


def test_a_failed_load_says_why_and_can_be_tried_again(entry, model):
    future, _ = entry.begin_load()
    entry.end_load(ModelFailed("no weights"))
    with pytest.raises(ModelFailed, match="no weights"):
        future.result(0)
    assert (entry.state, entry.reason) == (ModelState.FAILED, "no weights")
    assert entry.lease() is None
    load(entry, model)
    assert (entry.state, entry.reason) == (ModelState.READY, "")


def test_a_lease_holds_the_model_until_it_is_released(entry, model):
    load(entry, model)
    lease = entry.lease()
    assert not entry.is_idle
    taken, drained = entry.begin_unload()
    assert taken is model
    assert entry.lease() is None
    assert not drained.done()
    lease.release()
    assert drained.done()
    entry.end_unload()
    assert entry.state is ModelState.AVAILABLE


def test_an_idle_model_is_drained_at_once(entry, model):
    load(entry, model)
    assert entry.is_idle
    _, drained = entry.begin_unload()
    assert drained.done()


def test_a_lease_is_released_once(entry, model):
    load(entry, model)
    lease = entry.lease()
    lease.release()
    with pytest.raises(InvariantViolation, match="released twice"):
        lease.release()


def test_what_is_not_ready_is_neither_leased_nor_unloaded(entry):
    assert entry.lease() is None
    assert entry.begin_unload() is None


def test_it_is_not_loaded_while_it_unloads(entry, model):
    load(entry, model)
    lease = entry.lease()
    entry.begin_unload()
    with pytest.raises(ModelLoading, match="being unloaded") as caught:
        entry.begin_load()
    assert caught.value.retry_after_s
    lease.release()
    entry.end_unload()
    assert entry.begin_load()[1]


def test_a_load_that_was_not_begun_cannot_end(entry, model):
    with pytest.raises(InvariantViolation):
        entry.end_load(model)
