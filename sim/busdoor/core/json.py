"""JSON that others can read: what is not a number is null; one sentence for a mistake."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite, nan
from pathlib import Path
from typing import Any

_SHOWN = 35  # characters of a wrong value in a sentence


def plain(value: Any) -> Any:
    """Return a value as JSON has it: NaN, infinity as null, numpy as Python, others as text.

    >>> import numpy as np
    >>> plain({"a": float("nan"), 2: np.array([1.5, np.inf]), "b": (np.int64(3), True, Path("x"))})
    {'a': None, '2': [1.5, None], 'b': [3, True, 'x']}
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return plain(value.tolist())
    if isinstance(value, float):
        return value if isfinite(value) else None
    return value if isinstance(value, int) else str(value)


def to_json(value: Any, indent: int | None = None) -> str:
    """Write a value as JSON, in one line unless indented.

    >>> to_json({"gain": float("inf")})
    '{"gain": null}'
    """
    return json.dumps(plain(value), indent=indent, allow_nan=False)


def write_json(file: Path, value: Any) -> None:
    """Write a value into a file."""
    file.write_text(to_json(value, indent=2) + "\n", encoding="utf-8")


def read_json(file: Path) -> Any:
    """Read a file.

    Raises ValueError if it holds no JSON, in one sentence that names the file.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{file}, line {error.lineno}: no JSON ({error.msg}); it was changed or cut off"
        ) from error
    except RecursionError:
        raise ValueError(f"{file}: nested too deeply for what busdoor writes") from None
    except ValueError as error:  # bytes that are no text, or a number of thousands of digits
        raise ValueError(f"{file}: no JSON ({str(error).split(';')[0]})") from error


def read_object(file: Path) -> dict[str, Any]:
    """Read a file that holds an object; ValueError where it holds anything else."""
    value = read_json(file)
    if not isinstance(value, dict):
        raise ValueError(f"{file} holds {shown(value)}, not an object in braces; it was changed")
    return value


def shown(value: Any) -> str:
    """Return a value as a sentence shows it: shortened, and in one line.

    >>> shown([1] * 99)
    '[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, ...'
    """
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 4]} ..."


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return numbers that were read, with NaN where JSON has null.

    >>> numbers({"mean": None, "p99": 0.5})
    {'mean': nan, 'p99': 0.5}
    """
    return {key: nan if value is None else value for key, value in values.items()}
