"""Tokens to text as they come, whole characters only.

Made per request; used on the worker thread, once per token: a push costs a fraction of a
microsecond unless a character is open.
"""

from __future__ import annotations

import codecs

from leptond.text.tokenizer import Tokenizer

__all__ = ["Detokenizer"]

_new_decoder = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """Turns one stream of tokens into text.

    The deltas and `flush` together are `tokenizer.decode` of all tokens.

    Args:
        skip_special: control tokens give no text.
        continues_text: the tokens go on from a prompt, so that a leading space is a space. By
            default a SentencePiece text loses the space that its first token begins with.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, skip_special: bool = True, continues_text: bool = False
    ) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._whole_texts = tokenizer.whole_texts(skip_special=skip_special)
        self._decoder = _new_decoder(errors="replace")
        self._drops_space = tokenizer.strips_leading_space and not continues_text
        # A character is open, or the leading space is still to come.
        self._is_unsettled = self._drops_space

    def push(self, token_id: int) -> str:
        """Return the text that this token completes: maybe none, maybe several characters."""
        if not self._is_unsettled:
            text = self._whole_texts.get(token_id)
            if text is not None:
                return text
        return self._decode(token_id)

    def flush(self) -> str:
        """Return what is left of a character that was never completed: U+FFFD, or nothing."""
        return self._decoder.decode(b"", final=True)

    def _decode(self, token_id: int) -> str:
        if self._skip_special and self._tokenizer.is_special(token_id):
            return ""
        data = self._tokenizer.token_bytes(token_id)
        if self._drops_space and data:
            data = data.removeprefix(b" ")
            self._drops_space = False
        was_settled = not self._is_unsettled
        text = self._decoder.decode(data)
        self._is_unsettled = self._drops_space or bool(self._decoder.getstate()[0])
        if was_settled and not self._is_unsettled:
            self._whole_texts[token_id] = text
        return text
