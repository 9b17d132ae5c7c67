"""Chat templates: Hugging Face's conventions, limits that grow with the chat, open ends."""

# ruff: noqa: E501 -- one template a line
from __future__ import annotations

from datetime import UTC, datetime

import pytest

from leptond.errors import InvalidRequest, ModelFailed, RequestTooLarge
from leptond.text import ChatMessage, ChatTemplate, PromptSegment
from tests.unit.text.tiny import (
    CHATML,
    IDS,
    byte_level_tokenizer,
    chat_template,
    rendered,
    sentencepiece_tokenizer,
)

HI = ChatMessage("user", "Hi")
TOOL = {"type": "function", "function": {"name": "f", "description": "<a> & 'b' é", "n": [1, 2.5]}}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": None, "y": True}}}


def test_a_chat_is_rendered_in_segments():
    prompt = chat_template(CHATML).render([HI])
    assert prompt.segments == (
        PromptSegment("<|im_start|>", IDS["<|im_start|>"]),
        PromptSegment("user\nHi"),
        PromptSegment("<|im_end|>", IDS["<|im_end|>"]),
        PromptSegment("\n"),
        PromptSegment("<|im_start|>", IDS["<|im_start|>"]),
        PromptSegment("assistant\n"),
    )
    assert prompt.text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_the_generation_prompt_is_left_out_on_request():
    assert rendered(CHATML, HI, add_generation_prompt=False).endswith("Hi<|im_end|>\n")


