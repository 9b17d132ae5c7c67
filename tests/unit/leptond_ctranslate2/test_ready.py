from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from leptond.backend import ModelSource
from leptond.backend.heads import Head
from leptond.checkpoint import EncoderDefaults, Seq2SeqDefaults
from leptond.errors import InvalidRequest, UnsupportedCapability
from leptond.types import Task
from leptond_ctranslate2.description import EngineDescription, ModelKind
from leptond_ctranslate2.importer import ready, writing
from leptond_ctranslate2.importer.int8_range import largest_int8, reduce_int8
from leptond_ctranslate2.importer.model_file import ModelFile
from leptond_ctranslate2.plugin import backend

OURS = ("engine.json", "head.json", "head.npz")


@pytest.fixture
def converted(tiny_checkpoints, written):
    """A directory as a converter of the engine leaves it, with the tokenizer beside."""

    def convert(name, precision="float32"):
        directory = written(name, precision)
        for file in OURS:
            (directory / file).unlink(missing_ok=True)
        tokenizer = directory.parent / f"{name}.tokenizer.json"
        tokenizer.write_text(tiny_checkpoints(name).text.tokenizer_json)
        return directory, tokenizer

    return convert


@pytest.fixture
def target(tmp_path):
    directory = tmp_path / "target"
    directory.mkdir()
    return directory


def take_over(model, target, **options):
    """Import a converted model with its tokenizer; facts and text assets."""
    source, tokenizer = model
    return backend.importer.import_ready(source, tokenizer, target, **options)


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8", "int8_float16"])
@pytest.mark.parametrize("name", ["embedder", "nllb"])
def test_what_a_file_says_of_itself_is_what_an_import_wrote(
    tiny_checkpoints, converted, target, name, precision
):
    facts, text = take_over(converted(name, precision), target)
    found = EngineDescription.read(target)
    own = target.parent / "own"
    own.mkdir()
    backend.importer.write(tiny_checkpoints(name), own, precision, lambda stage, fraction: None)
    expected = EngineDescription.read(own)
    assert facts["precision"] == precision
    for field in ("kind", "precision", "vocab_size", "num_token_types", "int8_limit"):
        assert getattr(found, field) == getattr(expected, field), field
    assert found.sizes == expected.sizes
    assert found.stop_token_ids == expected.stop_token_ids
    assert json.loads(text.tokenizer_json) == json.loads(tiny_checkpoints(name).text.tokenizer_json)


def test_an_encoder_gets_the_pooling_that_was_asked_for(converted, target):
    _, text = take_over(converted("embedder"), target, pooling="cls")
    head = Head.load(target)
    assert (head.task, head.pooling) == (Task.EMBED, "cls")
    assert isinstance(text.encoder, EncoderDefaults)
    assert text.encoder.pooling == "cls"
    assert text.encoder.dimensions == 32
    assert text.encoder.num_special_single == 2
    assert text.generation is None


def test_a_translator_gets_its_defaults(converted, target):
    _, text = take_over(converted("nllb"), target)
    assert isinstance(text.encoder, Seq2SeqDefaults)
    assert text.encoder.decoder_start_token_id == text.encoder.eos_token_id == 2
    assert text.generation.stop_token_ids == (2,)
    assert text.generation.eos_token == "</s>"


def test_a_generator_takes_its_template_and_its_limit_from_beside_the_tokenizer(converted, target):
    source, tokenizer = converted("llama")
    config = {"model_max_length": 100, "chat_template": "{{ messages }}"}
    tokenizer.with_name("tokenizer_config.json").write_text(json.dumps(config))
    facts, text = backend.importer.import_ready(source, tokenizer, target)
    assert facts["kind"] == "generator"
    assert facts["max_context_tokens"] == text.max_tokens == 100
    assert text.chat_template == "{{ messages }}"
    assert text.encoder is None
    tokenizer.with_name("chat_template.jinja").write_text("{{ bos_token }}")
    (target / "head.json").unlink(missing_ok=True)
    _, text = backend.importer.import_ready(source, tokenizer, target)
    assert text.chat_template == "{{ bos_token }}"


def test_a_generator_of_unknown_length_gets_2048_tokens(converted, target):
    source, tokenizer = converted("llama")
    config = {"model_max_length": 10**30}
    tokenizer.with_name("tokenizer_config.json").write_text(json.dumps(config))
    facts, _ = backend.importer.import_ready(source, tokenizer, target)
    assert facts["max_context_tokens"] == 2048


def test_a_taken_over_model_loads(converted, target):
    take_over(converted("marian"), target)
    model = backend.load(ModelSource(target, "float32"), lambda stage, fraction: None)
    assert model.capabilities.vocab_size == EngineDescription.read(target).vocab_size
    model.close()


