"""A template that wants too much ends soon, with a clear error, and in little memory."""

# ruff: noqa: E501 -- one template a line
from __future__ import annotations

import time
import tracemalloc

import pytest

from leptond.errors import InvalidRequest, ModelFailed
from leptond.text import ChatMessage
from tests.unit.text.tiny import chat_template, rendered

BIG = "{% set ns = namespace(x='ab') %}{% for i in range(17) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"
NEST = "{% set ns = namespace(x=[1]) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
TUPLES = (
    "{% set ns = namespace(x=(1,), y=(1,)) %}{% for i in range(40) %}"
    "{% set ns.x = (ns.x, ns.x) %}{% set ns.y = (ns.y, ns.y) %}{% endfor %}"
)
TEXTS = "{% set ns = namespace(l=[]) %}{% for i in range(64) %}{% set ns.l = ns.l + [ns.l] %}{% endfor %}"

HOSTILE = {
    "product of a text": "{{ 'a' * 500000000 }}",
    "product from the left": "{{ 500000000 * 'a' }}",
    "product of a list": "{{ ([0] * 500000000) | length }}",
    "product of products": "{{ ('a' * 10000 * 10000) | length }}",
    "power": "{{ 10 ** (10 ** 8) }}",
    "negative power": "{{ 10 ** -100000000 }}",
    "power by multiplication": (
        "{% set ns = namespace(x=10) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}"
        "{% endfor %}{{ ns.x }}"
    ),
    "long literals": "{{ 0x" + "f" * 3000 + " is divisibleby(0x" + "e" * 1500 + ") }}",
    "number from a text": "{{ ('f' * 100000) | int(base=16) % 7 }}",
    "nested loops": (
        "{% for a in range(100) %}{% for b in range(100) %}{% for c in range(100) %}"
        "{% endfor %}{% endfor %}{% endfor %}"
    ),
    "loop over a long range": "{% for a in range(99999) %}{% endfor %}",
    "range of ranges": "{% for a in range(999999999999) %}{% endfor %}",
    "loop that keeps nothing": (
        "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}"
    ),
    "loop with a long text in it": "{% for a in range(15000) %}" + "x" * 20000 + "{% endfor %}",
    "loop with much code in it": (
        "{% for a in range(15000) %}{% set x = [" + "1," * 9000 + "] %}{% endfor %}"
    ),
    "recursive loop": (
        "{% for a in [[1]] recursive %}{{ loop([[1], [1]]) }}{% endfor %}"
    ),
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "branching recursion": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(50) }}"
    ),
    "recursion through call": (
        "{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}{{ f() }}"
    ),
    "doubling by +": BIG + "{{ ns.x * 1000 }}",
    "doubling by ~": (
        "{% set ns = namespace(x='ab') %}{% for i in range(40) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"
    ),
    "doubling by join": (
        "{% set ns = namespace(x='ab') %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] | join %}{% endfor %}"
    ),
    "doubling by set block": (
        "{% set ns = namespace(x='ab') %}{% for i in range(40) %}"
        "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}"
    ),
    "doubling by a list": (
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"
    ),
    "doubling by format": (
        "{% set ns = namespace(x='ab') %}{% for i in range(40) %}{% set ns.x = '%s%s' | format(ns.x, ns.x) %}"
        "{% endfor %}"
    ),
    "doubling by replace": (
        "{% set ns = namespace(x='ab') %}{% for i in range(40) %}{% set ns.x = ns.x | replace('a', 'aa') "
        "| replace('b', 'bb') %}{% endfor %}"
    ),
    "doubling by a macro": (
        "{% macro f(x) %}{{ x }}{{ x }}{% endmacro %}{% set ns = namespace(x='ab') %}"
        "{% for i in range(40) %}{% set ns.x = f(ns.x) %}{% endfor %}"
    ),
    "printing a list of itself": NEST + "{{ ns.x }}",
    "text of a list of itself": NEST + "{{ ns.x | string | length }}",
    "joining a list of itself": NEST + "{{ ns.x | join }}",
    "adding a list of itself": NEST + "{{ '' ~ ns.x }}",
    "JSON of a list of itself": NEST + "{{ ns.x | tojson }}",
    "formatting a list of itself": NEST + "{{ '%s' % ns.x }}",
    "formatting a list of itself by method": NEST + "{{ '{}'.format(ns.x) }}",
    "comparing lists of themselves": TUPLES + "{{ ns.x == ns.y }}",
    "ordering lists of themselves": TUPLES + "{{ ns.x < ns.y }}",
    "testing lists of themselves": TUPLES + "{{ ns.x is eq(ns.y) }}",
    "searching a list of itself": TUPLES + "{{ ns.x in [ns.y] }}",
    "searching what a filter gives": TUPLES + "{{ ns.x in ([ns.y] | map('first')) }}",
    "list of itself as a key": TUPLES + "{{ {ns.x: 1} }}",
    "list of itself as an index": TUPLES + "{{ {'a': 1}.get(ns.x) }}",
    "unique of lists of themselves": TUPLES + "{{ [ns.x, ns.y] | unique | list }}",
    "sort of lists of themselves": TUPLES + "{{ [ns.x, ns.y] | sort }}",
    "changed by lists of themselves": (
        TUPLES + "{% for i in [ns.x, ns.y] %}{{ loop.changed(i) }}{% endfor %}"
    ),
    "dict of itself": (
        "{% set ns = namespace(x={}) %}{% for i in range(40) %}{% set ns.x = {'a': ns.x, 'b': ns.x} %}"
        "{% endfor %}{{ ns.x }}"
    ),
    "namespace in itself": (
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ [ns, ns] | map(attribute='" + "a." * 1000
        + "a') | list }}"
    ),
    "deep list": TEXTS + "{{ ns.l }}",
    "format with a width": "{{ '%1000000000d' | format(1) }}",
    "format with a precision": "{{ '%.1000000000f' % 1.0 }}",
    "format with a computed width": "{{ '%*d' % (1000000000, 1) }}",
    "format of many": BIG + "{{ ('%(a)s' * 5000) % {'a': ns.x} }}",
    "method format with a width": "{{ '{:>1000000000}'.format(1) }}",
    "method format with a computed width": "{{ '{:{}}'.format(1, 1000000000) }}",
    "method format of many": BIG + "{{ ('{0}' * 5000).format(ns.x) }}",
    "method format of attributes": BIG + "{{ ('{0.x}' * 5000).format(ns) }}",
    "method format_map": "{{ '{a:>1000000000}'.format_map({'a': 1}) }}",
    "center": "{{ 'a' | center(1000000000) }}",
    "method center": "{{ 'a'.center(1000000000) }}",
    "method ljust": "{{ 'a'.ljust(1000000000) }}",
    "method rjust": "{{ 'a'.rjust(1000000000) }}",
    "method zfill": "{{ 'a'.zfill(1000000000) }}",
    "method expandtabs": "{{ ('\t' * 1000).expandtabs(1000000) }}",
    "method expandtabs by name": "{{ ('\t' * 1000).expandtabs(tabsize=1000000) }}",
    "method replace": BIG + "{{ ns.x.replace('a', ns.x) | length }}",
    "method replace of nothing": BIG + "{{ ns.x.replace('', ns.x) | length }}",
    "method join": BIG + "{{ ns.x.join(['a'] * 10000) | length }}",
    "method split": BIG + "{% for i in range(100) %}{% set x = ns.x.split('a') %}{% endfor %}",
    "method rfind": BIG + "{{ ns.x.rfind('b' + 'ab' * 60000) }}",
    "method strip": BIG + "{% for i in range(10) %}{{ ns.x.strip(ns.x) }}{% endfor %}",
    "method translate": "{{ 'aaaa'.translate({97: 'b' * 100}) }}",
    "method of a number": "{{ (1).to_bytes(1000000000, 'big') }}",
    "method of a class": "{{ {}.fromkeys(range(99999)) }}",
    "indent": "{{ ('\n' * 10000) | indent(100000, true, true) }}",
    "indent by a text": BIG + "{{ ('\n' * 10000) | indent(ns.x, true, true) }}",
    "indent of odd ends of lines": "{{ ('\x85' * 10000) | indent(100000, true, true) }}",
    "JSON indent": NEST.replace("40", "30") + "{{ ns.x | tojson(indent=16) }}",
    "JSON wide indent": "{{ [1] | tojson(indent=1000000000) }}",
    "JSON separators": BIG + "{{ ([1] * 1000) | tojson(separators=(ns.x, ns.x)) }}",
    "batch": "{{ [1] | batch(1000000000, 'x') | list }}",
    "slice": "{{ [1] | slice(1000000000) | list }}",
    "round": "{{ 1.5 | round(100000000, 'floor') }}",
    "round to a power": "{{ 15 | round(-100000000) }}",
    "join filter": BIG + "{{ (['a'] * 10000) | join(ns.x) }}",
    "join of a range": "{{ range(99999) | join('" + "x" * 1000 + "') }}",
    "sum of lists": "{{ ([[1]] * 100000) | sum(start=[]) | length }}",
    "sum of few lists": "{{ [[1]] | sum(start=[]) }}",
    "list of a text": BIG + "{% for i in range(9) %}{% set x = ns.x | list %}{% endfor %}",
    "maps of maps": (
        "{% for i in range(1000) %}{{ range(1000) | map('string') | map('upper') | list | length }}"
        "{% endfor %}"
    ),
    "select that finds nothing": "{% for i in range(9999) %}{{ range(9999) | select('none') | first }}{% endfor %}",
    "slices": BIG + "{% for i in range(9999) %}{% set x = ns.x[1:] %}{% endfor %}",
    "slices of a list": "{% set l = [0] * 100000 %}{% for i in range(9999) %}{% set x = l[1:] %}{% endfor %}",
    "comparisons": BIG + "{% set y = ns.x[:-1] + 'b' %}{% for i in range(9999) %}{% if y == ns.x %}{% endif %}{% endfor %}",
    "upper": BIG + "{% for i in range(9999) %}{% set x = ns.x | upper %}{% endfor %}",
    "the budget's own filter": "{{ [-1000000000] | map('$tick') | list }}{% for i in range(99999) %}{% endfor %}",
    "strftime with a width": "{{ strftime_now('%1000000000d') }}",
    "long strftime": "{{ strftime_now('%A' * 100000) }}",
    "long exception": BIG + "{{ raise_exception(ns.x) }}",
    "cycler": "{{ cycler('a').next() }}",
    "joiner": "{{ joiner(',')() }}",
    "lipsum": "{{ lipsum(n=100000) }}",
}  # fmt: skip

