"""SentencePiece's own library is the reference for what is read of its files."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from tokenizers import Tokenizer

from leptond.checkpoint import Seq2SeqDefaults, open_checkpoint, write_text_assets
from leptond.checkpoint.sentencepiece_file import SentencePieceFile
from leptond.checkpoint.vocabulary import TokenKind
from leptond.errors import InvalidRequest, UnsupportedCapability
from tests.fixtures.tiny_models.edit import edit_json, edit_weights
from tests.fixtures.tiny_models.make import make_tiny_model
from tests.fixtures.tiny_models.vocabularies import ENGLISH, GERMAN, pieces, write_json, write_spm
from tests.unit.checkpoint.hf_opening import refused

ODD_TEXTS = (
    "",
    " ",
    "   two  spaces ",
    "the man is eating food.",
    "the\tman\nis",
    "\ufb01nger ½ \uff21\uff22 e\u0301",
    "\u2581the man",
    "\u200bthe\u200b man",
    "\ufffe \uffff \ue000",
    "日本語 the 日本",
    "Straße groß über",
    "<unk> <s>",
    "xyz 7 127",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A unigram model with the normalisation that T5 and Marian have, nmt_nfkc."""
    rng = random.Random(5)
    lines = [
        " ".join(rng.choices([*ENGLISH, "Über", "café", "\uff11\uff12"], k=9)) for _ in range(400)
    ]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=85,
        model_type="unigram",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=3,
    )
    path = tmp_path_factory.mktemp("spm") / "spiece.model"
    path.write_bytes(model.getvalue())
    return path


def random_texts(count: int) -> list[str]:
    """Words, letters, spaces and strange characters in any order."""
    rng = random.Random(3)
    parts = [*ENGLISH, *GERMAN, *"abcxyz 0123.,ßé\ufb01½日", " ", "  ", "\t"]
    return ["".join(rng.choices(parts, k=rng.randrange(1, 30))) for _ in range(count)]


def test_pieces_are_those_of_the_library(trained):
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(trained))
    ours = SentencePieceFile.read(trained)
    assert [piece.text for piece in ours.pieces] == [
        theirs.id_to_piece(index) for index in range(theirs.get_piece_size())
    ]
    assert [piece.score for piece in ours.pieces] == [
        theirs.get_score(index) for index in range(theirs.get_piece_size())
    ]
    assert [piece.kind for piece in ours.pieces[:4]] == [
        TokenKind.CONTROL, TokenKind.CONTROL, TokenKind.UNKNOWN, TokenKind.NORMAL,
    ]  # fmt: skip
    assert ours.charsmap
    assert ours.adds_space_prefix
    assert ours.strips_spaces


def test_a_t5_with_sentencepiece_only_is_tokenised_as_by_the_library(trained, tmp_path):
    directory = make_tiny_model("t5-relu", tmp_path / "m")
    (directory / "tokenizer.json").unlink()
    (directory / "spiece.model").write_bytes(trained.read_bytes())
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(trained))
    tokenizer = Tokenizer.from_str(open_checkpoint(directory).text.tokenizer_json)
    for text in (*ODD_TEXTS, *random_texts(300)):
        if "<" not in text:  # the library takes control tokens for text
            assert tokenizer.encode(text).ids == [*theirs.encode(text), 1], text
    assert tokenizer.token_to_id("<extra_id_0>") == 88
    assert tokenizer.encode("the<extra_id_3>").ids[-2:] == [85, 1]
    assert tokenizer.decode(tokenizer.encode("the man is eating food").ids) == (
        "the man is eating food"
    )


def test_both_tokenizers_of_marian_are_written(tmp_path):
    text = open_checkpoint(make_tiny_model("marian", tmp_path / "m")).text
    write_text_assets(text, tmp_path)
    for name in ("tokenizer.json", "target_tokenizer.json"):
        assert Tokenizer.from_file(str(tmp_path / name)).token_to_id("</s>") == 0


