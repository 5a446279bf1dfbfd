"""One server's run, hour by hour: sums and sketches that take its tables in parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from busdoor.core.arrays import Integers
from busdoor.metrics.itl import GapsInParts
from busdoor.metrics.metrics import latencies, meets_slo
from busdoor.metrics.sketch import EXACT, QuantileSketch
from busdoor.metrics.usage import memory_tokens, slot_terms

HOUR_S = 3600.0
LATENCIES = ("ttft", "tpot", "e2e", "normalized", "queue")
BY_HOUR = ("ttft", "tpot", "e2e")  # those whose percentiles every hour has
Utilisation = Callable[[pd.DataFrame], Mapping[str, float]]


class HourlyTotals:
    """What is kept of a server's run: sums by hour, sketches of latencies by hour and in all.

    A request counts in the hour in which it arrived, an iteration in that in which its stretch
    began. Totals of servers can be added.

    Parameters
    ----------
    streams : bool
        Whether tokens leave the server as they are made.
    slo_s : mapping
        Limits of a request, in seconds, by latency; may be empty.
    block_size, num_blocks : int
        The server's KV memory.
    exact : int
        Latencies up to which percentiles are exact; those of single hours are always sketched.
    utilisation : callable, optional
        MFU and MBU of iterations.
    """

    def __init__(
        self,
        *,
        streams: bool = True,
        slo_s: Mapping[str, float] | None = None,
        block_size: int = 1,
        num_blocks: int = 0,
        exact: int = EXACT,
        utilisation: Utilisation | None = None,
    ) -> None:
        self._streams, self.slo_s = streams, dict(slo_s or {})
        self._block_size, self._capacity = block_size, block_size * num_blocks
        self._utilisation = utilisation
        self._gaps = GapsInParts()
        self.sums = pd.DataFrame()  # by hour
        self.most_waiting = pd.Series(dtype=float)  # by hour
        self.hours: dict[str, dict[int, QuantileSketch]] = {name: {} for name in BY_HOUR}
        self.sketches = {name: QuantileSketch(exact) for name in (*LATENCIES, "itl")}
        self.scalars = {"held_s": 0.0, "mfu_s": 0.0, "mbu_s": 0.0}
        self.first_s, self.last_arrival_s, self.last_finish_s, self.last_s = np.inf, 0.0, 0.0, 0.0

    def add(self, requests: pd.DataFrame, iterations: pd.DataFrame, stays: pd.DataFrame) -> None:
        """Add the next part of a run's tables; iterations follow those of the part before."""
        self._add_requests(requests)
        self._add_iterations(iterations)
        self.scalars["held_s"] += float((stays["leave_s"] - stays["enter_s"]).sum())

    def finish(self) -> None:
        """Add what only the end of the run tells, and keep nothing that cannot be sent elsewhere."""
        if self._streams:
            self.sketches["itl"].add(*self._gaps.finish())
        self._utilisation = None

    def merge(self, other: HourlyTotals) -> None:
        """Add another server's totals."""
        self.sums = self.sums.add(other.sums, fill_value=0)
        self.most_waiting = self.most_waiting.combine(other.most_waiting, max, fill_value=0.0)
        for name, hours in other.hours.items():
            for hour, sketch in hours.items():
                self._of_hour(name, hour).merge(sketch)
        for name, sketch in other.sketches.items():
            self.sketches[name].merge(sketch)
        for key, value in other.scalars.items():
            self.scalars[key] += value
        self.first_s = min(self.first_s, other.first_s)
        for name in ("last_arrival_s", "last_finish_s", "last_s"):
            setattr(self, name, max(getattr(self, name), getattr(other, name)))

    @property
    def num_requests(self) -> int:
        """Requests that have left, answered or not."""
        return int(self.sums["arrivals"].sum()) if len(self.sums) else 0

    def _of_hour(self, name: str, hour: int) -> QuantileSketch:
        return self.hours[name].setdefault(hour, QuantileSketch(exact=0))

    def _add_requests(self, requests: pd.DataFrame) -> None:
        if not len(requests):
            return
        status, arrival_s = requests["status"], requests["arrival_s"].to_numpy()
        refused = status.str.startswith("refused").to_numpy(bool)
        done = (status == "finished").to_numpy()
        good = np.zeros(len(requests), bool)
        good[done] = meets_slo(requests, self.slo_s, self._streams).to_numpy()
        hour = (arrival_s // HOUR_S).astype(np.int64)
        self._sum(
            hour,
            {
                "arrivals": np.ones(len(requests)),
                "finished": done,
                "refused": refused,
                "abandoned": (status == "abandoned").to_numpy(),
                "slo_met": good,
                "input_tokens": np.where(done, requests["input_tokens"], 0),
                "output_tokens": np.where(done, requests["output_tokens"], 0),
                "num_preemptions": requests["num_preemptions"],
                "cached_tokens": requests["cached_tokens"],
            },
        )
        times = latencies(requests, self._streams)
        for name in LATENCIES:
            values = times[name].to_numpy()
            known = values == values
            self.sketches[name].add(values[known])
            for own in np.unique(hour[done]) if name in BY_HOUR else ():
                self._of_hour(name, int(own)).add(values[known & (hour[done] == own)])
        self.first_s = min(self.first_s, float(arrival_s.min()))
        self.last_arrival_s = max(self.last_arrival_s, float(arrival_s.max()))
        finish_s = requests["finish_s"].to_numpy()[done]
        self.last_finish_s = max(self.last_finish_s, float(finish_s.max(initial=0.0)))
        self.last_s = max(self.last_s, float(np.nanmax(requests["released_s"], initial=0.0)))

    def _add_iterations(self, iterations: pd.DataFrame) -> None:
        if not len(iterations):
            return
        column = {str(name): iterations[name].to_numpy() for name in iterations}
        duration_s = column["duration_s"]
        reserved, used, holes = memory_tokens(column, self._block_size)
        hour = (column["start_s"] // HOUR_S).astype(np.int64)
        self._sum(
            hour,
            {
                **slot_terms(column),
                "waiting_s": column["num_waiting"] * duration_s,
                "kv_reserved_s": reserved * duration_s,
                "kv_used_s": used * duration_s,
                "kv_hole_s": holes * duration_s,
                "kv_capacity_s": self._capacity * duration_s,
            },
        )
        most = pd.Series(column["num_waiting"], dtype=float).groupby(hour).max()
        self.most_waiting = self.most_waiting.combine(most, max, fill_value=0.0)
        self.last_s = max(self.last_s, float((column["start_s"] + duration_s).max()))
        if self._streams:
            self.sketches["itl"].add(*self._gaps.add(iterations))
        if self._utilisation is not None:
            for key, share in self._utilisation(iterations).items():
                self.scalars[f"{key}_s"] += share * float(duration_s.sum())

    def _sum(self, hour: Integers, terms: Mapping[str, object]) -> None:
        """Add terms, a value per row, to the sums of the rows' hours."""
        table = pd.DataFrame(terms, dtype=float).groupby(hour).sum()
        self.sums = self.sums.add(table, fill_value=0)
