"""The command line, as far as it needs no daemon."""

from __future__ import annotations

import json

from click.testing import CliRunner

from leptond.cli.listing import models
from leptond.cli.serving import serve
from tests.unit.models.test_store import add_model


def test_a_fake_model_that_is_given_twice_is_a_wrong_command_line():
    done = CliRunner().invoke(serve, ["--fake-model", "toy", "--fake-model", "toy:slots=4"])
    assert done.exit_code == 2
    assert "'toy' is given more than once" in done.output


def test_a_damaged_model_is_listed_beside_the_others(tmp_path):
    for name in ("torn", "whole"):
        add_model(tmp_path, name=name)
    (tmp_path / "torn" / "1" / "int8" / "variant.toml").write_text("precision = 'int8'")
    done = CliRunner().invoke(models, ["--store", str(tmp_path)])
    assert done.exit_code == 0
    torn, whole = done.stdout.splitlines()
    assert "damaged: variant.toml: key 'backend'" in torn
    assert "fake" in whole
    listed = json.loads(CliRunner().invoke(models, ["--store", str(tmp_path), "--json"]).stdout)
    assert ["backend" in row["fault"] for row in listed] == [True, False]
