"""Columns of a trace as checked arrays; errors name the row and the value."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from busdoor_workloads.given import short

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

# Of one request: sums over two billion requests fit 64 bits, and no model's context comes near.
MAX_TOKENS = 2**32
_LARGEST = np.iinfo(np.int64).max


def chosen_rows(rows: ArrayLike, length: int) -> IntArray:
    """Return the numbers of the rows that indices or a mask choose.

    Raises ValueError if `rows` is neither, or a row does not exist.
    """
    chosen = np.asarray(rows)
    if chosen.ndim == 1 and chosen.dtype.kind == "b" and len(chosen) == length:
        return np.flatnonzero(chosen)
    whole = chosen.ndim == 1 and (chosen.dtype.kind in "iu" or not len(chosen))
    if not whole or (len(chosen) and not -length <= chosen.min() <= chosen.max() < length):
        raise ValueError(
            f"rows is {short(rows)}; it must be row numbers below {length}, or a mask of {length} "
            f"booleans"
        )
    indices: IntArray = chosen.astype(np.int64)
    return indices


def integers(column: str, values: ArrayLike) -> IntArray:
    """Return a column of whole numbers; raise ValueError with row and value of others."""
    array = _numbers(column, values)
    if array.dtype.kind == "f":
        require(column, array, array == np.floor(array), "a whole number")
        require(
            column,
            array,
            np.abs(array) < 2**53,
            "a whole number that floats hold exactly: give integers",
        )
    elif array.dtype.kind == "u":
        require(column, array, array <= _LARGEST, "a whole number of 64 bits with a sign")
    return array.astype(np.int64)


def floats(column: str, values: ArrayLike) -> FloatArray:
    """Return a column of numbers; raise ValueError with the row and value of anything else."""
    return _numbers(column, values).astype(np.float64)


def _numbers(column: str, values: ArrayLike) -> NDArray[Any]:
    """Return a column as an array of one axis, of integers or floats; refuse booleans and texts."""
    try:
        array = np.asarray(values)
    except ValueError:  # rows of different lengths
        array = np.zeros(())
    if array.ndim != 1:
        raise ValueError(
            f"{column} is {short(values)}; it must be a list or array of numbers, one per request"
        )
    if not len(array):
        return array.astype(np.float64)
    if array.dtype.kind == "O":
        good = np.array(
            [isinstance(value, Real) and not isinstance(value, bool) for value in array]
        )
        require(column, array, good, "a number")
        small = np.array(
            [isinstance(value, float) or -_LARGEST <= value <= _LARGEST for value in array]
        )
        require(column, array, small, "a number of 64 bits with a sign")
        array = np.array(array.tolist())
    require(column, array, np.full(len(array), array.dtype.kind in "iuf"), "a number")
    return array


def require(column: str, values: NDArray[Any], good: NDArray[np.bool_], wanted: str) -> None:
    """Raise ValueError with the first row whose value is not good, and the value wanted."""
    if not good.all():
        row = int(np.argmin(good))
        value = values[row].item() if isinstance(values[row], np.generic) else values[row]
        shown = value if isinstance(value, int | float) else short(value)
        raise ValueError(f"{column} in row {row} is {shown}; it must be {wanted}")
