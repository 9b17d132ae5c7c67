"""The files for systemd, checked by systemd's own tools and by our own parser."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from leptond.config import LoadedConfig, load_config
from leptond.config.layers import sections

MAX_EXPOSURE = 1.3
EXECUTABLE = "/opt/leptond/bin/leptond"

analyze = pytest.mark.parametrize("tool", ["systemd-analyze"], indirect=True)
sysusers = pytest.mark.parametrize("tool", ["systemd-sysusers"], indirect=True)


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)


def unit_settings(text: str) -> dict[str, list[str]]:
    settings: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        settings.setdefault(name, []).append(value)
    return settings


@analyze
def test_the_unit_is_correct(tool, folder, tmp_path):
    text = (folder / "leptond.service").read_text()
    assert text.count(EXECUTABLE) == 1
    unit = tmp_path / "leptond.service"
    # The executable need not be installed where the test runs.
    unit.write_text(text.replace(EXECUTABLE, "/bin/true"))
    done = run(tool, "verify", "--man=no", unit)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@analyze
def test_a_mistake_in_the_unit_would_be_found(tool, folder, tmp_path):
    text = (folder / "leptond.service").read_text().replace(EXECUTABLE, "/bin/true")
    unit = tmp_path / "leptond.service"
    unit.write_text(text.replace("ProtectClock=yes", "ProtectClok=yes"))
    assert "ProtectClok" in run(tool, "verify", "--man=no", unit).stderr


@analyze
def test_the_unit_is_hardened(tool, folder):
    unit = folder / "leptond.service"
    threshold = f"--threshold={MAX_EXPOSURE * 10:.0f}"
    done = run(tool, "security", "--offline=true", "--no-pager", threshold, unit)
    assert done.returncode == 0, done.stdout
    found = re.search(r"Overall exposure level for leptond.service: ([\d.]+)", done.stdout)
    assert found is not None
    assert float(found[1]) <= MAX_EXPOSURE


def test_the_unit_waits_for_the_daemon_and_lets_it_drain(folder):
    settings = unit_settings((folder / "leptond.service").read_text())
    config = load_config(folder / "leptond.toml", {}).config
    assert settings["Type"] == ["notify"]
    assert settings["KillMode"] == ["mixed"]
    (stop,) = settings["TimeoutStopSec"]
    assert float(stop.removesuffix("s")) > config.server.grace_s + 30
    (start,) = settings["ExecStart"]
    assert start == f"{EXECUTABLE} serve --config /etc/leptond/leptond.toml"


@sysusers
def test_the_account_is_made(tool, folder, tmp_path):
    (tmp_path / "etc").mkdir()
    done = run(tool, f"--root={tmp_path}", folder / "leptond.sysusers")
    assert done.returncode == 0, done.stderr
    account = (tmp_path / "etc/passwd").read_text().split(":")
    assert account[0] == "leptond"
    assert account[5] == "/var/lib/leptond"
    assert account[6].strip().endswith("nologin")


@sysusers
def test_the_directories_are_made(tool, folder, tmp_path):
    (tmp_path / "etc").mkdir()
    assert run(tool, f"--root={tmp_path}", folder / "leptond.sysusers").returncode == 0
    text = (folder / "leptond.tmpfiles").read_text()
    if os.geteuid() != 0:  # nobody but root can give files away
        text = text.replace("leptond leptond -", "- - -").replace("root    root", "- -")
    rules = tmp_path / "leptond.conf"
    rules.write_text(text)
    creator = Path(tool).with_name("systemd-tmpfiles")
    done = run(creator, f"--root={tmp_path}", "--create", rules)
    assert done.returncode == 0, done.stderr
    store = tmp_path / "var/lib/leptond"
    assert store.stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "etc/leptond").stat().st_mode & 0o777 == 0o755
    if os.geteuid() == 0:
        uid = int((tmp_path / "etc/passwd").read_text().split(":")[2])
        assert store.stat().st_uid == uid


def test_the_example_is_a_configuration(folder):
    environ = {"STATE_DIRECTORY": "/var/lib/leptond", "RUNTIME_DIRECTORY": "/run/leptond"}
    config = load_config(folder / "leptond.toml", environ).config
    assert config.server.listen == ("unix:/run/leptond/leptond.sock", "127.0.0.1:8600")
    assert config.server.admin_listen == ("unix:/run/leptond/admin.sock",)
    assert config.models.stores == (Path("/var/lib/leptond"),)


@pytest.fixture
def switched_on(folder, tmp_path) -> LoadedConfig:
    """The example with every line of settings in it taken out of its comment."""
    text = re.sub(r"^#(\[|\w+ = )", r"\1", (folder / "leptond.toml").read_text(), flags=re.M)
    path = tmp_path / "leptond.toml"
    path.write_text(text)
    return load_config(path, {})


def test_every_setting_is_in_the_example_and_may_be_switched_on(switched_on):
    keys = [f"{section}.{key}" for section, model in sections() for key in model.model_fields]
    assert [key for key in keys if key not in switched_on.origins] == []
    engines = ("onnxruntime", "ctranslate2")
    assert switched_on.config.backend == {name: {"num_threads": 0} for name in engines}
    assert switched_on.config.models.settings_for("smollm2-135m-instruct:int8").num_slots == 4


def test_what_the_example_comments_out_is_the_default(switched_on):
    examples = {"listen", "admin_listen", "stores", "preload", "per_model", "endpoint", "protocol"}
    examples |= {"sampler", "sampler_ratio", "service_name", "metrics_listen"}
    defaults = load_config(None, {}).config
    for section, model in sections():
        shown, default = getattr(switched_on.config, section), getattr(defaults, section)
        for key in model.model_fields.keys() - examples:
            assert getattr(shown, key) == getattr(default, key), f"{section}.{key}"
