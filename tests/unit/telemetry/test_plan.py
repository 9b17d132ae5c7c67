from __future__ import annotations

import pytest

from leptond.telemetry.options import SAMPLERS, InvalidTelemetryOption, TelemetryOptions
from leptond.telemetry.plan import SignalPlan, TelemetryPlan, make_plan

GRPC_DEFAULT = SignalPlan("http://localhost:4317", "grpc", None)


def plan(options: TelemetryOptions | None = None, **environ: str) -> TelemetryPlan:
    return make_plan(options or TelemetryOptions(), environ)


def test_telemetry_is_off_when_nothing_asks_for_it():
    quiet = plan(
        OTEL_SERVICE_NAME="x", OTEL_TRACES_SAMPLER="always_on", OTEL_EXPORTER_OTLP_HEADERS="a=b"
    )
    assert not quiet.is_on
    assert quiet == TelemetryPlan()


def test_a_general_endpoint_turns_spans_and_metrics_on():
    made = plan(OTEL_EXPORTER_OTLP_ENDPOINT="http://collector:4317")
    assert made.traces == made.metrics == SignalPlan("http://collector:4317", "grpc", None)


def test_an_empty_endpoint_counts_as_absent():
    assert not plan(OTEL_EXPORTER_OTLP_ENDPOINT="", OTEL_TRACES_EXPORTER=" ").is_on


