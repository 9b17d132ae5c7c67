"""The registry with a loader of the test's: names, single flight, eviction, closing."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import wait
from types import SimpleNamespace

import pytest

from leptond.errors import (
    BackendCrashed,
    BackendUnavailable,
    MemoryBudgetExceeded,
    ModelFailed,
    ModelLoading,
    ModelNotFound,
    ShuttingDown,
)
from leptond.models import LoadPlan, LoadPolicy, ModelRegistry, Store
from leptond.models.store import write_toml
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

    def plan(self, variant):
        if variant.backend == "absent":
            raise BackendUnavailable("backend absent is not installed")
        return LoadPlan(60, 40, 512)

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
            max_context_tokens=256,
            reserved_bytes=70,
            scheduler=SimpleNamespace(drain=lambda: None),
            close=lambda: self.closed.append(variant.name),
        )


@pytest.fixture
def loader():
    return Loader()


class Clock:
    """Real time, and what a test adds to it."""

    def __init__(self):
        self.added_s = 0.0

    def __call__(self):
        return time.monotonic() + self.added_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def registry(tmp_path, loader, clock):
    for name in ("a", "b", "c"):
        add_model(tmp_path, name=name, variants=("int8", "float32"))
    registry = ModelRegistry(Store([tmp_path]), loader, clock=clock)
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


def test_an_import_shows_without_a_restart(registry, tmp_path, clock):
    with pytest.raises(ModelNotFound):
        registry.acquire("late")
    add_model(tmp_path, name="late")
    clock.added_s = 1.1
    registry.acquire("late").result(10).release()


def test_a_name_that_is_not_there_is_looked_for_once_a_second(registry, tmp_path, clock):
    with pytest.raises(ModelNotFound):
        registry.try_acquire("a:late")
    (tmp_path / "a" / "1" / "float32").rename(tmp_path / "a" / "1" / "late")
    with pytest.raises(ModelNotFound):
        registry.try_acquire("a:late")
    clock.added_s = 1.1
    assert registry.try_acquire("a:late") is None


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


def test_an_error_that_is_not_ours_fails_the_model_and_not_the_registry(registry, loader, caplog):
    loader.error = ZeroDivisionError("surprise")
    with pytest.raises(ModelFailed) as caught:
        registry.load("a").result(10)
    assert str(caught.value) == "model a:int8 could not be loaded: the daemon's log says why"
    described = registry.describe("a")
    assert (described.state, described.state_reason) == (
        ModelState.FAILED,
        "the daemon's log says why",
    )
    assert "ZeroDivisionError: surprise" in caplog.text


def test_a_lack_of_memory_passes(registry, loader):
    loader.error = MemoryBudgetExceeded("too little memory")
    with pytest.raises(MemoryBudgetExceeded):
        registry.acquire("a").result(10)
    described = registry.describe("a")
    assert described.state is ModelState.AVAILABLE
    assert described.state_reason == "too little memory"
    loader.error = None
    registry.acquire("a").result(10).release()


def test_no_path_leaves_the_process(registry, loader, tmp_path):
    loader.error = ModelFailed(f"{tmp_path}/a/1/int8/body.onnx: torn")
    with pytest.raises(ModelFailed) as caught:
        registry.acquire("a").result(10)
    assert str(caught.value) == "int8/body.onnx: torn"
    assert registry.describe("a").state_reason == "int8/body.onnx: torn"


def test_a_damaged_model_fails_alone_until_it_is_mended(registry, tmp_path):
    file = tmp_path / "a" / "1" / "int8" / "variant.toml"
    whole = file.read_text()
    file.write_text("precision = 'int8'")
    states = {one.name: one.state for one in registry.describe_all()}
    assert (states["a:int8"], states["b:int8"]) == (ModelState.FAILED, ModelState.AVAILABLE)
    for ask in (registry.acquire, registry.load):
        with pytest.raises(ModelFailed, match=r"variant.toml: key 'backend'") as caught:
            ask("a")
        assert str(tmp_path) not in str(caught.value)
    file.write_text(whole)
    registry.describe("a")
    registry.acquire("a").result(10).release()


@pytest.mark.parametrize("look", ["refresh", "load"])
def test_a_model_that_was_removed_is_not_found(registry, tmp_path, look):
    registry.describe_all()
    shutil.rmtree(tmp_path / "a")
    told = threading.Semaphore(0)
    registry.watch(lambda _, state: told.release() if state is ModelState.FAILED else None)
    if look == "refresh":
        assert "a:int8" not in {one.name for one in registry.describe_all()}
    else:
        with pytest.raises(ModelNotFound):
            registry.acquire("a").result(10)
        for _ in ("the load", "both variants", "are gone"):
            assert told.acquire(timeout=10)
    with pytest.raises(ModelNotFound):
        registry.acquire("a")


def test_a_removed_model_that_is_loaded_stays_until_it_is_unloaded(registry, tmp_path):
    registry.load("a").result(10)
    shutil.rmtree(tmp_path / "a")
    registry.describe_all()
    registry.acquire("a").result(10).release()
    registry.unload("a").result(10)
    with pytest.raises(ModelNotFound):
        registry.acquire("a")


def test_after_an_unload_a_load_is_never_refused(registry):
    for _ in range(50):
        registry.load("a").result(10)
        registry.unload("a").result(10)
    registry.load("a").result(10)


def test_two_unloads_of_one_model_end_together(registry):
    lease = registry.acquire("a").result(10)
    first, second = registry.unload("a"), registry.unload("a")
    assert not second.done()
    lease.release()
    for unload in (first, second):
        unload.result(10)


def test_the_list_tells_what_is_taken_and_where_nothing_is(registry, tmp_path):
    write_toml(
        tmp_path / "a" / "model.toml",
        {"tasks": ["chat"], "default_variant": "int8", "title": "A", "source": "/home/x/a.gguf"},
    )
    described = registry.describe("a")
    assert (described.max_context_tokens, described.estimated_bytes) == (512, 100)
    assert (described.metadata["title"], described.metadata["source"]) == ("A", "a.gguf")
    assert described.metadata["disk_bytes"] > 0
    registry.load("a").result(10)
    described = registry.describe("a")
    assert (described.max_context_tokens, described.estimated_bytes) == (256, 70)


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
