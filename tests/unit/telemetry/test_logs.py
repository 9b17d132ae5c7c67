from __future__ import annotations

import contextvars
import io
import json
import logging
import warnings

import pytest

from leptond.telemetry import Fields, LogOptions, bind_request, set_log_level, setup_logging
from leptond.telemetry.logs import ExporterFilter

logger = logging.getLogger("leptond.test")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored_root():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def set_up(stream: io.StringIO | None = None, *, is_journal: bool = False, **options: str):
    stream = stream or io.StringIO()
    setup_logging(LogOptions(**options), stream=stream, is_journal=is_journal)
    return stream


def test_a_terminal_gets_text():
    stream = set_up(Terminal())
    logger.info("model loaded %s", Fields(model="tiny", ms=3))
    (line,) = lines(stream)
    assert line.endswith(" INFO leptond.test: model loaded model=tiny ms=3")


def test_a_pipe_gets_one_json_object_per_line():
    stream = set_up()
    logger.warning("model loaded %s", Fields(model="tiny", ms=3))
    entry = json.loads(stream.getvalue())
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "warning",
        "logger": "leptond.test",
        "message": "model loaded",
        "model": "tiny",
        "ms": 3,
    }


def test_the_format_can_be_forced():
    assert lines(set_up(Terminal(), format="json")) == []
    json_stream = set_up(Terminal(), format="json")
    logger.info("x")
    assert json.loads(json_stream.getvalue())["message"] == "x"
    text_stream = set_up(format="text")
    logger.info("x")
    assert text_stream.getvalue().endswith(" INFO leptond.test: x\n")


def log_failure(error: Exception, *, stack_info: bool = False) -> None:
    def fail():
        raise error

    try:
        fail()
    except type(error):
        logger.exception("failed", stack_info=stack_info)


@pytest.mark.parametrize(
    ("level", "prefix"),
    [("debug", "<7>"), ("info", "<6>"), ("warning", "<4>"), ("error", "<3>"), ("critical", "<3>")],
)
def test_the_journal_gets_json_with_its_priority(level, prefix):
    stream = set_up(Terminal(), is_journal=True, level="debug")
    getattr(logger, level)("x")
    (line,) = lines(stream)
    assert line.startswith(f"{prefix}{{")
    assert json.loads(line[3:])["message"] == "x"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_caller_cannot_forge_a_line(log_format):
    stream = set_up(format=log_format)
    evil = "x\n2026-11-25T00:00:00.000Z INFO leptond.test: request status=OK\u2028\ud800\x1b[0m"
    logger.info("seen %s", evil)
    logger.info("seen %s", Fields(value=evil))
    log_failure(ValueError(evil))
    written = lines(stream)
    if log_format == "json":
        assert [json.loads(line)["message"] for line in written][1:] == ["seen", "failed"]
    else:
        heads = [line for line in written if not line.startswith("    | ")]
        assert [line.split(": ")[1].split(" ")[0] for line in heads] == ["seen", "seen", "failed"]
    assert stream.getvalue().isascii()


def test_a_traceback_is_kept_in_both_formats():
    for log_format in ("text", "json"):
        stream = set_up(format=log_format)
        log_failure(RuntimeError("broken"), stack_info=True)
        assert "RuntimeError: broken" in stream.getvalue()
        assert "Stack (most recent call last)" in stream.getvalue()


def test_lines_of_a_request_carry_its_ids():
    stream = set_up()

    def serve():
        bind_request("r1", "t1")
        logger.info("in the request")
        logger.info("own %s", Fields(request_id="mine"))

    contextvars.copy_context().run(serve)
    logger.info("outside")
    entries = [json.loads(line) for line in lines(stream)]
    assert [(e.get("request_id"), e.get("trace_id")) for e in entries] == [
        ("r1", "t1"),
        ("mine", "t1"),
        (None, None),
    ]


def test_a_request_without_a_trace_has_no_trace_id():
    stream = set_up(format="text")

    def serve():
        bind_request("r1", None)
        logger.info("x")

    contextvars.copy_context().run(serve)
    assert stream.getvalue().endswith(": x request_id=r1\n")


def test_the_level_can_change_while_running():
    stream = set_up(level="warning")
    logger.info("hidden")
    set_log_level("debug")
    logger.debug("shown")
    logging.getLogger("urllib3").debug("never")
    assert [json.loads(line)["message"] for line in lines(stream)] == ["shown"]


def test_setting_up_twice_writes_once():
    first = set_up()
    second = set_up()
    logger.info("x")
    assert first.getvalue() == ""
    assert len(lines(second)) == 1


def test_python_warnings_become_log_lines():
    stream = set_up()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
    assert "old thing" in json.loads(stream.getvalue())["message"]


def test_each_logger_of_opentelemetry_speaks_once_a_minute():
    now = [0.0]
    passes = ExporterFilter(clock=lambda: now[0]).filter

    def record(name):
        return logging.LogRecord(name, logging.ERROR, "", 0, "x", None, None)

    assert passes(record("opentelemetry.exporter"))
    assert not passes(record("opentelemetry.exporter"))
    assert passes(record("opentelemetry.sdk"))
    assert passes(record("leptond.x"))
    assert passes(record("leptond.x"))
    now[0] = 60.0
    assert passes(record("opentelemetry.exporter"))
