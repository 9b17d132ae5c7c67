"""Runs of whole calls beside others who want the cores."""

from __future__ import annotations

from leptond.errors import DeadlineExpired
from leptond.scheduler import ComputeLease
from tests.unit.scheduler.batch_rig import BatchRig, batch_fake


def use_the_cores(rig: BatchRig, seconds: float) -> None:
    """As another model's worker does."""
    with rig.compute.lease("chat"):
        rig.clock.sleep(seconds)


def test_while_others_use_the_cores_a_run_takes_as_long_as_a_turn_of_theirs():
    rig = BatchRig(batch_fake(prefill_tokens_per_s=1000, slots=8), is_streaming=False)
    rig.embed(*[10] * 8)
    assert rig.run() == 1  # alone, and its pace is not known yet
    rig.embed(*[10] * 6)
    use_the_cores(rig, 0.035)
    rig.worker.advance()
    assert rig.session.lengths[1:] == [[10, 10, 10]]
    rig.clock.sleep(1.0)
    rig.worker.advance()
    assert rig.session.lengths[2:] == [[10, 10, 10]]
    rig.embed(30, 30)
    use_the_cores(rig, 0.001)
    rig.run()
    assert rig.session.lengths[3:] == [[30], [30]]  # one row always runs


def test_a_run_that_gives_way_in_between_stays_whole():
    rig = BatchRig(batch_fake(prefill_tokens_per_s=1000, slots=8), is_streaming=True)
    rig.embed(*[10] * 8)
    rig.run()
    rig.embed(*[10] * 6)
    use_the_cores(rig, 0.035)
    assert rig.run() == 1


def test_who_leaves_while_the_cores_are_waited_for_is_not_computed(monkeypatch):
    rig = BatchRig()
    left, late = rig.embed(5), rig.embed(6, deadline_in=1.0)
    lease = rig.compute.lease

    def wait_long(owner: str, priority: int = 0) -> ComputeLease:
        left.cancel()
        rig.clock.sleep(2.0)
        return lease(owner, priority)

    monkeypatch.setattr(rig.compute, "lease", wait_long)
    rig.run()
    assert rig.session.runs == []
    assert left.is_ended
    assert isinstance(late.failure, DeadlineExpired)
