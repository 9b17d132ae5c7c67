"""What an import of a tiny model leaves in the store."""

from __future__ import annotations

from leptond.backend.registry import get_backend
from leptond.models import Store
from leptond.models.importing import import_model
from tests.fixtures.tiny_gguf import write_tiny_llama


def bring(path, store, precision):
    backend = get_backend("onnxruntime")
    return import_model(
        str(path), store, backend, precision=precision, progress=lambda stage, fraction: None
    )


def test_the_facts_for_people_are_written(tmp_path):
    store = Store([tmp_path / "store"])
    path = write_tiny_llama(tmp_path / "tiny.gguf")
    for precision in ("float32", "int8"):
        assert bring(path, store, precision).is_new
    variants = store.find("tiny").variants
    assert variants["int8"].facts["architecture"] == "llama"
    assert variants["int8"].facts["quantization"] == "int8"
    assert "quantization" not in variants["float32"].facts
    assert not bring(path, store, "int8").is_new


def test_a_damaged_variant_is_imported_again(tmp_path):
    store = Store([tmp_path / "store"])
    path = write_tiny_llama(tmp_path / "tiny.gguf")
    file = bring(path, store, "float32").directory / "variant.toml"
    file.write_text("backend = [")
    assert bring(path, store, "float32").is_new
    assert store.find("tiny").variants["float32"].fault == ""
