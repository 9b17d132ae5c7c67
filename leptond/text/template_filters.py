"""The filters and tests of chat templates: jinja2's, each priced before it runs.

Those that chat templates have no use for (`pprint`, `random`, `urlize`, `wordwrap`, ...) do not
exist. All take the context first, which also keeps jinja2 from running them while it compiles.
The context is a `leptond.text.template_sandbox.ChatContext`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sized
from typing import Any, cast

from jinja2 import pass_context
from jinja2.tests import TESTS

from leptond.errors import InvalidRequest
from leptond.text import template_syntax as syntax
from leptond.text.role_marks import Role
from leptond.text.template_methods import call_method, price_printf
from leptond.text.work_budget import WorkBudget

__all__ = ["PRICED_FILTERS", "PRICED_TESTS", "to_text"]

_Function = Callable[..., Any]

# These read little of their value, or pass it on item by item.
_LIGHT = [
    "abs",
    "count",
    "d",
    "default",
    "first",
    "float",
    "last",
    "length",
    "map",
    "reject",
    "rejectattr",
    "safe",
    "select",
    "selectattr",
]
# These go through their value.
_DEEP = [
    "capitalize",
    "dictsort",
    "e",
    "escape",
    "groupby",
    "int",
    "items",
    "list",
    "lower",
    "max",
    "min",
    "reverse",
    "sort",
    "title",
    "truncate",
    "unique",
    "upper",
]
_WALKING = {"groupby", "map", "max", "min", "rejectattr", "selectattr", "sort", "unique"}
_COMPARING_TESTS = [
    "!=",
    "<",
    "<=",
    "==",
    ">",
    ">=",
    "divisibleby",
    "eq",
    "equalto",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "le",
    "lessthan",
    "lower",
    "lt",
    "ne",
    "upper",
]
_PLAIN_TESTS = [
    "boolean",
    "defined",
    "even",
    "false",
    "float",
    "integer",
    "iterable",
    "mapping",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "string",
    "true",
    "undefined",
]

_MAX_STEPS = 16  # a path as in `map(attribute="a.b")` is walked for every item
_MAX_DIGITS = 100  # `round` takes 10 to this power
_MAX_INDENT = 16
_INDENT_UNITS = 8  # 16 letters at each of 64 levels


def to_text(budget: WorkBudget, value: Any) -> str:
    """Return what printing `value` gives; for a role, its mark."""
    if isinstance(value, Role):
        return value.mark
    budget.weigh(value)
    return str(value)


def _refuse(message: str) -> InvalidRequest:
    return InvalidRequest(f"the chat template {message}", field="input.messages")


def _call(context: Any, name: str, value: Any, *args: Any, **kwargs: Any) -> Any:
    """Call jinja2's own filter, in the same sandbox."""
    return context.environment.unpriced.call_filter(name, value, args, kwargs, context=context)


