"""What every tier shares: markers by folder, the same random cases each time, engines, leak check.

A tier's own fixtures live in its own conftest. A test that needs an engine sits in a folder named
after the plug-in (`tests/*/leptond_onnxruntime/`) or carries `@pytest.mark.engine("onnxruntime")`:
without the engine it is skipped, and in CI it fails, so that nobody loses it without noticing.
`LEPTOND_TEST_ENGINES` (a list with commas, possibly empty) says which engines must be there.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.fixtures.chat_store import ChatStore
from tests.leaks import Belongings, open_process_wide_descriptors

TESTS = Path(__file__).parent
TIERS = ("unit", "property", "contract", "integration", "e2e")
ENGINES = ("onnxruntime",)

# The same cases on every run; `pytest --hypothesis-profile=explore` looks for new ones.
# No verdict may depend on how busy the machine is: no deadline, no check of speed.
settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "explore", settings.get_profile("ci"), derandomize=False, max_examples=2_000
)
settings.load_profile("ci")


def pytest_sessionstart() -> None:
    """Prepare the leak check."""
    open_process_wide_descriptors()


def required_engines() -> frozenset[str]:
    """Return the engines whose absence is a failure: by the variable, else all of them in CI."""
    listed = os.environ.get("LEPTOND_TEST_ENGINES")
    if listed is not None:
        return frozenset(filter(None, listed.split(",")))
    return frozenset(ENGINES if os.environ.get("CI") else ())


def is_usable(engine: str) -> bool:
    """Say whether tests of `engine` run: it is installed, or has to be."""
    return importlib.util.find_spec(engine) is not None or engine in required_engines()


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out a plug-in's folder while its engine is absent: its tests import the engine."""
    if collection_path.is_dir() and collection_path.name.startswith("leptond_"):
        engine = collection_path.name.removeprefix("leptond_")
        if engine in ENGINES and not is_usable(engine):
            return True
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its tier, and skip those whose engine is absent."""
    for item in items:
        tier = item.path.relative_to(TESTS).parts[0]
        item.add_marker(tier)
        for marker in item.iter_markers("engine"):
            if not is_usable(marker.args[0]):
                item.add_marker(pytest.mark.skip(reason=f"{marker.args[0]} is not installed"))


@pytest.fixture(scope="session")
def default_chat_store() -> ChatStore:
    """The store with the default chat model; `default_chat_store.variant("float32")` imports it."""
    return ChatStore()


@pytest.fixture(autouse=True)
def _no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test of the tiers with threads and sockets when it leaves one behind."""
    if request.node.get_closest_marker("unit") or request.node.get_closest_marker("property"):
        yield
        return
    before = Belongings.now()
    yield
    if left := before.left_behind():
        pytest.fail(f"the test left behind {left}")
