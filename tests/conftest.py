"""What every tier shares: markers by folder, the same random cases each time, leak check.

A tier's own fixtures live in its own conftest. `NEEDS` says which folders cannot even be imported
without an extra of the project; a single test says it with `@pytest.mark.needs("onnxruntime")`.
Without it they are left out, and in CI they fail, so that nobody loses them without noticing.
`LEPTOND_TEST_EXTRAS` (a list with commas, possibly empty) says which extras must be there.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import signal
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from packaging.version import Version

from tests.fixtures.chat_store import ChatStore
from tests.leaks import Belongings, open_process_wide_descriptors

TESTS = Path(__file__).parent
PROBES = {"ctranslate2": "ctranslate2", "import": "gguf", "onnxruntime": "onnxruntime"}
OLDEST_ENGINE = Version("1.32")
NEEDS = {
    "contract/leptond_ctranslate2": {"ctranslate2", "import"},
    "contract/leptond_onnxruntime": {"import", "onnxruntime"},
    "e2e/leptond_onnxruntime": {"import", "onnxruntime"},
    "integration/engine": {"import", "onnxruntime"},
    "integration/importing": {"import", "onnxruntime"},
    "integration/leptond_ctranslate2": {"ctranslate2", "import"},
    "integration/text": {"import"},
    "unit/checkpoint": {"import"},
    "unit/leptond_ctranslate2": {"ctranslate2", "import"},
    "unit/leptond_onnxruntime": {"import", "onnxruntime"},
}

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
    """Prepare the leak check, and let Ctrl-C be tested.

    A shell starts what runs in its background with Ctrl-C ignored, and processes inherit that.
    """
    open_process_wide_descriptors()
    signal.signal(signal.SIGINT, signal.default_int_handler)


def required_extras() -> frozenset[str]:
    """Return the extras whose absence is a failure: by the variable, else all of them in CI."""
    listed = os.environ.get("LEPTOND_TEST_EXTRAS")
    if listed is not None:
        return frozenset(filter(None, listed.split(",")))
    return frozenset(PROBES if os.environ.get("CI") else ())


@cache
def is_installed(extra: str) -> bool:
    """Say whether an extra is there, in a version that it asks for.

    The CUDA build of ONNX Runtime may be an older one, on which decoders do not run.
    """
    if importlib.util.find_spec(PROBES[extra]) is None:
        return False
    if extra != "onnxruntime":
        return True
    builds = importlib.metadata.packages_distributions()[PROBES[extra]]
    return all(Version(importlib.metadata.version(build)) >= OLDEST_ENGINE for build in builds)


def missing_extras(needed: Iterable[str]) -> set[str]:
    """Return those of `needed` that are not installed and do not have to be."""
    return {extra for extra in needed if not is_installed(extra)} - required_extras()


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out a folder whose tests import what is absent."""
    folder = collection_path.relative_to(TESTS).as_posix() if collection_path != TESTS else ""
    return True if missing_extras(NEEDS.get(folder, ())) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its tier, and skip those whose extras are absent."""
    for item in items:
        item.add_marker(item.path.relative_to(TESTS).parts[0])
        for marker in item.iter_markers("needs"):
            if missing := missing_extras(marker.args):
                item.add_marker(pytest.mark.skip(reason=f"not installed: {', '.join(missing)}"))


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
