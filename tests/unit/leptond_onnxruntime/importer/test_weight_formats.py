from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest

from leptond_onnxruntime.importer import Precision
from leptond_onnxruntime.importer.weight_formats import quantize_blockwise


def dequantized(levels: np.ndarray, scales: np.ndarray) -> np.ndarray:
    values = (levels.astype(np.float32) - 128) * scales[..., np.newaxis]
    return np.reshape(values, (levels.shape[0], -1))


def test_quantised_values_are_half_a_step_off_at_most():
    matrix = np.random.default_rng(0).standard_normal((10, 96)).astype(np.float32)
    levels, scales = quantize_blockwise(matrix)
    assert levels.shape == (10, 3, 32)
    error = np.abs(dequantized(levels, scales) - matrix).reshape(10, 3, 32)
    assert (error <= scales[..., np.newaxis] / 2 * 1.0001).all()


def test_the_largest_value_of_a_block_is_met_exactly():
    matrix = np.random.default_rng(1).standard_normal((5, 64)).astype(np.float32)
    matrix[:, 3] = [9, -9, 9, -9, 9]
    levels, scales = quantize_blockwise(matrix)
    np.testing.assert_allclose(dequantized(levels, scales)[:, 3], matrix[:, 3], rtol=1e-6)


def test_values_that_are_8_bit_already_are_not_rounded_again():
    rng = np.random.default_rng(2)
    levels = rng.integers(-127, 128, (4, 2, 32))
    levels[..., 0] = 127
    matrix = (levels * np.float32(0.0078125)).astype(np.float32).reshape(4, 64)
    np.testing.assert_array_equal(dequantized(*quantize_blockwise(matrix)), matrix)


def test_a_block_of_zeros_stays_zero():
    matrix = np.zeros((2, 64), np.float32)
    matrix[0, 40] = 1
    np.testing.assert_array_equal(dequantized(*quantize_blockwise(matrix)), matrix)


def test_rows_are_padded_to_whole_blocks():
    matrix = np.ones((3, 40), np.float32)
    levels, scales = quantize_blockwise(matrix)
    assert levels.shape == (3, 2, 32)
    assert (levels[:, 1, 8:] == 128).all()
    np.testing.assert_allclose(dequantized(levels, scales)[:, :40], matrix, rtol=1e-6)


def external_places(path) -> dict[tuple[int, int], str]:
    """Return the weights of a graph: (offset, length) to name."""
    graph = onnx.load(path, load_external_data=False).graph
    places = {}
    for tensor in graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if entries:
            assert entries["location"] == "weights.bin"
            places[int(entries["offset"]), int(entries["length"])] = tensor.name
    return places


@pytest.mark.parametrize("precision", list(Precision))
def test_a_tied_embedding_is_stored_once(import_tiny, precision):
    directory = import_tiny(precision).directory
    body, head = (external_places(directory / f"{name}.onnx") for name in ("body", "head"))
    assert set(head) <= set(body)
    assert all(body[place].startswith("embedding.") for place in head)


def test_an_untied_head_has_weights_of_its_own(import_tiny):
    directory = import_tiny(is_tied=False).directory
    body, head = (external_places(directory / f"{name}.onnx") for name in ("body", "head"))
    assert not set(head) & set(body)


def test_weights_begin_on_pages_and_do_not_overlap(import_tiny):
    directory = import_tiny(Precision.INT8).directory
    places = sorted(external_places(directory / "body.onnx"))
    assert all(offset % 4096 == 0 for offset, _ in places)
    assert all(a + size <= b for (a, size), (b, _) in itertools.pairwise(places))
