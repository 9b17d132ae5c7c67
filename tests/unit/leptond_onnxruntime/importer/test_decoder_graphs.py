"""The graphs against a decoder in numpy, for all precisions and every fact that changes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from leptond_onnxruntime.importer import Precision
from tests.fixtures.graph_runner import GraphRunner
from tests.fixtures.numpy_llama import NumpyLlama

IDS = np.random.default_rng(0).integers(3, 290, 24).tolist()

# Root of the mean squared difference to the float64 logits, over their standard deviation.
# int8 rounds the weights and, in its kernel, the activations to 8 bits by blocks of 32: tiny
# random models average nothing out.
TOLERANCES = {Precision.FLOAT32: 1e-5, Precision.FLOAT16: 1e-2, Precision.INT8: 0.1}

KINDS = {
    "attn_q.weight": Kind.Q4_K,
    "attn_k.weight": Kind.Q5_K,
    "attn_v.weight": Kind.Q6_K,
    "attn_output.weight": Kind.Q3_K,
    "ffn_gate.weight": Kind.BF16,
    "ffn_up.weight": Kind.Q2_K,
    "ffn_down.weight": Kind.IQ4_XS,
    "token_embd.weight": Kind.Q5_0,
    "output.weight": Kind.Q8_0,
}
MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "untied head": {"is_tied": False},
    "biases": {"has_biases": True},
    "one layer": {"num_layers": 1},
    "no grouping": {"num_kv_heads": 4},
    "widths that are no whole blocks": {"hidden_size": 72, "ffn_size": 40},
    "long-context factors": {"frequency_factors": tuple(1 + np.arange(8) / 2)},
    "linear rope scaling": {
        "metadata": {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    },
    "part of a head rotated": {"head_dim": 32, "metadata": {"llama.rope.dimension_count": 16}},
    "sliding window": {"metadata": {"llama.attention.sliding_window": 5}},
    "another attention scale": {"metadata": {"llama.attention.scale": 0.4}},
    "quantised tensors": {
        "hidden_size": 256,
        "ffn_size": 256,
        "num_heads": 16,
        "num_kv_heads": 16,
        "is_tied": False,
        "kinds": KINDS,
    },
}


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("model", MODELS)
def test_logits_are_those_of_numpy(import_tiny, model, precision):
    imported = import_tiny(precision, **MODELS[model])
    expected = NumpyLlama(imported.source).logits(IDS)
    runner = GraphRunner(imported.directory)
    at_once = runner.step([IDS], [0]).logits
    in_chunks = np.concatenate(
        [runner.step([IDS[a:b]], [a]).logits for a, b in ((0, 9), (9, 10), (10, 11), (11, 24))]
    )
    for logits in (at_once, in_chunks):
        assert logits.dtype == np.float32
        error = np.sqrt(np.mean((logits - expected) ** 2)) / expected.std()
        assert error < TOLERANCES[precision]


@pytest.mark.parametrize("precision", list(Precision))
def test_rows_of_any_length_share_a_step(import_tiny, precision):
    imported = import_tiny(precision)
    runner = GraphRunner(imported.directory)
    alone = [runner.step([ids], [0]).logits for ids in (IDS, IDS[::-1], IDS[:7])]

    first = runner.step([IDS[:10], [], IDS[6::-1], IDS[:3]], [0, 0, 0, 0]).logits
    second = runner.step([IDS[10:11], IDS[::-1], [], IDS[3:7]], [10, 0, 7, 3]).logits

    # Different numbers of rows run through different kernels: equal up to rounding.
    tolerance = 2e-2 if precision is Precision.FLOAT16 else 1e-4
    np.testing.assert_allclose(first[:10], alone[0][:10], rtol=0, atol=tolerance)
    np.testing.assert_allclose(first[17:], alone[2][:3], rtol=0, atol=tolerance)
    np.testing.assert_allclose(second[0], alone[0][10], rtol=0, atol=tolerance)
    np.testing.assert_allclose(second[1:25], alone[1], rtol=0, atol=tolerance)
    np.testing.assert_allclose(second[25:], alone[2][3:], rtol=0, atol=tolerance)


def test_only_wanted_rows_leave_the_body(import_tiny):
    runner = GraphRunner(import_tiny().directory)
    everything = runner.hidden([IDS[:5], IDS[5:9]], [0, 0])
    wanted = runner.hidden([IDS[:5], IDS[5:9]], [0, 0], wanted=[8, 4, 4])
    np.testing.assert_allclose(wanted, everything[[8, 4, 4]], atol=1e-5)
    assert runner.hidden([IDS[:5]], [0], wanted=[]).shape == (0, 64)


@pytest.mark.parametrize("precision", list(Precision))
def test_the_cache_has_the_element_type_that_the_description_names(import_tiny, precision):
    imported = import_tiny(precision)
    expected = "float16" if precision is Precision.FLOAT16 else "float32"
    assert imported.spec.kv_dtype == expected
    assert imported.spec.hidden_dtype == expected
    assert GraphRunner(imported.directory).hidden([IDS[:2]], [0]).dtype == expected


def test_positions_up_to_the_last_are_rotated(import_tiny):
    imported = import_tiny(max_positions=40)
    ids = (IDS * 2)[:40]
    logits = GraphRunner(imported.directory).step([ids], [0]).logits
    np.testing.assert_allclose(logits, NumpyLlama(imported.source).logits(ids), atol=1e-4)
