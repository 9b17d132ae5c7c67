"""The store on disk: what it reads, and that what it writes is whole or absent."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

import pytest

from leptond.models import Store
from leptond.models.store import MODEL_FILE, VARIANT_FILE, write_toml
from leptond.types import Task


def add_model(root, name="toy", versions=("1",), variants=("int8",), default="int8"):
    for version in versions:
        for variant in variants:
            home = root / name / version / variant
            home.mkdir(parents=True)
            write_toml(home / VARIANT_FILE, {"backend": "fake", "precision": variant})
    write_toml(root / name / MODEL_FILE, {"default_variant": default, "tasks": ["generate"]})


def test_a_scan_finds_every_variant_of_the_newest_version(tmp_path):
    add_model(tmp_path, versions=("1", "10", "9"), variants=("float32", "int8"))
    (model,) = Store([tmp_path]).scan().values()
    assert (model.name, model.version, model.default_variant) == ("toy", 10, "int8")
    assert set(model.variants) == {"float32", "int8"}
    variant = model.variants["float32"]
    assert variant.name == "toy:float32"
    assert variant.tasks == {Task.GENERATE}
    assert variant.assets == tmp_path / "toy" / "10"


def test_the_first_directory_wins(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    add_model(first, variants=("int8",))
    add_model(second, variants=("float32",))
    store = Store([first, second, tmp_path / "absent"])
    assert set(store.scan()["toy"].variants) == {"int8"}
    assert set(store.find("toy").variants) == {"int8"}


def test_a_default_that_is_gone_falls_to_a_variant_that_is_there(tmp_path):
    add_model(tmp_path, default="float16")
    assert Store([tmp_path]).scan()["toy"].default_variant == "int8"


def test_a_model_without_a_version_is_no_model(tmp_path):
    (tmp_path / "toy").mkdir()
    write_toml(tmp_path / "toy" / MODEL_FILE, {"tasks": ["generate"]})
    assert Store([tmp_path]).scan() == {}
    assert Store([tmp_path]).find("toy") is None


def test_a_damaged_file_is_named_and_logged_once_and_the_others_go_on(tmp_path, caplog):
    add_model(tmp_path)
    add_model(tmp_path, name="whole")
    (tmp_path / "toy" / MODEL_FILE).write_text("tasks = [")
    store = Store([tmp_path])
    store.scan()
    found = store.scan()
    fault = found["toy"].variants["int8"].fault
    assert fault.startswith(MODEL_FILE)
    assert str(tmp_path) not in fault
    assert found["whole"].variants["int8"].fault == ""
    assert caplog.text.count("damaged model") == 1


def test_a_variant_without_its_backend_is_named(tmp_path):
    add_model(tmp_path)
    file = tmp_path / "toy" / "1" / "int8" / VARIANT_FILE
    file.write_text("precision = 'int8'")
    fault = Store([tmp_path]).scan()["toy"].variants["int8"].fault
    assert fault == "variant.toml: key 'backend' is missing or is no text"


@pytest.mark.parametrize(
    ("line", "key"),
    [("tasks = 5", "tasks"), ("tasks = ['dance']", "tasks"), ("max_context_tokens = 'x'", "max_c")],
)
def test_a_value_that_is_not_known_is_a_fault(tmp_path, line, key):
    add_model(tmp_path)
    file = tmp_path / "toy" / "1" / "int8" / VARIANT_FILE
    file.write_text(f"backend = 'fake'\nprecision = 'int8'\n{line}\n")
    assert f"key '{key}" in Store([tmp_path]).scan()["toy"].variants["int8"].fault


def test_staging_leaves_nothing_behind_when_it_fails(tmp_path):
    store = Store([tmp_path / "store"])

    def die_half_way():
        with store.staging() as staging:
            (staging / "version").mkdir()
            (staging / "version" / "file").write_text("x")
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        die_half_way()
    assert list((tmp_path / "store").iterdir()) == []


def test_a_staging_directory_of_a_dead_process_is_swept_and_one_in_use_is_not(tmp_path):
    store = Store([tmp_path])
    dead, alive = tmp_path / ".import-dead", tmp_path / ".import-alive"
    for path in (dead, alive):
        path.mkdir()
        (path / ".lock").touch()
    holder = os.open(alive / ".lock", os.O_RDWR)
    fcntl.flock(holder, fcntl.LOCK_EX)
    try:
        with store.staging():
            assert not dead.exists()
            assert alive.exists()
    finally:
        os.close(holder)


def test_publishing_gives_the_next_version_and_a_variant_of_it(tmp_path):
    store = Store([tmp_path])
    add_model(tmp_path, versions=("3",))
    with store.staging() as staging:
        version = staging / "version"
        (version / "float32").mkdir(parents=True)
        write_toml(version / "float32" / VARIANT_FILE, {"backend": "fake", "precision": "float32"})
        told = {"default_variant": "float32", "tasks": ["chat"]}
        assert store.publish_version("toy", version, told) == 4
        other = staging / "int8"
        other.mkdir()
        write_toml(other / VARIANT_FILE, {"backend": "fake", "precision": "int8"})
        store.publish_variant("toy", 4, "int8", other)
    model = store.find("toy")
    assert (model.version, model.default_variant) == (4, "float32")
    assert set(model.variants) == {"float32", "int8"}


def test_a_variant_can_be_replaced(tmp_path):
    store = Store([tmp_path])
    add_model(tmp_path)
    with store.staging() as staging:
        fresh = staging / "fresh"
        fresh.mkdir()
        write_toml(fresh / VARIANT_FILE, {"backend": "fake", "precision": "int8", "mark": "new"})
        store.publish_variant("toy", 1, "int8", fresh)
    assert store.find("toy").variants["int8"].facts["mark"] == "new"


class Killed(BaseException):
    """The process ends here."""


def publish(store, mark):
    with store.staging() as staging:
        version = staging / "version"
        (version / "int8").mkdir(parents=True)
        write_toml(version / "int8" / VARIANT_FILE, {"backend": "fake", "precision": "int8"})
        facts = {"default_variant": "int8", "tasks": ["chat"], "mark": mark}
        return store.publish_version("toy", version, facts)


@pytest.mark.parametrize("old", ["none", "imported", "without a version"])
@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize("step", range(3))
def test_a_kill_at_any_rename_leaves_the_old_state_or_the_new_one(
    tmp_path, monkeypatch, old, is_after, step
):
    store = Store([tmp_path])
    if old == "imported":
        publish(store, "old")
    elif old == "without a version":
        add_model(tmp_path)
    before = store.find("toy")
    rename, num_renames = Path.rename, 0

    def killing(source, target):
        nonlocal num_renames
        num_renames += 1
        if num_renames <= step or is_after:
            rename(source, target)
        if num_renames > step:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killing)
        with contextlib.suppress(Killed):
            publish(store, "new")
    found = store.find("toy")
    is_new = found is not None and found.facts.get("mark") == "new"
    if not is_new:
        assert (found and found.version) == (before and before.version)
        assert (found and found.facts.get("mark")) == (before and before.facts.get("mark"))
    publish(store, "last")
    assert store.find("toy").facts["mark"] == "last"
    assert {one.name for one in tmp_path.iterdir()} == {"toy"}
