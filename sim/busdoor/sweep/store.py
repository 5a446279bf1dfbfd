"""Where records lie: a Parquet file a point, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from busdoor.core.study_folder import check_free, clear
from busdoor.sweep.task import Record

_ABOUT = b"busdoor"  # the key in the file's metadata under which everything but the metrics is


@dataclass(frozen=True)
class Store:
    """A folder of records.

    Parameters
    ----------
    folder : Path
        Made if need be.

    Examples
    --------
    >>> import tempfile
    >>> store = Store(Path(tempfile.mkdtemp()) / "points")
    >>> store.write(Record("0a1b", metrics={"mean_ttft_ms": [31.0, 30.5]}, duration_s=0.2))
    >>> store.read("0a1b").metrics, list(store.read_all(["0a1b", "ffff"]))
    ({'mean_ttft_ms': [31.0, 30.5]}, ['0a1b'])
    """

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, key: str) -> Path:
        """Where a point's record is, or will be."""
        return self.folder / f"{key}.parquet"

    def write(self, record: Record) -> None:
        """Write a record for `pandas.read_parquet`: metric, replication, value; others: metadata.

        It appears under its name only when it is complete, so that a process killed while writing
        leaves nothing that could be taken for a result.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [
            (name, at, value)
            for name, values in record.metrics.items()
            for at, value in enumerate(values)
        ]
        names, places, values = zip(*rows, strict=True) if rows else ((), (), ())
        table = pa.table(
            {
                "metric": pa.array(names, pa.string()),
                "replication": pa.array(places, pa.int32()),
                "value": pa.array(values, pa.float64()),
            }
        )
        about = {key: value for key, value in asdict(record).items() if key != "metrics"}
        unfinished = self.folder / f".{record.key}.{os.getpid()}.tmp"
        pq.write_table(table.replace_schema_metadata({_ABOUT: json.dumps(about)}), unfinished)
        unfinished.replace(self.path(record.key))

    def read(self, key: str) -> Record | None:
        """Read a point's record; None if there is none, or none that can be read."""
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(self.path(key), partitioning=None)
            about = json.loads(table.schema.metadata[_ABOUT])
            metrics: dict[str, list[float]] = {}
            for name, value in zip(
                table["metric"].to_pylist(), table["value"].to_pylist(), strict=True
            ):
                metrics.setdefault(name, []).append(value)
            return Record(metrics=metrics, **about)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def read_all(self, keys: Iterable[str]) -> dict[str, Record]:
        """Read the records that there are, by key."""
        return dict(self._read(keys))

    def _read(self, keys: Iterable[str]) -> Iterator[tuple[str, Record]]:
        there = keys_in(self.folder)
        for key in dict.fromkeys(keys):
            record = self.read(key) if key in there else None
            if record is not None:
                yield key, record


def claim(folder: Path, keys: Iterable[str], overwrite: bool = False) -> None:
    """Check that a sweep's folder is free (`overwrite`: empty it), or has points of this study.

    Raises ValueError if it is a file, or holds something else.
    """
    if overwrite:
        check_free(folder, overwrite)
        clear(folder)
    elif not keys_in(folder / "points") & set(keys):
        check_free(folder)


def keys_in(folder: Path) -> set[str]:
    """Return the keys of the records in a folder."""
    return {path.stem for path in folder.glob("*.parquet")}
