"""Frozen configuration classes that report a mistake in one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import Field as DataclassField
from dataclasses import field, fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, TypeVar, dataclass_transform

import numpy as np
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from busdoor_workloads.formats import read_trace
from busdoor_workloads.nearest import did_you_mean

T = TypeVar("T")

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Tokens = Annotated[int, Field(ge=1)]
# infinity is allowed: everything at once, as in `vllm bench serve`
Rate = Annotated[float, Field(gt=0)]


@dataclass_transform(
    frozen_default=True, kw_only_default=True, field_specifiers=(field, DataclassField)
)
def config(cls: type[T]) -> type[T]:
    """Make `cls` a frozen, keyword-only, validated dataclass that refuses keys it does not know.

    Raises ValueError: from the constructor of `cls`: one sentence with the key, the value and what
    would be right.

    >>> @config
    ... class Door:
    ...     width_m: float = 1.0
    >>> Door(widht_m=2)
    Traceback (most recent call last):
        ...
    ValueError: Door has no 'widht_m'; did you mean 'width_m'?
    """
    made = dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))(cls)
    validate = made.__init__

    @wraps(validate)
    def init(self: Any, *args: Any, **keys: Any) -> None:
        try:
            validate(self, *args, **keys)
        except ValidationError as error:
            raise ValueError(_sentence(error, made)) from None
        refuse_booleans(keys, self, _label(made))

    made.__init__ = init  # type: ignore[method-assign]
    return made  # type: ignore[return-value]


def refuse_booleans(given: Mapping[str, Any], made: object, where: str) -> None:
    """Raise ValueError if a boolean was read as a number, which pydantic does silently.

    `given` are keys as the user wrote them, `made` is the object built from them.
    """
    for key, value in given.items():
        taken = getattr(made, key, value)
        for one, other in zip(_listed(value), _listed(taken), strict=False):
            if (
                isinstance(one, bool)
                and isinstance(other, int | float)
                and not isinstance(other, bool)
            ):
                raise ValueError(f"{where} {key} = {value!r}: it must be a number, not a boolean")


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def pick(base: type[T], key: str, table: Mapping[str, Any]) -> T:
    """Build the subclass of `base` that ``table[key]`` names from the rest of the table.

    The subclasses (also of users) are named by their class attribute `key`: ``"type"`` of a
    distribution, ``"process"`` of arrivals. Raises ValueError if the name or a key is unknown (the
    message has the nearest known one), or a value is out of range.

    >>> from busdoor_workloads.lengths import Lengths
    >>> pick(Lengths, "type", {"type": "fixed", "tokens": 7}).mean_tokens
    7.0
    """
    known = named_subclasses(base, key)
    name = table.get(key)
    if not isinstance(name, str) or name not in known:
        reason = f"has no {key!r}" if name is None else f"names the unknown {key} {name!r}"
        raise ValueError(
            f"{base.__name__.lower()} {dict(table)} {reason}; {did_you_mean(str(name), known)}"
        )
    return known[name](**{k: v for k, v in table.items() if k != key})


def named_subclasses(base: type[T], key: str) -> dict[str, type[T]]:
    """Return every concrete subclass of `base` by its class attribute `key`."""
    return {
        vars(cls)[key]: cls for cls in _descendants(base) if isinstance(vars(cls).get(key), str)
    }


def with_columns_of_path(given: Any, *columns: str) -> Any:
    """Replace the argument ``path`` of a constructor by columns of the trace in that file.

    `given` are the ArgsKwargs of a pydantic validator of mode "before".
    """
    keys = dict(given.kwargs or {})
    if "path" not in keys:
        return given
    trace = read_trace(keys.pop("path"))
    return {column: getattr(trace, column).tolist() for column in columns} | keys


def to_table(value: Any) -> Any:
    """Return a configuration as a table for TOML or JSON, from which it can be built again.

    >>> from busdoor_workloads.lengths import Exponential
    >>> to_table(Exponential(mean=128, max=512))
    {'type': 'exponential', 'max': 512, 'mean': 128.0}
    """
    if is_dataclass(value) and not isinstance(value, type):
        return _named(value) | {
            f.name: to_table(v) for f in fields(value) if _said(v := getattr(value, f.name), f)
        }
    if isinstance(value, (list, tuple)):
        return [to_table(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _named(value: Any) -> dict[str, str]:
    return {
        key: name
        for key in ("type", "process")
        if isinstance(name := getattr(type(value), key, None), str)
    }


def _said(value: Any, declared: DataclassField[Any]) -> bool:
    return value is not None and value is not declared.default and value != declared.default


def _descendants(base: type[T]) -> Iterator[type[T]]:
    for cls in base.__subclasses__():
        yield cls
        yield from _descendants(cls)


def _sentence(error: ValidationError, cls: type[Any]) -> str:
    # An unknown key explains a missing one, so it is reported first.
    errors = error.errors()
    first = min(errors, key=lambda one: one["type"] != "unexpected_keyword_argument")
    where = _label(cls)
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "unexpected_keyword_argument":
        return f"{where} has no {place!r}; {did_you_mean(place, (f.name for f in fields(cls)))}"
    if first["type"] == "missing":
        missing = (".".join(map(str, one["loc"])) for one in errors if one["type"] == "missing")
        return f"{where} needs {' and '.join(map(repr, missing))}"
    if first["type"] == "value_error":
        message = first["msg"].removeprefix("Value error, ")
        return f"{where}, {place}: {message}" if place else message
    return f"{where}: {place} is {first['input']!r}; {_lower(first['msg'])}"


def _label(cls: type[Any]) -> str:
    return next(
        (name for key in ("type", "process") if isinstance(name := getattr(cls, key, None), str)),
        cls.__name__,
    )


def _lower(message: str) -> str:
    return message[0].lower() + message[1:]
