"""The registry with a loader of the test's: names, single flight, eviction, closing."""

from __future__ import annotations

import threading
from concurrent.futures import wait
from types import SimpleNamespace

import pytest

from leptond.errors import (
    BackendCrashed,
    BackendUnavailable,
    ModelFailed,
    ModelLoading,
    ModelNotFound,
    ShuttingDown,
)
from leptond.models import LoadPolicy, ModelRegistry, Store
from leptond.types import ModelState
from tests.unit.models.test_store import add_model


class Loader:
    """Loads nothing, takes as long as the test lets it, and has room for so many models."""

    def __init__(self, room=10):
        self.room = room
        self.loads = []
        self.closed = []
        self.error = None
        self.may_finish = threading.Event()
        self.may_finish.set()

    def needed_bytes(self, variant):
        if variant.backend == "absent":
            raise BackendUnavailable("backend absent is not installed")
        return 100

    def fits(self, variant):
        del variant
        return len(self.loads) - len(self.closed) < self.room

    def load(self, variant, progress, on_crash):
        self.crash = on_crash
        progress("weights", 0.5)
        assert self.may_finish.wait(10)
        if self.error is not None:
            raise self.error
        self.loads.append(variant.name)
        return SimpleNamespace(
            name=variant.name,
            variant=variant,
            scheduler=SimpleNamespace(drain=lambda: None),
            close=lambda: self.closed.append(variant.name),
        )


@pytest.fixture
def loader():
    return Loader()


@pytest.fixture
def registry(tmp_path, loader):
    for name in ("a", "b", "c"):
        add_model(tmp_path, name=name, variants=("int8", "float32"))
    registry = ModelRegistry(Store([tmp_path]), loader)
    yield registry
    loader.may_finish.set()
    assert registry.close(10)


def test_a_name_without_a_variant_means_the_default(registry):
    lease = registry.acquire("a").result(10)
    assert lease.model.name == "a:int8"
    lease.release()
    other = registry.acquire("a:float32").result(10)
    assert other.model.name == "a:float32"
    other.release()


def test_a_ready_model_is_leased_at_once(registry):
    assert registry.try_acquire("a") is None
    registry.load("a").result(10)
    registry.try_acquire("a").release()


def test_unknown_names_are_not_found_and_the_variants_there_are_named(registry):
    with pytest.raises(ModelNotFound, match="'nothing'"):
        registry.acquire("nothing")
    registry.describe_all()
    with pytest.raises(ModelNotFound, match="a:float32, a:int8"):
        registry.acquire("a:int4")


def test_an_import_shows_without_a_restart(registry, tmp_path):
    with pytest.raises(ModelNotFound):
        registry.acquire("late")
    add_model(tmp_path, name="late")
    registry.acquire("late").result(10).release()


def test_many_callers_share_one_load(registry, loader):
    loader.may_finish.clear()
    futures = [registry.acquire("a") for _ in range(20)]
    assert not any(future.done() for future in futures)
    loader.may_finish.set()
    done, _ = wait(futures, timeout=10)
    assert len(done) == 20
    assert loader.loads == ["a:int8"]
    for future in futures:
        future.result().release()


def test_a_caller_who_left_gets_no_lease(registry, loader):
    loader.may_finish.clear()
    left, stayed = registry.acquire("a"), registry.acquire("a")
    assert left.cancel()
    loader.may_finish.set()
    stayed.result(10).release()
    registry.unload("a").result(10)  # would wait for a lease that nobody holds
    assert loader.closed == ["a:int8"]


def test_a_failed_model_says_so_at_once_and_an_explicit_load_tries_again(registry, loader):
    loader.error = ModelFailed("weights are torn")
    with pytest.raises(ModelFailed, match="torn"):
        registry.acquire("a").result(10)
    with pytest.raises(ModelFailed, match="could not be loaded: weights are torn"):
        registry.acquire("a")
    loader.error = None
    assert registry.load("a").result(10).name == "a:int8"


def test_an_error_that_is_not_ours_fails_the_model_and_not_the_registry(registry, loader):
    loader.error = ZeroDivisionError("surprise")
    with pytest.raises(ModelFailed, match="ZeroDivisionError: surprise"):
        registry.load("a").result(10)
    assert registry.describe("a").state is ModelState.FAILED


def test_progress_reaches_everyone_who_listens(registry, loader):
    loader.may_finish.clear()
    heard = []
    registry.load("a", lambda stage, fraction: heard.append((stage, fraction)))
    loader.may_finish.set()
    registry.load("a").result(10)
    assert ("weights", 0.5) in heard


def test_by_hand_means_that_a_request_loads_nothing(tmp_path, loader):
    add_model(tmp_path)
    registry = ModelRegistry(Store([tmp_path]), loader, policy=LoadPolicy.MANUAL)
    with pytest.raises(ModelLoading) as caught:
        registry.acquire("toy")
    assert caught.value.retry_after_s
    registry.load("toy").result(10)
    registry.acquire("toy").result(10).release()
    assert registry.close(10)


def test_the_idle_model_used_longest_ago_makes_room(registry, loader):
    loader.room = 2
    for name in ("a", "b", "a"):
        registry.acquire(name).result(10).release()
    held = registry.acquire("b").result(10)
    registry.acquire("c").result(10).release()
    assert loader.closed == ["a:int8"]
    held.release()


def test_watchers_hear_every_state_until_they_stop(registry):
    heard = []
    unwatch = registry.watch(lambda name, state: heard.append((name, state)))
    registry.load("a").result(10)
    registry.unload("a").result(10)
    unwatch()
    registry.load("a").result(10)
    assert [state for name, state in heard if name == "a:int8"] == [
        ModelState.AVAILABLE,
        ModelState.LOADING,
        ModelState.READY,
        ModelState.UNLOADING,
        ModelState.AVAILABLE,
    ]


def test_the_list_says_what_is_known_even_without_the_engine(registry, tmp_path):
    file = tmp_path / "c" / "1" / "int8" / "variant.toml"
    file.write_text('backend = "absent"\nprecision = "int8"\n')
    described = {one.name: one for one in registry.describe_all()}
    assert described["a:int8"].is_default
    assert not described["a:float32"].is_default
    assert described["a:int8"].estimated_bytes == 100
    assert "not installed" in described["c:int8"].state_reason


def test_a_draining_registry_leases_and_loads_nothing(registry):
    registry.load("a").result(10)
    registry.drain()
    for ask in (registry.try_acquire, registry.acquire, registry.load):
        with pytest.raises(ShuttingDown):
            ask("a")


def test_a_model_whose_worker_died_is_loaded_anew_by_the_next_request(registry, loader):
    unloaded = threading.Semaphore(0)
    registry.load("a").result(10)
    registry.watch(lambda _, state: unloaded.release() if state is ModelState.AVAILABLE else None)
    loader.crash(BackendCrashed("the session is dead"))
    unloaded.acquire(timeout=10)
    registry.acquire("a").result(10).release()
    assert loader.closed == ["a:int8"]
    assert loader.loads == ["a:int8", "a:int8"]


def test_closing_unloads_everything(registry, loader):
    for name in ("a", "b"):
        registry.load(name).result(10)
    assert registry.close(10)
    assert sorted(loader.closed) == ["a:int8", "b:int8"]
    assert registry.loaded() == []
