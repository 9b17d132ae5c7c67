"""A serving daemon has no `import` extra: what it loads must not need those packages."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["leptond.checkpoint", "leptond_onnxruntime.importer.graph_io"])
def test_a_serving_daemon_loads_none_of_the_import_packages(module):
    unwanted = {"gguf", "grpc", "onnx", "onnxruntime", "tokenizers"}
    code = f"import sys, {module}; sys.exit(' '.join({unwanted} & {{*sys.modules}}) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stderr.strip(), done.returncode) == ("", 0)
