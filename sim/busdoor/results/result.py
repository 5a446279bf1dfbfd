"""The result of a run: tables, a summary, plots; the same from the simulator and from hardware."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from busdoor import plots
from busdoor.core.format import number
from busdoor.core.json import read_object, write_json
from busdoor.core.saved import Keys, check_columns, check_keys, check_rows, read_table, write_table
from busdoor.core.study_folder import study_folder
from busdoor.html.notebook import notebook_html
from busdoor.metrics import metrics
from busdoor.metrics.throughput import accepted
from busdoor.results.columns import ITERATION_COLUMNS, REQUEST_COLUMNS, STAY_COLUMNS
from busdoor.results.perfetto import to_perfetto
from busdoor_workloads import given

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Latency = Literal["ttft", "tpot", "e2e", "normalized"]
# The columns that each table must have: of numbers, of texts.
_TABLES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "requests": (REQUEST_COLUMNS, ("status",)),
    "iterations": ((*ITERATION_COLUMNS, "replica"), ()),
    "stays": ((*STAY_COLUMNS, "slot", "replica"), ()),
}
_SERVER: Keys = {"num_slots": int, "num_blocks": int, "block_size": int}
_META: Keys = {
    "policy": str,
    "policy_config?": dict,
    "streams?": bool,
    "trace?": str,
    "num_requests?": int,
    "offered_load?": float,
    "mfu?": float,
    "mbu?": float,
    "slo?": dict,
    "replicas?": list,
    "config?": dict,
    "versions?": dict,
    "rows?": dict,
}


@dataclass(frozen=True, eq=False)
class Result:
    """A run's tables. Times are seconds from the trace's start.

    Parameters
    ----------
    requests : DataFrame
        One row per request, in the trace's order: request_id, arrival_s, input_tokens,
        output_tokens, max_output_tokens, first_scheduled_s, first_token_s, finish_s, released_s,
        num_preemptions, cached_tokens, replica, status.
    iterations : DataFrame
        One row per stretch of `repeat` iterations with the same batch: start_s, duration_s (of all
        of them), the durations of the first and last, tokens, requests, context, KV memory and
        queue; see DESIGN.
    stays : DataFrame
        Which request held which slot when: request_id, slot, enter_s, leave_s, replica.
    meta : mapping
        Policy, step time, memory, versions, and all else that is needed to reproduce the run.

    Examples
    --------
    >>> result = Result.example()
    >>> result.summary["completed"], round(result.summary["mean_e2el_ms"])
    (4, 45000)
    """

    requests: pd.DataFrame
    iterations: pd.DataFrame
    stays: pd.DataFrame
    meta: Mapping[str, Any]

    def __post_init__(self) -> None:
        for name in _TABLES:
            given.instance(name, getattr(self, name), pd.DataFrame, "a data frame")
        given.instance("meta", self.meta, Mapping, "a mapping")

    @classmethod
    def example(cls) -> Result:
        """Return the introductory scenario: 10, 20, 50 and 100 tokens, an iteration per second.

        It is a file of the package; a test compares it with the simulator.
        """
        with as_file(files("busdoor.results") / "example") as folder:
            return cls.load(folder)

    @cached_property
    def summary(self) -> pd.Series[Any]:
        """Every metric of the run, keys as in `vllm bench serve` where it has one."""
        return metrics.summarize(self.requests, self.iterations, self.stays, self.meta)

    @cached_property
    def latencies(self) -> pd.DataFrame:
        """TTFT, TPOT, E2E, normalised latency and queueing time of finished requests (s)."""
        return metrics.latencies(self.requests, bool(self.meta.get("streams", True)))

    def slo(self, **limits_s: float) -> float:
        """Return the share of requests within every limit, such as `ttft=2.0, tpot=0.1` (seconds).

        Refused requests, which no server of this size can answer, are left out; `num_refused`
        counts them.

        Examples
        --------
        >>> Result.example().slo(e2e=50.0)
        0.75
        """
        for name, limit_s in limits_s.items():
            given.positive(name, limit_s, infinite=True)
        good = metrics.meets_slo(self.requests, limits_s, bool(self.meta.get("streams", True)))
        taken = len(accepted(self.requests))
        return float(good.sum() / taken) if taken else float("nan")

    def save(self, directory: str | Path, overwrite: bool = False, csv: bool = False) -> Path:
        """Write the result into a folder of its own: meta.json, summary.json and the tables.

        The tables are Parquet where pyarrow is installed, else (or with `csv`) CSV.

        Raises
        ------
        ValueError
            If the folder holds something; with `overwrite` an earlier study in it is replaced
            whole.
        """
        with study_folder(given.path_of("directory", directory), overwrite=overwrite) as place:
            write_result(self, place.part, csv)
            return place.publish()

    @classmethod
    def load(cls, directory: str | Path) -> Result:
        """Read a result back.

        Raises
        ------
        ValueError
            If the folder holds no result, or one that is incomplete or does not fit together, in a
            sentence that names file and column; or Parquet tables where pyarrow is not installed.
        """
        folder = given.path_of("directory", directory)
        if not (folder / "meta.json").exists():
            raise ValueError(f"{folder} holds no result: it has no meta.json")
        if (folder / "hours.csv").exists():
            raise ValueError(
                f"{folder} holds a run by the hour; busdoor.results.hourly.HourlyResult reads it"
            )
        meta = read_object(folder / "meta.json")
        check_keys(meta, str(folder / "meta.json"), _META)
        rows = {"requests": meta.get("num_requests"), **(meta.pop("rows", None) or {})}
        tables = {name: _read(folder / name, rows.get(name)) for name in _TABLES}
        if len(tables["stays"]):
            for own in meta.get("replicas") or [meta]:
                check_keys(own, str(folder / "meta.json"), _SERVER)
        return cls(**tables, meta=meta)

    def to_perfetto(self, path: str | Path | None = None) -> dict[str, Any]:
        """Write a Chrome trace for the Perfetto UI: a track per slot, KV blocks and queue."""
        return to_perfetto(self, path)

    def plot_timeline(self, *, ax: Axes | None = None) -> Axes:
        """Draw which request held which slot when."""
        return plots.plot_timeline(self, ax=ax)

    def plot_latency_cdf(self, metric: Latency = "e2e", *, ax: Axes | None = None) -> Axes:
        """Draw the distribution of a latency: ttft, tpot, e2e or normalized."""
        return plots.plot_latency_cdf(self, metric=metric, ax=ax)

    def plot_occupancy(self, *, ax: Axes | None = None) -> Axes:
        """Draw batch size and queue over time."""
        return plots.plot_occupancy(self, ax=ax)

    def plot_kv(self, *, ax: Axes | None = None) -> Axes:
        """Draw KV memory in use, reserved and wasted over time."""
        return plots.plot_kv(self, ax=ax)

    def plot_waste(self, *, ax: Axes | None = None) -> Axes:
        """Draw the use of the slot-iterations."""
        return plots.plot_waste(self, ax=ax)

    def _repr_html_(self) -> str:
        shown = [
            (str(key), [number(value)]) for key, value in self.summary.items() if value == value
        ]
        return notebook_html(str(self.meta.get("policy", "")), (("",), shown))


def write_result(result: Result, folder: Path, csv: bool = False) -> Path:
    """Write a result into a folder, which is made if it is missing; see `Result.save`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _TABLES:
        write_table(getattr(result, name), folder / name, csv)
    write_json(folder / "summary.json", result.summary.to_dict())
    rows = {name: len(getattr(result, name)) for name in _TABLES}
    write_json(folder / "meta.json", {"complete": True, **result.meta, "rows": rows})
    return folder


def _read(stem: Path, num_rows: Any) -> pd.DataFrame:
    """Read a table of a result and check it."""
    table = read_table(stem)
    numbers, texts = _TABLES[stem.name]
    check_columns(table, stem, numbers, texts)
    check_rows(table, stem, num_rows, "meta.json")
    return table