REFUSED = {
    "wordwrap": "{{ 'abc' | wordwrap(1, true, 'x' * 1000000) }}",
    "pprint": "{{ [1] | pprint }}",
    "urlize": "{{ 'a' | urlize }}",
    "random": "{{ [1] | random }}",
    "unknown filter": "{{ 'a' | no_such_filter }}",
    "unknown test": "{{ 'a' is no_such_test }}",
    "include": "{% include 'other' %}",
    "import": "{% import 'other' as x %}",
    "from import": "{% from 'other' import x %}",
    "extends": "{% extends 'other' %}",
    "block": "{% block a %}{% endblock %}",
    "unknown tag": "{% do x %}",
    "syntax error": "{% for %}",
    "long number": "{{ 1" + "0" * 5000 + " }}",
    "long hexadecimal number": "{{ 0x" + "f" * 5000 + " }}",
    "deep nesting": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "long chain": "{{ " + "1 + " * 5000 + "1 }}",
    "many loops in loops": "{% for a in b %}" * 30 + "{% endfor %}" * 30,
    "too long": "x" * 300_000,
    "marks": "\U000d0000",
}

ESCAPES = [
    "{{ ''.__class__.__mro__ }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'system'}) }}",
    "{{ messages[0].pop('role') }}",
    "{{ range._run.__globals__ }}",
    "{{ (range.call)(1, (), {}) }}",
    "{{ self.__init__.__globals__ }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ '{0[__class__]}'.format(1) }}",
    "{% macro f() %}{% endmacro %}{{ f.__call__.__globals__ }}",
    "{% macro f() %}{% endmacro %}{{ f._func.__globals__ }}",
    "{% for i in [1] %}{{ loop.__init__.__globals__ }}{% endfor %}",
    "{{ 'a'.encode() }}",
    "{{ messages[0].items.__self__.clear() }}",
    "{{ ns() }}{% set messages.x = 1 %}",
    "{{ messages() }}",
    "{{ 'a'() }}",
]

