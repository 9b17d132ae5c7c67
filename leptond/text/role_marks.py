"""Control tokens that a template puts together from a role, such as `<|` + role + `|>`.

Such a token stands nowhere in the template, so it cannot be marked as others are. Its three parts
can: the template's text before and after the role, and the role itself where it is printed. Where
the three meet in the rendered text, the token is the template's own doing.
"""

from __future__ import annotations

import re

from leptond.text.control_marks import FIRST_SPARE_MARK, ControlMarks

__all__ = ["Role", "RoleMarks"]

_ROLES = ("system", "developer", "user", "assistant", "tool", "function", "observation")


class Role(str):
    """A role that is printed as its mark, and is otherwise its name."""

    __slots__ = ("mark",)
    mark: str


class RoleMarks:
    """The marks of roles, and of what is before and after them in this vocabulary.

    A vocabulary without such tokens has none, and then nothing here changes anything.
    """

    def __init__(self, control: ControlMarks) -> None:
        self._control = control
        spare = iter(range(FIRST_SPARE_MARK, FIRST_SPARE_MARK + 0xF00))
        affixes = [
            affix
            for token in control.token_ids
            for role in _ROLES
            if (affix := _around(role, token)) is not None
        ]
        befores = sorted({before for before, _ in affixes}, key=len, reverse=True)
        afters = sorted({after for _, after in affixes}, key=len, reverse=True)
        self._before = {text: chr(next(spare)) for text in befores}
        self._after = {text: chr(next(spare)) for text in afters}
        self._roles = {role: chr(next(spare)) for role in _ROLES} if affixes else {}
        parts = [self._before, self._roles, self._after]
        self._texts = {mark: text for part in parts for text, mark in part.items()}
        groups = ("".join(part.values()) for part in parts)
        self._token = re.compile("".join(f"[{group}]" for group in groups)) if affixes else None

    def role(self, name: str) -> str:
        """Return the role as templates are to see it."""
        if name not in self._roles:
            return name
        role = Role(name)
        role.mark = self._roles[name]
        return role

    def mark_literal(self, text: str) -> str:
        """Mark what may come before a role at the end of a literal, and after it at its start."""
        for after, mark in self._after.items():
            if text.startswith(after):
                text = mark + text.removeprefix(after)
                break
        for before, mark in self._before.items():
            if text.endswith(before):
                return text.removesuffix(before) + mark
        return text

    def resolve(self, text: str) -> str:
        """Turn the parts that meet into marks of control tokens, and all others back to text."""
        if self._token is None:
            return text
        text = self._token.sub(self._joined, text)
        return text.translate({ord(mark): part for mark, part in self._texts.items()})

    def _joined(self, match: re.Match[str]) -> str:
        token = "".join(self._texts[mark] for mark in match[0])
        return self._control.mark_of.get(token, token)


def _around(role: str, token: str) -> tuple[str, str] | None:
    """Return what `token` has before and after `role`, if it has something on both sides."""
    before, found, after = token.partition(role)
    return (before, after) if found and before and after else None
