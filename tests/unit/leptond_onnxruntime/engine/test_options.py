from __future__ import annotations

import pytest

from leptond.backend.processor import num_available_cores
from leptond.errors import ModelFailed
from leptond_onnxruntime.options import EngineOptions


def test_an_empty_table_gives_the_defaults():
    assert EngineOptions.from_mapping({}) == EngineOptions()


def test_a_number_of_threads_is_taken_as_it_is():
    assert EngineOptions.from_mapping({"num_threads": 3}).actual_threads == 3


def test_zero_threads_is_one_for_each_core():
    assert EngineOptions().actual_threads == num_available_cores() >= 1
    assert EngineOptions.from_mapping({}, 1).actual_threads == 1
    assert EngineOptions.from_mapping({"num_threads": 3}, 1).actual_threads == 3


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"threads": 2}, "unknown option of the onnxruntime backend: threads"),
        ({"num_threads": -1}, "num_threads is -1, not a whole number from 0 to 1024"),
        ({"num_threads": 1025}, "num_threads is 1025"),
        ({"num_threads": True}, "num_threads is True"),
        ({"num_threads": "2"}, "num_threads is '2'"),
        ({"spin_us": -1}, "spin_us is -1, not a whole number from 0 to 1000000"),
        ({"spin_us": 0.5}, "spin_us is 0.5"),
    ],
)
def test_a_wrong_option_is_refused_with_key_value_and_range(table, message):
    with pytest.raises(ModelFailed, match=message):
        EngineOptions.from_mapping(table)
