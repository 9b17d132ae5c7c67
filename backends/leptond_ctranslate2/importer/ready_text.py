"""The tokenizer that comes with a finished model, and the text assets that follow from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from leptond.checkpoint import EncoderDefaults, GenerationDefaults, Seq2SeqDefaults, TextAssets
from leptond.errors import InvalidRequest
from leptond_ctranslate2.description import EngineDescription, ModelKind
from leptond_ctranslate2.vocabulary import tokenizer_pairs

__all__ = ["ReadyTokenizer"]

# Tokenizers without a limit write a very large number.
_NO_LIMIT = 1 << 20


class ReadyTokenizer:
    """A tokenizer.json and what lies beside it.

    Attributes:
        max_tokens: longest text that its configuration allows; 0 when it says nothing.
        around_nothing: the special tokens that an empty text gets.

    Raises:
        InvalidRequest: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._definition = path.read_text(encoding="utf-8")
            self._facts: dict[str, Any] = json.loads(self._definition)
            engine = Tokenizer.from_str(self._definition)
        except Exception as error:  # tokenizers raises bare Exceptions
            raise InvalidRequest(f"{path} is no tokenizer.json: {error}") from error
        self._config = _read_object(path.with_name("tokenizer_config.json"))
        length = self._config.get("model_max_length")
        has_limit = isinstance(length, int) and 0 < length < _NO_LIMIT
        self.max_tokens = int(length) if has_limit and length is not None else 0
        self.around_nothing: Sequence[str] = engine.encode("").tokens
        self._ids = dict(tokenizer_pairs(self._facts))

    def check(self, tokens: Sequence[str], vocabulary: Path) -> None:
        """Refuse a tokenizer whose ids are not the places of its tokens in the model's vocabulary.

        Raises:
            InvalidRequest: naming the first token that differs.
        """
        for name, token_id in self._ids.items():
            if token_id < len(tokens) and tokens[token_id] != name:
                raise InvalidRequest(
                    f"{self._path}: token {token_id} is {name!r}, in {vocabulary} it is "
                    f"{tokens[token_id]!r}: not the tokenizer of this model",
                    field="--tokenizer",
                )

    def require(self, config: Mapping[str, Any], key: str) -> int:
        """Return the id of a special token that the engine's configuration names.

        Raises:
            InvalidRequest: it names none, or the tokenizer does not have it.
        """
        token_id = self._ids.get(str(config.get(key)))
        if token_id is None:
            raise InvalidRequest(f"{self._path}: there is no token {config.get(key)!r} ({key})")
        return token_id

    def assets(
        self, description: EngineDescription, config: Mapping[str, Any], pooling: str
    ) -> TextAssets:
        """Return what the version's directory needs."""
        if description.kind is ModelKind.ENCODER:
            defaults = self._encoder(description, pooling)
            return TextAssets(self._definition, encoder=defaults)
        generation = self._generation(description, config)
        if description.kind is ModelKind.GENERATOR:
            return TextAssets(self._definition, self._template(), generation)
        return TextAssets(
            self._definition, generation=generation, encoder=self._seq2seq(description, config)
        )

    def _encoder(self, description: EngineDescription, pooling: str) -> EncoderDefaults:
        return EncoderDefaults(
            architecture=description.family,
            max_tokens=description.max_positions,
            num_special_single=len(self.around_nothing),
            dimensions=description.sizes.hidden_size,
            pooling=pooling,
            has_token_types=description.num_token_types > 1,
        )

    def _seq2seq(
        self, description: EngineDescription, config: Mapping[str, Any]
    ) -> Seq2SeqDefaults:
        eos = self.require(config, "eos_token")
        return Seq2SeqDefaults(
            architecture=description.family,
            max_tokens=description.max_positions,
            num_special_single=len(self.around_nothing),
            vocab_size=description.vocab_size,
            decoder_start_token_id=self.require(config, "decoder_start_token"),
            eos_token_id=eos,
            pad_token_id=eos,  # fills nothing here: the engine is given lengths
            unknown_token_id=self._ids.get(str(config.get("unk_token"))),
            max_target_tokens=description.max_answer_tokens,
        )

    def _generation(
        self, description: EngineDescription, config: Mapping[str, Any]
    ) -> GenerationDefaults:
        bos, eos = str(config.get("bos_token")), str(config.get("eos_token"))
        return GenerationDefaults(
            max_positions=description.max_positions,
            add_bos=self.around_nothing[:1] == [bos],
            add_eos=self.around_nothing[-1:] == [eos],
            bos_token_id=self._ids.get(bos),
            eos_token_id=self._ids[eos],
            stop_token_ids=description.stop_token_ids,
            bos_token=bos if bos in self._ids else "",
            eos_token=eos,
        )

    def _template(self) -> str | None:
        path = self._path.with_name("chat_template.jinja")
        if path.is_file():
            return path.read_bytes().decode()
        template = self._config.get("chat_template")
        return template if isinstance(template, str) else None


def _read_object(path: Path) -> dict[str, Any]:
    """Return a JSON object; {} when the file is not there."""
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise InvalidRequest(f"{path} is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise InvalidRequest(f"{path} is no object")
    return values
