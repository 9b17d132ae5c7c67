"""What the client makes of gRPC's errors."""

from __future__ import annotations

import pickle

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

import leptond_client
from leptond_client import DeadlineExceeded, InternalError, LeptonError, errors
from leptond_client.errors import from_rpc_failure


class Failure:
    """An ended call."""

    def __init__(self, code, details="no", initial=(), trailing=()):
        self._parts = (code, details, initial, trailing)

    def code(self):
        return self._parts[0]

    def details(self):
        return self._parts[1]

    def initial_metadata(self):
        return self._parts[2]

    def trailing_metadata(self):
        return self._parts[3]


def details_of(*details):
    status = status_pb2.Status()
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return (("grpc-status-details-bin", status.SerializeToString()),)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.name != "OK"])
def test_every_status_is_an_error_that_keeps_its_code(code):
    error = from_rpc_failure(Failure(code))
    assert isinstance(error, LeptonError)
    assert error.code is code
    assert error.message == str(error) == "no"


def test_every_class_has_a_code_of_its_own_and_is_public():
    classes = LeptonError.__subclasses__()
    assert len({one.default_code for one in classes}) == len(classes)
    for one in classes:
        assert type(from_rpc_failure(Failure(one.default_code))) is one
        assert one("x").code is one.default_code
        assert getattr(leptond_client, one.__name__) is one
        assert one.__name__ in (errors.__doc__ or "")


def test_details_are_read_in_any_order_and_strangers_are_passed_over():
    delay = duration_pb2.Duration(seconds=1, nanos=500_000_000)
    violation = error_details_pb2.BadRequest.FieldViolation(field="sampling.top_p")
    trailing = details_of(
        error_details_pb2.Help(),
        error_details_pb2.RetryInfo(retry_delay=delay),
        error_details_pb2.BadRequest(field_violations=[violation]),
        error_details_pb2.ErrorInfo(reason="WHY", metadata={"request_id": "r", "limit": "1"}),
    )
    error = from_rpc_failure(Failure(grpc.StatusCode.INVALID_ARGUMENT, trailing=trailing))
    assert (error.reason, error.field, error.retry_after_s) == ("WHY", "sampling.top_p", 1.5)
    assert error.request_id == "r"
    assert error.details == {"request_id": "r", "limit": "1"}


def test_details_that_are_corrupt_are_passed_over():
    trailing = (("grpc-status-details-bin", b"\xff\xff"),)
    error = from_rpc_failure(Failure(grpc.StatusCode.INTERNAL, trailing=trailing))
    assert isinstance(error, InternalError)
    assert error.reason == ""


@pytest.mark.parametrize(
    ("pushback", "retry_after_s", "must_not_repeat"),
    [("250", 0.25, False), (b"250", 0.25, False), ("-1", None, True), ("soon", None, True)],
)
def test_pushback_names_the_wait_or_forbids_it(pushback, retry_after_s, must_not_repeat):
    trailing = (("grpc-retry-pushback-ms", pushback),)
    error = from_rpc_failure(Failure(grpc.StatusCode.UNAVAILABLE, trailing=trailing))
    assert error.retry_after_s == retry_after_s
    assert error.must_not_repeat is must_not_repeat


def test_who_spoke_and_whether_it_ran_can_be_told():
    unavailable = grpc.StatusCode.UNAVAILABLE
    nobody = from_rpc_failure(Failure(unavailable, initial=None, trailing=None))
    refused = from_rpc_failure(Failure(unavailable, trailing=(("x-request-id", "r"),)))
    failed = from_rpc_failure(Failure(unavailable, initial=(("x-request-id", "i"),)))
    broken = from_rpc_failure(Failure(unavailable), was_answered=True)
    assert (nobody.is_from_daemon, nobody.was_admitted) == (False, False)
    assert (refused.is_from_daemon, refused.was_admitted, refused.request_id) == (True, False, "r")
    assert (failed.is_from_daemon, failed.was_admitted, failed.request_id) == (True, True, "i")
    assert (broken.is_from_daemon, broken.was_admitted) == (True, True)


def test_an_error_without_a_text_has_its_code():
    assert str(from_rpc_failure(Failure(grpc.StatusCode.UNKNOWN, details=None))) == "UNKNOWN"


def test_a_deadline_says_how_long_it_was_unless_the_daemon_says_more():
    late = grpc.StatusCode.DEADLINE_EXCEEDED
    assert str(from_rpc_failure(Failure(late), timeout=1.5)) == "the timeout of 1.5 s passed"
    refused = details_of(error_details_pb2.ErrorInfo(reason="DEADLINE_EXPIRED"))
    error = from_rpc_failure(Failure(late, "would come too late", trailing=refused), timeout=1.5)
    assert isinstance(error, DeadlineExceeded)
    assert str(error) == "would come too late"


def test_errors_can_cross_processes():
    error = from_rpc_failure(Failure(grpc.StatusCode.NOT_FOUND, "no model"))
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.code) == (type(error), "no model", error.code)
