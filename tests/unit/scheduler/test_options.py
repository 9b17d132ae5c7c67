from __future__ import annotations

import pytest

from leptond.backend import Capabilities, SessionKind, SessionOptions
from leptond.errors import UnsupportedCapability
from leptond.scheduler import SchedulerOptions
from leptond.scheduler.limits import ModelLimits
from leptond.types import Task

CAPABILITIES = Capabilities(
    kind=SessionKind.STEP,
    tasks=frozenset({Task.GENERATE}),
    devices=("cpu",),
    vocab_size=100,
    max_slots=32,
    max_context_tokens=2048,
    ride_along_tokens=48,
)


def resolve(options: SchedulerOptions, session: SessionOptions) -> ModelLimits:
    return ModelLimits.resolve("m", CAPABILITIES, session, options, has_tokenizer=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_queued", -1), ("step_token_budget", 0), ("prefill_chunk_tokens", 0), ("patience_s", -1)],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: int):
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        SchedulerOptions(**{field: value})


def test_a_step_has_a_token_for_every_running_text():
    with pytest.raises(ValueError, match="max_running is 9"):
        SchedulerOptions(max_running=9, step_token_budget=8)
    limits = resolve(SchedulerOptions(step_token_budget=8), SessionOptions(16, 512))
    assert limits.max_running == 8


def test_zeros_take_what_session_and_model_have():
    limits = resolve(SchedulerOptions(), SessionOptions(16, 512))
    assert limits.max_running == 16
    assert limits.max_context_tokens == 512
    assert limits.step.max_kv_tokens == 16 * 512
    assert limits.step.ride_along_tokens == 48


def test_the_smallest_bound_counts():
    options = SchedulerOptions(max_running=4, max_kv_tokens=300, ride_along_tokens=7)
    limits = resolve(options, SessionOptions(16, 4096))
    assert limits.max_running == 4
    assert limits.max_context_tokens == 300
    assert limits.step.ride_along_tokens == 7


def test_memory_bounds_the_tokens_unless_less_is_configured():
    assert SchedulerOptions().with_kv_tokens(100).max_kv_tokens == 100
    assert SchedulerOptions(max_kv_tokens=80).with_kv_tokens(100).max_kv_tokens == 80
    assert SchedulerOptions(max_kv_tokens=200).with_kv_tokens(100).max_kv_tokens == 100


def test_a_model_for_whole_calls_has_no_step_scheduler():
    capabilities = Capabilities(SessionKind.BATCH, frozenset({Task.EMBED}), ("cpu",))
    with pytest.raises(UnsupportedCapability):
        ModelLimits.resolve(
            "m", capabilities, SessionOptions(), SchedulerOptions(), has_tokenizer=True
        )
