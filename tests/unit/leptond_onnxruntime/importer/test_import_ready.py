"""ONNX files of encoders that others wrote: what is taken over, and what is refused and why."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from leptond.backend import BatchRow, ModelSource, SessionOptions
from leptond.backend.conformance.batch import run
from leptond.errors import InvalidRequest, UnsupportedCapability
from leptond_onnxruntime.encoder_model import EncoderModel
from leptond_onnxruntime.importer.encoder_io import EncoderSpec
from leptond_onnxruntime.plugin import backend
from tests.fixtures.tiny_models import vocabularies
from tests.fixtures.tiny_onnx import HIDDEN, HIDDEN_SIZE, POOLED, TinyOnnx

ROWS = [[5, 6, 7, 8], [9], [10, 11, 12, 13, 14, 15, 16]]
TYPES = [[0, 0, 1, 1], [1], [0] * 7]


@pytest.fixture
def home(tmp_path):
    """Where files lie: the tokenizer, the model's size of vocabulary, and an empty variant."""
    words, vocab_size = vocabularies.word_piece()
    tokenizer = tmp_path / "tokenizer" / "tokenizer.json"
    target, source = tmp_path / "target", tmp_path / "source"
    for directory in (tokenizer.parent, target, source):
        directory.mkdir()
    words.save(str(tokenizer))
    return SimpleNamespace(
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        target=target,
        file=source / "model.onnx",
        config=tokenizer.with_name("tokenizer_config.json"),
    )


def take_over(home, **options):
    return backend.importer.import_ready(home.file, home.tokenizer, home.target, **options)


def answers(home, batch, precision="float32"):
    """What a session over the variant gives."""
    source = ModelSource(home.target, precision, options={"num_threads": 1})
    model = EncoderModel.load(source, lambda stage, fraction: None)
    session = model.open_session(SessionOptions(num_slots=4, max_tokens=32))
    try:
        return [answer.tensors["embedding"] for answer in run(session, batch)]
    finally:
        session.shutdown()
        model.close()


def rows(**options):
    return [
        BatchRow(ids, tensors={"token_type_ids": np.array(types)}, options=options)
        for ids, types in zip(ROWS, TYPES, strict=True)
    ]


