"""Names that users type: the nearest right one for a wrong one, import paths, and what pydantic finds wrong."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ValidationError

from busdoor_workloads.config import refuse_booleans
from busdoor_workloads.nearest import nearest
from busdoor_workloads.text import FORMULA_STARTS

T = TypeVar("T")

_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_as_data: ContextVar[bool] = ContextVar("as_data", default=False)  # whether import paths stand for themselves
LONGEST_LABEL = 100  # characters: a table's row, a legend's line, and a file name on any system


def check_label(label: str) -> str:
    r"""Return a label that a terminal, a picture and a file name can carry, as it is.

    Raises
    ------
    ValueError
        If it has control characters or more than `LONGEST_LABEL`, or begins as a formula of a spreadsheet does.

    Examples
    --------
    >>> check_label("50 $ & <b>")
    '50 $ & <b>'
    >>> check_label("a" + chr(0) + "b")
    Traceback (most recent call last):
    ValueError: 'a\x00b' has a character that cannot be shown; use letters, digits, signs and spaces
    """
    if not label.isprintable():
        raise ValueError(
            f"{label[:LONGEST_LABEL]!r} has a character that cannot be shown; use letters, digits, signs and spaces"
        )
    if label.startswith(FORMULA_STARTS):
        raise ValueError(f"{label[:20]!r} begins as a formula of a spreadsheet does; begin it with a letter or digit")
    if len(label) > LONGEST_LABEL:
        raise ValueError(f"{label[:20]!r}... has {len(label):,} characters; use at most {LONGEST_LABEL}")
    return label


Label = Annotated[str, AfterValidator(check_label)]


def unknown(what: str, name: object, known: Iterable[str]) -> ValueError:
    """Return the error that a name is not known, with the one that was probably meant.

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


def import_class(path: str, kind: type[Any], what: str) -> Any:
    """Import the class that "package.module:Name" names. This runs the module's code: see docs/security.md.

    Parameters
    ----------
    path : str
        From a user's own TOML, flags or Python; never from a saved folder.
    kind : type
        What the class has to be a subclass of.
    what : str
        What such a class is, with its article: "a policy".

    Raises
    ------
    ValueError
        If there is no such module or name, or it is no class of that kind; nothing that it names has been called.

    Examples
    --------
    >>> import_class("collections:OrderedDict", dict, "a dictionary").__name__
    'OrderedDict'
    >>> import_class("subprocess:Popen", dict, "a dictionary")
    Traceback (most recent call last):
    ValueError: 'subprocess:Popen' is not a dictionary; subclass builtins.dict
    """
    if _as_data.get():
        return _stand_in(path, kind)
    found = _import_object(path)
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise ValueError(f"{path!r} is not {what}; subclass {kind.__module__}.{kind.__qualname__}")
    missing: frozenset[str] = getattr(found, "__abstractmethods__", frozenset())
    if missing:
        raise ValueError(f"{path!r} has no {' and no '.join(sorted(missing))}, which {what} needs")
    return found


@contextmanager
def as_data() -> Iterator[None]:
    """Import nothing meanwhile: what a saved folder names is shown by its name, and is never called.

    Examples
    --------
    >>> with as_data():
    ...     import_class("subprocess:Popen", dict, "a dictionary")(args="rm").describe()
    {'name': 'subprocess:Popen', 'args': 'rm'}
    """
    token = _as_data.set(True)
    try:
        yield
    finally:
        _as_data.reset(token)


def _stand_in(path: str, kind: type[Any]) -> type[Any]:
    """Return a class that keeps the fields of one that is not imported, and can do nothing else."""

    def keep(self: Any, *parts: Any, **fields: Any) -> None:
        self.fields = fields
        if parts:  # a policy, which is made to run
            refuse()

    def refuse(*parts: Any, **fields: Any) -> Any:
        raise ValueError(f"{path!r} is named by a saved folder, from which nothing is imported; name it with --policy")

    def describe(self: Any) -> dict[str, Any]:
        return {"name": path, **self.fields}

    methods: dict[str, Any] = dict.fromkeys(getattr(kind, "__abstractmethods__", ()), refuse)
    return type(kind.__name__, (kind,), {**methods, "__init__": keep, "describe": describe})


def _import_object(path: str) -> Any:
    if not _IMPORT_PATH.fullmatch(path):
        raise ValueError(f"{path!r} is no import path; write it as package.module:Name")
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the module's own code raises
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        raise ValueError(f"{path!r} cannot be imported: {kind}{error}") from error
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
    except ValueError as error:
        found = error if isinstance(error, ValidationError) else error.__cause__  # of what is `in_one_sentence`
        if not isinstance(found, ValidationError):
            raise
        raise ValueError(_sentence(found, where, getattr(build, "__dataclass_fields__", {}))) from found
    refuse_booleans(table, made, where)
    return made


def in_one_sentence(cls: type[T]) -> type[T]:
    """Make the constructor of a pydantic dataclass answer a mistake in one sentence, for callers from Python.

    Examples
    --------
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
            raise ValueError(_sentence(error, cls.__name__, getattr(cls, "__dataclass_fields__", {}))) from error

    cls.__init__ = init  # type: ignore[method-assign]
    return cls


def listed(names: Sequence[str]) -> str:
    """Write names as a list in a sentence.

    Examples
    --------
    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


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