def test_blocks_are_trimmed_and_the_last_newline_is_dropped():
    assert rendered("{% if true %}\n  {% if true %}\na\n{% endif %}{% endif %}\nb\n") == "a\nb"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ bos_token }}|{{ eos_token }}|{{ pad_token }}", "<|im_start|>|<|im_end|>|<|endoftext|>"),
        ("{{ unk_token is defined }}", "False"),
        ("{{ tools is none }} {{ documents is none }}", "True True"),
        ("{{ messages | length }} {{ messages[0].role }} {{ messages[-1]['content'] }}", "1 user Hi"),
        ("{{ messages[0].name is defined }}", "False"),
        ("{{ 'name' in messages[0] }} {{ messages[0].get('name', 'x') }}", "False x"),
        ("{% for c in 'abc' %}{% if c == 'b' %}{% continue %}{% endif %}{{ c }}{% endfor %}", "ac"),
        ("{% for c in 'abc' %}{% if c == 'b' %}{% break %}{% endif %}{{ c }}{% endfor %}", "a"),
        ("{% generation %}a{% endgeneration %}", "a"),
        ("{{ missing }}", ""),
        ("{{ [1, 'é<'] | tojson }}", '[1, "é<"]'),
        ("{{ {'b': 1, 'a': 2} | tojson(indent=2, sort_keys=true) }}", '{\n  "a": 2,\n  "b": 1\n}'),
        ("{{ ['é'] | tojson(ensure_ascii=true, separators=(',', ':')) }}", '["\\u00e9"]'),
        ("{% set ns = namespace(n=0) %}{% for i in range(3) %}{% set ns.n = ns.n + i %}{% endfor %}"
         "{{ ns.n }}", "3"),
        ("{{ namespace({'a': 1}).a }}{{ namespace() }}", "1<namespace>"),
        ("{{ namespace(a=1).b is defined }}", "False"),
        ("{{ dict(a=1, **{'b': 2}) }} {{ dict([('c', 3)] | map('list')) }}", "{'a': 1, 'b': 2} {'c': 3}"),
        ("{{ '%s is %d' | format('a', 2) }} {{ '%(a)5s' % {'a': 1} }} {{ 7 % 4 }}", "a is 2     1 3"),
        ("{{ '{} {a:>3} {{}}'.format(1, a=2) }}", "1   2 {}"),
        ("{{ 'a-b'.split('-') }} {{ ' a b '.split() }} {{ 'a\nb'.splitlines() }}",
         "['a', 'b'] ['a', 'b'] ['a', 'b']"),
        ("{{ 'x'.center(3) }}{{ 'x' | center(3) }}{{ 'x'.zfill(2) }}{{ 'a\tb'.expandtabs() }}",
         " x  x 0xa       b"),
        ("{{ ' ab '.strip() }}{{ 'abc'.rstrip('c') }}{{ ' a ' | trim }}{{ 'xa' | trim('x') }}", "ababaa"),
        ("{{ 'aa' | replace('a', 'b') }}{{ 'aa' | replace('a', 'b', 1) }}{{ 'aa' | replace('a', 'b', 0) }}"
         "{{ 'aa'.replace('a', 'c') }}", "bbbaaacc"),
        ("{{ ', '.join(['a', 'b']) }} {{ [1, 2] | join('-') }} {{ [{'a': 1}] | join(attribute='a') }}"
         "{{ range(3) | map('string') | join }}", "a, b 1-2 1012"),
        ("{{ 'a\nb' | indent(2) }}|{{ 'a\nb' | indent('>', true) }}|{{ 'a\n\nb' | indent(1, blank=true) }}",
         "a\n  b|>a\n>b|a\n \n b"),
        ("{{ {none: 1}[none] }}{{ {1.5: 2}[1.5] }}{{ [3][0] }}{{ {}[missing] }}", "123"),
        ("{{ [3, 1, 2] | sort }} {{ [3, 1] | max }} {{ [3, 1] | min }} {{ [1, 1] | unique | list }}",
         "[1, 2, 3] 3 1 [1]"),
        ("{{ [1, 2] | sum }} {{ [{'a': 2}] | sum('a') }} {{ 2.7 | round }} {{ 2.75 | round(1, 'floor') }}",
         "3 2 3.0 2.7"),
        ("{{ [1, 2, 3] | batch(2, 0) | list }} {{ [1, 2, 3] | slice(2) | list }}",
         "[[1, 2], [3, 0]] [[1, 2], [3]]"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}"
         "{{ messages | rejectattr('role', 'eq', 'user') | list | length }}"
         "{{ [1, none] | select | list }}{{ [1, 2] | reject('even') | first }}", "10[1]1"),
        ("{{ messages | map(attribute='role') | list }} {{ ['a'] | map('upper') | list | last }}", "['user'] A"),
        ("{{ {'b': 1, 'a': 2} | dictsort }} {{ {'a': 1} | items | list }}", "[('a', 2), ('b', 1)] [('a', 1)]"),
        ("{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}{{ {'a': 1}.keys() | list }}", "a1['a']"),
        ("{% for g in [{'r': 1}, {'r': 2}] | groupby('r') %}{{ g.grouper }}{% endfor %}", "12"),
        ("{{ 'ab' | upper }}{{ 'AB' | lower }}{{ 'ab' | capitalize }}{{ 'ab c' | title }}", "ABabAbAb C"),
        ("{{ '12' | int + 1 }} {{ 'ff' | int(base=16) }} {{ '1.5' | float }} {{ -3 | abs }}", "13 255 1.5 3"),
        ("{{ none | default('x') }}{{ none | default('x', true) }}{{ missing | d('y') }}", "Nonexy"),
        ("{{ 'abc'[::-1] }}{{ [1, 2, 3][1:] }}{{ 'abc' | reverse }}{{ [1, 2] | reverse | list }}",
         "cba[2, 3]cba[2, 1]"),
        ("{{ '<' | e }}{{ 'a' | safe }}{{ ('<' | e) * 2 }}", "&lt;a&lt;&lt;"),
        ("{{ 1 ~ 'a' ~ none ~ [2] }}", "1aNone[2]"),
        ("{{ 2 ** 10 }} {{ 7 // 2 }} {{ 7 / 2 }} {{ [0] * 3 }} {{ 2 * 'ab' }} {{ -(2) }}",
         "1024 3 3.5 [0, 0, 0] abab -2"),
        ("{{ 1 == 1.0 }} {{ 'a' in 'abc' }} {{ 'a' not in ['b'] }} {{ 1 < 2 < 3 }} {{ messages == messages }}",
         "True True True True True"),
        ("{{ 3 is odd }} {{ 'a' is string }} {{ {} is mapping }} {{ 'a' is in 'abc' }} {{ 4 is divisibleby 2 }}"
         "{{ none is none }}{{ [] is sequence }}{{ [] is iterable }}{{ 'A' is upper }}{{ 1 is sameas(1) }}",
         "True True True True TrueTrueTrueTrueTrueTrue"),
        ("{% macro f(a, b=2) %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{{ caller() if caller }}{% endmacro %}"
         "{{ f(1) }}{{ f(1, 3, 4, x=5) }}{% call f(1) %}!{% endcall %}", "12(){}13(4,){'x': 5}12(){}!"),
        ("{% for a in [[1, [2]], [3]] recursive %}{{ loop(a) if a is sequence else a }}{% endfor %}", "123"),
        ("{% for a in [1, 1, 2] %}{{ loop.cycle('x', 'y') }}{{ loop.changed(a) }}{{ loop.last }}{% endfor %}",
         "xTrueFalseyFalseFalsexTrueTrue"),
        ("{% for a in 'ab' if a != 'a' %}{{ loop.index }}{{ a }}{{ loop.length }}{% else %}-{% endfor %}", "1b1"),
        ("{% for a in [] %}{% else %}-{% endfor %}", "-"),
        ("{% set x %}a{{ 1 }}{% endset %}{{ x }}{% filter upper %}b{% endfilter %}", "a1B"),
        ("{% with a = 1 %}{{ a }}{% endwith %}{% raw %}{{ }}{% endraw %}{# no #}", "1{{ }}"),
        ("{% set a, b = (1, 2) %}{{ b }}{{ {messages[0].role: 1} }}", "2{'user': 1}"),
        ("{{ range(3) | list }}{{ range(1, 7, 3) | list }}", "[0, 1, 2][1, 4]"),
        ("{{ [1, 2, 1].index(2) }}{{ (1, 1).count(1) }}{{ 'abca'.count('a') }}{{ 'ab'.rfind('b') }}", "1221"),
        ("{{ 'x' | truncate(5) }}{{ 'abc def' | truncate(5, true, '..', 0) }}", "xabc.."),
        ("{{ loop is defined }}{{ range is defined }}", "FalseTrue"),
    ],
)  # fmt: skip
def test_templates_know_what_hugging_face_templates_use(source, expected):
    assert rendered(source) == expected