def assert_close(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


# ---------------------------------------------------------------------------------- taken over
POOLED_IN_NUMPY = {
    "mean": lambda hidden: hidden.mean(0),
    "cls": lambda hidden: hidden[0],
    "last": lambda hidden: hidden[-1],
}


@pytest.mark.parametrize("weights", [None, "model.onnx_data"])
@pytest.mark.parametrize("pooling", POOLED_IN_NUMPY)
def test_hidden_states_are_pooled_as_in_numpy(home, pooling, weights):
    tiny = TinyOnnx(home.vocab_size)
    tiny.write(home.file, weights=weights)
    facts, text = take_over(home, pooling=pooling)
    assert (facts["precision"], facts["architecture"]) == ("float32", "onnx")
    assert (text.encoder.pooling, text.encoder.dimensions) == (pooling, HIDDEN_SIZE)
    assert text.encoder.has_token_types
    if weights:
        home.file.with_name(weights).unlink()  # the variant has a copy
    hidden = [tiny.hidden(*row) for row in zip(ROWS, TYPES, strict=True)]
    assert_close(answers(home, rows()), map(POOLED_IN_NUMPY[pooling], hidden))
    for asked, pooled in POOLED_IN_NUMPY.items():
        assert_close(answers(home, rows(pooling=asked)), map(pooled, hidden))


@pytest.mark.parametrize("outputs", [[POOLED], [HIDDEN, POOLED]])
def test_a_ready_embedding_is_the_answer_and_not_pooled_again(home, outputs):
    tiny = TinyOnnx(home.vocab_size, outputs)
    tiny.write(home.file)
    take_over(home)
    spec = EncoderSpec.read(home.target)
    assert (spec.output, spec.is_pooled, spec.hidden_size) == (POOLED, True, HIDDEN_SIZE)
    hidden = [tiny.hidden(*row) for row in zip(ROWS, TYPES, strict=True)]
    assert_close(answers(home, rows()), [states.mean(0) for states in hidden])
    with pytest.raises(InvalidRequest, match="this model takes none but its own"):
        answers(home, rows(pooling="cls"))


def test_a_pooling_that_was_asked_for_takes_the_hidden_states(home):
    tiny = TinyOnnx(home.vocab_size, [POOLED, HIDDEN])
    tiny.write(home.file)
    take_over(home, pooling="cls")
    assert EncoderSpec.read(home.target).output == HIDDEN
    hidden = [tiny.hidden(*row) for row in zip(ROWS, TYPES, strict=True)]
    assert_close(answers(home, rows()), [states[0] for states in hidden])


def test_a_file_without_token_types_takes_none(home):
    tiny = TinyOnnx(home.vocab_size, num_token_types=0)
    tiny.write(home.file)
    _, text = take_over(home)
    assert EncoderSpec.read(home.target).num_token_types == 0
    assert not text.encoder.has_token_types
    assert_close(
        answers(home, [BatchRow(ids) for ids in ROWS]),
        [tiny.hidden(ids).mean(0) for ids in ROWS],
    )
    with pytest.raises(InvalidRequest, match="token_type_ids must be 4 numbers below 1"):
        answers(home, rows())


def test_an_input_of_one_token_type_does_not_tell_pairs_apart(home):
    TinyOnnx(home.vocab_size, num_token_types=1).write(home.file)
    _, text = take_over(home)
    assert EncoderSpec.read(home.target).num_token_types == 1
    assert not text.encoder.has_token_types


def test_weights_of_16_bits_are_told(home):
    tiny = TinyOnnx(home.vocab_size, dtype=np.float16)
    tiny.write(home.file)
    facts, _ = take_over(home)
    assert facts["precision"] == "float16"
    found = answers(home, [BatchRow(ids) for ids in ROWS], "float16")
    for one, ids in zip(found, ROWS, strict=True):
        np.testing.assert_allclose(one, tiny.hidden(ids).mean(0), rtol=0, atol=0.01)


def test_weights_of_8_bits_are_told_and_computed_with(home):
    tiny = TinyOnnx(home.vocab_size)
    model = tiny.model()
    scale = np.float32(0.03125)
    bytes_ = np.clip(np.rint(tiny.tables["words"] / scale), -127, 127).astype(np.int8)
    tiny.tables["words"] = bytes_.astype(np.float32) * scale
    (words,) = (tensor for tensor in model.graph.initializer if tensor.name == "words")
    words.CopyFrom(numpy_helper.from_array(bytes_, "bytes"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(scale), "scale"))
    nodes = [helper.make_node("DequantizeLinear", ["bytes", "scale"], ["words"])]
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, home.file)
    facts, _ = take_over(home)
    assert facts["precision"] == "int8"
    hidden = [tiny.hidden(*row) for row in zip(ROWS, TYPES, strict=True)]
    assert_close(answers(home, rows(), "int8"), [states.mean(0) for states in hidden])


@pytest.mark.parametrize(
    ("stated", "found"), [(None, 40), (24, 24), (10**30, 40)], ids=["absent", "less", "no limit"]
)
def test_the_longest_row_is_stated_or_tried(home, stated, found):
    TinyOnnx(home.vocab_size, max_positions=40).write(home.file)
    if stated:
        home.config.write_text(json.dumps({"model_max_length": stated}))
    facts, text = take_over(home)
    assert facts["max_context_tokens"] == text.encoder.max_tokens == found


# ------------------------------------------------------------------------------------- refused
def without(name):
    def change(graph):
        kept = [value for value in graph.input if value.name != name]
        del graph.input[:]
        graph.input.extend(kept)

    return change


def with_input(name):
    return lambda graph: graph.input.append(
        helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "longest"])
    )


def declared(side, index, kind, shape):
    """Say another type or shape of an input or an output than it has."""

    def change(graph):
        value = getattr(graph, side)[index]
        value.CopyFrom(helper.make_tensor_value_info(value.name, kind, shape))

    return change


def called(name):
    def change(graph):
        graph.output[0].name = name

    return change


def custom(graph):
    graph.node[0].domain = "my.ops"


