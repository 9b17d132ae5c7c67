from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from leptond.backend.heads import POOLINGS, Head
from leptond.errors import InvalidRequest, ModelFailed, UnsupportedCapability
from leptond.types import Task

MEAN = [{"op": "pool", "kind": "mean"}]
LENGTHS = np.array([1, 3, 5])


def dense(index: int = 0, activation: str = "identity", *, bias: bool = True) -> dict[str, object]:
    return {
        "op": "dense",
        "weight": f"{index}.weight",
        "bias": f"{index}.bias" if bias else None,
        "activation": activation,
    }


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def arrays(*sizes: int) -> dict[str, np.ndarray]:
    """Weights and biases of layers from each size to the next one."""
    found = {}
    for index, (num_inputs, num_outputs) in enumerate(pairwise(sizes)):
        found[f"{index}.weight"] = random(num_outputs, num_inputs, seed=index + 1)
        found[f"{index}.bias"] = random(num_outputs, seed=index + 10)
    return found


@pytest.fixture
def hidden() -> np.ndarray:
    """Three rows of five positions; what lies beyond a row's length is large."""
    values = random(3, 5, 8)
    for row, length in enumerate(LENGTHS):
        values[row, length:] = 1e3
    return values


def test_pooling_looks_at_a_rows_own_tokens_only(hidden):
    head = Head(Task.EMBED, MEAN, {})
    rows = [row[:length] for row, length in zip(hidden, LENGTHS, strict=True)]
    expected = {
        "mean": [row.mean(0) for row in rows],
        "cls": [row[0] for row in rows],
        "last": [row[-1] for row in rows],
    }
    for pooling in POOLINGS:
        got = head.embed(hidden, LENGTHS, pooling)
        np.testing.assert_allclose(got, expected[pooling], rtol=1e-5, atol=1e-6)
        assert got.dtype == np.float32
    assert head.pooling == "mean"
    np.testing.assert_array_equal(head.embed(hidden, LENGTHS), head.embed(hidden, LENGTHS, "mean"))


def test_a_batch_gives_what_its_rows_give_alone(hidden):
    head = Head(Task.EMBED, [*MEAN, dense(0, "tanh")], arrays(8, 4))
    together = head.embed(hidden, LENGTHS)
    for row, length in enumerate(LENGTHS):
        alone = head.embed(hidden[row : row + 1, :length], np.array([length]))
        np.testing.assert_allclose(together[row : row + 1], alone, rtol=1e-5, atol=1e-6)


def test_no_rows_give_no_embeddings():
    got = Head(Task.EMBED, MEAN, {}).embed(random(0, 5, 8), np.zeros(0, np.int64))
    assert got.shape == (0, 8)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("identity", lambda x: x),
        ("tanh", math.tanh),
        ("relu", lambda x: max(x, 0.0)),
        ("gelu", lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2)))),
        (
            "gelu_tanh",
            lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        ),
    ],
)
def test_a_dense_layer_is_its_formula(hidden, name, function):
    stored = arrays(8, 4)
    head = Head("classify", [{"op": "pool", "kind": "cls"}, dense(0, name)], stored)
    linear = hidden[:, 0] @ stored["0.weight"].T + stored["0.bias"]
    got = head.classify(hidden, LENGTHS)
    np.testing.assert_allclose(got, np.vectorize(function)(linear), rtol=1e-5, atol=1e-6)
    assert got.dtype == np.float32


def test_layers_follow_each_other_and_may_lack_a_bias(hidden):
    stored = arrays(8, 6, 3)
    head = Head(Task.EMBED, [*MEAN, dense(0, "tanh", bias=False), dense(1)], stored)
    mean = Head(Task.EMBED, MEAN, {}).embed(hidden, LENGTHS)
    inner = np.tanh(mean @ stored["0.weight"].T)
    expected = inner @ stored["1.weight"].T + stored["1.bias"]
    np.testing.assert_allclose(head.embed(hidden, LENGTHS), expected, rtol=1e-5, atol=1e-6)
    assert head.num_outputs(8) == 3


def test_a_head_without_layers_gives_hidden_states():
    assert Head(Task.EMBED, MEAN, {}).num_outputs(384) == 384


def test_a_head_says_when_it_does_not_take_a_models_hidden_states():
    with pytest.raises(ModelFailed, match="does not take 16 values"):
        Head(Task.EMBED, [*MEAN, dense()], arrays(8, 4)).num_outputs(16)


