"""The optional compiled build: which classes may be subclassed in Python, and whether it is used.

`BUSDOOR_COMPILE=1 pip install .` compiles the modules that `hatch_build.py` lists with mypyc. Python
alone is the default and the reference; results are the same.
"""

from __future__ import annotations

import ast
import sys
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

_SUFFIXES = tuple(EXTENSION_SUFFIXES)

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr
else:

    def mypyc_attr(**attributes):
        """Leave a class as it is: only the compiler reads its attributes."""
        return lambda kind: kind


@cache
def is_compiled() -> bool:
    """Return whether this is the compiled build.

    Examples
    --------
    >>> is_compiled() in (True, False)
    True
    """
    found = find_spec("busdoor.core.request")
    return found is not None and str(found.origin).endswith(_SUFFIXES)


def docstring(described: Any) -> str:
    """Return the docstring of a class or function; a compiled class's is read from its source.

    >>> from busdoor.core.request import Request
    >>> docstring(Request).partition(",")[0]
    'What a client asked for'
    """
    file = Path(sys.modules[described.__module__].__file__ or "")
    if described.__doc__ or not file.name.endswith(_SUFFIXES):
        return described.__doc__ or ""
    for node in ast.parse(file.with_name(f"{file.name.partition('.')[0]}.py").read_bytes()).body:
        if isinstance(node, ast.ClassDef) and node.name == described.__name__:
            return ast.get_docstring(node) or ""
    return ""


def missing_methods(kind: type[Any]) -> list[str]:
    """Return the abstract methods that a class leaves undefined, by name.

    A compiled class forgets which of its methods are abstract: it and its kin list them in
    `REQUIRED` besides. What a class inherits from there as it is, is missing.

    >>> from collections.abc import Sized
    >>> missing_methods(Sized), missing_methods(list)
    (['__len__'], [])
    """
    missing = set(getattr(kind, "__abstractmethods__", ()))
    for base in kind.__mro__:
        required = vars(base).get("REQUIRED", ())
        missing.update(name for name in required if getattr(kind, name) is getattr(base, name))
    return sorted(missing)


def check_subclass(kind: type[Any], attributes: tuple[str, ...]) -> None:
    """Raise TypeError if a Python subclass of a compiled class sets attributes for the class."""
    file = str(getattr(sys.modules.get(kind.__module__), "__file__", ""))
    for name in attributes:
        if name in vars(kind) and is_compiled() and not file.endswith(_SUFFIXES):
            raise TypeError(
                f"{kind.__name__} sets {name} for the class, where a compiled busdoor does not "
                f"look; set it in __init__"
            )