def custom_in_a_branch(graph):
    node = helper.make_node("Steal", [], ["stolen"], domain="my.ops")
    value = helper.make_tensor_value_info("stolen", TensorProto.FLOAT, [])
    branch = helper.make_graph([node], "branch", [], [value])
    graph.node.append(
        helper.make_node("If", ["one"], ["x"], then_branch=branch, else_branch=branch)
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (without("attention_mask"), InvalidRequest, "has no input attention_mask"),
        (without("input_ids"), InvalidRequest, "has no input input_ids"),
        (with_input("position_ids"), UnsupportedCapability, "input position_ids is not served"),
        (
            declared("input", 0, TensorProto.INT32, ["rows", "longest"]),
            UnsupportedCapability,
            r"input input_ids must be int64 \[rows, longest\]",
        ),
        (
            declared("input", 1, TensorProto.INT64, ["rows", 1, "longest"]),
            UnsupportedCapability,
            r"input attention_mask must be int64 \[rows, longest\]",
        ),
        (called("logits"), UnsupportedCapability, "gives logits; served are last_hidden_state,"),
        (
            declared("output", 0, TensorProto.FLOAT16, ["rows", "longest", HIDDEN_SIZE]),
            UnsupportedCapability,
            "output last_hidden_state must be float32 of rank 3",
        ),
        (
            declared("output", 0, TensorProto.FLOAT, ["rows", HIDDEN_SIZE]),
            UnsupportedCapability,
            "output last_hidden_state must be float32 of rank 3",
        ),
        (custom, UnsupportedCapability, "operator Shape of 'my.ops' is not served"),
        (custom_in_a_branch, UnsupportedCapability, "operator Steal of 'my.ops' is not served"),
    ],
)
def test_what_a_graph_has_beyond_an_encoder_is_refused(home, change, error, message):
    model = TinyOnnx(home.vocab_size).model()
    change(model.graph)
    onnx.save(model, home.file)
    with pytest.raises(error, match=message):
        take_over(home)
    assert list(home.target.iterdir()) == []


def test_functions_that_the_file_defines_are_no_custom_operators(home):
    model = TinyOnnx(home.vocab_size).model()
    model.graph.node[5].domain, model.graph.node[5].op_type = "my.ops", "Place"
    model.opset_import.append(helper.make_opsetid("my.ops", 1))
    add = helper.make_node("Add", ["a", "b"], ["c"])
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(
        helper.make_function("my.ops", "Place", ["a", "b"], ["c"], [add], opsets)
    )
    onnx.save(model, home.file)
    assert take_over(home)[0]["precision"] == "float32"
    model.functions[0].node[0].domain = "your.ops"
    onnx.save(model, home.file)
    with pytest.raises(UnsupportedCapability, match=r"operator Add of 'your\.ops'"):
        take_over(home)


def test_an_output_of_open_shape_is_seen_in_a_run(home):
    model = TinyOnnx(home.vocab_size).model()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, home.file)
    assert take_over(home)[1].encoder.dimensions == HIDDEN_SIZE


def test_an_output_that_is_not_what_it_is_called_is_refused(home):
    model = TinyOnnx(home.vocab_size, [POOLED]).model()
    for node in model.graph.node:
        swap = {HIDDEN: POOLED, POOLED: HIDDEN}
        for names in (node.input, node.output):
            names[:] = [swap.get(name, name) for name in names]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, home.file)
    with pytest.raises(InvalidRequest, match=r"output sentence_embedding of 2 rows of 3 tokens is"):
        take_over(home)


def test_a_graph_of_fixed_shape_is_refused(home):
    model = TinyOnnx(home.vocab_size).model()
    for value in model.graph.input:
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.INT64, [1, 16]))
    onnx.save(model, home.file)
    with pytest.raises(InvalidRequest, match="ONNX Runtime cannot run it"):
        take_over(home)


def test_a_graph_that_the_engine_does_not_know_is_refused(home):
    model = TinyOnnx(home.vocab_size).model()
    model.graph.node[0].op_type = "Telepathy"
    onnx.save(model, home.file)
    with pytest.raises(InvalidRequest, match="ONNX Runtime cannot load it"):
        take_over(home)


@pytest.mark.parametrize("content", [b"", b"Dear Sir or Madam"])
def test_what_is_no_onnx_file_is_refused(home, content):
    home.file.write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"model\.onnx (is no ONNX file|has no input)"):
        take_over(home)


# -------------------------------------------------------------------------- weights outside it
def outside(tensor, location):
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


