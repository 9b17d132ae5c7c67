from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from leptond.backend import (
    API_VERSION,
    Backend,
    BatchSession,
    Model,
    SessionKind,
    SessionOptions,
    StepSession,
)
from leptond.backend.fake import (
    TOKEN_BYTES,
    VOCAB_SIZE,
    FakeBackend,
    FakeOptions,
    backend,
    fake_source,
    write_fake_options,
)
from leptond.errors import (
    BackendUnavailable,
    InvalidRequest,
    InvariantViolation,
    ModelFailed,
    UnsupportedCapability,
)
from leptond.types import Task


def load(options=None, directory=Path("nowhere")):
    return backend.load(fake_source(options, directory), lambda stage, fraction: None)


def test_the_engine_fits_the_interface():
    engine: Backend = backend
    model: Model = load()
    assert engine.name == "fake"
    assert engine.api_version == API_VERSION
    assert engine.importer is None
    assert isinstance(model.open_session(SessionOptions()), StepSession)


def test_a_step_model_declares_its_options():
    capabilities = load(FakeOptions(slots=3, context=99, ride_along_tokens=8)).capabilities
    assert capabilities.kind is SessionKind.STEP
    assert capabilities.tasks == {Task.GENERATE, Task.CHAT}
    assert capabilities.vocab_size == VOCAB_SIZE
    assert (capabilities.max_slots, capabilities.max_batch_rows) == (3, 0)
    assert (capabilities.max_context_tokens, capabilities.ride_along_tokens) == (99, 8)


def test_a_batch_model_opens_batch_sessions():
    model = load(FakeOptions(SessionKind.BATCH, slots=3))
    assert (model.capabilities.max_slots, model.capabilities.max_batch_rows) == (0, 3)
    assert model.capabilities.is_cancellable
    assert isinstance(model.open_session(SessionOptions(3, 10)), BatchSession)


def test_the_estimate_is_what_the_options_claim():
    estimate = backend.estimate_bytes(
        fake_source(FakeOptions(weights_bytes=12345)), SessionOptions(max_tokens=100)
    )
    assert estimate.weights_bytes == 12345
    assert estimate.slot_bytes == 100 * TOKEN_BYTES


def test_a_load_takes_its_time_and_tells_how_far_it_is():
    naps: list[float] = []
    stages: list[tuple[str, float]] = []
    engine = FakeBackend(naps.append)
    engine.load(
        fake_source(FakeOptions(load_s=2)), lambda stage, fraction: stages.append((stage, fraction))
    )
    assert sum(naps) == pytest.approx(2)
    fractions = [fraction for _, fraction in stages]
    assert fractions == sorted(fractions)
    assert stages[0] == ("read weights", 0.0)
    assert stages[-1] == ("ready", 1.0)


def test_a_load_can_be_told_to_fail():
    with pytest.raises(ModelFailed, match="as told"):
        load(FakeOptions(load_fails=1))


def test_a_device_that_is_not_there_is_refused():
    source = replace(fake_source(), device="cuda:0")
    with pytest.raises(BackendUnavailable, match="no device cuda:0"):
        backend.load(source, lambda stage, fraction: None)


def test_a_precision_that_it_cannot_take_is_refused():
    source = replace(fake_source(), precision="int8")
    with pytest.raises(UnsupportedCapability, match="float32, not int8"):
        backend.load(source, lambda stage, fraction: None)


def test_options_on_disk_are_read_and_those_of_the_source_come_first(tmp_path):
    write_fake_options(tmp_path, FakeOptions(slots=5, context=77))
    source = replace(fake_source(directory=tmp_path), options={"context": "88"})
    model = backend.load(source, lambda stage, fraction: None)
    assert (model.options.slots, model.options.context) == (5, 88)


@pytest.mark.parametrize("text", ["{", "[1]", '{"speed": 1}', '{"slots": 0}'])
def test_bad_options_on_disk_fail_the_load(tmp_path, text):
    (tmp_path / "fake.json").write_text(text)
    source = replace(fake_source(directory=tmp_path), options={})
    with pytest.raises(ModelFailed, match="bad options of the fake model in"):
        backend.load(source, lambda stage, fraction: None)


@pytest.mark.parametrize(
    "options", [SessionOptions(num_slots=17), SessionOptions(0), SessionOptions(max_tokens=2049)]
)
def test_a_session_larger_than_declared_is_refused(options):
    with pytest.raises(InvalidRequest, match="not from 1 to"):
        load().open_session(options)


def test_a_model_must_not_be_closed_before_its_sessions():
    model = load()
    session = model.open_session(SessionOptions())
    with pytest.raises(InvariantViolation, match="closed before its session"):
        model.close()
    session.shutdown()
    model.close()
    model.close()
