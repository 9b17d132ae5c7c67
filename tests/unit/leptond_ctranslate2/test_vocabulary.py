from __future__ import annotations

import json

import pytest

from leptond.errors import ModelFailed
from leptond_ctranslate2.vocabulary import (
    Vocabulary,
    find_vocabulary,
    read_vocabulary,
    unique_tokens,
    vocabulary_tokens,
)

ODD = ["<s>", "a b", "Ġthe", "\n", "\r", "\x00", '"', "<0x0A>", "▁", "😀", ""]


def test_ids_and_strings_are_exact_both_ways():
    vocabulary = Vocabulary(ODD)
    assert vocabulary.strings(range(len(ODD))) == ODD
    assert vocabulary.ids(reversed(ODD)) == list(reversed(range(len(ODD))))
    assert len(vocabulary) == len(ODD)


def test_a_json_file_is_read(tmp_path):
    path = tmp_path / "vocabulary.json"
    path.write_text(json.dumps(ODD))
    assert read_vocabulary(path) == ODD


def test_a_text_file_has_one_token_a_line(tmp_path):
    path = tmp_path / "vocabulary.txt"
    path.write_bytes("a\nb\r\n\u2028\n".encode())
    assert read_vocabulary(path) == ["a", "b\r", "\u2028"]


@pytest.mark.parametrize("text", [b"{}", b"[1]", b"no json", b"\xff"])
def test_what_is_no_vocabulary_is_refused_by_name(tmp_path, text):
    path = tmp_path / "vocabulary.json"
    path.write_bytes(text)
    with pytest.raises(ModelFailed, match=r"vocabulary\.json"):
        read_vocabulary(path)


def test_the_shared_vocabulary_is_found(tmp_path):
    for name in ("source_vocabulary.json", "target_vocabulary.json"):
        (tmp_path / name).write_text("[]")
    with pytest.raises(ModelFailed, match="no vocabulary that source and answer share"):
        find_vocabulary(tmp_path)
    (tmp_path / "shared_vocabulary.txt").write_text("a\n")
    assert find_vocabulary(tmp_path).name == "shared_vocabulary.txt"


def test_ids_without_a_token_get_names_that_no_token_has():
    tokenizer = {
        "model": {"vocab": {"a": 0, "<unused_0>": 2, "far": 9}},
        "added_tokens": [{"content": "<end>", "id": 4}],
    }
    assert vocabulary_tokens(tokenizer, 6) == [
        "a", "<unused_1>", "<unused_0>", "<unused_2>", "<end>", "<unused_3>",
    ]  # fmt: skip


def test_unigram_pieces_are_counted():
    tokenizer = {"model": {"vocab": [["<pad>", 0.0], ["▁a", -1.5]]}, "added_tokens": None}
    assert vocabulary_tokens(tokenizer, 2) == ["<pad>", "▁a"]


def test_the_first_of_equal_tokens_keeps_its_name():
    assert unique_tokens(["x", "y", "x", "x"]) == ["x", "y", "<unused_0>", "<unused_1>"]
