"""The jinja2 environment of chat templates: sandboxed, immutable, and counted.

A template sees plain data, the filters and tests of `template_filters`, the methods of
`template_methods`, macros of its own and five functions. Everything else is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from types import BuiltinMethodType, MethodType, NoneType
from typing import Any, cast

from jinja2 import pass_context
from jinja2.exceptions import TemplateError
from jinja2.ext import LoopControlExtension
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from leptond.errors import InvalidRequest
from leptond.text.role_marks import Role
from leptond.text.template_filters import PRICED_FILTERS, PRICED_TESTS, to_text
from leptond.text.template_methods import (
    call_method,
    price_addition,
    price_format,
    price_printf,
    price_product,
)
from leptond.text.template_syntax import GenerationTag
from leptond.text.work_budget import TemplateNamespace, WorkBudget

__all__ = ["ChatContext", "ChatEnvironment", "TemplateRaised"]

_KEYS = (str, int, float, NoneType, Undefined)
_MAX_EXPONENT = 1024
_MAX_RANGE = 100_000  # as in jinja2's sandbox
_MAX_DATE_CHARS = 128
_DATE = re.compile(r"(?:[^%]|%[A-Za-z%])*")  # no widths


class TemplateRaised(TemplateError):
    """The template called `raise_exception`."""


class ChatContext(Context):
    """The variables of one rendering, and its budget."""

    budget: WorkBudget


class _Function:
    """A function that templates may call; it gets the budget first."""

    def __init__(self, run: Callable[..., Any]) -> None:
        self._run = run

    def call(self, budget: WorkBudget, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._run(budget, *args, **kwargs)


class _Format:
    """`text.format`, to be called."""

    def __init__(self, text: str, run: Callable[..., str]) -> None:
        self._text = text
        self._run = run

    def call(self, budget: WorkBudget, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        price_format(budget, self._text, [*args, *kwargs.values()])
        return self._run(*args, **kwargs)


@pass_context
def _emit(context: Any, value: Any) -> str:
    """Pay for printing `value`, and print it."""
    return to_text(context.budget, value)


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """Compiles and runs one chat template, as Hugging Face's `apply_chat_template` does.

    Args:
        now: the time of day, for `strftime_now`.
    """

    context_class = ChatContext
    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[LoopControlExtension, GenerationTag],
            optimized=False,  # nothing of the template runs while it is compiled
            finalize=_emit,
            autoescape=False,
            cache_size=0,
        )
        self.unpriced = self.overlay()
        """The same sandbox with jinja2's own filters, which the priced ones call."""
        self.filters = cast(Any, PRICED_FILTERS)  # declared as bare functions
        self.tests = cast(Any, PRICED_TESTS)
        self.globals = {
            "dict": _Function(_dict),
            "namespace": _Function(_namespace),
            "raise_exception": _Function(_raise_exception),
            "range": _Function(_range),
            "strftime_now": _Function(lambda budget, form: _strftime(budget, form, now())),
        }

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Pay for an operator and apply it."""
        budget: WorkBudget = context.budget
        budget.check_number(left)
        budget.check_number(right)
        match operator:
            case "+":
                left, right = _printed(left), _printed(right)
                price_addition(budget, left, right)
            case "*":
                price_product(budget, left, right)
            case "%" if isinstance(left, str):
                price_printf(budget, left, right)
            case "**" if isinstance(right, int) and abs(right) > _MAX_EXPONENT:
                raise _refuse(f"takes a power of {right}; {_MAX_EXPONENT} at most")
            case _:
                budget.charge()
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what a template may call."""
        budget: WorkBudget = context.budget
        budget.charge(1 + len(args))
        # Jinja passes the variables of loops along, for functions that take the context.
        kwargs.pop("_loop_vars", None)
        kwargs.pop("_block_vars", None)
        match function:
            case Macro() | LoopContext():
                with budget.nested():
                    return function(*args, **kwargs)
            case _Function() | _Format():
                return function.call(budget, args, kwargs)
            case BuiltinMethodType() | MethodType():
                return self._call_method(budget, function, args, kwargs)
            case Undefined():
                return function(*args, **kwargs)  # raises, naming what is undefined
            case _:
                raise _refuse(f"calls a {type(function).__name__}, which is not allowed")

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Look up an item; a loop has none, and a key is a plain value."""
        if isinstance(obj, LoopContext) or not isinstance(argument, _KEYS):
            return self.undefined(obj=obj, name=argument)
        return super().getitem(obj, argument)

    def wrap_str_format(self, value: Any) -> Any:
        """Return `text.format` in a form that `call` can price."""
        wrapped = super().wrap_str_format(value)
        return None if wrapped is None else _Format(value.__self__, wrapped)

    def _call_method(
        self, budget: WorkBudget, method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if isinstance(method.__self__, LoopContext) and method.__name__ in {"changed", "cycle"}:
            budget.weigh(args)
            return method(*args, **kwargs)
        return call_method(budget, method, args, kwargs)


def _printed(value: Any) -> Any:
    return value.mark if isinstance(value, Role) else value


def _refuse(message: str) -> InvalidRequest:
    return InvalidRequest(f"the chat template {message}", field="input.messages")


def _dict(budget: WorkBudget, *args: Any, **kwargs: Any) -> dict[Any, Any]:
    settled = [budget.settled(argument) for argument in args]
    budget.weigh([settled, kwargs])
    return dict(*settled, **kwargs)


def _namespace(budget: WorkBudget, /, *args: Any, **kwargs: Any) -> TemplateNamespace:
    settled = [budget.settled(argument) for argument in args]
    budget.weigh(settled)
    return TemplateNamespace(*settled, **kwargs)


def _raise_exception(budget: WorkBudget, message: Any) -> None:
    raise TemplateRaised(to_text(budget, message)[:500])


def _range(budget: WorkBudget, *bounds: int) -> range:
    budget.charge()
    numbers = range(*bounds)
    if len(numbers) > _MAX_RANGE:
        raise _refuse(f"counts to {len(numbers)}; {_MAX_RANGE} at most")
    return numbers


def _strftime(budget: WorkBudget, form: str, now: datetime) -> str:
    budget.charge()
    if len(form) > _MAX_DATE_CHARS or not _DATE.fullmatch(form):
        raise _refuse(f"asks for the date as {form[:40]!r}, which is not allowed")
    return now.strftime(form)
