"""The table of a file, with the line of every record for error messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from busdoor_workloads.text import printable

Container = Literal["csv", "jsonl", "json", "folder"]

# A written double must be read as the same double: pandas does so by default from 3.1 on.
_PANDAS = tuple(int(part) for part in pd.__version__.split(".")[:2])
EXACT_FLOATS: dict[str, Any] = {} if _PANDAS >= (3, 1) else {"float_precision": "round_trip"}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A file's records, numbered from 0, under the file's own column names.

    `line` maps a record's number to its line in the file (1 first); None if a file has no such
    lines, and a record is then called `record_name`. `num_malformed` were left out (only with
    `skip_bad`).
    """

    path: Path
    frame: pd.DataFrame
    line: Callable[[int], int] | None = None
    num_malformed: int = 0
    record_name: str = "request"

    def place(self, record: int) -> str:
        """Return the file and line of a record, for error messages.

        >>> Table(path=Path("data/a.csv"), frame=pd.DataFrame(), line=lambda record: record + 2).place(15)
        'a.csv line 17'
        """
        if self.line is None:
            return f"{printable(self.path.name)} {self.record_name} {record}"
        return f"{printable(self.path.name)} line {self.line(record)}"
