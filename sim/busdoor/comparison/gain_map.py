"""The gain over the spread of output lengths, static batching's batch size, and the load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf, isfinite, nan

import numpy as np
import pandas as pd

from busdoor.comparison.experiment import Draw
from busdoor.config import Config, PolicyTable
from busdoor.config.limits import Limits, limits_for
from busdoor.config.recorded import burst
from busdoor.config.run import run
from busdoor.core.arrays import Floats
from busdoor.core.progress import Report
from busdoor.metrics.saturation import LEAST_BATCHES, saturated_rates
from busdoor.metrics.statistics import paired_ratio
from busdoor.simulator.describe import versions
from busdoor_workloads import Trace, replication_seed

SPREADS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)  # standard deviation over mean
BATCHES = (4, 8, 16, 32, 64, 128)
LOADS = (0.05, 0.1, 0.2, inf)  # shares of what continuous batching carries; inf: saturated
STREAM = 16  # of the random numbers that the lengths are drawn with, apart from the workload's
_KEYS = ["load", "batch_size", "spread"]
_BURST = 500  # requests of a saturated run, at least: a rate then rests on five batches of 100
_RAREST = 1e-9  # uniform numbers stay so far from 0 and 1: quantiles there are infinite


@dataclass(frozen=True, eq=False)
class GainMap:
    """The gain of continuous over static batching at every place of the map.

    `cells`: by load, batch size and spread, the `gain` (saturated: ratio of output tokens per
    second; else E2E ratio) with `low` and `high`, paired by replication; NaN and `overloaded` where
    static batching cannot carry that load. `measured`: a row per measured pair of runs with its
    place, `measured`, `predicted`, `error`, and `is_gain`, whether they are rates of bursts.
    `versions` are those that ran it.
    """

    config: Config
    continuous: str
    mean_output_tokens: float
    cells: pd.DataFrame
    measured: pd.DataFrame
    complete: bool = True
    versions: Mapping[str, str] = field(default_factory=versions)

    @cached_property
    def loads(self) -> list[float]:
        """Panels of the map."""
        return sorted(set(self.cells.index.get_level_values("load")))

    def panel(self, load: float) -> pd.DataFrame:
        """Gains of a load: a row per batch size, a column per spread."""
        return self.cells["gain"].xs(load, level="load").unstack("spread")  # noqa: PD010

    def measured_at(self, load: float) -> pd.DataFrame:
        """Measured pairs whose load is nearer to this one than to any other of the map."""
        if not len(self.measured):
            return self.measured
        own = self.measured["load"]
        finite = [one for one in self.loads if isfinite(one)]
        nearest = own.map(
            lambda value: (
                min(finite, key=lambda one: abs(np.log(one / value)))
                if isfinite(value) and finite
                else inf
            )
        )
        return self.measured[nearest == load]


class MapExperiment:
    """A map that is drawn; whole replications, whenever it is read.

    Outputs are gamma with the workload's mean (1: exponential), by the same uniform numbers for
    every spread and batch size; prompts and arrivals are the workload's.
    """

    def __init__(
        self,
        config: Config,
        draw: Draw,
        report: Report | None = None,
        *,
        spreads: Sequence[float] = SPREADS,
        batches: Sequence[int] = BATCHES,
    ) -> None:
        self.config, self.draw = config, draw
        self.spreads, self.batches = spreads, batches
        self.report = report or (lambda share, what: None)
        traces = [draw(number) for number in range(config.replications)]
        self.mean = float(np.mean([trace.output_tokens.mean() for trace in traces]))
        self.most = int(config.gpu.model.max_position_embeddings)
        self.continuous = _continuous(config)
        self.static = next((p for p in config.policies if p.name == "static"), None) or (
            PolicyTable.from_table({"name": "static"}, config.gpu)
        )
        self.num_complete = 0
        self._rows: dict[tuple[float, int, float], list[tuple[float, float, bool]]] = {}

    def run(self) -> None:
        """Run replication after replication; in each, spread after spread."""
        count = self.config.replications * len(self.spreads)
        for replication in range(self.config.replications):
            for number, spread in enumerate(self.spreads):
                share = (replication * len(self.spreads) + number) / count
                self.report(share, f"replication {replication + 1}: spread {spread:g}")
                self._column(spread, self.trace(spread, replication))
            self.num_complete += 1
        self.report(1.0, "done")

    def trace(self, spread: float, replication: int) -> Trace:
        """Return a draw with outputs of a spread; the same uniform numbers for every one."""
        trace = self.draw(replication)
        rng = np.random.default_rng([replication_seed(self.config.seed, replication), STREAM])
        uniform = np.clip(rng.random(len(trace)), _RAREST, 1 - _RAREST)
        tokens = _gamma(self.mean, spread, uniform) if spread else np.full(len(trace), self.mean)
        room = self.most - trace.input_tokens
        outputs = np.clip(np.rint(tokens), 1, np.maximum(room, 1)).astype(np.int64)
        return replace(trace, output_tokens=outputs, max_output_tokens=None, name="map")

    def _column(self, spread: float, trace: Trace) -> None:
        """Run continuous batching, and static batching of every size that fits."""
        limits = limits_for(self.config, [trace])
        best = self._saturated(self.continuous, trace, limits, len(trace))
        if not best[0] > 0:
            raise ValueError(
                f"num_requests is {len(trace)}; too few to fill the server; give more of them"
            )
        door_s = {
            load: self._e2e_s(self.continuous, trace, load * best[0], limits)
            for load in LOADS
            if isfinite(load)
        }
        for size in self.batches:
            policy = self.static.with_fields(self.static.label, batch_size=size)
            try:
                rates = self._saturated(policy, trace, limits, size)
            except ValueError:  # so many rows do not fit the memory
                continue
            for load in LOADS:
                key = load, size, spread
                carried = not isfinite(load) or load * best[0] < rates[0]
                if not isfinite(load):
                    pair = best[1], rates[1]
                elif carried:
                    pair = self._e2e_s(policy, trace, load * best[0], limits), door_s[load]
                else:
                    pair = nan, nan
                self._rows.setdefault(key, []).append((*pair, not carried))

    def _saturated(
        self, policy: PolicyTable, trace: Trace, limits: Limits, size: int
    ) -> tuple[float, float]:
        count = max(_BURST, (LEAST_BATCHES + 2) * size)
        full = burst(trace.select(np.arange(min(count, len(trace)))), count)
        result = run(self.config, policy, full, limits, iterations=False)
        rates = saturated_rates(result.requests, result.meta)
        return float(rates["request_throughput"]), float(rates["output_throughput"])

    def _e2e_s(self, policy: PolicyTable, trace: Trace, rate: float, limits: Limits) -> float:
        result = run(self.config, policy, trace.at_rate(rate), limits, iterations=False)
        return float((result.requests["finish_s"] - result.requests["arrival_s"]).mean())

    def map(self, measured: pd.DataFrame) -> GainMap:
        """Return the replications that are whole; KeyboardInterrupt if none is."""
        done = self.num_complete
        if not done:
            raise KeyboardInterrupt
        rows = {}
        for key, own in self._rows.items():
            *pair, overloaded = np.array(own[:done]).T
            rows[key] = (*paired_ratio(*pair), bool(overloaded.any()))
        cells = pd.DataFrame.from_dict(
            rows, orient="index", columns=["gain", "low", "high", "overloaded"]
        )
        cells.index = pd.MultiIndex.from_tuples(rows, names=_KEYS)
        cells.loc[cells["overloaded"], ["gain", "low", "high"]] = nan
        config = replace(self.config, replications=done)
        complete = done == self.config.replications
        return GainMap(config, self.continuous.label, self.mean, cells, measured, complete)


def _gamma(mean: float, spread: float, uniform: Floats) -> Floats:
    """Return quantiles of the gamma law of a mean and a standard deviation over it."""
    from scipy.special import gammaincinv

    return np.asarray(gammaincinv(spread**-2, uniform) * mean * spread**2, dtype=np.float64)


def _continuous(config: Config) -> PolicyTable:
    """Return the last policy that admits at every iteration.

    Raises ValueError if there is none.
    """
    doors = [policy for policy in config.policies if not policy.fills_batches]
    if not doors:
        raise ValueError("a map needs a continuous policy; add --policy vllm")
    return doors[-1]
