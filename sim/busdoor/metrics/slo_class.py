"""Classes of requests that have an SLO of their own: by priority, or by a column of the trace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from busdoor_workloads import Trace

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("priority", "input_tokens", "output_tokens", "max_output_tokens", "turn", "session_id")
CLASSES_COLUMN = "slo_classes"  # of a result's requests: "|chat|long|"
KEYS = ("priority", "column", "value", "at_least", "below")


@dataclass(frozen=True)
class RequestClass:
    """Requests whose value in a column of the trace is within bounds.

    Parameters
    ----------
    name : str
        What the class is called.
    column : str
        Of the trace: priority, input_tokens, output_tokens, max_output_tokens, turn or session_id.
    at_least, below : float
        Bounds on its value.

    Examples
    --------
    >>> trace = Trace(arrival_s=[0, 1], input_tokens=[10, 9000], output_tokens=[5, 5])
    >>> RequestClass.from_table("long", {"column": "input_tokens", "at_least": 4000}).mask(trace)
    array([False,  True])
    """

    name: str
    column: str = "priority"
    at_least: float = -inf
    below: float = inf

    @classmethod
    def from_table(cls, name: str, table: Mapping[str, Any]) -> RequestClass:
        """Return the class of a table [slo.NAME]: `priority = 1`, or `column` with bounds.

        Raises
        ------
        ValueError
            One sentence that names the table, the key and what would be right.
        """
        where = f"[slo.{name}]"
        if "priority" in table:
            column, value = "priority", table["priority"]
        else:
            column, value = str(table.get("column")), table.get("value")
        bounds = {key: table[key] for key in ("at_least", "below") if key in table}
        if column not in COLUMNS or (value is None and not bounds):
            raise ValueError(
                f"{where} says not which requests it is for: give priority = 1, or column (one of "
                f"{', '.join(COLUMNS)}) with value, at_least or below"
            )
        for key, number in {"value": value, **bounds}.items():
            if number is not None and (isinstance(number, bool) or not isinstance(number, int)):
                raise ValueError(f"{where} {key} = {number!r}: it must be a whole number")
        if value is not None:
            bounds = {"at_least": value, "below": value + 1}
        return cls(name, column, **bounds)

    def mask(self, trace: Trace) -> NDArray[np.bool_]:
        """Return which requests of a trace it has; one without the column has priority 0.

        Raises
        ------
        ValueError
            If the trace has no such column.
        """
        values = getattr(trace, self.column)
        if values is None and self.column == "priority":
            values = np.zeros(len(trace), dtype=int)
        if values is None:
            raise ValueError(f"[slo.{self.name}] column: {trace.name} has no {self.column}")
        return np.asarray((values >= self.at_least) & (values < self.below))

    def to_dict(self) -> dict[str, Any]:
        """Return the keys as TOML or JSON would hold them."""
        bounds = {"at_least": self.at_least, "below": self.below}
        return {"column": self.column} | {
            key: value for key, value in bounds.items() if abs(value) < inf
        }


def classes_of(trace: Trace, classes: Iterable[RequestClass]) -> NDArray[np.object_]:
    """Return the classes of each request of a trace, as `CLASSES_COLUMN` has them."""
    names = np.full(len(trace), "|", dtype=object)
    for one in classes:
        names[one.mask(trace)] += f"{one.name}|"
    return names


def is_of_class(requests: pd.DataFrame, name: str) -> NDArray[np.bool_]:
    """Return which rows with a `CLASSES_COLUMN` are of a class."""
    return requests[CLASSES_COLUMN].str.contains(f"|{name}|", regex=False).to_numpy()
