"""Vectors are cut, normalised and packed as asked for."""

from __future__ import annotations

import numpy as np
import pytest

from leptond.checkpoint import EncoderDefaults
from leptond.server.convert.embeddings import normalized, pack, vector_options
from leptond.v1 import embedding_pb2

DEFAULTS = EncoderDefaults(
    architecture="bert",
    max_tokens=8,
    num_special_single=2,
    dimensions=4,
    pooling="mean",
    normalize=True,
)
VECTORS = np.array([[3.0, 4.0, 12.0, -84.0], [0.0, 0.0, 0.0, 0.0]], np.float32)


def packed(**options):
    wire = embedding_pb2.EmbedOptions(**options)
    return pack(VECTORS, vector_options(wire, DEFAULTS))


def test_what_is_not_set_is_as_the_model_says():
    batch = packed()
    assert batch.normalized
    assert (batch.num_vectors, batch.dimensions) == (2, 4)
    assert batch.pooling == embedding_pb2.POOLING_MEAN
    assert batch.element_type == embedding_pb2.ELEMENT_TYPE_FLOAT32


def test_a_vector_of_zeros_stays_one():
    np.testing.assert_array_equal(normalized(VECTORS)[1], np.zeros(4))


def test_a_vector_is_cut_before_it_is_normalised():
    batch = packed(dimensions=2)
    found = np.frombuffer(batch.data, "<f4").reshape(2, 2)
    np.testing.assert_allclose(found[0], [0.6, 0.8], rtol=1e-6)


def test_bytes_have_a_scale_for_each_vector():
    batch = packed(normalize=False, element_type=embedding_pb2.ELEMENT_TYPE_INT8)
    found = np.frombuffer(batch.data, "i1").reshape(2, 4)
    assert found[0].min() == -127
    assert list(batch.scales) == pytest.approx([84 / 127, 0])
    restored = found * np.array(batch.scales)[:, None]
    np.testing.assert_allclose(restored, VECTORS, atol=84 / 127 / 2 + 1e-4)


def test_the_first_number_is_the_highest_bit_and_a_vector_ends_at_a_whole_byte():
    batch = packed(element_type=embedding_pb2.ELEMENT_TYPE_BINARY)
    assert batch.data == bytes([0b11100000, 0])


def test_half_precision_knows_no_infinity():
    wire = embedding_pb2.EmbedOptions(
        normalize=False, element_type=embedding_pb2.ELEMENT_TYPE_FLOAT16
    )
    huge = np.array([[1e6, -1e6, 1.0, 0.0]], np.float32)
    batch = pack(huge, vector_options(wire, DEFAULTS))
    np.testing.assert_array_equal(np.frombuffer(batch.data, "<f2"), [65504, -65504, 1, 0])