def test_strings_that_a_converter_wrote_twice_are_written_once(converted, target):
    source, tokenizer = converted("t5-relu")
    path = source / "shared_vocabulary.json"
    tokens = json.loads(path.read_text())
    tokens[-3:] = ["<extra_id_0>", "<extra_id_1>", "<extra_id_2>"]
    assert len(set(tokens)) < len(tokens)
    path.write_text(json.dumps(tokens))
    backend.importer.import_ready(source, tokenizer, target)
    unique = json.loads((target / "shared_vocabulary.json").read_text())
    assert len(set(unique)) == len(unique) == len(tokens)
    assert unique[:-3] == tokens[:-3]


def test_another_models_tokenizer_is_refused_with_the_first_difference(converted, target):
    source, _ = converted("nllb")
    _, tokenizer = converted("t5-relu")
    with pytest.raises(InvalidRequest, match=r"token \d+ is '.+', in .* not the tokenizer of this"):
        backend.importer.import_ready(source, tokenizer, target)


def test_what_is_no_tokenizer_is_refused(converted, target):
    source, tokenizer = converted("nllb")
    tokenizer.write_text("{}")
    with pytest.raises(InvalidRequest, match=r"is no tokenizer\.json"):
        backend.importer.import_ready(source, tokenizer, target)


@pytest.mark.parametrize("text", ["[]", "no json"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_damaged_configuration_is_refused_by_name(converted, target, name, text):
    source, tokenizer = converted("nllb")
    folder = source if name == "config.json" else tokenizer.parent
    (folder / name).write_text(text)
    with pytest.raises(InvalidRequest, match=name):
        backend.importer.import_ready(source, tokenizer, target)


def test_vocabularies_of_two_languages_are_refused(converted, target):
    source, tokenizer = converted("nllb")
    (source / "shared_vocabulary.json").rename(source / "source_vocabulary.json")
    with pytest.raises(InvalidRequest, match="no vocabulary that source and answer share"):
        backend.importer.import_ready(source, tokenizer, target)


def test_a_model_that_begins_as_its_caller_says_is_refused(converted, target):
    source, tokenizer = converted("nllb")
    change_json(source / "config.json", decoder_start_token=None)
    with pytest.raises(UnsupportedCapability, match="decoder_start_token"):
        backend.importer.import_ready(source, tokenizer, target)


def test_a_special_token_that_is_not_there_is_refused(converted, target):
    source, tokenizer = converted("nllb")
    change_json(source / "config.json", eos_token="<stop>")
    with pytest.raises(InvalidRequest, match="no token '<stop>'"):
        backend.importer.import_ready(source, tokenizer, target)


def test_the_engine_adds_no_token_that_the_tokenizer_adds(converted, target):
    source, tokenizer = converted("nllb")  # its tokenizer ends a text, and begins it otherwise
    change_json(source / "config.json", add_source_bos=True, add_source_eos=True)
    backend.importer.import_ready(source, tokenizer, target)
    config = json.loads((target / "config.json").read_text())
    assert config["add_source_eos"] is False
    assert config["add_source_bos"] is True
    change_json(source / "config.json", bos_token="eng_Latn")
    backend.importer.import_ready(source, tokenizer, target)
    assert json.loads((target / "config.json").read_text())["add_source_bos"] is False


@pytest.mark.parametrize("largest", [127, 40])
def test_the_range_of_bytes_fits_the_processor(converted, target, monkeypatch, largest):
    monkeypatch.setattr(writing, "safe_int8_limit", lambda sets: largest)
    source, tokenizer = converted("llama", "int8")
    monkeypatch.setattr(ready, "safe_int8_limit", lambda sets: 64)
    facts, _ = backend.importer.import_ready(source, tokenizer, target)
    before, after = (ModelFile(path / "model.bin") for path in (source, target))
    assert largest_int8(before) == largest
    assert largest_int8(after) == facts["int8_limit"] == min(64, largest)
    name = "decoder/layer_0/ffn/linear_0/weight"
    old, new = (
        file.values(name) / file.values(f"{name}_scale")[:, None] for file in (before, after)
    )
    step = 1 / after.values(f"{name}_scale")[:, None]
    assert (np.abs(old - new) <= 0.501 * step).all()


def test_a_matrix_with_two_names_is_reduced_once(written):
    path = written("t5-relu", "int8") / "model.bin"
    model = ModelFile(path, is_writable=True)
    largest = largest_int8(model)
    reduce_int8(model, largest, 32)
    assert largest_int8(ModelFile(path)) == 32


@pytest.mark.parametrize(
    ("files", "command"),
    [
        (["config.json", "model.safetensors"], "ct2-transformers-converter --model"),
        (["config.json", "pytorch_model.bin"], "ct2-transformers-converter --model"),
        (["decoder.yml", "model.npz"], "ct2-opus-mt-converter --model_dir"),
        (["model.npz"], "ct2-marian-converter --model_path"),
        (["dict.de.txt", "model.pt"], "ct2-fairseq-converter --model_path"),
        (["averaged.pt"], "ct2-opennmt-py-converter --model_path"),
        (["checkpoint", "ckpt-1.index"], "ct2-opennmt-tf-converter --model_path"),
        (["hparams.json", "model.ckpt.index"], "ct2-openai-gpt2-converter --model_path"),
        (["notes.txt"], "ct2-transformers-converter, ct2-opus-mt-converter, ct2-marian-converter"),
    ],
)
def test_for_anything_else_the_converter_to_run_is_named(tmp_path, target, files, command):
    source = tmp_path / "source"
    source.mkdir()
    for file in files:
        (source / file).touch()
    with pytest.raises(InvalidRequest) as refusal:
        backend.importer.import_ready(source, tmp_path / "tokenizer.json", target)
    assert command in refusal.value.message
    assert "--tokenizer" in refusal.value.message


class Bytes:
    """Writes a model.bin piece by piece."""

    def __init__(self, spec_name, version=6):
        self.data = struct.pack("<I", version) + self.text(spec_name) + struct.pack("<I", 1)

    @staticmethod
    def text(value):
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    def variables(self, *variables):
        self.data += struct.pack("<I", len(variables))
        for name, shape, type_id, data in variables:
            self.data += self.text(name) + struct.pack("<B", len(shape))
            self.data += b"".join(struct.pack("<I", size) for size in shape)
            self.data += struct.pack("<BI", type_id, len(data)) + data
        return self

    def aliases(self, *aliases):
        self.data += struct.pack("<I", len(aliases))
        self.data += b"".join(self.text(name) for alias in aliases for name in alias)
        return self


@pytest.fixture
def model_bin(tmp_path):
    def write(content):
        path = tmp_path / "model.bin"
        path.write_bytes(getattr(content, "data", content))
        return path

    return write


def test_variables_and_aliases_are_found(model_bin):
    value = np.arange(6, dtype=np.float32)
    file = Bytes("SomeSpec").variables(("a", (2, 3), 0, value.tobytes())).aliases(("b", "a"))
    model = ModelFile(model_bin(file))
    assert model.spec_name == "SomeSpec"
    np.testing.assert_array_equal(model.values("b"), value.reshape(2, 3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"\x06\0", "is truncated"),
        (Bytes("S").variables(("a", (2,), 0, b"12345678")).data[:-4], "is truncated"),
        (Bytes("S").variables().aliases(("b", "a")), "b stands for a, which is not there"),
        (struct.pack("<IH", 6, 3) + b"\xff\xfe\0" + bytes(8), "is not a model of this engine"),
    ],
)
def test_a_damaged_file_is_refused_by_name(model_bin, content, message):
    with pytest.raises(InvalidRequest, match=rf"model\.bin.*{message}"):
        ModelFile(model_bin(content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Bytes("S", version=5), "version 5 of the engine's format"),
        (Bytes("S").variables(("a", (), 9, b"")), "a has the unknown type 9"),
    ],
)
def test_a_file_of_another_time_is_refused(model_bin, content, message):
    with pytest.raises(UnsupportedCapability, match=message):
        ModelFile(model_bin(content))


