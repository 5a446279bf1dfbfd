"""Classes of a user's own, by import path; see docs/security.md."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from busdoor.core.compiled import missing_methods
from busdoor.core.names import unknown

_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")

# whether import paths stand for themselves
_as_data: ContextVar[bool] = ContextVar("as_data", default=False)


def import_class(path: str, kind: type[Any], what: str) -> Any:
    """Import the class "package.module:Name"; this runs the module's code: docs/security.md.

    The path is from a user's own TOML, flags or Python; never from a saved folder. `what` is a
    subclass of `kind`, with its article: "a policy". Raises ValueError if there is no such module
    or name, or it is no class of that kind; nothing that it names has been called.

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
    if missing := missing_methods(found):
        raise ValueError(f"{path!r} has no {' and no '.join(missing)}, which {what} needs")
    return found


@contextmanager
def as_data() -> Iterator[None]:
    """Import nothing meanwhile: a name in a saved folder is shown, and is never called.

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
        raise ValueError(
            f"{path!r} is named by a saved folder, from which nothing is imported; name it with "
            f"--policy"
        )

    def describe(self: Any) -> dict[str, Any]:
        return {"name": path, **self.fields}

    methods: dict[str, Any] = dict.fromkeys(missing_methods(kind), refuse)
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
        raise unknown(
            f"a name in {module_name}", attribute, [n for n in dir(module) if not n.startswith("_")]
        )
    return getattr(module, attribute)
