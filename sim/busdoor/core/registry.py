"""What a configuration names: registries, and what pydantic finds wrong, in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import Any, TypeVar

from pydantic import ValidationError

from busdoor.core.import_paths import import_class
from busdoor.core.names import listed, unknown
from busdoor_workloads.config import refuse_booleans

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """What is known by name, and a user's own class, a subclass of `kind`, by import path.

    `what` is what a name stands for, with its article: "a router".

    >>> fruits = Registry("a fruit", dict, {"apple": dict})
    >>> list(fruits), fruits.find("collections:OrderedDict").__name__
    (['apple'], 'OrderedDict')
    >>> fruits.find("aple")
    Traceback (most recent call last):
    ValueError: 'aple' is not a fruit; did you mean 'apple'? (known: apple)
    """

    def __init__(self, what: str, kind: type[Any], known: Mapping[str, T]) -> None:
        self._what, self._kind, self._known = what, kind, known

    def __getitem__(self, name: str) -> T:
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def find(self, name: object) -> T:
        """Return what a name means, or the class of an import path; else raise ValueError."""
        if is_import_path(name):
            return import_class(str(name), self._kind, self._what)  # type: ignore[no-any-return]
        if not isinstance(name, str) or name not in self._known:
            raise unknown(self._what, name, self._known)
        return self._known[name]


def is_import_path(name: object) -> bool:
    """Return whether a name is an import path, as "package.module:Name"."""
    return isinstance(name, str) and ":" in name


def checked(build: Callable[..., T], table: Mapping[str, Any], where: str) -> T:
    """Call a pydantic dataclass with a TOML table, and turn its errors into one sentence.

    `where` is how the table is called: "[step_time]". Raises ValueError if a field is unknown,
    missing or out of range; the message names the first such field and its value.
    """
    try:
        made = build(**table)
    except ValueError as error:
        # of what is `in_one_sentence`
        found = error if isinstance(error, ValidationError) else error.__cause__
        if not isinstance(found, ValidationError):
            raise
        raise ValueError(
            _sentence(found, where, getattr(build, "__dataclass_fields__", {}))
        ) from found
    refuse_booleans(table, made, where)
    return made


def in_one_sentence(cls: type[T]) -> type[T]:
    """Make a pydantic dataclass's constructor answer a mistake in one sentence, in Python.

    >>> from busdoor.kv.config import KVConfig
    >>> KVConfig(num_blocks="many", max_model_len=64)
    Traceback (most recent call last):
    ValueError: KVConfig num_blocks = 'many': input should be a valid integer, unable to parse string as an integer
    """
    validate = cls.__init__

    @wraps(validate)
    def init(self: Any, *arguments: Any, **fields: Any) -> None:
        try:
            validate(self, *arguments, **fields)
        except ValidationError as error:
            raise ValueError(
                _sentence(error, cls.__name__, getattr(cls, "__dataclass_fields__", {}))
            ) from error

    cls.__init__ = init  # type: ignore[method-assign]
    return cls


_MISSING = ("missing", "missing_argument")


def _sentence(error: ValidationError, where: str, known: Iterable[str]) -> str:
    errors = error.errors(include_url=False)
    # A key that is unknown explains a key that is missing, so it is said first.
    first = min(errors, key=lambda one: one["type"] != "unexpected_keyword_argument")
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "unexpected_keyword_argument":
        return f"{where}: {unknown('a field of it', field, known)}"
    if first["type"] in _MISSING:
        missing = [".".join(map(str, one["loc"])) for one in errors if one["type"] in _MISSING]
        return f"{where}: {listed(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"{where} {field}: {message}" if field else f"{where}: {message}"
    return f"{where} {field} = {first['input']!r}: {message[0].lower()}{message[1:]}"
