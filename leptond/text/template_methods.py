"""The methods that chat templates may call on plain values, each priced before it runs.

A method that is not listed does not exist for a template: `bytes`, `translate`, `format_map` and
whatever changes a value among them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from string import Formatter
from typing import Any

from leptond.errors import InvalidRequest
from leptond.text.work_budget import WorkBudget

__all__ = ["call_method", "price_addition", "price_format", "price_printf", "price_product"]

_Price = Callable[[WorkBudget, str, Sequence[Any]], None]

_PRINTF = re.compile(r"%(?:\([^)]*\))?[#0\- +]*(?P<width>\*|\d*)(?:\.(?P<precision>\*|\d*))?")
_NUMBER = re.compile(r"\d+")
_MAX_SCAN_SHIFT = 10  # a needle compared with a haystack at every place: 1024 letters a unit


def call_method(
    budget: WorkBudget, method: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """Call the bound `method`.

    Raises:
        InvalidRequest: the method is not one for templates, or the budget is spent.
    """
    owner, name = method.__self__, method.__name__
    args = [budget.settled(argument) for argument in args]
    arguments = [*args, *kwargs.values()]
    budget.weigh(arguments)
    if isinstance(owner, str) and name in _TEXT_METHODS:
        _TEXT_METHODS[name](budget, owner, arguments)
    elif isinstance(owner, Mapping) and name in {"get", "items", "keys", "values"}:
        budget.charge()
    elif isinstance(owner, (list, tuple)) and name in {"count", "index"}:
        budget.weigh(owner)
    else:
        kind = type(owner).__name__
        message = f"the chat template calls '{name}' of a {kind}, which is not allowed"
        raise InvalidRequest(message, field="input.messages")
    return method(*args, **kwargs)


def price_addition(budget: WorkBudget, left: Any, right: Any) -> None:
    """Pay for `left + right`."""
    if isinstance(left, str) and isinstance(right, str):
        budget.charge_text(len(left) + len(right))
    elif isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        budget.charge_items(len(left) + len(right))
    else:
        budget.charge()


def price_product(budget: WorkBudget, left: Any, right: Any) -> None:
    """Pay for `left * right`, where one of them may be a text or a list."""
    for sequence, count in ((left, right), (right, left)):
        if isinstance(count, int):
            if isinstance(sequence, str):
                budget.charge_text(len(sequence) * count)
            elif isinstance(sequence, (list, tuple)):
                budget.charge_items(len(sequence) * count)
    budget.charge()


def price_printf(budget: WorkBudget, template: str, values: Any) -> None:
    """Pay for `template % values`.

    Every conversion is taken to print the longest of the values.
    """
    budget.charge_text(len(template))
    for conversion in _PRINTF.finditer(template):
        if "*" in conversion.groups():
            raise _refuse("a width of '*'")
        budget.weigh(values)
        budget.charge_text(sum(int(number) for number in conversion.groups() if number))


def price_format(budget: WorkBudget, template: str, values: Sequence[Any]) -> None:
    """Pay for `template.format(*values)`; fields with attributes or computed widths are refused."""
    budget.charge_text(len(template))
    for _, name, spec, _ in Formatter().parse(template):
        if name is None:
            continue
        if "." in name or "[" in name:
            raise _refuse(f"the field '{name[:40]}'")
        if spec and "{" in spec:
            raise _refuse(f"the width '{spec[:40]}'")
        budget.weigh(list(values))
        budget.charge_text(sum(map(int, _NUMBER.findall(spec or ""))))


def _refuse(what: str) -> InvalidRequest:
    message = f"the chat template formats a text with {what}, which is not allowed"
    return InvalidRequest(message, field="input.messages")


def _linear(budget: WorkBudget, text: str, arguments: Sequence[Any]) -> None:
    del arguments  # paid for already
    budget.charge_text(len(text))


def _scan(budget: WorkBudget, text: str, arguments: Sequence[Any]) -> None:
    # These compare their argument at every place, in the worst case to its end.
    needle = sum(len(argument) for argument in arguments if isinstance(argument, str))
    budget.charge_text(len(text))
    budget.charge((len(text) * needle) >> _MAX_SCAN_SHIFT)


def _pad(budget: WorkBudget, text: str, arguments: Sequence[Any]) -> None:
    budget.charge_text(len(text) + sum(value for value in arguments if isinstance(value, int)))


def _expand_tabs(budget: WorkBudget, text: str, arguments: Sequence[Any]) -> None:
    width = sum(value for value in arguments if isinstance(value, int)) or 8
    budget.charge_text(len(text) + text.count("\t") * width)


def _join(budget: WorkBudget, text: str, arguments: Sequence[Any]) -> None:
    num_items = sum(len(value) for value in arguments if hasattr(value, "__len__"))
    budget.charge_text(len(text) * num_items)


def _replace(budget: WorkBudget, text: str, arguments: Sequence[Any]) -> None:
    old, new, *_ = (*(value for value in arguments if isinstance(value, str)), "", "")
    budget.charge_text(len(text))
    num_replaced = text.count(old) if old else len(text) + 1
    budget.charge_text(len(text) + num_replaced * len(new))


def _split(budget: WorkBudget, text: str, arguments: Sequence[Any]) -> None:
    _scan(budget, text, arguments)
    separator = next((value for value in arguments if isinstance(value, str)), None)
    # Blanks and ends of lines may be every other letter.
    num_pieces = text.count(separator) if separator else len(text) >> 1
    budget.charge(num_pieces >> 3)  # eight new texts a unit


_LINEAR = [
    "capitalize",
    "casefold",
    "count",
    "endswith",
    "find",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "lower",
    "partition",
    "removeprefix",
    "removesuffix",
    "startswith",
    "swapcase",
    "title",
    "upper",
]

_TEXT_METHODS: dict[str, _Price] = {
    **dict.fromkeys(_LINEAR, _linear),
    **dict.fromkeys(["lstrip", "rfind", "rindex", "rpartition", "rstrip", "strip"], _scan),
    **dict.fromkeys(["center", "ljust", "rjust", "zfill"], _pad),
    **dict.fromkeys(["rsplit", "split", "splitlines"], _split),
    "expandtabs": _expand_tabs,
    "join": _join,
    "replace": _replace,
}
