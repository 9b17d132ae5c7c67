from __future__ import annotations

import pytest

from leptond.backend.conformance import BatchTensorConformance, StepSessionConformance
from tests.contract.backend import batch_mutants, step_mutants
from tests.contract.backend.mutation import MUTANTS

pytest_plugins = ["pytester"]

SUITE_OF_EVERY_MUTANT = """
import pytest

from leptond.backend import BatchRow
from leptond.backend.conformance import BatchTensorConformance, StepSessionConformance
from leptond.backend.conformance import BatchSessionConformance
from leptond.backend.fake import FakeStepSession
from tests.contract.backend.mutation import MUTANTS, ModelOf

ONE_CHUNK = {"task": "embed"}


class Encoder(BatchTensorConformance):
    def rows(self, model):
        return [BatchRow(row.token_ids, options=ONE_CHUNK) for row in super().rows(model)]


def suite(base, session_class):
    @pytest.fixture
    def model(self):
        return ModelOf(session_class)

    return type("Suite", (base,), {"model": model})


for name, (session_class, test) in MUTANTS.items():
    if issubclass(session_class, FakeStepSession):
        base = StepSessionConformance
    else:
        base = BatchSessionConformance if hasattr(BatchSessionConformance, test) else Encoder
    globals()[f"Test{name}"] = suite(base, session_class)
"""


SUITES_OF_THE_OTHER_KIND = """
import pytest

from leptond.backend import SessionKind
from leptond.backend.conformance import BatchSessionConformance, StepSessionConformance
from leptond.backend.fake import FakeModel, FakeOptions


class TestSteps(StepSessionConformance):
    @pytest.fixture
    def model(self):
        return FakeModel(FakeOptions(SessionKind.BATCH, slots=4))


class TestBatches(BatchSessionConformance):
    @pytest.fixture
    def model(self):
        return AbsentMinded(FakeOptions(SessionKind.STEP))


class AbsentMinded(FakeModel):
    @property
    def capabilities(self):
        return FakeModel(FakeOptions(SessionKind.BATCH)).capabilities
"""

NESTED = ("-p", "no:asyncio", "-p", "no:cacheprovider")


def names_of_tests(suite):
    return {name for name in dir(suite) if name.startswith("test_")}


def test_every_broken_session_is_caught_by_the_test_that_is_for_it(pytester):
    pytester.makepyfile(test_mutants=SUITE_OF_EVERY_MUTANT)
    # Each mutant meets one test: a test that is not there, or passes, leaves it uncaught.
    meetings = [f"test_mutants.py::Test{name}::{test}" for name, (_, test) in MUTANTS.items()]
    run = pytester.inline_run(*NESTED, "--tb=no", *meetings)
    failed = {report.nodeid.split("::")[1] for report in run.listoutcomes()[2]}
    assert set(MUTANTS) - {name.removeprefix("Test") for name in failed} == set()


def test_a_session_of_the_other_kind_is_told(pytester):
    pytester.makepyfile(test_kinds=SUITES_OF_THE_OTHER_KIND)
    result = pytester.runpytest_inprocess(*NESTED, "-k", "new_slot or closed_exactly_once")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(
        [
            "*open_session gave a FakeBatchSession, which is no StepSession",
            "*open_session gave a FakeStepSession, which is no BatchSession",
        ]
    )


@pytest.mark.parametrize("kind", [step_mutants, batch_mutants])
def test_there_are_mutants_of_both_kinds(kind):
    names = [name for name, (mutant, _) in MUTANTS.items() if mutant.__module__ == kind.__name__]
    assert len(names) > 15


@pytest.mark.parametrize("suite", [StepSessionConformance, BatchTensorConformance])
def test_every_test_of_the_suite_catches_something(suite):
    assert names_of_tests(suite) - {test for _, test in MUTANTS.values()} == set()
