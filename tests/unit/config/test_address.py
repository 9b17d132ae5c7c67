from __future__ import annotations

from pathlib import Path

import pytest

from leptond.config import Address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8600", Address("127.0.0.1", 8600)),
        ("localhost:0", Address("localhost", 0)),
        ("gpu-7.example.org:65535", Address("gpu-7.example.org", 65535)),
        ("[::1]:8600", Address("::1", 8600)),
        ("[fe80::1%eth0]:1", Address("fe80::1%eth0", 1)),
        ("unix:/run/leptond/leptond.sock", Address(path=Path("/run/leptond/leptond.sock"))),
    ],
)
def test_an_address_reads_and_writes_the_same(text, address):
    assert Address.parse(text) == address
    assert str(address) == text
    assert address.is_unix == text.startswith("unix:")


def test_the_other_spelling_of_a_unix_socket_is_the_same_address():
    assert Address.parse("unix:///run/x") == Address.parse("unix:/run/x")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must be host:port"),
        ("8600", "must be host:port"),
        (":8600", "must be host:port"),
        ("localhost:", "must be host:port"),
        ("localhost:http", "must be host:port"),
        ("localhost:-1", "must be host:port"),
        ("localhost:٣", "must be host:port"),
        ("::1:8600", "must be host:port"),
        ("http://localhost:8600", "must be host:port"),
        ("local host:1", "must be host:port"),
        ("localhost:65536", "must have a port from 0 to 65535"),
        ("[localhost]:1", "must have an IPv6 address"),
        ("[]:1", "must have an IPv6 address"),
        ("unix:", "must be unix:/path"),
        ("unix:relative.sock", "must be unix:/path"),
        ("unix:/", "must be unix:/path"),
        ("unix:/run/dir/", "must be unix:/path"),
        ("unix:/a\0b", "must be unix:/path"),
        ("unix:/" + "x" * 97, "at most 97 bytes"),
        ("unix:/" + "é" * 49, "at most 97 bytes"),
    ],
)
def test_what_is_no_address_is_refused_with_its_reason(text, reason):
    with pytest.raises(ValueError, match=reason):
        Address.parse(text)


@pytest.mark.parametrize(
    ("text", "is_loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("myhost:1", False),
        ("unix:/run/x", False),
    ],
)
def test_loopback_is_what_only_this_machine_can_reach(text, is_loopback):
    assert Address.parse(text).is_loopback == is_loopback