def _priced(name: str, *, is_deep: bool) -> _Function:
    """Return jinja2's filter of this name, which pays for what it reads and what it gives."""

    @pass_context
    def priced(context: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        budget: WorkBudget = context.budget
        if args or kwargs:
            budget.weigh([args, kwargs])
            if name in _WALKING:
                _check_paths([*args, *kwargs.values()])
        if is_deep:
            value = budget.settled(value)
            budget.weigh(value)
        else:
            budget.charge_items(len(value) if isinstance(value, Sized) else 0)
        result = _call(context, name, value, *args, **kwargs)
        if isinstance(result, Iterator):
            return budget.counted(result)
        if isinstance(result, str):
            budget.charge_text(len(result))
        return result

    return priced


def _check_paths(arguments: list[Any]) -> None:
    """Refuse long paths in the arguments of filters that look up attributes."""
    for argument in arguments:
        if isinstance(argument, str) and argument.count(".") > _MAX_STEPS:
            raise _refuse(f"walks a path of more than {_MAX_STEPS} steps")


@pass_context
def _batch(context: Any, value: Any, linecount: int, fill_with: Any = None) -> Any:
    context.budget.charge_items(linecount)
    return context.budget.counted(_call(context, "batch", value, linecount, fill_with))


@pass_context
def _center(context: Any, value: Any, width: int = 80) -> Any:
    text = to_text(context.budget, value)
    return call_method(context.budget, text.center, [width], {})


@pass_context
def _format(context: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
    template = to_text(context.budget, value)
    price_printf(context.budget, template, [args, kwargs])
    return _call(context, "format", template, *args, **kwargs)


@pass_context
def _indent(context: Any, s: Any, width: int | str = 4, *flags: Any, **named_flags: Any) -> Any:
    text = to_text(context.budget, s)
    indent = len(width) if isinstance(width, str) else width
    # Every letter may be the end of a line, by one of the signs of `str.splitlines`.
    num_lines = 1 + len(text.splitlines())
    context.budget.charge_text(len(text) + num_lines * indent)
    return _call(context, "indent", text, width, *flags, **named_flags)


@pass_context
def _join(context: Any, value: Any, d: Any = "", attribute: Any = None) -> Any:
    budget: WorkBudget = context.budget
    items = budget.settled(value)
    _check_paths([attribute])
    budget.weigh(items)
    separator = to_text(budget, d)
    budget.charge_text(len(separator) * len(items))
    return _call(context, "join", items, separator, attribute)


@pass_context
def _replace(context: Any, s: Any, old: Any, new: Any, count: int | None = None) -> Any:
    budget: WorkBudget = context.budget
    text, old, new = to_text(budget, s), to_text(budget, old), to_text(budget, new)
    limit = [] if count is None else [count]
    return call_method(budget, text.replace, [old, new, *limit], {})


@pass_context
def _round(context: Any, value: Any, precision: int = 0, method: str = "common") -> Any:
    context.budget.charge()
    context.budget.check_number(value)
    if abs(precision) > _MAX_DIGITS:
        raise _refuse(f"rounds to {precision} digits; {_MAX_DIGITS} at most")
    return _call(context, "round", value, precision, method)


@pass_context
def _slice(context: Any, value: Any, slices: int, fill_with: Any = None) -> Any:
    budget: WorkBudget = context.budget
    items = budget.settled(value)
    budget.charge_items(len(items))
    return budget.counted(_call(context, "slice", items, slices, fill_with))


@pass_context
def _string(context: Any, value: Any) -> Any:
    return value if isinstance(value, str) else to_text(context.budget, value)


@pass_context
def _sum(context: Any, iterable: Any, attribute: Any = None, start: Any = 0) -> Any:
    budget: WorkBudget = context.budget
    items = budget.settled(iterable)
    _check_paths([attribute])
    budget.weigh(items)
    if not isinstance(start, (int, float)):  # lists would be copied once per item
        raise _refuse("sums something else than numbers")
    return _call(context, "sum", items, attribute, start)


@pass_context
def _to_json(
    context: Any,
    value: Any,
    *,
    ensure_ascii: object = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: object = False,
) -> str:
    """Dump as Hugging Face's `apply_chat_template` does: nothing is escaped for HTML."""
    budget: WorkBudget = context.budget
    for _ in range(1 if indent is None else _INDENT_UNITS):
        budget.weigh(value)
    if indent is not None and indent > _MAX_INDENT:
        raise _refuse(f"indents JSON by {indent}; {_MAX_INDENT} at most")
    if separators is not None and sum(map(len, separators)) > _MAX_INDENT:
        raise _refuse("separates JSON by long texts")
    text = json.dumps(
        value,
        ensure_ascii=bool(ensure_ascii),
        indent=indent,
        separators=separators,
        sort_keys=bool(sort_keys),
    )
    budget.charge_text(len(text))
    return text


@pass_context
def _trim(context: Any, value: Any, chars: Any = None) -> Any:
    text = value if isinstance(value, str) else to_text(context.budget, value)
    return call_method(context.budget, text.strip, [chars], {})


@pass_context
def _tick(context: Any, units: Any) -> bool:
    context.budget.charge(units)
    return True


@pass_context
def _weigh(context: Any, value: Any) -> Any:
    value = context.budget.settled(value)
    context.budget.weigh(value)
    return value


@pass_context
def _slice_source(context: Any, value: Any) -> Any:
    if isinstance(value, str):
        context.budget.charge_text(len(value))
    else:
        context.budget.charge_items(len(value) if isinstance(value, Sized) else 0)
    return value


@pass_context
def _concat(context: Any, values: list[Any]) -> str:
    texts = [to_text(context.budget, value) for value in values]
    context.budget.charge_text(sum(map(len, texts)))
    return "".join(texts)


@pass_context
def _key(context: Any, value: Any) -> Any:
    context.budget.charge()
    if not isinstance(value, (str, int, float)) and value is not None:
        raise _refuse(f"uses a {type(value).__name__} as a key")
    return value


def _priced_test(name: str, *, compares: bool) -> _Function:
    test = cast(_Function, TESTS[name])

    @pass_context
    def priced(context: Any, value: Any, *args: Any) -> Any:
        budget: WorkBudget = context.budget
        if not compares:
            budget.charge()
            return test(value, *args)
        value, *others = [budget.settled(operand) for operand in (value, *args)]
        budget.weigh([value, *others])
        return test(value, *others)

    return priced


PRICED_FILTERS: dict[str, _Function] = {
    **{name: _priced(name, is_deep=False) for name in _LIGHT},
    **{name: _priced(name, is_deep=True) for name in _DEEP},
    "batch": _batch,
    "center": _center,
    "format": _format,
    "indent": _indent,
    "join": _join,
    "replace": _replace,
    "round": _round,
    "slice": _slice,
    "string": _string,
    "sum": _sum,
    "tojson": _to_json,
    "trim": _trim,
    syntax.CONCAT: _concat,
    syntax.KEY: _key,
    syntax.SLICE: _slice_source,
    syntax.TICK: _tick,
    syntax.WEIGH: _weigh,
}

PRICED_TESTS: dict[str, _Function] = {
    **{name: _priced_test(name, compares=True) for name in _COMPARING_TESTS},
    **{name: _priced_test(name, compares=False) for name in _PLAIN_TESTS},
}
