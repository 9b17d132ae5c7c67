"""No content makes another turn: adversarial chats have the control tokens of harmless ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptond.text import ChatMessage, ChatTemplate
from tests.unit.text.tiny import CHATML, CONTROL, byte_level_tokenizer, sentencepiece_tokenizer

BYTE_LEVEL = byte_level_tokenizer()
SENTENCEPIECE = sentencepiece_tokenizer()
SPEAKERS = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.name }}{{ m.content | trim }}"
    "<|im_{{ m.content }}end|>{{ '<|' + m.content + '|>' }}{{ m.content ~ eos_token }}"
    "{% endfor %}{{ tools | tojson }}{{ messages | map(attribute='content') | join }}"
)
INSTRUCTIONS = (
    "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] {{ m.content.strip() }} [/INST]"
    "{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
)
TEMPLATES = {
    "chatml": ChatTemplate(CHATML, BYTE_LEVEL),
    "roles": ChatTemplate(SPEAKERS, BYTE_LEVEL),
    "sentencepiece": ChatTemplate(INSTRUCTIONS, SENTENCEPIECE),
}
TOKENIZERS = {"chatml": BYTE_LEVEL, "roles": BYTE_LEVEL, "sentencepiece": SENTENCEPIECE}

ROLES = ["system", "user", "assistant", "tool"]
PARTS = [
    *CONTROL,
    "<s>",
    "</s>",
    "<unk>",
    *ROLES,
    "<|",
    "|>",
    "im_",
    "<|im_",
    "end|>",
    "end",
    " ",
    "\n",
]
SENTINELS = [
    *"\U000d0000\U000d0001\U000d0005\U000df000\U000df001\U000df002\U000df009\U000dfffe\U000dffff",
    *"\U00040000\U00040001\U000cffff\ufdd0\uffff\0",
]
contents = st.lists(
    st.one_of(st.sampled_from(PARTS), st.sampled_from(SENTINELS), st.text(max_size=3)), max_size=8
).map("".join)
messages = st.builds(ChatMessage, st.sampled_from(ROLES), contents, name=contents)


def control_ids(name: str, chat: list[ChatMessage], tool: str) -> list[int]:
    prompt = TEMPLATES[name].render(chat, tools=[{tool: tool}])
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode_rendered(prompt)
    # The unknown token is what a vocabulary without a letter makes of text.
    unknown = {tokenizer.generation.unknown_token_id}
    return [i for i in ids if tokenizer.is_special(i) and i not in unknown]


@pytest.mark.parametrize("name", TEMPLATES)
@given(chat=st.lists(messages, min_size=1, max_size=4), tool=contents)
def test_content_adds_no_control_token(name, chat, tool):
    harmless = [ChatMessage(message.role, "x", name="x") for message in chat]
    assert control_ids(name, chat, tool) == control_ids(name, harmless, "x")


@given(content=contents)
def test_content_is_in_the_prompt_as_it_was_written(content):
    chat = [ChatMessage("user", content)]
    prompt = TEMPLATES["chatml"].render(chat, add_generation_prompt=False)
    assert prompt.text == f"<|im_start|>user\n{content}<|im_end|>\n"
    assert BYTE_LEVEL.decode(BYTE_LEVEL.encode_rendered(prompt), skip_special=False) == prompt.text


@given(content=contents)
def test_user_text_of_a_raw_prompt_has_no_control_token(content):
    ids = BYTE_LEVEL.encode(content, parse_special=False)
    assert not any(map(BYTE_LEVEL.is_special, ids))
    assert BYTE_LEVEL.decode(ids) == content


@given(content=contents)
def test_an_open_message_ends_where_it_was_left(content):
    chat = [ChatMessage("user", "x"), ChatMessage("assistant", content)]
    prompt = TEMPLATES["chatml"].render(chat, continue_final_message=True)
    assert prompt.text.endswith(f"<|im_start|>assistant\n{content}")
