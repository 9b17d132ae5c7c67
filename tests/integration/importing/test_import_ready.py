"""Models that are in an engine's own format already, and those that could be."""

from __future__ import annotations

import shutil

import pytest

from leptond.backend.registry import get_backend
from leptond.checkpoint import EncoderDefaults, read_encoder_defaults
from leptond.errors import InvalidRequest, UnsupportedCapability
from leptond.models import Store
from leptond.models.importing import ImportOptions, import_variants
from leptond.types import Task
from tests.fixtures.tiny_store import tiny_store

pytestmark = pytest.mark.needs("ctranslate2")

ENGINE_FILES = ("config.json", "model.bin", "vocabulary.json")


@pytest.fixture
def store(tmp_path):
    return Store([tmp_path / "store"])


@pytest.fixture
def converted(tmp_path):
    """A directory as the engine's converters leave it, and the tokenizer elsewhere."""
    variant = Store([tiny_store("embedder")]).find("embedder").variants["float32"]
    directory = tmp_path / "converted"
    directory.mkdir()
    for name in ENGINE_FILES:
        shutil.copy(variant.directory / name, directory)
    tokenizer = tmp_path / "tokenizer" / "tokenizer.json"
    tokenizer.parent.mkdir()
    shutil.copy(variant.assets / "tokenizer.json", tokenizer)
    return directory, tokenizer


def bring(source, store, **options):
    (imported,) = import_variants(
        str(source), store, ImportOptions(**options), progress=lambda stage, fraction: None
    )
    return imported


def test_a_converted_directory_is_taken_over_with_its_tokenizer(store, converted):
    directory, tokenizer = converted
    imported = bring(directory, store, tokenizer=tokenizer, pooling="cls")
    assert (str(imported.name), imported.version) == ("converted:float32", 1)
    variant = store.find("converted").variants["float32"]
    assert variant.backend == "ctranslate2"
    assert variant.tasks == {Task.EMBED, Task.RERANK}
    assert variant.facts["max_context_tokens"] == 64
    assert (variant.directory / "model.bin").is_file()
    defaults = read_encoder_defaults(variant.assets)
    assert isinstance(defaults, EncoderDefaults)
    assert defaults.pooling == "cls"
    assert (variant.assets / "tokenizer.json").is_file()


def test_the_same_files_are_taken_over_once(store, converted):
    directory, tokenizer = converted
    options = {"tokenizer": tokenizer, "backend": "ctranslate2"}
    assert bring(directory, store, **options).is_new
    assert not bring(directory, store, **options).is_new
    # What is beside the tokenizer, and the pooling, decide too.
    (tokenizer.parent / "tokenizer_config.json").write_text('{"model_max_length": 32}')
    assert bring(directory, store, **options).version == 2
    assert store.find("converted").variants["float32"].facts["max_context_tokens"] == 32
    assert bring(directory, store, pooling="last", **options).version == 3


def test_a_damaged_one_is_taken_over_again(store, converted):
    directory, tokenizer = converted
    file = bring(directory, store, tokenizer=tokenizer).directory / "variant.toml"
    file.write_text("backend = [")
    again = bring(directory, store, tokenizer=tokenizer)
    assert (again.is_new, again.version) == (True, 1)
    assert store.find("converted").variants["float32"].fault == ""


def test_without_a_tokenizer_it_is_asked_for(store, converted):
    directory, tokenizer = converted
    with pytest.raises(InvalidRequest, match="has no tokenizer in it: give its --tokenizer FILE"):
        bring(directory, store)
    with pytest.raises(InvalidRequest, match=r"gone\.json is no file"):
        bring(directory, store, tokenizer=tokenizer.with_name("gone.json"))
    assert list(store.directories[0].iterdir()) == []


def test_ready_weights_are_not_converted(store, converted):
    directory, tokenizer = converted
    assert bring(directory, store, tokenizer=tokenizer, precision="float32").is_new
    with pytest.raises(InvalidRequest, match=r"is in float32: .* is not turned into int8"):
        bring(directory, store, name="other", tokenizer=tokenizer, precision="int8")
    assert [path.name for path in store.directories[0].iterdir()] == ["converted"]


@pytest.mark.parametrize(
    ("files", "command"),
    [
        (["config.json", "pytorch_model.bin"], "ct2-transformers-converter --model"),
        (["dict.en.txt", "dict.de.txt", "model.pt"], "ct2-fairseq-converter --model_path"),
        (["model.pt"], "ct2-opennmt-py-converter --model_path"),
        (["model.npz"], "ct2-marian-converter --model_path"),
        ([], "convert it with one of ct2-transformers-converter,"),
    ],
)
@pytest.mark.parametrize("backend", [None, "ctranslate2"])
def test_of_what_nobody_reads_the_converter_is_named(tmp_path, store, files, command, backend):
    source = tmp_path / "foreign"
    source.mkdir()
    for name in files:
        (source / name).write_text('{"model_type": "bert"}')
    with pytest.raises((InvalidRequest, UnsupportedCapability)) as refusal:
        bring(source, store, backend=backend)
    assert command in refusal.value.message
    assert "with --tokenizer" in refusal.value.message
    assert "\n" not in refusal.value.message
    assert list(store.directories[0].iterdir()) == []


def test_of_a_model_that_only_a_converter_knows_it_is_named(tmp_path, store):
    source = tmp_path / "foreign"
    source.mkdir()
    (source / "config.json").write_text('{"model_type": "whisper"}')
    (source / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(UnsupportedCapability) as refusal:
        bring(source, store)
    assert "model_type" in refusal.value.message
    assert "ct2-transformers-converter --model" in refusal.value.message


def test_a_file_of_another_tool_is_explained_and_any_other_is_not(tmp_path, store):
    weights = tmp_path / "averaged.pt"
    weights.write_bytes(b"PK")
    with pytest.raises(InvalidRequest, match="ct2-opennmt-py-converter"):
        bring(weights, store)
    letter = tmp_path / "letter.doc"
    letter.write_bytes(b"Dear")
    with pytest.raises(InvalidRequest) as refusal:
        bring(letter, store)
    assert "converter" not in refusal.value.message


def test_a_directory_above_is_led_to_what_is_ready(store, converted):
    directory, _ = converted
    with pytest.raises(InvalidRequest, match=r"/converted is in the format of ctranslate2: import"):
        bring(directory.parent, store)


def test_a_damaged_checkpoint_is_not_sent_to_a_converter(tmp_path, store):
    source = tmp_path / "damaged"
    source.mkdir()
    (source / "config.json").write_text('{"model_type": "bert"}')
    (source / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InvalidRequest) as refusal:
        bring(source, store)
    assert "converter" not in refusal.value.message


def test_a_decoder_of_the_second_engine_comes_with_advice(tmp_path, store):
    source = Store([tiny_store("llama", backend="ctranslate2")]).find("llama").facts["source"]
    imported = bring(source, store, backend="ctranslate2", precision="int8")
    assert "more than 1 % of perplexity" in imported.advice
    assert bring(source, store, backend="ctranslate2", precision="float32").advice == ""
    assert get_backend("ctranslate2").importer.precisions[0] == "float32"  # its default
