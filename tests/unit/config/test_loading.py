from __future__ import annotations

from pathlib import Path

import pytest

from leptond.config import (
    ConfigError,
    OriginKind,
    default_stores,
    load_config,
    settings_of_flags,
)
from leptond.config.schema import Config
from leptond.telemetry import LogOptions, TelemetryOptions


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = Path(tmp_path, "leptond.toml")
        path.write_text(text)
        return path

    return write


def load(path=None, flags=None, **environ: str):
    return load_config(path, {"HOME": "/home/you", **environ}, flags)


def problems(path=None, flags=None, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, flags, **environ)
    lines = list(map(str, caught.value.problems))
    assert "\n".join(lines) == str(caught.value)
    return lines


def test_no_configuration_is_a_configuration():
    loaded = load()
    assert loaded.config.server.listen == ("127.0.0.1:8600",)
    assert loaded.config.models.stores == (Path("/home/you/.local/share/leptond"),)
    assert loaded.config.limits.default_max_tokens == 1024
    assert loaded.config.server.max_message_bytes == 64 << 20
    assert str(loaded.origin("server.listen")) == "default"
    assert loaded.path is None


def test_later_layers_win_and_each_value_knows_its_origin(write):
    path = write("[server]\ngrace_s = 1\nmax_message_bytes = 100_000\n[log]\nlevel = 'debug'\n")
    loaded = load(
        path,
        {"server.grace_s": 3.0, "server.insecure": None, "models.preload": ()},
        LEPTOND_SERVER_GRACE_S="2",
        LEPTOND_LOG_LEVEL="error",
    )
    assert loaded.config.server.grace_s == 3.0
    assert loaded.config.log.level == "error"
    assert loaded.config.server.max_message_bytes == 100_000
    assert str(loaded.origin("server.grace_s")) == "flag --grace"
    assert str(loaded.origin("log.level")) == "variable LEPTOND_LOG_LEVEL"
    assert str(loaded.origin("server.max_message_bytes")) == f"file {path}"
    assert loaded.origin("server.insecure").kind is OriginKind.DEFAULT


def test_the_file_may_be_named_by_a_variable(write):
    path = write("[models]\nnum_slots = 3\n")
    loaded = load(LEPTOND_CONFIG=str(path))
    assert loaded.config.models.num_slots == 3
    assert loaded.path == path


def test_the_process_s_own_environment_is_the_default(monkeypatch):
    monkeypatch.setenv("LEPTOND_MODELS_NUM_SLOTS", "5")
    assert load_config().config.models.num_slots == 5


def test_variables_are_read_by_the_type_of_their_setting():
    loaded = load(
        LEPTOND_SERVER_LISTEN="[::1]:1, unix:/run/x",
        LEPTOND_SERVER_INSECURE="Yes",
        LEPTOND_SERVER_GRACE_S="2.5",
        LEPTOND_MODELS_STORES="/a:/b",
        LEPTOND_MODELS_PRELOAD="one,two:int8,",
        LEPTOND_MODELS_LOAD_POLICY="manual",
        LEPTOND_TELEMETRY_SAMPLER_RATIO="0.5",
        LEPTOND_SCHEDULER_MAX_QUEUED="0",
    )
    config = loaded.config
    assert config.server.listen == ("[::1]:1", "unix:/run/x")
    assert config.server.insecure is True
    assert config.server.grace_s == 2.5
    assert config.models.stores == (Path("/a"), Path("/b"))
    assert config.models.preload == ("one", "two:int8")
    assert config.models.load_policy == "manual"
    assert config.telemetry.sampler_ratio == 0.5
    assert config.scheduler.max_queued == 0
    assert load(LEPTOND_SERVER_INSECURE="off").config.server.insecure is False


@pytest.mark.parametrize(
    ("environ", "stores", "origin"),
    [
        ({"LEPTOND_STORE": "/a:/b", "STATE_DIRECTORY": "/s"}, ["/a", "/b"], "LEPTOND_STORE"),
        ({"STATE_DIRECTORY": "/var/lib/leptond"}, ["/var/lib/leptond"], "STATE_DIRECTORY"),
        ({"XDG_DATA_HOME": "/d"}, ["/d/leptond"], "XDG_DATA_HOME"),
    ],
)
def test_stores_come_from_where_the_machine_keeps_them(environ, stores, origin):
    loaded = load(**environ)
    assert loaded.config.models.stores == tuple(map(Path, stores))
    assert loaded.origin("models.stores").name == origin
    assert default_stores({"HOME": "/home/you", **environ}) == loaded.config.models.stores


def test_the_default_stores_are_those_of_the_process(monkeypatch):
    monkeypatch.setenv("LEPTOND_STORE", "/mine")
    assert default_stores() == (Path("/mine"),)


