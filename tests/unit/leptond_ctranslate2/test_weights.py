from __future__ import annotations

import gguf
import numpy as np
import pytest
from ctranslate2.specs.common_spec import LinearSpec

from leptond_ctranslate2.importer.weights import WeightReader, quantise_rows, to_bfloat16
from leptond_ctranslate2.precision import Precision


@pytest.fixture
def matrix():
    dice = np.random.default_rng(0)
    rows = dice.standard_normal((40, 64)).astype(np.float32) * np.logspace(-6, 3, 40)[:, None]
    rows[3] = 0
    rows[4] = np.float32(1e-42)
    return rows.astype(np.float32)


def test_full_range_bytes_are_those_of_the_engines_own_converter(matrix):
    spec = LinearSpec()
    spec.weight = matrix.copy()
    spec.validate()
    with np.errstate(over="ignore"):  # its scale of a row of tiny numbers is infinite
        spec.optimize("int8")
    quantised, scales = quantise_rows(matrix, 127)
    np.testing.assert_array_equal(quantised, spec.weight.numpy())
    np.testing.assert_array_equal(scales, spec.weight_scale.numpy())


@pytest.mark.parametrize("limit", [127, 64])
def test_no_byte_is_beyond_the_limit_and_the_largest_reaches_it(matrix, limit):
    quantised, scales = quantise_rows(matrix, limit)
    assert np.abs(quantised.astype(int)).max(axis=1)[5:].tolist() == [limit] * 35
    assert not quantised[3].any()
    assert np.isfinite(scales).all()


def test_rounding_is_to_the_nearest_step(matrix):
    quantised, scales = quantise_rows(matrix, 64)
    error = np.abs(quantised / scales[:, None] - matrix)
    assert (error <= 0.501 / scales[:, None]).all()


def test_bfloat16_is_rounded_to_nearest_even():
    dice = np.random.default_rng(1)
    values = np.concatenate(
        [
            dice.standard_normal(10_000).astype(np.float32),
            np.array([0, -0.0, 1, 1.00390625, 1.01171875, 3e38, 1e-40], np.float32),
        ]
    )
    expected = gguf.quantize(values, gguf.GGMLQuantizationType.BF16).view(np.uint16)
    np.testing.assert_array_equal(to_bfloat16(values), expected)


@pytest.fixture
def reader(tiny_checkpoints):
    def read(precision, limit=127):
        done: list[int] = []
        return WeightReader(
            tiny_checkpoints("llama"), Precision(precision), limit, done.append
        ), done

    return read


@pytest.mark.parametrize(
    ("precision", "matrix_type", "vector_type"),
    [
        ("float32", "float32", "float32"),
        ("float16", "float16", "float16"),
        ("bfloat16", "bfloat16", "bfloat16"),
        ("int8", "int8", "float32"),
        ("int8_float32", "int8", "float32"),
        ("int8_float16", "int8", "float16"),
        ("int8_bfloat16", "int8", "bfloat16"),
    ],
)
def test_a_precision_decides_the_types(reader, precision, matrix_type, vector_type):
    weights, _ = reader(precision)
    matrix = weights.matrix("embedding.weight")
    assert matrix.weight.dtype == matrix_type
    assert weights.vector("norm.weight").dtype == vector_type
    assert (matrix.scale is None) == (matrix_type != "int8")
    assert matrix.scale is None or matrix.scale.dtype == "float32"


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_a_variable_knows_its_size_before_it_is_read(reader, precision):
    weights, done = reader(precision)
    matrix = weights.matrix("layers.0.attention.q.weight", "layers.0.attention.k.weight")
    variables = [matrix.weight, *([matrix.scale] if matrix.scale else [])]
    sizes = [variable.num_bytes() for variable in variables]
    assert done == []
    assert [len(variable.to_bytes()) for variable in variables] == sizes == done


def test_matrices_of_one_input_lie_below_each_other(reader, tiny_checkpoints):
    weights, _ = reader("float32")
    names = [f"layers.1.attention.{part}.weight" for part in "qkv"]
    joined = weights.matrix(*names).weight
    expected = np.concatenate([tiny_checkpoints("llama").tensor(name) for name in names])
    assert joined.shape == expected.shape
    np.testing.assert_array_equal(joined.values(), expected)


def test_scales_alone_are_those_of_the_matrix(reader):
    weights, _ = reader("int8")
    matrix = weights.matrix("head.weight")
    alone = matrix.scale.values()
    matrix.weight.values()
    np.testing.assert_array_equal(matrix.scale.values(), alone)


def test_rows_at_the_end_can_be_left_out(reader, tiny_checkpoints):
    weights, _ = reader("float32")
    whole = tiny_checkpoints("llama").tensor("embedding.weight")
    matrix = weights.matrix("embedding.weight", num_rows=len(whole) - 1)
    np.testing.assert_array_equal(matrix.weight.values(), whole[:-1])
