"""Our own description of `grpc.health.v1` speaks the protocol."""

from __future__ import annotations

from leptond_client.health_messages import (
    STATUSES,
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListResponse,
)


def test_the_bytes_are_those_of_the_protocol():
    assert HealthCheckRequest(service="ab").SerializeToString() == b"\x0a\x02ab"
    assert HealthCheckResponse(status=2).SerializeToString() == b"\x08\x02"
    listing = HealthListResponse.FromString(b"\x0a\x08\x0a\x02ab\x12\x02\x08\x01")
    assert {name: entry.status for name, entry in listing.statuses.items()} == {"ab": 1}


def test_the_statuses_have_their_names():
    described = HealthCheckResponse.DESCRIPTOR.enum_types_by_name["ServingStatus"]
    assert {value.number: value.name.lower() for value in described.values} == dict(STATUSES)