def test_two_names_for_one_setting_must_not_both_be_set():
    lines = problems(LEPTOND_STORE="/a", LEPTOND_MODELS_STORES="/b")
    assert lines == ["LEPTOND_STORE: says the same as LEPTOND_MODELS_STORES: set one of them"]


def test_the_tables_of_engines_are_passed_through(write):
    path = write('[backend.onnxruntime]\nnum_threads = 2\n[backend."odd name"]\nx = [1, "a"]\n')
    loaded = load(path)
    assert loaded.config.backend == {
        "onnxruntime": {"num_threads": 2},
        "odd name": {"x": [1, "a"]},
    }
    assert str(loaded.origin("backend.onnxruntime")) == f"file {path}"


def test_a_model_has_settings_of_its_own(write):
    path = write(
        "[models]\nnum_slots = 8\nmax_context_tokens = 100\n"
        '[models.per_model.tiny]\nnum_slots = 4\ndevice = "cuda:0"\n'
        '[models.per_model."tiny:int8"]\nnum_slots = 2\n'
    )
    models = load(path).config.models
    tiny = models.settings_for("tiny:float32")
    assert (tiny.num_slots, tiny.device, tiny.max_context_tokens) == (4, "cuda:0", 100)
    assert models.settings_for("tiny:int8").num_slots == 2
    assert models.settings_for("tiny:int8").device == "cuda:0"
    assert models.settings_for("other").num_slots == 8
    assert models.settings_for("other").kv_bytes == 0


@pytest.mark.parametrize(
    ("listen", "admin"),
    [
        (["127.0.0.1:1"], ["127.0.0.1:1"]),
        (["127.0.0.1:1", "[::1]:2"], ["127.0.0.1:1", "[::1]:2"]),
        (["127.0.0.1:1", "unix:/run/x"], ["unix:/run/user/7/leptond/admin.sock"]),
        (["unix:/run/x"], ["unix:/run/user/7/leptond/admin.sock"]),
    ],
)
def test_administrators_are_let_in_on_loopback_or_on_a_socket_of_their_own(listen, admin):
    loaded = load(None, {"server.listen": listen}, XDG_RUNTIME_DIR="/run/user/7")
    assert loaded.config.server.admin_listen == tuple(admin)


def test_an_administrative_address_that_is_given_is_kept():
    flags = {"server.listen": ["unix:/run/x"], "server.admin_listen": ["unix:/run/y"]}
    assert load(None, flags).config.server.admin_listen == ("unix:/run/y",)


@pytest.mark.parametrize("address", ["0.0.0.0:8600", "[::]:1", "10.0.0.1:1", "somewhere:1"])
def test_an_address_that_others_can_reach_needs_consent(address):
    (line,) = problems(None, {"server.listen": [address]})
    assert line.startswith(f"--listen: server.listen = '{address}': must be loopback or a Unix")
    (line,) = problems(None, {"server.admin_listen": [address]})
    assert line.startswith("--admin-listen: server.admin_listen")
    allowed = load(None, {"server.listen": [address], "server.insecure": True})
    assert allowed.config.server.listen == (address,)


def test_every_problem_is_told_at_once_with_its_place(write):
    path = write(
        "colour = 1\n"
        "[sever]\n"
        "[server]\ngrace_s = -1\nlisten = ['127.0.0.1:1', '80']\ngrace = 3\ninsecure = 'no'\n"
        "[models]\nnum_slots = 1.5\nstores = '/a'\npreload = [1]\n"
        "[models.per_model.tiny]\nnum_slots = 0\nslots = 3\n"
        "[log]\nlevel = 'loud'\n"
        "[scheduler]\nmax_queued = true\n"
        "[telemetry]\nheaders = {authorization = 7}\nsampler_ratio = 2\n"
        "[backend]\nonnxruntime = 3\n"
    )
    lines = problems(path, None, LEPTOND_SERVER_GRACE_S="soon", LEPTOND_SERVER_INSECURE="maybe")
    text = str(path)
    assert lines == [
        f"{text}: [colour]: unknown table",
        f"{text}: [sever]: unknown table; did you mean server?",
        f"{text}: server.grace: unknown key; did you mean grace_s?",
        f"{text}: server.listen[1] = '80': must be host:port, [ipv6]:port or unix:/path",
        f"{text}: server.insecure = 'no': must be true or false",
        f"{text}: server.grace_s = -1: must be a number from 0 to 3600",
        f"{text}: models.stores = '/a': must be a list of strings",
        f"{text}: models.preload[0] = 1: must be a list of strings",
        f"{text}: models.num_slots = 1.5: must be a whole number from 1 to 4096",
        f"{text}: models.per_model.tiny.num_slots = 0: must be a whole number from 1 to 4096",
        f"{text}: models.per_model.tiny.slots: unknown key",
        f"{text}: scheduler.max_queued = True: must be a whole number from 0 to 1048576",
        f"{text}: telemetry.headers.authorization = (secret): must be a table",
        f"{text}: telemetry.sampler_ratio = 2: must be a number from 0 to 1",
        f'{text}: log.level = \'loud\': must be one of "debug", "info", "warning", "error"',
        f"{text}: backend.onnxruntime = 3: Input should be a valid dictionary",
        "LEPTOND_SERVER_INSECURE: server.insecure = 'maybe': must be true or false",
        "LEPTOND_SERVER_GRACE_S: server.grace_s = 'soon': must be a number from 0 to 3600",
    ]