@pytest.mark.parametrize(
    "location",
    ["../far.bin", "/etc/hostname", "..", "sub/far.bin", "sub/../near.bin", "link"],
)
@pytest.mark.parametrize("place", ["initializer", "sparse", "constant", "branch"])
def test_no_weights_outside_the_files_folder_are_read(home, location, place):
    folder = home.file.parent
    (folder.parent / "far.bin").write_bytes(bytes(10**5))
    (folder / "near.bin").write_bytes(bytes(10**5))
    (folder / "sub").mkdir()
    (folder / "sub/far.bin").write_bytes(bytes(10**5))
    (folder / "link").symlink_to(folder.parent / "far.bin")
    model = TinyOnnx(home.vocab_size).model()
    graph = model.graph
    tensor = TensorProto(name="far", data_type=TensorProto.FLOAT, dims=[4])
    outside(tensor, location)
    value = helper.make_tensor_value_info("far", TensorProto.FLOAT, [4])
    branch = helper.make_graph([], "branch", [], [value], [tensor])
    if place == "initializer":
        graph.initializer.append(tensor)
    elif place == "sparse":
        graph.sparse_initializer.add(values=tensor)
    elif place == "constant":
        graph.node.append(helper.make_node("Constant", [], ["far"], value=tensor))
    else:
        graph.node.append(
            helper.make_node("If", ["c"], ["x"], then_branch=branch, else_branch=branch)
        )
    onnx.save(model, home.file)
    for read in (lambda: take_over(home), lambda: backend.importer.files_beside(home.file)):
        with pytest.raises(InvalidRequest, match="weights outside its own folder"):
            read()
    assert list(home.target.iterdir()) == []


def test_weights_that_are_missing_or_called_as_a_file_of_ours_are_refused(home):
    TinyOnnx(home.vocab_size).write(home.file, weights="head.npz")
    assert [file.name for file in backend.importer.files_beside(home.file)] == ["head.npz"]
    with pytest.raises(InvalidRequest, match=r"weights in a file called head\.npz"):
        take_over(home)
    home.file.with_name("head.npz").unlink()
    with pytest.raises(InvalidRequest, match=r"head\.npz is missing beside it"):
        take_over(home)


def test_weights_that_are_cut_short_are_refused(home):
    TinyOnnx(home.vocab_size).write(home.file, weights="model.onnx_data")
    weights = home.file.with_name("model.onnx_data")
    weights.write_bytes(weights.read_bytes()[:-64])
    with pytest.raises(InvalidRequest, match="ONNX Runtime cannot load it"):
        take_over(home)


# --------------------------------------------------------------------- tokenizers and poolings
def test_a_tokenizer_of_more_tokens_than_the_graph_has_is_refused(home):
    TinyOnnx(home.vocab_size - 1).write(home.file)
    with pytest.raises(InvalidRequest, match="not the tokenizer of this model") as refusal:
        take_over(home)
    assert f"does not know its token {home.vocab_size - 1}" in refusal.value.message


def test_rows_of_padded_tables_are_not_asked_for(home):
    TinyOnnx(home.vocab_size + 7).write(home.file)
    take_over(home)
    with pytest.raises(InvalidRequest, match=f"token {home.vocab_size} is not among"):
        answers(home, [BatchRow([home.vocab_size])])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{}", r"tokenizer\.json: Model missing"),
        (b"no json", r"tokenizer\.json: expected"),
        (b"\xff\xfe", r"is no tokenizer\.json: .* codec can't decode"),
    ],
)
def test_what_is_no_tokenizer_is_refused(home, content, reason):
    TinyOnnx(home.vocab_size).write(home.file)
    home.tokenizer.write_bytes(content)
    with pytest.raises(InvalidRequest, match=reason):
        take_over(home)


def test_a_stated_length_that_does_not_run_is_refused(home):
    TinyOnnx(home.vocab_size, max_positions=40).write(home.file)
    home.config.write_text('{"model_max_length": 41}')
    with pytest.raises(InvalidRequest, match="does not take 41 tokens; its tokenizer_config"):
        take_over(home)


def test_poolings_that_cannot_be_are_refused(home):
    TinyOnnx(home.vocab_size, [POOLED]).write(home.file)
    with pytest.raises(InvalidRequest, match="pooling 'max' is not known: mean, cls, last"):
        take_over(home, pooling="max")
    with pytest.raises(InvalidRequest, match="gives sentence_embedding only, which is pooled"):
        take_over(home, pooling="mean")