def test_both_sides_of_marian_are_tokenised_as_by_the_library(tmp_path):
    directory = make_tiny_model("marian", tmp_path / "m")
    text = open_checkpoint(directory).text
    assert isinstance(text.encoder, Seq2SeqDefaults)
    ids_of = json.loads((directory / "vocab.json").read_text())
    for name, definition in (
        ("source.spm", text.tokenizer_json),
        ("target.spm", text.target_tokenizer_json),
    ):
        theirs = sentencepiece.SentencePieceProcessor(model_file=str(directory / name))
        tokenizer = Tokenizer.from_str(definition)
        for line in (*ODD_TEXTS, *random_texts(300)):
            if "<" in line:
                continue
            got = [i if i < text.encoder.vocab_size else 1 for i in tokenizer.encode(line).ids]
            assert got == [*_looked_up(theirs, ids_of, line), 0], (name, line)


def _looked_up(
    spm: sentencepiece.SentencePieceProcessor, ids_of: dict[str, int], text: str
) -> list[int]:
    """As Marian finds pieces in its vocabulary; what spm does not know, by characters."""
    ids: list[int] = []
    for piece, piece_id in zip(spm.encode(text, out_type=str), spm.encode(text), strict=True):
        if piece_id != spm.unk_id():
            ids.append(ids_of.get(piece, 1))
            continue
        for letter in piece:
            token_id = ids_of.get(letter, 1)
            if token_id != 1 or ids[-1:] != [1]:
                ids.append(token_id)
    return ids


@pytest.mark.parametrize("normalizer", [b"\x18\x00", b"\x20\x00", b"\x18\x00\x20\x00"])
def test_what_a_model_does_with_spaces_is_kept(tmp_path, normalizer):
    directory = make_tiny_model("t5-relu", tmp_path / "m")
    (directory / "tokenizer.json").unlink()
    path = directory / "spiece.model"
    write_spm(path, pieces(ENGLISH))
    path.write_bytes(path.read_bytes() + b"\x1a" + bytes([len(normalizer)]) + normalizer)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(path))
    tokenizer = Tokenizer.from_str(open_checkpoint(directory).text.tokenizer_json)
    for text in (*ODD_TEXTS, *random_texts(100)):
        if "<" not in text:
            assert tokenizer.encode(text).ids == [*theirs.encode(text), 1], text


def test_answers_of_marian_are_written_with_the_targets_pieces(tmp_path):
    directory = make_tiny_model("marian", tmp_path / "m")
    tokenizer = Tokenizer.from_str(open_checkpoint(directory).text.target_tokenizer_json)
    ids_of = json.loads((directory / "vocab.json").read_text())
    answer = [ids_of[piece] for piece in ("▁der", "▁mann", "en", "▁ist", "▁groß", "</s>")]
    assert tokenizer.decode(answer) == "der mannen ist groß"
    # A piece of the source alone: what marks it cannot be seen.
    assert tokenizer.decode([ids_of["▁horse"]]).replace("\u200b", "").strip() == "horse"


def test_languages_of_marian_are_control_tokens(tmp_path):
    directory = make_tiny_model("marian", tmp_path / "m")
    ids_of = json.loads((directory / "vocab.json").read_text())
    last = len(ids_of)
    write_json(directory / "vocab.json", {**ids_of, ">>deu<<": last, ">>nld<<": last + 1})

    def widen(tensors: dict[str, np.ndarray]) -> None:
        table = tensors["model.shared.weight"]
        tensors["model.shared.weight"] = np.concatenate([table, table[:2]])
        bias = tensors["final_logits_bias"]
        tensors["final_logits_bias"] = np.concatenate([bias, bias[:, :2]], axis=1)

    edit_weights(directory, widen)
    edit_json(directory / "config.json", {"vocab_size": last + 2, "decoder_vocab_size": last + 2})
    text = open_checkpoint(directory).text
    assert isinstance(text.encoder, Seq2SeqDefaults)
    assert text.encoder.languages == {"deu": ">>deu<<", "nld": ">>nld<<"}
    assert text.encoder.language_style == "target_in_source"
    ids = Tokenizer.from_str(text.tokenizer_json).encode(">>deu<< the man").ids
    assert ids == [last, ids_of["▁the"], ids_of["▁man"], 0]


