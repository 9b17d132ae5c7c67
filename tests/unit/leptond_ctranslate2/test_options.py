from __future__ import annotations

import pytest

from leptond.backend.processor import num_available_cores
from leptond.errors import ModelFailed
from leptond_ctranslate2.options import EngineOptions


def test_without_a_table_every_core_is_used():
    assert EngineOptions.from_mapping({}).actual_threads == num_available_cores()


def test_threads_are_taken_over():
    assert EngineOptions.from_mapping({"num_threads": 3}, num_cores=1).actual_threads == 3


def test_without_threads_of_its_own_the_daemons_cores_bound_it():
    assert EngineOptions.from_mapping({}, num_cores=1).actual_threads == 1
    assert EngineOptions.from_mapping({}, num_cores=4096).actual_threads == num_available_cores()


@pytest.mark.parametrize("value", [-1, 1025, True, "2", 1.5, None])
def test_a_wrong_number_is_refused_with_its_range(value):
    with pytest.raises(ModelFailed, match=r"num_threads is .*, not a whole number from 0 to 1024"):
        EngineOptions.from_mapping({"num_threads": value})


def test_an_unknown_option_is_refused_by_name():
    with pytest.raises(ModelFailed, match="of the ctranslate2 backend: cores; known are"):
        EngineOptions.from_mapping({"cores": 2})
