"""Finds stop strings in text that comes in pieces, and holds back what may become one.

The match that is complete first wins, whatever the pieces; of several that end at the same
character, the longest. The strings are one automaton (Aho and Corasick, "Efficient string
matching", 1975): its state is the longest end of the text so far that begins a stop string,
which is exactly what must be held back.

Made per request; used on the worker thread, once per token.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from leptond.errors import InvalidRequest

__all__ = ["StopMatcher"]


@dataclass(slots=True, eq=False)
class _State:
    """A beginning of one or more stop strings.

    Attributes:
        depth: its length in characters.
        follow: states that one more character leads to.
        shorter: the longest end of this beginning that is itself a beginning.
        match: the longest stop string that this beginning ends with.
    """

    depth: int
    follow: dict[str, _State] = field(default_factory=dict)
    shorter: _State | None = None
    match: str | None = None


class StopMatcher:
    """Watches one text for stop strings.

    Args:
        strings: none of them empty; without any, text passes through.

    Raises:
        InvalidRequest: a string is empty.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        if not all(strings):
            raise InvalidRequest("a stop string is empty", field="sampling.stop")
        self._root = _build(strings)
        self._state = self._root
        self._held = ""
        self._first_characters = frozenset(self._root.follow)

    def push(self, text: str) -> tuple[str, str | None]:
        """Take more text.

        Returns:
            The text that may leave now, and the stop string that ended it, if one did. After a
            match the text is over: everything behind it is dropped, and so is the match.
        """
        if self._state is self._root and self._first_characters.isdisjoint(text):
            return text, None
        root, state = self._root, self._state
        text = self._held + text
        for index in range(len(self._held), len(text)):
            character = text[index]
            following = state.follow.get(character)
            while following is None and state.shorter is not None:
                state = state.shorter
                following = state.follow.get(character)
            state = following or root
            if state.match is not None:
                self._state, self._held = root, ""
                return text[: index + 1 - len(state.match)], state.match
        settled = len(text) - state.depth
        self._state, self._held = state, text[settled:]
        return text[:settled], None

    def flush(self) -> str:
        """Return the text that is still held back: no more will come."""
        held = self._held
        self._state, self._held = self._root, ""
        return held


def _build(strings: Sequence[str]) -> _State:
    root = _State(0)
    for string in strings:
        state = root
        for character in string:
            state = state.follow.setdefault(character, _State(state.depth + 1))
        state.match = string
    # Breadth first, so that every shorter state is finished before it is asked for.
    waiting = deque([root])
    while waiting:
        state = waiting.popleft()
        for character, following in state.follow.items():
            shorter = state.shorter
            while shorter is not None and character not in shorter.follow:
                shorter = shorter.shorter
            following.shorter = root if shorter is None else shorter.follow[character]
            # Its own match is the longest that ends here.
            following.match = following.match or following.shorter.match
            waiting.append(following)
    return root
