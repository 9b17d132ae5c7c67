"""What a fake model can be told: its speed, its size, and how it is to fail.

Options come from the command line (`NAME:slots=4,tokens_per_s=50`), from a variant's `fake.json`
or straight from a test. A bad one is a `ValueError` that names it and what it may be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from leptond.backend.declarations import SessionKind

__all__ = ["FakeOptions", "parse_fake_model"]


def _number(default: Any, minimum: float, maximum: float = math.inf) -> Any:
    return field(default=default, metadata={"minimum": minimum, "maximum": maximum})


@dataclass(frozen=True, slots=True)
class FakeOptions:
    """How one fake model behaves.

    Attributes:
        kind: `step`, a language model, or `batch`, which embeds, translates and scales tensors.
        tokens_per_s: speed of one stream: the time of a step is its inverse; 0 takes no time.
        prefill_tokens_per_s: each token of a row beyond its first costs the inverse; 0: nothing.
        row_ms: what every row adds to a step.
        slots: most rows at once; context: longest row in tokens.
        mean_sentences: length of an answer, on average, before it ends itself; 0: it never does.
        seed: models of different seeds give different answers.
        ride_along_tokens: as in `Capabilities`.
        weights_bytes: what it claims to weigh.
        load_s: how long a load takes; load_fails: 1 makes it fail.
        fault_at, crash_at, stall_at: the call of a session, counted from 1, that raises
            `BackendFault`, raises `BackendCrashed`, or hangs for `stall_s`; 0: none does.
        poison_token: every call with this token in a row raises `BackendFault`; -1: none.
    """

    kind: SessionKind = SessionKind.STEP
    tokens_per_s: float = _number(0.0, 0)
    prefill_tokens_per_s: float = _number(0.0, 0)
    row_ms: float = _number(0.0, 0)
    slots: int = _number(16, 1)
    context: int = _number(2048, 2)
    mean_sentences: int = _number(4, 0, 1000)
    seed: int = _number(0, 0)
    ride_along_tokens: int = _number(64, 1)
    weights_bytes: int = _number(1 << 20, 0)
    load_s: float = _number(0.0, 0)
    load_fails: int = _number(0, 0)
    fault_at: int = _number(0, 0)
    crash_at: int = _number(0, 0)
    stall_at: int = _number(0, 0)
    stall_s: float = _number(0.0, 0)
    poison_token: int = _number(-1, -1)

    def __post_init__(self) -> None:
        for option in fields(self):
            value = _checked(option.name, getattr(self, option.name))
            object.__setattr__(self, option.name, value)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> FakeOptions:
        """Take options by name, as values of their type or as text.

        Raises:
            ValueError: an option that is not known, or a value out of its range.
        """
        known = [option.name for option in fields(cls)]
        if unknown := [name for name in values if name not in known]:
            raise ValueError(
                f"a fake model has no option {unknown[0]!r}; it has {', '.join(sorted(known))}"
            )
        return cls(**values)

    def to_mapping(self) -> dict[str, str | int | float]:
        """All options by name, for JSON; `from_mapping` takes it back."""
        return asdict(self) | {"kind": self.kind.value}


def parse_fake_model(text: str) -> tuple[str, FakeOptions]:
    """Read `NAME` or `NAME:option=value,option=value`.

    Raises:
        ValueError: no name, an option without a value, twice the same one, or a bad one.
    """
    name, _, rest = text.partition(":")
    if not name:
        raise ValueError(f"a fake model needs a name: NAME[:option=value,...], not {text!r}")
    values: dict[str, str] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise ValueError(f"option {key!r} of fake model {name} has no value: write {key}=...")
        if key in values:
            raise ValueError(f"option {key!r} of fake model {name} is given twice")
        values[key] = value
    return name, FakeOptions.from_mapping(values)


def _checked(name: str, value: Any) -> Any:
    """The value of option `name` in its own type, from that type or from text."""
    option = FakeOptions.__dataclass_fields__[name]
    if name == "kind":
        kinds = [kind.value for kind in SessionKind]
        if value not in kinds:
            raise ValueError(f"option 'kind' must be {' or '.join(kinds)}, not {value!r}")
        return SessionKind(value)
    kind = int if isinstance(option.default, int) else float
    low, high = option.metadata["minimum"], option.metadata["maximum"]
    problem = ValueError(
        f"option {name!r} must be a {'whole ' if kind is int else ''}number"
        f" of at least {low}{'' if math.isinf(high) else f' and at most {high}'}, not {value!r}"
    )
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise problem
    try:
        number = kind(value)
    except (ValueError, OverflowError) as error:
        raise problem from error
    is_cut = isinstance(value, float) and number != value
    if is_cut or not low <= number <= high or number == math.inf:
        raise problem
    return number
