"""Addresses and channel arguments."""

from __future__ import annotations

import pytest

from leptond_client import AsyncClient, Client
from leptond_client.connection import ConnectionOptions, Outcome, resolve_address


@pytest.fixture(autouse=True)
def _no_address_from_outside(monkeypatch):
    monkeypatch.delenv("LEPTON_ADDRESS", raising=False)


@pytest.mark.parametrize(
    "address",
    ["localhost:1", "10.0.0.1:65535", "[::1]:8600", "unix:/run/leptond.sock", "unix:relative"],
)
def test_addresses_are_taken_as_they_are(address):
    assert resolve_address(address) == address


@pytest.mark.parametrize("address", ["host", "host:", ":8600", "host:0", "host:65536", "host:²",
                                     "unix:"])  # fmt: skip
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_what_is_no_address_is_refused_at_once(kind, address):
    with pytest.raises(ValueError, match="address"):
        kind(address)


def test_an_address_comes_from_the_environment_or_is_the_default(monkeypatch):
    assert resolve_address(None) == "127.0.0.1:8600"
    monkeypatch.setenv("LEPTON_ADDRESS", "unix:/run/x.sock")
    assert resolve_address(None) == "unix:/run/x.sock"
    assert resolve_address("localhost:1") == "localhost:1"


@pytest.mark.parametrize(
    ("address", "goes_direct"),
    [("127.0.0.1:1", True), ("[::1]:1", True), ("localhost:1", True), ("example.org:1", False)],
)
def test_a_proxy_is_never_asked_about_this_very_machine(address, goes_direct):
    arguments = dict(ConnectionOptions(address).channel_arguments())
    assert ("grpc.enable_http_proxy" in arguments) is goes_direct


def test_the_limit_of_answers_is_far_above_grpcs_own():
    arguments = dict(ConnectionOptions("localhost:1").channel_arguments())
    assert arguments["grpc.max_receive_message_length"] == 64 << 20


def test_an_outcome_is_known_once_it_is_set_even_to_none():
    outcome = Outcome[None]()
    with pytest.raises(RuntimeError):
        outcome.get()
    outcome.set(None)
    assert outcome.is_known
    assert outcome.get() is None