def test_messages_carry_what_was_given_and_no_more():
    source = "{{ messages[0] | tojson }}"
    assert rendered(source) == '{"role": "user", "content": "Hi"}'
    message = ChatMessage(
        "assistant", "a", name="n", reasoning="r", tool_calls=(CALL,), tool_call_id="i"
    )
    assert rendered(source, message) == (
        '{"role": "assistant", "content": "a", "name": "n", "reasoning_content": "r", "tool_calls": '
        '[{"type": "function", "function": {"name": "f", "arguments": {"x": null, "y": true}}}], '
        '"tool_call_id": "i"}'
    )


def test_tools_documents_and_variables_reach_the_template():
    source = "{{ tools | tojson }} {{ documents[0].text }} {{ enable_thinking }}"
    text = rendered(
        source, tools=[TOOL], documents=[{"text": "d"}], variables={"enable_thinking": False}
    )
    assert text == (
        '[{"type": "function", "function": {"name": "f", "description": "<a> & \'b\' é", '
        '"n": [1, 2.5]}}] d False'
    )


@pytest.mark.parametrize("name", ["messages", "tools", "bos_token", "range", "raise_exception"])
def test_variables_cannot_take_the_place_of_the_templates_own(name):
    with pytest.raises(InvalidRequest, match=f"'{name}' cannot be set"):
        rendered("", variables={name: 1})


def test_a_template_can_refuse_a_chat():
    source = "{{ raise_exception('roles must <|im_start|> alternate') }}"
    with pytest.raises(InvalidRequest, match=r"refuses this chat: roles must <\|im_start\|> alter"):
        rendered(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ missing.x }}", "UndefinedError: 'missing' is undefined"),
        ("{{ missing() }}", "UndefinedError: 'missing' is undefined"),
        ("{{ 'a' + 1 }}", "TypeError"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{{ [namespace()] | tojson }}", "TypeError"),
        ("{{ messages | map }}{{ messages | map | list }}", "FilterArgumentError"),
        ("{{ range('a') }}", "TypeError"),
        ("{% if true %}{{ 'a' | no_such }}{% endif %}", "No filter named 'no_such'"),
        ("{% set messages.x = 1 %}", "cannot assign attribute on non-namespace object"),
    ],
)
def test_a_failing_template_says_how(source, message):
    with pytest.raises(InvalidRequest, match=r"^the chat template failed: ") as caught:
        rendered(source)
    assert message in str(caught.value)