def test_tokenizers_of_marian_that_are_there_are_taken(tmp_path):
    directory = make_tiny_model("marian", tmp_path / "m")
    text = open_checkpoint(directory).text
    assert isinstance(text.encoder, Seq2SeqDefaults)
    # As another tool may have saved them, without the pieces that the model lacks.
    source = json.loads(text.tokenizer_json)
    source["model"]["vocab"] = source["model"]["vocab"][: text.encoder.vocab_size]
    (directory / "tokenizer.json").write_text(json.dumps(source))
    assert open_checkpoint(directory).text.target_tokenizer_json is None
    (directory / "target_tokenizer.json").write_text(json.dumps(source))
    assert open_checkpoint(directory).text.target_tokenizer_json == json.dumps(source)


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ({"</s>": 0, "a": 1}, "'<unk>' is missing"),
        ({"</s>": 0, "<unk>": 2}, "without a hole"),
        ({"</s>": 0, "<unk>": "1"}, "without a hole"),
        ({str(index): index for index in range(500)}, "500 tokens, the embedding has"),
        ([], "an object"),
    ],
)
def test_a_vocabulary_that_cannot_be_is_refused(tmp_path, vocabulary, message):
    directory = make_tiny_model("marian", tmp_path / "m")
    write_json(directory / "vocab.json", vocabulary)
    refused(directory, InvalidRequest, rf"vocab\.json: .*{message}")


def test_two_vocabularies_are_refused(tmp_path):
    directory = make_tiny_model("marian", tmp_path / "m")
    edit_json(directory / "tokenizer_config.json", {"separate_vocabs": True})
    refused(directory, UnsupportedCapability, "separate_vocabs = True")


# --------------------------------------------------------------------------------- the file itself
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no pieces"),
        (b"\x0a\x05ab", "truncated"),
        (b"\x0a\x00", "another type"),
        (b"\x0b", "wire type 3"),
        (b"\x80", "index out of range"),
        (b"\xff" * 12, "more than 64 bits"),
        (b"\x08\x01", "no string of bytes"),
        (b"\x0a\x05\x0a\x01a\x10\x01", "another type"),
        (b"\x0a\x05\x0a\x01a\x18\x09", "9 is not a valid"),
        (b"\x0a\x03\x0a\x01\xff", "decode"),
        (b"\x0a\x03\x0a\x01a\x1a\x02\x10\x01", "precompiled_charsmap"),
    ],
)
def test_a_file_that_is_no_model_is_refused(tmp_path, content, message):
    path = tmp_path / "source.spm"
    path.write_bytes(content)
    with pytest.raises(
        InvalidRequest, match=rf"source\.spm: not a SentencePiece model: .*{message}"
    ):
        SentencePieceFile.read(path)


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (b"\x12\x02\x18\x02", "model_type 2"),
        (b"\x12\x03\xc0\x01\x01", "spaces must stand before words"),
        (b"\x1a\x02\x28\x00", "spaces must stand before words"),
    ],
)
def test_other_kinds_of_model_are_refused(tmp_path, tail, message):
    path = tmp_path / "source.spm"
    path.write_bytes(b"\x0a\x03\x0a\x01a" + tail)
    with pytest.raises(UnsupportedCapability, match=message):
        SentencePieceFile.read(path)


def test_fields_of_fixed_size_that_are_not_known_are_passed_over(tmp_path):
    path = tmp_path / "source.spm"
    path.write_bytes(b"\x0a\x03\x0a\x01a" + b"\x79" + bytes(8) + b"\x7d" + bytes(4))
    assert [piece.text for piece in SentencePieceFile.read(path).pieces] == ["a"]


def test_a_model_may_leave_spaces_alone(tmp_path):
    path = tmp_path / "source.spm"
    path.write_bytes(b"\x0a\x03\x0a\x01a" + b"\x1a\x04\x18\x00\x20\x00")
    file = SentencePieceFile.read(path)
    assert (file.adds_space_prefix, file.strips_spaces) == (False, False)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidRequest, match=r"source\.spm: No such file"):
        SentencePieceFile.read(tmp_path / "source.spm")


def test_a_t5_needs_one_unknown_piece(tmp_path):
    directory = make_tiny_model("t5-relu", tmp_path / "m")
    (directory / "tokenizer.json").unlink()
    write_spm(directory / "spiece.model", [("<unk>", 0.0), *pieces(ENGLISH)])
    refused(directory, InvalidRequest, r"spiece\.model: it has 2 unknown pieces")
