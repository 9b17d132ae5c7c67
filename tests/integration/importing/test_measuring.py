"""The measurement at import, on the engine itself."""

from __future__ import annotations

import pytest

from leptond.backend.registry import get_backend
from leptond.errors import BackendUnavailable
from leptond.models import Store, sources
from leptond.models.importing import ImportOptions, import_variants
from leptond.models.measuring import measure_encoders
from tests.fixtures.minilm import minilm_directory
from tests.fixtures.tiny_store import tiny_store

pytestmark = pytest.mark.needs("ctranslate2")


def say_nothing(stage, fraction):
    pass


@pytest.fixture
def store(tmp_path):
    return Store([tmp_path / "store"])


def bring_tiny(name, store, *precisions):
    """Import a tiny checkpoint; return the model as it is stored."""
    source = str(Store([tiny_store(name)]).find(name).facts["source"])
    for precision in precisions:
        options = ImportOptions(backend="ctranslate2", precision=precision)
        import_variants(source, store, options, progress=say_nothing)
    return store.find(name)


@pytest.mark.timeout(300)  # the model may have to be fetched first
def test_the_default_embedder_comes_in_two_variants_that_agree(store, monkeypatch):
    monkeypatch.setattr(sources, "fetch_default", lambda model, staging: minilm_directory())
    imported = import_variants("default:embed", store, ImportOptions(), progress=say_nothing)
    assert [str(one.name) for one in imported] == [
        "all-minilm-l6-v2:float32",
        "all-minilm-l6-v2:int8",
    ]
    model = store.find("all-minilm-l6-v2")
    assert model.default_variant == "float32"
    assert {one.backend for one in model.variants.values()} == {"ctranslate2"}
    assert model.facts["licence"] == "Apache-2.0"
    stages = []
    plain, rounded = measure_encoders(
        model, get_backend, lambda stage, fraction: stages.append((stage, fraction))
    )
    assert (plain.cosine, rounded.reference) == (None, plain.name)
    assert 0.99 < rounded.cosine < 0.9999
    assert min(plain.texts_per_s, rounded.texts_per_s) > 0
    assert stages == [("measure float32", 0.0), ("measure int8", 0.5)]


def test_variants_of_a_classifier_are_timed_and_not_compared(store):
    model = bring_tiny("bert-classifier", store, "float32", "int8")
    results = measure_encoders(model, get_backend, say_nothing)
    assert [(one.name, one.cosine, one.problem) for one in results] == [
        ("bert-classifier:float32", None, ""),
        ("bert-classifier:int8", None, ""),
    ]
    assert all(one.texts_per_s > 0 for one in results)


def test_vectors_are_compared_with_float32_only(store):
    model = bring_tiny("embedder", store, "int8", "int8_float32")
    results = measure_encoders(model, get_backend, say_nothing)
    assert [one.cosine for one in results] == [None, None]
    model = bring_tiny("embedder", store, "float32")
    results = measure_encoders(model, get_backend, say_nothing)
    assert results[0].name == "embedder:float32"
    assert all(one.cosine > 0.98 for one in results[1:])


@pytest.mark.parametrize("name", ["llama", "marian"])
def test_a_model_that_is_no_encoder_is_not_measured(store, name):
    model = bring_tiny(name, store, "float32")
    assert measure_encoders(model, get_backend, say_nothing) == []


def test_what_cannot_be_loaded_here_is_said_and_hides_nothing(store):
    model = bring_tiny("embedder", store, "float32", "int8")
    (model.variants["float32"].directory / "model.bin").write_bytes(b"damaged")
    damaged, rounded = measure_encoders(model, get_backend, say_nothing)
    assert damaged.problem
    assert (rounded.problem, rounded.cosine) == ("", None)

    def find_nothing(name):
        raise BackendUnavailable(f"no {name} here")

    results = measure_encoders(model, find_nothing, say_nothing)
    assert [one.problem for one in results] == ["no ctranslate2 here"] * 2
