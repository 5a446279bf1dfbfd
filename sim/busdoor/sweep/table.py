"""The what-if table: swept values and their results, one row per point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from busdoor.core.json import write_json
from busdoor.core.saved import write_csv
from busdoor.core.study_paths import rewritten
from busdoor.sweep.plan import Point
from busdoor.sweep.store import Store
from busdoor.sweep.task import Record


@dataclass(frozen=True, eq=False)
class Sweep:
    """Points and their records.

    Parameters
    ----------
    points : sequence of Point
        What was asked for, in order.
    records : dict of str to Record
        What has come of it so far, by the points' keys.
    """

    points: Sequence[Point]
    records: Mapping[str, Record]

    @classmethod
    def load(cls, points: Sequence[Point], folder: str | Path) -> Sweep:
        """Read what there is of a sweep."""
        return cls(points, Store(Path(folder) / "points").read_all(point.key for point in points))

    def _repr_html_(self) -> str:
        return str(self.table.drop(columns="key").round(3).to_html(index=False))

    @cached_property
    def table(self) -> pd.DataFrame:
        """A point's row: key, values, policy, status (done, failed, missing), error, metrics.

        Metrics are `Result.summary`'s, their mean over the replications that have one (times in ms
        where the name says so), the share of replications for `saturated` and `slo_met`; NaN where
        a point failed or is missing.
        """
        return pd.DataFrame([self._row(point) for point in self.points])

    @cached_property
    def replications(self) -> pd.DataFrame:
        """One row per point and replication: key, replication and metrics."""
        rows: list[dict[str, Any]] = []
        for key, record in self.records.items():
            for at, values in enumerate(zip(*record.metrics.values(), strict=True)):
                rows.append(
                    {
                        "key": key,
                        "replication": at,
                        **dict(zip(record.metrics, values, strict=True)),
                    }
                )
        return pd.DataFrame(rows, columns=None if rows else ["key", "replication"])

    @property
    def failed(self) -> list[Point]:
        """Points that failed."""
        return [point for point in self.points if self._status(point) == "failed"]

    @property
    def missing(self) -> list[Point]:
        """Points that have not been run yet."""
        return [point for point in self.points if self._status(point) == "missing"]

    def save(self, folder: str | Path) -> Path:
        """Write sweep.csv, sweep.parquet (`table`), replications.parquet, sweep.json.

        The last holds counts, and the first point's configuration, which the others vary.
        """
        folder = Path(folder)
        first = self.points[0].table if self.points else {}
        counts = {
            "points": len(self.points),
            "failed": len(self.failed),
            "missing": len(self.missing),
        }
        with rewritten(folder) as part:
            write_csv(self.table, part / "sweep.csv", index=False)
            self.table.to_parquet(part / "sweep.parquet", index=False)
            self.replications.to_parquet(part / "replications.parquet", index=False)
            write_json(
                part / "sweep.json", {"complete": not counts["missing"], **counts, "config": first}
            )
        return folder

    def _status(self, point: Point) -> str:
        record = self.records.get(point.key)
        return "missing" if record is None else "failed" if record.error else "done"

    def _row(self, point: Point) -> dict[str, Any]:
        record = self.records.get(point.key, Record(point.key))
        about = {
            "status": self._status(point),
            "error": record.error,
            "duration_s": record.duration_s,
        }
        return {"key": point.key, **point.parameters, **about, **_means(record)}


def _means(record: Record) -> dict[str, float]:
    means = {}
    for name, values in record.metrics.items():
        known = [value for value in values if value == value]  # not NaN
        means[name] = sum(known) / len(known) if known else float("nan")
    return means
