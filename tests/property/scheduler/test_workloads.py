"""A thousand random workloads under a simulated clock: nothing starves, no budget is exceeded."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.property.scheduler.workloads import Simulation, Workload, workloads


@pytest.mark.timeout(300)
@settings(max_examples=1_000, suppress_health_check=[HealthCheck.too_slow])
@given(workloads())
def test_every_request_ends_within_the_budgets_and_with_its_own_answer(workload: Workload):
    simulation = Simulation(workload)
    simulation.run()
    simulation.check_end()
