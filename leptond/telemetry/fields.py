"""Key-value pairs of a log line that no value can forge.

`logger.info("model loaded %s", Fields(model=name, load_ms=412))` reads `model loaded model=x
load_ms=412` as text; the JSON formatter makes a member of each pair instead.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["Fields", "escape_controls"]

_BARE: Final = re.compile(r"[A-Za-z0-9_.,:/@+%\[\]-]+")
# Control characters, line and paragraph separators, directional overrides and lone surrogates: what
# could start a new line, hide a part of it, speak to the terminal, or not be encoded at all.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_MAX_VALUE_CHARS: Final = 1024


class Fields:
    """Ordered pairs for a log line. A value of None is left out.

    Long values are cut: some come from callers, and one line must stay one line.
    """

    __slots__ = ("_values",)

    def __init__(self, **values: object) -> None:
        self._values = {key: value for key, value in values.items() if value is not None}

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        for key, value in self._values.items():
            is_number = isinstance(value, int | float) and math.isfinite(value)
            yield key, value if is_number else _cut(str(value))

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __str__(self) -> str:
        return " ".join(f"{key}={_quote(value)}" for key, value in self)


def escape_controls(text: str) -> str:
    """Return `text` with everything that could break out of its line written as an escape."""
    return _UNSAFE.sub(lambda found: _escape(found[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004 - Latin-1


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_VALUE_CHARS else f"{text[:_MAX_VALUE_CHARS]}…"


def _quote(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if _BARE.fullmatch(text):
        return text
    return escape_controls(json.dumps(text, ensure_ascii=False))
