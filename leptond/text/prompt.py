"""A chat before and after its template: messages, and the rendered prompt in segments.

Values only; read on any thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ChatMessage", "PromptSegment", "RenderedPrompt"]


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a conversation, as the caller sent it; nothing in it is trusted.

    Attributes:
        role: `system`, `user`, `assistant`, `tool`, or what else the template knows.
        name: of the person or tool that speaks; "" when not given.
        reasoning: what an assistant thought before `content`; "" when not given.
        tool_calls: calls that an assistant made, as JSON objects of the shape that templates
            know: `{"type": "function", "id": ..., "function": {"name", "arguments"}}`.
        tool_call_id: the call that a tool message answers; "" when not given.
    """

    role: str
    content: str = ""
    name: str = ""
    reasoning: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    tool_call_id: str = ""

    def as_variables(self) -> dict[str, Any]:
        """Return the message as templates see it; what was not given is absent."""
        optional = {
            "name": self.name,
            "reasoning_content": self.reasoning,
            "tool_calls": list(self.tool_calls),
            "tool_call_id": self.tool_call_id,
        }
        given = {key: value for key, value in optional.items() if value}
        return {"role": self.role, "content": self.content, **given}


@dataclass(frozen=True, slots=True)
class PromptSegment:
    """A stretch of a rendered prompt.

    Attributes:
        control_id: id of the control token that the template put here, whose text `text` is;
            None for plain text, in which nothing is a control token, whatever it looks like.
    """

    text: str
    control_id: int | None = None


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A prompt that says which of its control tokens are the template's own."""

    segments: tuple[PromptSegment, ...]

    @property
    def text(self) -> str:
        """The prompt as plain text, exactly as the template wrote it."""
        return "".join(segment.text for segment in self.segments)