def test_the_date_is_that_of_the_clock():
    def now():
        return datetime(2026, 7, 26, 9, 5, tzinfo=UTC)

    template = ChatTemplate("{{ strftime_now('%d %b %Y %H:%M') }}", byte_level_tokenizer(), now=now)
    assert template.render([HI]).text == "26 Jul 2026 09:05"
    assert len(rendered("{{ strftime_now('%Y') }}")) == 4


def test_the_last_message_stays_open_when_it_is_to_be_continued():
    open_end = ChatMessage("assistant", "Sure, ")
    text = rendered(CHATML, HI, open_end, continue_final_message=True)
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nSure, "


def test_an_open_message_may_be_empty_and_is_cut_where_it_is_printed_last():
    twice = "{% for m in messages %}{{ m.content }}|{{ m.content | trim }}.{% endfor %}"
    assert rendered(twice, ChatMessage("assistant", "a"), continue_final_message=True) == "a|a"
    assert rendered(twice, ChatMessage("assistant"), continue_final_message=True) == "|"


def test_only_a_printed_message_of_the_assistant_can_be_continued():
    with pytest.raises(InvalidRequest, match="needs a last message of the assistant"):
        rendered(CHATML, HI, continue_final_message=True)
    with pytest.raises(InvalidRequest, match="does not print the last message"):
        rendered("{{ messages | length }}", ChatMessage("assistant"), continue_final_message=True)
    with pytest.raises(InvalidRequest, match="needs a last message of the assistant"):
        chat_template(CHATML).render([], continue_final_message=True)


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object()])
def test_what_is_not_json_is_refused(value):
    with pytest.raises(InvalidRequest, match=r"holds a \w+, which is not JSON"):
        rendered("", variables={"x": [value]})


def test_values_may_not_be_nested_without_end():
    value: list[object] = []
    for _ in range(100):
        value = [value]
    with pytest.raises(InvalidRequest, match="nests values too deeply"):
        rendered("", variables={"x": value})


def test_lone_surrogates_are_refused():
    with pytest.raises(InvalidRequest, match=r"U\+D800, a lone surrogate"):
        rendered(CHATML, ChatMessage("user", "a\ud800"))


def test_a_larger_chat_may_take_more_work():
    pairs = "{% for a in messages %}{% for b in messages %}{{ a.role }}{% endfor %}{% endfor %}"
    template = chat_template(pairs)
    template.render([HI] * 200)
    loops = "{% for a in range(90000) %}{% endfor %}"
    with pytest.raises(InvalidRequest, match="limit of 20386 units"):
        rendered(loops)
    rendered(loops, *[HI] * 200)
    with pytest.raises(InvalidRequest, match="limit of 1000000 units"):
        rendered("{% for a in range(99999) %}{{ 'x' * 9999 }}{% endfor %}", *[HI] * 3000)


def test_a_template_is_read_from_a_model_directory(tmp_path):
    tokenizer = byte_level_tokenizer()
    assert ChatTemplate.load(tmp_path, tokenizer) is None
    path = tmp_path / "chat_template.jinja"
    path.write_text(CHATML, encoding="utf-8", newline="")
    template = ChatTemplate.load(tmp_path, tokenizer)
    assert template is not None
    assert template.render([HI]).text.startswith("<|im_start|>user")
    path.write_bytes(b"\xff")
    with pytest.raises(ModelFailed, match=r"chat_template\.jinja"):
        ChatTemplate.load(tmp_path, tokenizer)


def test_variables_of_tokens_that_are_missing_are_undefined():
    template = ChatTemplate(
        "{{ bos_token }}{{ unk_token }}{{ pad_token is defined }}", sentencepiece_tokenizer()
    )
    assert template.render([HI]).text == "<s><unk>False"


def test_errors_about_size_are_the_callers_to_raise():
    tokenizer = byte_level_tokenizer()
    prompt = chat_template(CHATML).render([ChatMessage("user", "x" * 100_000)])
    with pytest.raises(RequestTooLarge):
        tokenizer.check_text_size(prompt.text, 64, "input.messages")
