from __future__ import annotations

import re
from pathlib import Path

from leptond.v1.sources import write_protos

PROTOS = Path(__file__).parents[3] / "protos"


def test_every_own_proto_is_written_as_it_is(tmp_path: Path) -> None:
    written = {path.relative_to(tmp_path): path.read_bytes() for path in write_protos(tmp_path)}
    own = {path.relative_to(PROTOS): path.read_bytes() for path in PROTOS.rglob("*.proto")}
    assert own
    assert own.items() <= written.items()


def test_the_files_written_are_returned_in_order(tmp_path: Path) -> None:
    written = write_protos(tmp_path)
    assert written == sorted(path for path in tmp_path.rglob("*") if path.is_file())


def test_every_import_is_written_too_or_comes_with_protoc(tmp_path: Path) -> None:
    written = write_protos(tmp_path)
    names = {str(path.relative_to(tmp_path)) for path in written}
    imports = {
        name
        for path in written
        for name in re.findall(r'^import "(.+)";$', path.read_text(), flags=re.MULTILINE)
    }
    assert "google/rpc/status.proto" in imports
    assert all(name.startswith("google/protobuf/") for name in imports - names)


def test_the_details_of_errors_are_described(tmp_path: Path) -> None:
    write_protos(tmp_path)
    assert (tmp_path / "google/rpc/error_details.proto").is_file()
    assert (tmp_path / "google/rpc/code.proto").is_file()


def test_the_directory_is_made_and_old_files_are_replaced(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "folder"
    first = write_protos(directory)
    first[0].write_text("old")
    assert write_protos(directory) == first
    assert first[0].read_text() != "old"