@pytest.mark.parametrize("signal", ["traces", "metrics"])
def test_an_endpoint_of_one_signal_turns_on_that_signal_only(signal):
    made = plan(None, **{f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT": "http://c:1"})
    assert (made.traces is not None) == (signal == "traces")
    assert (made.metrics is not None) == (signal == "metrics")


@pytest.mark.parametrize("signal", ["traces", "metrics"])
def test_an_exporter_variable_turns_its_signal_on_at_the_default_endpoint(signal):
    made = plan(None, **{f"OTEL_{signal.upper()}_EXPORTER": "otlp"})
    assert getattr(made, signal) == GRPC_DEFAULT
    assert [made.traces, made.metrics].count(None) == 1


def test_none_as_exporter_turns_one_signal_off():
    made = plan(OTEL_EXPORTER_OTLP_ENDPOINT="http://c:1", OTEL_METRICS_EXPORTER="none")
    assert made.traces is not None
    assert made.metrics is None


def test_an_exporter_that_leptond_lacks_is_refused_by_name():
    with pytest.raises(InvalidTelemetryOption, match="OTEL_TRACES_EXPORTER = 'zipkin'"):
        plan(OTEL_TRACES_EXPORTER="otlp,zipkin")


def test_the_sdk_switch_turns_everything_off():
    options = TelemetryOptions(endpoint="http://c:1", metrics_listen="127.0.0.1:9464")
    assert not plan(options, OTEL_SDK_DISABLED="TRUE").is_on
    assert plan(options, OTEL_SDK_DISABLED="false").is_on


def test_an_http_base_url_gets_the_path_of_each_signal():
    made = plan(
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf", OTEL_EXPORTER_OTLP_ENDPOINT="http://c:4318/x/"
    )
    assert made.traces == SignalPlan("http://c:4318/x/v1/traces", "http/protobuf", None)
    assert made.metrics == SignalPlan("http://c:4318/x/v1/metrics", "http/protobuf", None)


def test_an_http_url_of_one_signal_is_taken_as_it_is():
    made = plan(
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="https://c/custom",
    )
    assert made.traces == SignalPlan("https://c/custom", "http/protobuf", None)


def test_each_signal_may_have_its_own_protocol():
    made = plan(
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_METRICS_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_METRICS_PROTOCOL="http/protobuf",
    )
    assert made.traces == GRPC_DEFAULT
    assert made.metrics == SignalPlan("http://localhost:4318/v1/metrics", "http/protobuf", None)


def test_the_options_win_over_the_variables():
    made = plan(
        TelemetryOptions(
            endpoint="http://mine:4318",
            protocol="http/protobuf",
            headers={"authorization": "secret"},
            sampler="traceidratio",
            sampler_ratio=0.25,
            service_name="mine",
        ),
        OTEL_EXPORTER_OTLP_ENDPOINT="http://theirs:4317",
        OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
        OTEL_TRACES_SAMPLER="always_off",
        OTEL_TRACES_SAMPLER_ARG="0.5",
        OTEL_TRACES_EXPORTER="none",
    )
    assert made.traces == SignalPlan(
        "http://mine:4318/v1/traces", "http/protobuf", {"authorization": "secret"}
    )
    assert (made.sampler, made.sampler_ratio, made.service_name) == ("traceidratio", 0.25, "mine")


def test_the_exporter_option_decides_before_the_variables():
    assert plan(TelemetryOptions(exporter="otlp")).traces == GRPC_DEFAULT
    off = plan(TelemetryOptions(exporter="none"), OTEL_EXPORTER_OTLP_ENDPOINT="http://c:1")
    assert not off.is_on


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_standard_sampler_is_known(sampler):
    made = plan(
        OTEL_TRACES_EXPORTER="otlp", OTEL_TRACES_SAMPLER=sampler, OTEL_TRACES_SAMPLER_ARG="0.5"
    )
    assert made.sampler == sampler
    assert made.sampler_ratio == (0.5 if sampler.endswith("ratio") else 1.0)


def test_the_queue_follows_its_variable_and_bounds_the_batch():
    made = plan(OTEL_TRACES_EXPORTER="otlp", OTEL_BSP_MAX_QUEUE_SIZE="100")
    assert (made.max_queue_spans, made.max_batch_spans) == (100, 100)
    made = plan(OTEL_TRACES_EXPORTER="otlp", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="7")
    assert (made.max_queue_spans, made.max_batch_spans) == (2048, 7)


@pytest.mark.parametrize(
    ("listen", "address"),
    [("127.0.0.1:9464", ("127.0.0.1", 9464)), ("[::1]:0", ("::1", 0))],
)
def test_a_metrics_page_alone_turns_telemetry_on(listen, address):
    made = plan(TelemetryOptions(metrics_listen=listen))
    assert made.is_on
    assert (made.metrics_listen, made.traces, made.metrics) == (address, None, None)


@pytest.mark.parametrize(
    ("options", "environ", "name"),
    [
        (TelemetryOptions(exporter="console"), {}, "telemetry.exporter"),
        (TelemetryOptions(endpoint="http://c", protocol="tcp"), {}, "telemetry.protocol"),
        (TelemetryOptions(endpoint="c:1", protocol="http/protobuf"), {}, "telemetry.endpoint"),
        (TelemetryOptions(endpoint="http://c", sampler="some"), {}, "telemetry.sampler"),
        (TelemetryOptions(metrics_listen="9464"), {}, "telemetry.metrics_listen"),
        (TelemetryOptions(metrics_listen="h:65536"), {}, "telemetry.metrics_listen"),
        (TelemetryOptions(metrics_listen=":1"), {}, "telemetry.metrics_listen"),
        (
            TelemetryOptions(exporter="otlp"),
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ),
        (
            TelemetryOptions(exporter="otlp"),
            {"OTEL_TRACES_SAMPLER": "jaeger_remote"},
            "OTEL_TRACES_SAMPLER",
        ),
        *(
            (
                TelemetryOptions(endpoint="http://c", sampler="traceidratio"),
                {"OTEL_TRACES_SAMPLER_ARG": value},
                "OTEL_TRACES_SAMPLER_ARG",
            )
            for value in ("1.5", "-1", "half", "nan")
        ),
        *(
            (TelemetryOptions(exporter="otlp"), {name: value}, name)
            for name, value in [
                ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
                ("OTEL_BSP_MAX_QUEUE_SIZE", "1.5"),
                ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096"),
                ("OTEL_BSP_SCHEDULE_DELAY", "0"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
                ("OTEL_METRIC_EXPORT_INTERVAL", "-5"),
            ]
        ),
    ],
)
def test_a_wrong_value_stops_the_start_by_name(options, environ, name):
    with pytest.raises(InvalidTelemetryOption) as caught:
        make_plan(options, environ)
    assert caught.value.name == name
    assert str(caught.value).startswith(f"{name} = ")
    assert "must be " in str(caught.value)


def test_wrong_details_do_not_matter_while_telemetry_is_off():
    assert not plan(OTEL_TRACES_SAMPLER="nonsense", OTEL_BSP_MAX_QUEUE_SIZE="x").is_on