def test_files_hold_the_whole_head(hidden, tmp_path):
    head = Head(Task.CLASSIFY, [*MEAN, dense(0, "tanh"), dense(1)], arrays(8, 6, 3))
    head.save(tmp_path)
    loaded = Head.load(tmp_path)
    assert loaded.task is Task.CLASSIFY
    np.testing.assert_array_equal(loaded.classify(hidden, LENGTHS), head.classify(hidden, LENGTHS))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.json", "head.npz"]


def test_a_head_answers_its_own_task_only(hidden):
    with pytest.raises(UnsupportedCapability, match="does not classify"):
        Head(Task.EMBED, MEAN, {}).classify(hidden, LENGTHS)
    with pytest.raises(UnsupportedCapability, match="does not embed"):
        Head(Task.CLASSIFY, MEAN, {}).embed(hidden, LENGTHS)


def test_an_unknown_pooling_is_the_callers_fault(hidden):
    with pytest.raises(InvalidRequest, match="pooling 'max'") as caught:
        Head(Task.EMBED, MEAN, {}).embed(hidden, LENGTHS, "max")
    assert caught.value.field == "pooling"


@pytest.mark.parametrize("lengths", [[0, 1, 1], [1, 1, 6], [1, 1]])
def test_lengths_must_fit_the_batch(hidden, lengths):
    with pytest.raises(InvalidRequest, match="lengths of 1 to 5"):
        Head(Task.EMBED, MEAN, {}).embed(hidden, np.array(lengths))


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        ([], "must be a pool"),
        ([dense()], "must be a pool"),
        ([{"op": "pool", "kind": "max"}], "operation 0"),
        ([{"op": "pool", "kind": "mean", "more": 1}], "operation 0"),
        ([*MEAN, *MEAN], "operation 1: 'pool' is not known"),
        ([*MEAN, {"op": "dense", "weight": "0.weight"}], "weight, bias and activation"),
        ([*MEAN, dense(0, "softmax")], "'softmax' is not known"),
        ([*MEAN, dense(7)], "no float32 array '7.weight'"),
        ([*MEAN, {**dense(), "weight": "double"}], "no float32 array 'double'"),
        ([*MEAN, {**dense(), "weight": "0.bias"}], "shapes of weight and bias"),
        ([*MEAN, {**dense(), "bias": "1.bias"}], "shapes of weight and bias"),
        ([*MEAN, dense(1), dense(0)], "operations 1 and 2 do not fit"),
    ],
)
def test_operations_that_cannot_be_are_refused(operations, message):
    stored = {**arrays(8, 6, 3), "double": np.zeros((4, 8))}
    with pytest.raises(ModelFailed, match=message):
        Head(Task.EMBED, operations, stored)


def test_a_head_of_another_task_is_refused():
    with pytest.raises(ModelFailed, match="'translate' is neither"):
        Head("translate", MEAN, {})


def test_missing_files_are_named(tmp_path):
    with pytest.raises(ModelFailed, match=r"head\.json"):
        Head.load(tmp_path)
    Head(Task.EMBED, MEAN, {}).save(tmp_path)
    (tmp_path / "head.npz").unlink()
    with pytest.raises(ModelFailed, match=r"head\.npz"):
        Head.load(tmp_path)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"task": "embed"}', '{"task": "embed", "operations": [1]}']
)
def test_a_damaged_description_is_named(tmp_path, text):
    Head(Task.EMBED, MEAN, {}).save(tmp_path)
    (tmp_path / "head.json").write_text(text)
    with pytest.raises(ModelFailed, match=r"head\.json"):
        Head.load(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"no zip", b"PK\x03\x04 cut off"])
def test_damaged_arrays_are_named(tmp_path, damage):
    Head(Task.EMBED, MEAN, {}).save(tmp_path)
    (tmp_path / "head.npz").write_bytes(damage)
    with pytest.raises(ModelFailed, match=r"head\.npz"):
        Head.load(tmp_path)


def test_an_array_that_is_a_pickle_is_never_loaded(tmp_path):
    Head(Task.EMBED, [*MEAN, dense()], arrays(8, 4)).save(tmp_path)
    pickled: dict[str, Any] = {"0.weight": np.array([object()], dtype=object)}
    np.savez(tmp_path / "head.npz", **pickled)
    with pytest.raises(ModelFailed, match=r"head\.npz: Object arrays cannot be loaded"):
        Head.load(tmp_path)


def test_a_fault_in_a_file_names_it(tmp_path):
    Head(Task.EMBED, MEAN, {}).save(tmp_path)
    fields = {"task": "embed", "operations": [{"op": "pool", "kind": "max"}]}
    (tmp_path / "head.json").write_text(json.dumps(fields))
    with pytest.raises(ModelFailed, match=r"head\.json: operation 0"):
        Head.load(tmp_path)
