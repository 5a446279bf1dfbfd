"""Names that users type: the nearest right one for a wrong one, import paths, and what pydantic finds wrong."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ValidationError

from busdoor_workloads.config import refuse_booleans
from busdoor_workloads.nearest import nearest

T = TypeVar("T")

LONGEST_LABEL = 100  # characters: a table's row, a legend's line, and a file name on any system


def printable(label: str) -> str:
    r"""Return a label that a terminal, a picture and a file name can carry, as it is.

    Raises
    ------
    ValueError
        If it has control characters, or more than `LONGEST_LABEL` characters.

    Examples
    --------
    >>> printable("50 $ & <b>")
    '50 $ & <b>'
    >>> printable("a" + chr(0) + "b")
    Traceback (most recent call last):
    ValueError: 'a\x00b' has a character that cannot be shown; use letters, digits, signs and spaces
    """
    if not label.isprintable():
        raise ValueError(
            f"{label[:LONGEST_LABEL]!r} has a character that cannot be shown; use letters, digits, signs and spaces"
        )
    if len(label) > LONGEST_LABEL:
        raise ValueError(f"{label[:20]!r}... has {len(label):,} characters; use at most {LONGEST_LABEL}")
    return label


Label = Annotated[str, AfterValidator(printable)]


def unknown(what: str, name: object, known: Iterable[str]) -> ValueError:
    """Say that a name is not known, and which one was probably meant.

    Parameters
    ----------
    what : str
        What the name stands for, with its article: "a GPU".
    name : object
        What was typed; a name would be a string.
    known : iterable of str
        The names that there are.

    Returns
    -------
    ValueError
        To be raised.

    Examples
    --------
    >>> print(unknown("a fruit", "aple", ["apple", "pear"]))
    'aple' is not a fruit; did you mean 'apple'? (known: apple, pear)
    >>> print(unknown("a fruit", "xyz", ["apple", "pear"]))
    'xyz' is not a fruit (known: apple, pear)
    """
    names = sorted(set(known))
    near = nearest(str(name), names)
    guess = f"; did you mean {near!r}?" if near else ""
    return ValueError(f"{name!r} is not {what}{guess} (known: {', '.join(names)})")


def import_object(path: str) -> Any:
    """Import what "package.module:Name" names.

    Raises
    ------
    ValueError
        If there is no such module, or nothing of that name in it.

    Examples
    --------
    >>> import_object("math:sqrt")(9.0)
    3.0
    """
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(f"{path!r} cannot be imported: {error}") from error
    if not hasattr(module, attribute):
        raise unknown(f"a name in {module_name}", attribute, [n for n in dir(module) if not n.startswith("_")])
    return getattr(module, attribute)


def checked(build: Callable[..., T], table: Mapping[str, Any], where: str) -> T:
    """Call a pydantic dataclass with a table, and turn what it has to say into one sentence.

    Parameters
    ----------
    build : callable
        A pydantic dataclass.
    table : mapping
        Its fields, as a TOML table gives them.
    where : str
        How the table is called in messages: "[step_time]".

    Raises
    ------
    ValueError
        If a field is unknown, missing or out of range; the message names the first such field and its value.
    """
    try:
        made = build(**table)
    except ValidationError as error:
        raise ValueError(_sentence(error, where, getattr(build, "__dataclass_fields__", {}))) from error
    refuse_booleans(table, made, where)
    return made


def _sentence(error: ValidationError, where: str, known: Iterable[str]) -> str:
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "unexpected_keyword_argument":
        return f"{where}: {unknown('a field of it', field, known)}"
    if first["type"] in ("missing", "missing_argument"):
        return f"{where}: {field} is missing"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"{where} {field}: {message}" if field else f"{where}: {message}"
    return f"{where} {field} = {first['input']!r}: {message[0].lower()}{message[1:]}"
