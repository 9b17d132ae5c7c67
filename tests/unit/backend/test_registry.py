from __future__ import annotations

import logging
from importlib.metadata import EntryPoint, PathDistribution

import pytest

from leptond.backend import API_VERSION
from leptond.backend.fake import FakeBackend
from leptond.backend.registry import GROUP, find_conflicts, get_backend, list_backends
from leptond.errors import BackendUnavailable


class Engine(FakeBackend):
    name = "engine"


class EngineOfAnotherName(FakeBackend):
    name = "other"


class OlderEngine(Engine):
    api_version = (API_VERSION[0] - 1, 9)


class NewerEngine(Engine):
    api_version = (API_VERSION[0], API_VERSION[1] + 1)


class EngineWithoutItsLibrary(Engine):
    def describe(self):
        raise ModuleNotFoundError("No module named 'engine_lib'", name="engine_lib")


class EngineWithoutItsDevice(Engine):
    def describe(self):
        raise BackendUnavailable("there is no driver")


class EngineThatDoesNotStart(Engine):
    def describe(self):
        raise OSError("libengine.so.1: cannot open shared object file")


good, misnamed, older, newer = Engine(), EngineOfAnotherName(), OlderEngine(), NewerEngine()
no_library, no_device = EngineWithoutItsLibrary(), EngineWithoutItsDevice()
no_start, no_backend = EngineThatDoesNotStart(), object()


def plugin(what, name="engine"):
    value = what if ":" in what else f"{__name__}:{what}"
    return EntryPoint(name, value, GROUP)


@pytest.fixture
def distribution(tmp_path):
    """Makes a distribution of these metadata, as an installer leaves it."""

    def make(name, version="1.0", extras=()):
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Provides-Extra: {extra}" for extra in extras]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")
        return PathDistribution(folder)

    return make


def plugin_of(distribution, what, name="engine"):
    (distribution._path / "entry_points.txt").write_text(
        f"[{GROUP}]\n{name} = {plugin(what).value}\n"
    )
    (found,) = distribution.entry_points
    return found


def test_a_plugin_is_found_by_its_name():
    assert get_backend("engine", [plugin("good")]) is good


def test_the_fake_engine_is_built_in():
    assert isinstance(get_backend("fake", []), FakeBackend)
    (status,) = list_backends([])
    assert status.name == "fake"
    assert status.provider == "leptond (built in)"
    assert status.is_usable
    assert status.details["devices"] == "cpu"


def test_the_plugins_that_are_installed_are_looked_at(monkeypatch):
    installed = {GROUP: [plugin("good")], "another.group": [plugin("good", name="other")]}
    monkeypatch.setattr("leptond.backend.registry.entry_points", lambda group: installed[group])
    assert [status.name for status in list_backends()] == ["engine", "fake"]
    assert get_backend("engine") is good


def test_an_unknown_engine_is_refused_with_those_that_are_there():
    with pytest.raises(BackendUnavailable, match="'tpu'; installed: engine, fake") as caught:
        get_backend("tpu", [plugin("good")])
    assert caught.value.details == {"backend": "tpu"}


def test_I1_only_the_plugin_that_was_asked_for_is_imported():
    broken = plugin("no_such_module_at_all:backend", name="broken")
    assert get_backend("engine", [broken, plugin("good")]) is good


def test_a_missing_engine_is_told_with_the_extra_to_install(distribution):
    leptond = distribution("leptond", extras=["engine", "server"])
    with pytest.raises(
        BackendUnavailable,
        match=r"engine_lib is not installed; install it with: pip install 'leptond\[engine\]'",
    ):
        get_backend("engine", [plugin_of(leptond, "no_library")])


def test_a_missing_engine_of_a_stranger_is_told_without_an_extra(distribution):
    stranger = distribution("stranger")
    with pytest.raises(BackendUnavailable, match=r"module engine_lib is not installed$"):
        get_backend("engine", [plugin_of(stranger, "no_library")])


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("no_such_module_at_all:backend", "module no_such_module_at_all is not installed"),
        ("tests.unit.backend.failing_plugin:backend", "ValueError: the plug-in is broken"),
        ("leptond.backend.spi:no_such_name", "AttributeError"),
        ("no_backend", "is no Backend: it lacks api_version, describe"),
        ("older", "was written for plug-in API 0.9 and this leptond has 1.0"),
        ("newer", "was written for plug-in API 1.1"),
        ("misnamed", "calls itself 'other'"),
        ("no_device", "there is no driver"),
        ("no_start", "its engine does not start: OSError: libengine"),
    ],
)
def test_a_broken_plugin_is_refused_with_its_reason(what, reason):
    with pytest.raises(BackendUnavailable) as caught:
        get_backend("engine", [plugin(what)])
    assert caught.value.message.startswith("backend engine cannot be used: ")
    assert reason in caught.value.message
    assert caught.value.details == {"backend": "engine"}


def test_an_import_that_fails_inside_its_library_is_told(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("raise ImportError('libengine.so.1 is too old')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendUnavailable, match=r"cannot be imported \(libengine.so.1 is too old"):
        get_backend("engine", [plugin("half_installed:backend")])


def test_two_plugins_of_one_name_are_refused(distribution):
    one, other = distribution("one"), distribution("other", "2.0")
    plugins = [plugin_of(one, "good"), plugin_of(other, "good")]
    with pytest.raises(BackendUnavailable, match=r"one 1.0 and other 2.0 both bring"):
        get_backend("engine", plugins)


def test_I2_a_broken_plugin_hides_no_other(distribution):
    plugins = [
        plugin("older", name="a"),
        plugin_of(distribution("brand", "3.1"), "good"),
        plugin("no_such_module_at_all:backend", name="z"),
    ]
    statuses = {status.name: status for status in list_backends(plugins)}
    assert list(statuses) == ["a", "engine", "fake", "z"]
    assert [name for name, status in statuses.items() if status.is_usable] == ["engine", "fake"]
    assert statuses["engine"].provider == "brand 3.1"
    assert statuses["a"].reason.startswith("it was written for plug-in API 0.9")
    assert statuses["z"].reason == "module no_such_module_at_all is not installed"


def test_two_distributions_that_overwrite_each_other_are_told(distribution):
    both = [distribution("onnxruntime", "1.32.0"), distribution("onnxruntime_gpu", "1.31.0")]
    told = find_conflicts("onnxruntime", both)
    assert told.startswith("onnxruntime 1.32.0 and onnxruntime-gpu 1.31.0 install the same files")
    assert find_conflicts("onnxruntime", both[:1]) == ""
    assert find_conflicts("onnxruntime", []) == ""
    assert find_conflicts("ctranslate2", both) == ""


def test_a_conflict_is_a_warning_and_not_an_end(monkeypatch, caplog):
    monkeypatch.setattr("leptond.backend.registry.find_conflicts", lambda _name: "they clash")
    with caplog.at_level(logging.WARNING):
        assert get_backend("engine", [plugin("good")]) is good
    assert "backend_conflict backend=engine reason='they clash'" in caplog.text
    (status,) = [status for status in list_backends([plugin("good")]) if status.name == "engine"]
    assert status.is_usable
    assert status.warning == "they clash"