def test_a_wrong_value_is_told_even_when_a_later_layer_replaces_it(write):
    path = write("[server]\ngrace_s = -1\n")
    assert len(problems(path, {"server.grace_s": 1.0})) == 1


def test_a_wrong_flag_is_named_as_it_was_written():
    assert problems(None, {"server.grace_s": 9999}) == [
        "--grace: server.grace_s = 9999: must be a number from 0 to 3600"
    ]
    assert problems(None, {"models.num_slots": 0}) == [
        "flag: models.num_slots = 0: must be a whole number from 1 to 4096"
    ]


def test_a_section_that_is_no_table_is_told(write):
    assert problems(write("server = 3\n")) == [f"{write('server = 3')}: server: must be a table"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"[server\n", "is not TOML: "), (b"x = '\xff'", "is not TOML: ")],
)
def test_a_file_that_is_not_toml_is_told(tmp_path, content, reason):
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    (line,) = problems(path)
    assert line.startswith(f"{path}: {reason}")


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    assert problems(tmp_path / "none.toml") == [
        f"{tmp_path}/none.toml: cannot be read: No such file or directory"
    ]
    assert problems(tmp_path) == [f"{tmp_path}: cannot be read: Is a directory"]


def test_an_unknown_variable_is_told_with_the_likely_one():
    assert problems(LEPTOND_SERVER_LISTN="x", LEPTOND_COLOUR="1") == [
        "LEPTOND_COLOUR: unknown variable",
        "LEPTOND_SERVER_LISTN: unknown variable; did you mean LEPTOND_SERVER_LISTEN?",
    ]
    assert problems(LEPTOND_TELEMETRY_HEADERS="a=b")[0].startswith(
        "LEPTOND_TELEMETRY_HEADERS: unknown variable"
    )


@pytest.mark.parametrize(
    "name",
    [
        "LEPTOND_SERVICE_HOST",
        "LEPTOND_SERVICE_PORT",
        "LEPTOND_SERVICE_PORT_GRPC",
        "LEPTOND_PORT",
        "LEPTOND_PORT_8600_TCP",
        "LEPTOND_PORT_8600_TCP_ADDR",
        "LEPTOND_CHAT_SERVICE_HOST",
        "LEPTOND_CHAT_PORT_8600_TCP_PROTO",
        "LEPTOND_TEST_ENGINES",
    ],
)
def test_variables_that_a_cluster_or_a_test_sets_are_none_of_ours(name):
    assert load(**{name: "tcp://10.0.0.1:8600"}).config == load().config


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            {"models.num_slots": 600},
            "flag: models.num_slots = 600: must be at most scheduler.step_token_budget (512): "
            "a step gives each one a token",
        ),
        (
            {"scheduler.max_running": 9, "scheduler.step_token_budget": 8},
            "flag: scheduler.max_running = 9: must be at most scheduler.step_token_budget (8): "
            "a step gives each one a token",
        ),
        (
            {"telemetry.metrics_listen": "9464"},
            "--metrics-listen: telemetry.metrics_listen = '9464': must be host:port",
        ),
    ],
)
def test_values_are_checked_together(flags, line):
    assert problems(None, flags) == [line]


def test_wrong_standard_variables_of_telemetry_are_told():
    (line,) = problems(OTEL_TRACES_EXPORTER="otlp", OTEL_TRACES_SAMPLER="some")
    assert line.startswith("OTEL_TRACES_SAMPLER = 'some': must be one of always_on, ")


def test_sections_become_the_options_of_their_packages():
    assert Config().telemetry.to_options() == TelemetryOptions()
    assert Config().log.to_options() == LogOptions()
    flags = {"telemetry.endpoint": "http://c", "log.level": "debug"}
    config = load(None, flags).config
    assert config.telemetry.to_options() == TelemetryOptions(endpoint="http://c")
    assert config.log.to_options() == LogOptions(level="debug")


def test_a_flag_that_the_schema_lacks_is_a_mistake_of_the_command_line():
    with pytest.raises(KeyError):
        load(None, {"server.colour": 1})


def test_every_flag_sets_a_setting_of_its_own():
    settings = settings_of_flags()
    assert settings["--listen"] == "server.listen"
    assert settings["--store"] == "models.stores"
    assert len(set(settings.values())) == len(settings)
    assert all(flag.startswith("--") for flag in settings)
