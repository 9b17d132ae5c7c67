from __future__ import annotations

import math

import pytest

from leptond.telemetry.fields import Fields, escape_controls


def test_plain_values_stand_bare_and_none_is_left_out():
    fields = Fields(method="a.b/C", ms=1.50, n=3, ok=True, gone=None, at="[::1]:80")
    assert str(fields) == "method=a.b/C ms=1.5 n=3 ok=True at=[::1]:80"
    assert "gone" not in fields
    assert "ms" in fields


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("two words", '"two words"'),
        ("x status=OK", '"x status=OK"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("", '""'),
        ("line\nrequest forged", '"line\\nrequest forged"'),
        ("\x1b[31mred", '"\\u001b[31mred"'),
        ("\udc80", '"\\udc80"'),
        ("\u202eevil", '"\\u202eevil"'),
        ("\x85next", '"\\x85next"'),
        ("größe", '"größe"'),
    ],
)
def test_no_value_can_leave_its_quotes(value, written):
    assert str(Fields(v=value)) == f"v={written}"


def test_a_long_value_is_cut():
    assert len(str(Fields(v="x" * 5_000))) < 1_100


def test_numbers_stay_numbers_and_others_become_text():
    values = dict(Fields(n=1, f=0.5, nan=math.nan, path=ValueError("x")))
    assert values == {"n": 1, "f": 0.5, "nan": "nan", "path": "x"}


def test_control_characters_are_written_as_escapes():
    assert escape_controls("a\tb\r\n\u2028\ud800é") == "a\\x09b\\x0d\\x0a\\u2028\\ud800é"
