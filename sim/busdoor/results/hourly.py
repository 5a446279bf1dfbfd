"""The result of a run too long to keep in memory: its hours, its summary, its requests on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from busdoor.core.format import duration_text, number, percent
from busdoor.core.json import numbers, read_object, write_json
from busdoor.core.saved import check_columns, check_keys, read_csv, write_csv
from busdoor.html.notebook import notebook_html
from busdoor.metrics.hourly_tables import HOUR_COLUMNS
from busdoor.metrics.sketch import RELATIVE_ERROR
from busdoor.plots.hours import plot_hours
from busdoor.results.columns import REQUEST_COLUMNS
from busdoor_workloads import given

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKER = "hours.csv"  # the file by which such a folder is known
REQUESTS = "requests"
# Of a request on disk, compressed: 34 measured with azure-conv; more with several preemptions.
REQUEST_FILE_BYTES = 45
_META = {"policy": str, "num_requests": int, "complete": bool, "num_slots": int}


@dataclass(frozen=True, eq=False)
class HourlyResult:
    """A long run by the hour. Times are seconds from the trace's start.

    Parameters
    ----------
    hours : DataFrame
        A row per hour: requests that arrived, queue, batch, memory, SLO, percentiles; see
        `busdoor.metrics.hourly_tables.hours_table`.
    replica_hours : DataFrame
        The same of each server, with its number in `replica`.
    summary : Series
        The metrics of the whole run; `percentile_error` says how exact its percentiles are.
    meta : mapping
        What ran; `complete` is false if it was stopped, at `stopped_s` of the trace.
    folder : Path, optional
        Where it lies, with its requests.
    """

    hours: pd.DataFrame
    replica_hours: pd.DataFrame
    summary: pd.Series[Any]
    meta: Mapping[str, Any]
    folder: Path | None = None

    @classmethod
    def load(cls, directory: str | Path) -> HourlyResult:
        """Read a result back, but for its requests.

        Raises ValueError if the folder holds none, or one that does not fit together.
        """
        folder = given.path_of("directory", directory)
        if not (folder / MARKER).exists():
            raise ValueError(f"{folder} holds no result by the hour: it has no {MARKER}")
        meta = read_object(folder / "meta.json")
        check_keys(meta, str(folder / "meta.json"), _META)
        hours, replica_hours = (
            check_columns(read_csv(folder / file), folder / file, HOUR_COLUMNS)
            for file in (MARKER, "replica_hours.csv")
        )
        told = numbers(read_object(folder / "summary.json"))
        summary = pd.Series(told, dtype=object, name=meta["policy"])
        return cls(hours, replica_hours, summary, meta, folder)

    def write(self, folder: Path) -> None:
        """Write all but the requests, which are there already."""
        write_csv(self.replica_hours, folder / "replica_hours.csv", index=False)
        write_json(folder / "summary.json", self.summary.to_dict())
        write_json(folder / "meta.json", self.meta)
        write_csv(self.hours, folder / MARKER, index=False)

    def requests(self, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """Read the requests, a table for each server and hour, in order of leaving.

        Parameters
        ----------
        columns : sequence of str, optional
            Those of `Result.requests` to read; all by default.

        Examples
        --------
        The longest wait of a week, in little memory:

        >>> def longest_wait_s(result):
        ...     parts = result.requests(["arrival_s", "first_scheduled_s"])
        ...     return max((part["first_scheduled_s"] - part["arrival_s"]).max() for part in parts)
        """
        from pyarrow.parquet import ParquetFile

        if self.folder is None:
            raise ValueError("this result has no folder, so that its requests are not at hand")
        for path in sorted((self.folder / REQUESTS).glob("*.parquet")):
            with ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    yield file.read_row_group(group, columns=columns).to_pandas()

    def slo_rows(self) -> list[tuple[str, str]]:
        """Return the share of requests that met every limit, if there is any, as text."""
        share, limits = self.summary["slo_share"], self.meta.get("slo") or {}
        words = ", ".join(
            f"{key.upper()} ≤ {duration_text(limit)}" for key, limit in limits.items()
        )
        return [(f"requests with {words}", percent(share))] if limits else []

    @property
    def exactness(self) -> str:
        """A sentence on how far the summary's percentiles may be off."""
        words = {0.0: "exact", RELATIVE_ERROR: f"within {percent(RELATIVE_ERROR)} of themselves"}
        requests, itl = (words[self.summary[f"{key}percentile_error"]] for key in ("", "itl_"))
        hours = words[RELATIVE_ERROR]
        return f"Percentiles are {requests}, those of ITL {itl}, and those of hours {hours}."

    def plot_hours(self) -> Figure:
        """Draw rate, queue, SLO share and TTFT by the hour."""
        return plot_hours(self.hours, self.meta)

    def _repr_html_(self) -> str:
        shown = [
            (str(key), [number(value)]) for key, value in self.summary.items() if value == value
        ]
        return notebook_html(str(self.meta.get("policy", "")), (("",), shown))


class RequestWriter:
    """Write a server's requests into a Parquet file, a row group for each table that it is given."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._writer: Any = None

    def write(self, requests: pd.DataFrame) -> None:
        """Append a table, if it has any row."""
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        if not len(requests):
            return
        texts = requests["status"].astype(object)
        table = pa.Table.from_pandas(requests.assign(status=texts), preserve_index=False)
        if self._writer is None:
            seconds = [name for name in REQUEST_COLUMNS if name.endswith("_s")]
            # Bytes of equal place side by side: times shrink by a third, in half the time.
            self._writer = ParquetWriter(
                self._file,
                table.schema,
                compression="zstd",
                use_dictionary=[name for name in table.column_names if name not in seconds],
                use_byte_stream_split=seconds,
            )
        self._writer.write_table(table.cast(self._writer.schema))

    def close(self) -> None:
        """Write the end of the file, without which it cannot be read."""
        if self._writer is not None:
            self._writer.close()


def check_pyarrow() -> None:
    """Raise ValueError if pyarrow, which streamed tables need, is not installed."""
    if find_spec("pyarrow") is None:
        raise ValueError(
            "a run of a million requests or more writes them as Parquet, which needs pyarrow: "
            "pip install pyarrow"
        )


def when(seconds: float) -> str:
    """Return a time of a trace as a day and an hour, both counted from its start.

    >>> when(2 * 86_400 + 14.5 * 3600)
    'day 3, 14:30'
    """
    days, rest = divmod(int(seconds), 86_400)
    return f"day {days + 1}, {rest // 3600:02}:{rest % 3600 // 60:02}"