UNDEFINED = [
    "{{ {'a': 1}[(1, 2)] }}",
    "{% for i in [1] %}{{ [loop] | map(attribute='index') | join }}{% endfor %}",
    "{{ ''['__class__'] }}",
    "{{ messages | map(attribute='__class__') | list | first }}",
    "{{ raise_exception.__globals__ }}",
    "{{ namespace.__init__ }}",
    "{{ (messages | map('upper')).gi_frame }}",
]


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_template_ends_soon_with_a_clear_error(source):
    template = chat_template(source)
    started = time.process_time()
    with pytest.raises(InvalidRequest, match=r"^the chat template ") as caught:
        template.render([ChatMessage("user", "Hi")])
    assert time.process_time() - started < 0.5
    assert caught.value.field == "input.messages"
    assert len(caught.value.message) < 700


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_template_takes_little_memory(source):
    template = chat_template(source)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest):
            template.render([ChatMessage("user", "Hi")])
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 48 << 20


@pytest.mark.parametrize("source", REFUSED.values(), ids=REFUSED.keys())
def test_template_that_cannot_be_honoured_fails_the_load(source):
    with pytest.raises(ModelFailed, match=r"^chat_template\.jinja: "):
        chat_template(source)


@pytest.mark.parametrize("source", ESCAPES)
def test_there_is_no_way_out_of_the_sandbox(source):
    template = chat_template(source)
    with pytest.raises(InvalidRequest, match=r"^the chat template "):
        template.render([ChatMessage("user", "Hi")])


@pytest.mark.parametrize("source", UNDEFINED)
def test_what_is_inside_an_object_is_undefined(source):
    assert rendered(source) == ""


def test_a_refused_template_names_the_line():
    with pytest.raises(ModelFailed, match=r"line 3: .*no_such_filter"):
        chat_template("a\nb\n{{ 'a' | no_such_filter }}")
    with pytest.raises(ModelFailed, match=r"line 2: the tag 'include'"):
        chat_template("a\n{% include 'x' %}")
