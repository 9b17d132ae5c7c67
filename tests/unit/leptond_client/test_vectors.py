"""Vectors as they travel become numbers, with numpy and without."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from leptond_client import ElementType, Embeddings
from leptond_client.arrays import Matrix

ROWS = [[0.5, -1.0, 2.0], [4.0, 0.25, -8.0]]


def embeddings(kind: ElementType, data: bytes, **fields) -> Embeddings:
    return Embeddings(data, kind, dimensions=3, num_vectors=2, **fields)


FLOAT32 = embeddings(ElementType.FLOAT32, struct.pack("<6f", *ROWS[0], *ROWS[1]))
FLOAT16 = embeddings(ElementType.FLOAT16, struct.pack("<6e", *ROWS[0], *ROWS[1]))
INT8 = embeddings(ElementType.INT8, struct.pack("6b", 1, -2, 4, 16, 1, -32), scales=(0.5, 0.25))
BINARY = embeddings(ElementType.BINARY, bytes([0b10100000, 0b11000000]))


@pytest.mark.parametrize(
    ("given", "rows"),
    [
        (FLOAT32, ROWS),
        (FLOAT16, ROWS),
        (INT8, [[0.5, -1.0, 2.0], [4.0, 0.25, -8.0]]),
        (BINARY, [[1, 0, 1], [1, 1, 0]]),
    ],
)
def test_every_element_type_is_decoded_alike_with_numpy_and_without(given, rows):
    assert [list(row) for row in given] == rows
    assert [list(given[index]) for index in (0, -1)] == rows
    assert given.numpy().tolist() == rows
    assert given.numpy().dtype == (np.uint8 if given is BINARY else np.float32)


@pytest.mark.parametrize(
    ("given", "dtype", "width"),
    [(FLOAT32, "<f4", 3), (FLOAT16, "<f2", 3), (INT8, "i1", 3), (BINARY, "u1", 1)],
)
def test_numbers_can_be_had_as_they_travelled(given, dtype, width):
    found = given.numpy(as_stored=True)
    assert (found.dtype, found.shape) == (np.dtype(dtype), (2, width))
    assert found.tobytes() == given.data


def test_a_vector_that_is_not_there_is_an_index_error():
    with pytest.raises(IndexError, match="no vector 2 among 2"):
        FLOAT32[2]


def test_no_vectors_are_no_rows():
    nothing = Embeddings(b"", ElementType.FLOAT32, 3, 0)
    assert list(nothing) == []
    assert nothing.numpy().shape == (0, 0)


def test_a_matrix_is_what_numpy_reads(tmp_path):
    matrix = Matrix(tmp_path / "vectors.npy")
    matrix.append(FLOAT32.numpy(), [0, None, 1])
    matrix.append_zeros(1)
    matrix.append(FLOAT32.numpy(), [1])
    matrix.close()
    zeros = [0.0] * 3
    expected = [ROWS[0], zeros, ROWS[1], zeros, ROWS[1]]
    assert np.load(tmp_path / "vectors.npy").tolist() == expected
    assert matrix.num_rows == 5


def test_an_empty_matrix_is_what_numpy_reads(tmp_path):
    Matrix(tmp_path / "vectors.npy").close()
    assert np.load(tmp_path / "vectors.npy").shape == (0, 0)


def test_rows_of_another_kind_do_not_fit_a_matrix(tmp_path):
    matrix = Matrix(tmp_path / "vectors.npy")
    matrix.append(FLOAT32.numpy(), [0])
    with pytest.raises(ValueError, match="float16"):
        matrix.append(FLOAT16.numpy(as_stored=True), [0])
    matrix.close()
