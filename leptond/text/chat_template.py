"""Renders a chat with the model's own template, such that no content can forge a turn.

The template is compiled when the model is loaded, with its control tokens replaced by marks
(`control_marks`, `role_marks`). It runs in a counted sandbox (`template_sandbox`); rendered text is
then cut at the marks, and everything else in it is plain text, whatever it looks like.

Made by a loader thread; immutable; `render` runs on any thread, off the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from leptond.errors import InvalidRequest, LeptondError, ModelFailed
from leptond.text.control_marks import RESERVED, Shield
from leptond.text.prompt import ChatMessage, PromptSegment, RenderedPrompt
from leptond.text.role_marks import RoleMarks
from leptond.text.template_sandbox import ChatContext, ChatEnvironment, TemplateRaised
from leptond.text.template_syntax import instrument
from leptond.text.tokenizer import Tokenizer
from leptond.text.work_budget import WorkBudget

__all__ = ["ChatTemplate"]

_FILE = "chat_template.jinja"
_MAX_SOURCE_CHARS = 1 << 18  # the longest that are known have a tenth
# A rendering may do this much, and more for a larger chat. Of 75 published templates the hungriest
# takes 630 units for a word of the user, most take 20 to 80 for a further message of three values,
# and some look back at all messages from each of them.
_BASE_UNITS = 20_000
_UNITS_PER_VALUE = 32
_UNITS_PER_PAIR = 2
_MAX_UNITS = 1_000_000
_CHARS_PER_VALUE = 128
_MAX_NESTING = 32  # of the caller's JSON

_END = "\U000dffff"  # where the last message ends, when it is to be continued


def _local_time() -> datetime:
    return datetime.now(tz=UTC).astimezone()


class ChatTemplate:
    """A compiled chat template.

    Args:
        source: the template, in jinja2 as Hugging Face's `apply_chat_template` has it.
        tokenizer: whose control tokens the template writes.
        now: the time of day, for templates that write the date.

    Raises:
        ModelFailed: the template cannot be compiled, or uses what is not supported; the message
            names the line.
    """

    def __init__(
        self, source: str, tokenizer: Tokenizer, *, now: Callable[[], datetime] = _local_time
    ) -> None:
        self._control = tokenizer.marks
        self._roles = RoleMarks(tokenizer.marks)
        self._token_variables = self._mark_variables(tokenizer)
        self._environment = ChatEnvironment(now)
        if len(source) > _MAX_SOURCE_CHARS or RESERVED.search(source):
            raise ModelFailed(f"{_FILE}: longer than {_MAX_SOURCE_CHARS} letters, or no text")
        try:
            tree = instrument(self._environment, source, self._mark_literal)
            self._template = self._environment.from_string(tree)
        except Exception as error:  # a hostile template can fail the compiler in many ways
            line = f"line {number}: " if (number := getattr(error, "lineno", None)) else ""
            raise ModelFailed(f"{_FILE}: {line}{error}") from error

    @classmethod
    def load(cls, directory: Path, tokenizer: Tokenizer) -> ChatTemplate | None:
        """Read `chat_template.jinja` of a model directory; None when the model has none.

        Raises:
            ModelFailed: it cannot be read or compiled.
        """
        path = directory / _FILE
        try:
            source = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise ModelFailed(f"{path}: {error}") from error
        return cls(source, tokenizer)

    def render(
        self,
        messages: Sequence[ChatMessage],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] = (),
        documents: Sequence[Mapping[str, Any]] = (),
        variables: Mapping[str, Any] | None = None,
    ) -> RenderedPrompt:
        """Render a chat.

        Args:
            messages: at least one.
            add_generation_prompt: open a turn of the assistant at the end.
            continue_final_message: leave the last message, an assistant's, open at its end; no
                turn is opened then.
            tools: JSON schemas of functions, as templates know them.
            documents: texts for templates that know documents.
            variables: further variables for the template.

        Raises:
            InvalidRequest: the template refuses the chat, fails, or exceeds its limit of work; a
                value is not JSON; the last message cannot be continued.
        """
        chat: dict[str, Any] = {
            **(variables or {}),
            "messages": [message.as_variables() for message in messages],
            "tools": list(tools) or None,
            "documents": list(documents) or None,
        }
        self._check_variables(variables or {})
        texts: list[str] = []
        num_values = _collect_texts(chat, texts)
        shield = Shield(texts)
        chat = _covered(chat, shield)
        for message in chat["messages"]:
            message["role"] = self._roles.role(message["role"])
        if continue_final_message:
            _leave_open(chat["messages"])
        chat["add_generation_prompt"] = add_generation_prompt and not continue_final_message
        text = self._run(chat, _budget(len(messages), num_values))
        if continue_final_message:
            text = _cut_at_end(text)
        return RenderedPrompt(tuple(self._segments(text, shield)))

    def _mark_literal(self, text: str) -> str:
        return self._roles.mark_literal(self._control.mark_tokens(text))

    def _mark_variables(self, tokenizer: Tokenizer) -> dict[str, str]:
        """Return the variables that name control tokens; those that the model lacks are absent."""
        generation = tokenizer.generation
        text_of_id = {token_id: text for text, token_id in tokenizer.control_tokens.items()}
        texts = {
            "bos_token": generation.bos_token,
            "eos_token": generation.eos_token,
            "pad_token": text_of_id.get(cast(int, generation.pad_token_id)),
            "unk_token": text_of_id.get(cast(int, generation.unknown_token_id)),
        }
        return {name: self._control.mark_tokens(text) for name, text in texts.items() if text}

    def _check_variables(self, variables: Mapping[str, Any]) -> None:
        own = {"messages", "tools", "documents", "add_generation_prompt", *self._token_variables}
        if taken := variables.keys() & (own | self._environment.globals.keys()):
            message = f"the template variable '{min(taken)}' cannot be set"
            raise InvalidRequest(message, field="input.template_variables")

    def _run(self, chat: Mapping[str, Any], budget: WorkBudget) -> str:
        context = cast(ChatContext, self._template.new_context({**chat, **self._token_variables}))
        context.budget = budget
        try:
            return "".join(self._template.root_render_func(context))
        except LeptondError:
            raise
        except TemplateRaised as error:
            message = f"the chat template refuses this chat: {self._plain(error)}"
            raise InvalidRequest(message, field="input.messages") from error
        except Exception as error:  # a template can raise whatever Python can
            message = f"the chat template failed: {type(error).__name__}: {self._plain(error)}"
            raise InvalidRequest(message, field="input.messages") from error

    def _plain(self, error: Exception) -> str:
        text = str(error)[:500].replace(_END, "")
        return "".join(segment.text for segment in self._segments(text, Shield([])))

    def _segments(self, text: str, shield: Shield) -> Iterator[PromptSegment]:
        """Cut rendered text at its marks."""
        text = self._roles.resolve(text)
        start = 0
        for mark in RESERVED.finditer(text):
            if plain := text[start : mark.start()]:
                yield PromptSegment(shield.uncover(plain))
            token = self._control.text_of[mark[0]]
            yield PromptSegment(token, self._control.token_ids[token])
            start = mark.end()
        if plain := text[start:]:
            yield PromptSegment(shield.uncover(plain))


def _budget(num_messages: int, num_values: int) -> WorkBudget:
    units = _BASE_UNITS + _UNITS_PER_VALUE * num_values + _UNITS_PER_PAIR * num_messages**2
    return WorkBudget(min(units, _MAX_UNITS))


def _collect_texts(value: Any, texts: list[str], nesting: int = 0) -> int:
    """Append every text in JSON data to `texts`; return how much data that is.

    Returns:
        The number of values; a long text counts as one for every 128 letters.
    """
    if nesting > _MAX_NESTING:
        raise InvalidRequest("the chat nests values too deeply", field="input.messages")
    match value:
        case str():
            texts.append(value)
            return 1 + len(value) // _CHARS_PER_VALUE
        case Mapping():
            items = [*value.keys(), *value.values()]
            return 1 + sum(_collect_texts(item, texts, nesting + 1) for item in items)
        case list() | tuple():
            return 1 + sum(_collect_texts(item, texts, nesting + 1) for item in value)
        case int() | float() | None:  # bool is an int
            return 1
        case _:
            message = f"the chat holds a {type(value).__name__}, which is not JSON"
            raise InvalidRequest(message, field="input.messages")


def _covered(value: Any, shield: Shield) -> Any:
    """Return a copy of JSON data with its texts covered."""
    match value:
        case str():
            return shield.cover(value)
        case Mapping():
            return {_covered(key, shield): _covered(item, shield) for key, item in value.items()}
        case list() | tuple():
            return [_covered(item, shield) for item in value]
        case _:
            return value


def _leave_open(messages: list[dict[str, Any]]) -> None:
    """Put the end mark behind the last message."""
    if not messages or messages[-1]["role"] != "assistant":
        raise InvalidRequest(
            "continue_final_message needs a last message of the assistant",
            field="input.continue_final_message",
        )
    messages[-1]["content"] += _END


def _cut_at_end(text: str) -> str:
    before, found, _ = text.rpartition(_END)
    if not found:
        raise InvalidRequest(
            "the chat template does not print the last message, so it cannot be continued",
            field="input.continue_final_message",
        )
    return before.replace(_END, "")