def describe(model_bin, words, content):
    from leptond_ctranslate2.importer.ready_facts import describe_model

    return describe_model(ModelFile(model_bin(content)), {"eos_token": "</s>"}, words)


@pytest.fixture
def words(tiny_checkpoints, tmp_path):
    from leptond_ctranslate2.importer.ready_text import ReadyTokenizer

    path = tmp_path / "tokenizer.json"
    path.write_text(tiny_checkpoints("nllb").text.tokenizer_json)
    return ReadyTokenizer(path)


def test_a_kind_of_model_that_is_not_served_is_refused(model_bin, words):
    with pytest.raises(UnsupportedCapability, match="a WhisperSpec of CTranslate2 is not served"):
        describe(model_bin, words, Bytes("WhisperSpec").variables().aliases())


def test_a_model_without_embeddings_or_layers_is_refused(model_bin, words):
    with pytest.raises(InvalidRequest, match="has no decoder/embeddings/weight"):
        describe(model_bin, words, Bytes("TransformerSpec").variables().aliases())
    embedding = ("decoder/embeddings/weight", (2, 1), 0, bytes(8))
    with pytest.raises(InvalidRequest, match="has no decoder/layer_0"):
        describe(model_bin, words, Bytes("TransformerSpec").variables(embedding).aliases())


def test_other_quantisations_are_refused(model_bin, words):
    embedding = ("decoder/embeddings/weight", (2, 1), 2, bytes(4))
    with pytest.raises(UnsupportedCapability, match="weights of int16 are not served"):
        describe(model_bin, words, Bytes("TransformerSpec").variables(embedding).aliases())


def test_every_kind_of_description_names_the_engines_class():
    assert {kind.value for kind in ModelKind} == {"encoder", "translator", "generator"}
