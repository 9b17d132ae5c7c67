"""From what a caller wrote to token ids, off the event loop.

Raw prompts, token ids and conversations become the same thing here. Sizes are refused by bytes
before anything is tokenised.
"""

from __future__ import annotations

from collections.abc import Sequence

from leptond.errors import InvalidRequest, LeptondError, UnsupportedCapability
from leptond.models import ServedModel
from leptond.server.convert import requests
from leptond.streaming import BlockingPool
from leptond.types import Task
from leptond.v1 import chat_pb2, generation_pb2

__all__ = ["chat_prompt_ids", "raw_prompt_ids", "render_chat"]


async def raw_prompt_ids(
    wire: generation_pb2.GenerationInput, model: ServedModel, pool: BlockingPool
) -> tuple[int, ...]:
    """Token ids of a raw prompt; of a sequence-to-sequence model, of what its encoder reads.

    Unless `add_special_tokens` is false they are framed as the model was trained: a decoder's
    prompt by its BOS token where it has one, an encoder's text by its end and what else it has.

    Raises:
        InvalidRequest: the prompt is missing, empty, too long or holds what is not text.
    """
    model.require(Task.GENERATE)
    if wire.WhichOneof("prompt") == "token_ids":
        if wire.HasField("add_special_tokens") or wire.HasField("parse_special"):
            msg = (
                "input.token_ids are taken as they are: "
                "parse_special and add_special_tokens do not apply"
            )
            raise InvalidRequest(msg, field="input.token_ids")
        return requests.prompt_ids(
            wire.token_ids.ids,
            model.capabilities.vocab_size,
            model.max_context_tokens,
            "input.token_ids",
        )
    if not wire.text:
        raise InvalidRequest("input holds no prompt, or an empty one", field="input")
    ids = await encode_text(
        wire.text,
        model,
        pool,
        parse_special=requests.optional(wire, "parse_special", default=True),
        add_special=requests.optional(wire, "add_special_tokens", default=None),
        field="input.text",
    )
    if not ids:
        raise InvalidRequest("input.text has no tokens", field="input.text")
    return tuple(ids)


async def encode_text(
    text: str,
    model: ServedModel,
    pool: BlockingPool,
    *,
    parse_special: bool,
    add_special: bool | None,
    field: str,
) -> Sequence[int]:
    """Tokenise one text off the loop, as the model reads it, after a look at its size.

    Args:
        text: what a caller sent.
        model: the tokenizer of its encoder counts, where it has one.
        pool: threads for it.
        parse_special: special tokens in the text become what they name.
        add_special: put in the special tokens that frame a text; None does as the model was
            trained.
        field: the request's field, for messages.

    Raises:
        RequestTooLarge, InvalidRequest: with `field`.
    """
    if model.text.encoder is not None:

        def encode() -> Sequence[int]:
            return _encode_source(
                text,
                model,
                parse_special=parse_special,
                add_special=add_special is not False,
                field=field,
            )

        return await pool.run(encode)
    tokenizer = model.tokenizer
    tokenizer.check_text_size(text, model.max_context_tokens, field)
    return await pool.run(tokenizer.encode, text, parse_special=parse_special, add_bos=add_special)


def _encode_source(
    text: str, model: ServedModel, *, parse_special: bool, add_special: bool, field: str
) -> Sequence[int]:
    try:
        (encoded,) = model.encoder.encode(
            [text],
            max_tokens=model.max_context_tokens,
            truncate=None,
            parse_special=parse_special,
            add_special=add_special,
        )
    except LeptondError as error:  # it counts texts, and the caller wrote one
        raise type(error)(error.message.replace("texts[0]", field), field=field) from error
    return encoded.token_ids


async def chat_prompt_ids(
    wire: chat_pb2.ChatInput, model: ServedModel, pool: BlockingPool, limits: requests.RequestLimits
) -> tuple[int, ...]:
    """Token ids of a rendered conversation."""
    _, ids = await render_chat(wire, model, pool, limits)
    return ids


async def render_chat(
    wire: chat_pb2.ChatInput, model: ServedModel, pool: BlockingPool, limits: requests.RequestLimits
) -> tuple[str, tuple[int, ...]]:
    """The rendered conversation and its token ids.

    Raises:
        UnsupportedCapability: the model has no chat template.
        InvalidRequest: the conversation is too long, or the template refuses it.
    """
    template = model.template
    if template is None:
        raise UnsupportedCapability(f"model {model.name} has no chat template", field="model")
    continues = wire.continue_final_message
    opens = requests.optional(wire, "add_generation_prompt", default=not continues)

    def render() -> tuple[str, tuple[int, ...]]:
        messages = requests.chat_messages(wire, limits)
        for index, message in enumerate(messages):
            field = f"input.messages[{index}].content"
            model.tokenizer.check_text_size(message.content, model.max_context_tokens, field)
        prompt = template.render(
            messages, add_generation_prompt=opens, continue_final_message=continues
        )
        model.tokenizer.check_text_size(prompt.text, model.max_context_tokens, "input.messages")
        return prompt.text, tuple(model.tokenizer.encode_rendered(prompt))

    return await pool.run(render)
