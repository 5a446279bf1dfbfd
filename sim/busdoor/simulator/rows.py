"""Rows of numbers that come one by one, kept as columns that take little memory."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from busdoor.core.arrays import Floats

FULL_BYTES = 2**20  # of rows packed, then turned into columns: half of a processor's cache
_FLOATS = {"prefill_attention"}
_WHOLE = (np.int8, np.int16, np.int32, np.int64)


class Rows(bytearray):
    """Rows packed as doubles, which `settle` turns into columns of the narrowest numbers.

    A column of seconds (or of `_FLOATS`) stays one of doubles; all others hold whole numbers, which
    come back as int64. Add rows with `+=`, and settle when there are `FULL_BYTES` of them.

    >>> rows = Rows(("request_id", "enter_s"))
    >>> rows += np.array([7, 0.5, 3, 0.25]).tobytes()
    >>> rows.settle()
    >>> rows.num_rows, len(rows), rows.frame("enter_s").to_dict("list")
    (2, 0, {'request_id': [3, 7], 'enter_s': [0.25, 0.5]})
    """

    def __init__(self, columns: Sequence[str]) -> None:
        super().__init__()
        self._parts: dict[str, list[NDArray[Any]]] = {column: [] for column in columns}
        self._settled = 0

    @property
    def num_rows(self) -> int:
        """Rows so far."""
        return self._settled + len(self) // (8 * len(self._parts))

    def settle(self) -> None:
        """Turn the packed rows into columns."""
        rows = np.frombuffer(self).reshape(-1, len(self._parts))
        for place, (name, parts) in enumerate(self._parts.items()):
            column = rows[:, place]
            parts.append(column.copy() if _is_float(name) else _narrow(column))
        self._settled += len(rows)
        del rows, column  # a bytearray that is looked at cannot shrink
        self.clear()

    def column(self, name: str) -> NDArray[Any]:
        """Return a column, as float64 or int64."""
        if self or not self._settled:
            self.settle()
        kind = np.float64 if _is_float(name) else np.int64
        parts = self._parts[name]
        whole = (
            parts[0]
            if len(parts) == 1 and parts[0].dtype == kind
            else np.concatenate(parts, dtype=kind, casting="unsafe")
        )
        self._parts[name] = [whole]
        return whole

    def frame(self, *by: str) -> pd.DataFrame:
        """Return a table, sorted by some columns; it shares its memory with this one."""
        order = np.lexsort([self.column(name) for name in reversed(by)]) if by else None
        for name in self._parts:
            column = self.column(name)
            self._parts[name] = [column if order is None else column[order]]
        return pd.DataFrame({name: own[0] for name, own in self._parts.items()}, copy=False)


def _is_float(column: str) -> bool:
    return column.endswith("_s") or column in _FLOATS


def _narrow(values: Floats) -> NDArray[Any]:
    """Return whole numbers in the fewest bytes that hold them."""
    least, most = (values.min(), values.max()) if len(values) else (0.0, 0.0)
    kinds = (kind for kind in _WHOLE if np.iinfo(kind).min <= least and most <= np.iinfo(kind).max)
    return values.astype(next(kinds, np.int64))


def assign_slots(enter_s: Floats, leave_s: Floats) -> NDArray[np.int64]:
    """Number the slots: each stay takes the lowest free one (sorted by beginning).

    >>> assign_slots(np.array([0.0, 0.0, 1.0, 2.0]), np.array([1.0, 3.0, 2.0, 3.0])).tolist()
    [0, 1, 0, 0]
    """
    leaving = np.argsort(leave_s, kind="stable")
    free: list[int] = []
    slots: list[int] = []
    next_s, left = iter(zip(leave_s[leaving].tolist(), leaving.tolist(), strict=True)), 0
    ends_s, stay = next(next_s, (np.inf, 0))
    for number, enter in enumerate(enter_s.tolist()):
        while ends_s <= enter and stay < number:  # none leaves before it has entered
            heappush(free, slots[stay])
            left += 1
            ends_s, stay = next(next_s, (np.inf, 0))
        slots.append(heappop(free) if free else number - left)
    return np.array(slots, dtype=np.int64)
