"""Policies over the offered load, on the same draws: what continuous batching gains at each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import nan
from typing import Any

import numpy as np
import pandas as pd

from busdoor.comparison.data import frame_of
from busdoor.comparison.experiment import Draw, Experiment, filling
from busdoor.config import Config, PolicyTable
from busdoor.config.energy import hours_per_million_tokens
from busdoor.config.run import run
from busdoor.core.progress import Report
from busdoor.metrics.metrics import latencies
from busdoor.metrics.slo import SLO
from busdoor.metrics.slo_presets import PRESETS, default_slo
from busdoor.metrics.statistics import mean_interval, paired_difference, paired_ratio
from busdoor.simulator.describe import versions
from busdoor_workloads import Trace

LOADS = tuple(round(0.1 * step, 1) for step in range(1, 13))  # issue 16: 0.1 to 1.2
LONGER = 1.1  # times the E2E of the best continuous policy: where the curves have parted
FEWER = 0.01  # of the requests: where the shares within the SLO have
SHARES = ("within", "idle")
MEANS = ("e2e_s", "within", "idle", "gpu_hours_per_million_tokens", "cost_per_million_tokens")


def curve_slo(config: Config) -> SLO:
    """Return a configuration's SLO, else a limit on E2E per output token.

    It is MLPerf's limit on TPOT, with the wait in it: a batch released whole has no TPOT.

    >>> print(curve_slo(Config.from_table({})))
    99 % of requests with E2E per token ≤ 100 ms
    """
    if config.slo:
        return config.slo
    preset = PRESETS[default_slo(config.gpu.model.name)]
    return SLO.from_table({"normalized": preset["tpot_p99"]})


@dataclass(frozen=True, eq=False)
class Curve:
    """Policies at several offered loads.

    `runs`: by load, policy and replication, `e2e_s` (mean), `within` (share of the requests within
    the SLO), `idle` (share of held slot time), and GPU-hours and cost per million output tokens.
    `capacities`: requests/s when saturated, by policy and replication. `reference` is the policy
    whose capacity loads are shares of: the best continuous one. `versions` are those that ran it.
    """

    config: Config
    slo: SLO
    reference: str
    runs: pd.DataFrame
    capacities: pd.DataFrame
    complete: bool = True
    versions: Mapping[str, str] = field(default_factory=versions)

    @property
    def policies(self) -> list[str]:
        """Rows of every load."""
        return list(dict.fromkeys(self.runs.index.get_level_values("policy")))

    @cached_property
    def capacity_rps(self) -> float:
        """Requests per second at load 1: what the reference carries on the first draw."""
        return float(self.capacities["request_throughput"].xs(self.reference)[0])

    @cached_property
    def keeps_up(self) -> pd.DataFrame:
        """By policy, the load that it carries: `load`, `low`, `high` (95 %, paired)."""
        rates = self.capacities["request_throughput"]
        rows = {
            name: paired_ratio(rates.xs(name), rates.xs(self.reference)) for name in self.policies
        }
        return pd.DataFrame.from_dict(rows, orient="index", columns=["load", "low", "high"])

    @cached_property
    def points(self) -> pd.DataFrame:
        """By load and policy: each mean with `_low` and `_high`, the 95 % interval.

        `e2e_ratio`: mean E2E over the reference's; `within_less`: by how much smaller the share
        within the SLO is (both paired by replication); `overloaded`: the policy cannot keep up, so
        that its E2E is as long as the run.
        """
        rows: dict[tuple[float, str], dict[str, Any]] = {}
        by_load: dict[Any, pd.DataFrame] = dict(list(self.runs.groupby("load")))
        groups: Any = self.runs.groupby(["load", "policy"], sort=False)
        for (load, name), own in groups:
            base = by_load[load].xs(self.reference, level="policy")
            columns = {key: _interval(own[key], key in SHARES) for key in MEANS if key in own}
            columns["e2e_ratio"] = paired_ratio(own["e2e_s"], base["e2e_s"])
            columns["within_less"] = paired_difference(base["within"], own["within"])
            row = {
                key + end: value
                for key, interval in columns.items()
                for end, value in zip(("", "_low", "_high"), interval, strict=True)
            }
            overloaded = load >= self.keeps_up["load"][name]
            rows[float(load), str(name)] = row | {"overloaded": bool(overloaded)}
        frame = pd.DataFrame.from_dict(rows, orient="index")
        frame.index = pd.MultiIndex.from_tuples(rows, names=["load", "policy"])
        return frame

    @cached_property
    def partings(self) -> pd.DataFrame:
        """By policy, the loads from which on it has surely parted from the reference.

        `longer`: its answers take over 10 % longer; `late`: over 1 % more of its requests are
        beyond the SLO. NaN where no load shows it.
        """
        rows = {}
        for name in self.policies:
            if name == self.reference:
                continue
            own = self.points.xs(name, level="policy")
            rows[name] = [
                _from(own["e2e_ratio_low"] > LONGER),
                _from(own["within_less_low"] > FEWER),
            ]
        return pd.DataFrame.from_dict(rows, orient="index", columns=["longer", "late"])


def _interval(values: pd.Series[float], is_share: bool) -> tuple[float, float, float]:
    """Return mean and interval; a share's ends stay between 0 and 1."""
    mean, low, high = mean_interval(values)
    return (mean, max(low, 0.0), min(high, 1.0)) if is_share else (mean, low, high)


def _from(parted: pd.Series[bool]) -> float:
    """Return the lowest load from which on all are true; NaN if the highest is not."""
    loads = parted.index[::-1][parted[::-1].cumprod().astype(bool)]
    return float(loads.min()) if len(loads) else nan


class CurveExperiment(Experiment):
    """A curve that runs; whole replications, whenever it is read."""

    def __init__(
        self, config: Config, draw: Draw, report: Report | None = None, loads: Any = LOADS
    ) -> None:
        super().__init__(config, draw, report)
        _check_draw(draw(0))
        self.loads, self.slo = tuple(loads), curve_slo(config)
        self.reference = ""
        self.rows: dict[tuple[float, str, int], dict[str, float]] = {}

    def run(self) -> None:
        """Saturate every policy, and then serve every load, one replication after the other."""
        for replication in range(self.config.replications):
            trace = self.draw(replication)
            if replication == 0:
                self._tune(filling(self.server, trace), None)
            policies = list(self.policies())
            share = self._weight / (len(policies) * (1 + len(self.loads)))
            full = filling(self.config, trace)
            for policy in policies:
                what = f"replication {replication + 1}: {policy.label}"
                self.capacities[policy.label, replication] = self._capacity(
                    policy, full, self._advance(share, f"{what}, saturated")
                )
            if replication == 0:
                self.reference = self._best(policies)
            self._serve_all(policies, trace, replication, share)
            self.num_complete += 1
        self.report(1.0, "done")

    def _best(self, policies: list[PolicyTable]) -> str:
        """Return the continuous policy of the highest capacity; the best of all if there is none.

        Raises ValueError if no run was long enough for a capacity.
        """
        doors = [policy.label for policy in policies if not policy.fills_batches]
        rates = {
            name: self.capacities[name, 0]["request_throughput"]
            for name in doors or [policy.label for policy in policies]
        }
        best = max(rates, key=lambda name: np.nan_to_num(rates[name]))
        if not rates[best] > 0:
            raise ValueError("the requests are too few to fill the server; give more num_requests")
        return best

    def _serve_all(
        self, policies: list[PolicyTable], trace: Trace, replication: int, share: float
    ) -> None:
        # one capacity for all draws, so that a load is the same rate in each
        capacity = float(self.capacities[self.reference, 0]["request_throughput"])
        for load in self.loads:
            offered = trace.at_rate(load * capacity)
            for policy in policies:
                self._advance(share, f"replication {replication + 1}: {policy.label}, load {load}")
                result = run(self.config, policy, offered, self.limits)
                self.rows[load, policy.label, replication] = self._row(result)

    def _row(self, result: Any) -> dict[str, float]:
        summary = result.summary
        hours = hours_per_million_tokens(summary["output_throughput"])
        row = {
            "e2e_s": float(latencies(result.requests, bool(result.meta["streams"]))["e2e"].mean()),
            "within": result.slo(**self.slo.per_request_s),
            "idle": float(summary["bubble_share"]),
            "gpu_hours_per_million_tokens": self.config.num_gpus * hours,
        }
        if self.config.price_per_hour is not None:
            row["cost_per_million_tokens"] = self.config.price_per_hour * hours
        return row

    def curve(self) -> Curve:
        """Return the replications that are whole; KeyboardInterrupt if none is."""
        done = self.num_complete
        if not done:
            raise KeyboardInterrupt
        rows = {key: row for key, row in self.rows.items() if key[2] < done}
        runs = pd.DataFrame(list(rows.values()))
        runs.index = pd.MultiIndex.from_tuples(rows, names=["load", "policy", "replication"])
        rates = {key: row for key, row in self.capacities.items() if key[1] < done}
        config = replace(self.config, replications=done)
        complete = done == self.config.replications
        return Curve(config, self.slo, self.reference, runs, frame_of(rates), complete)


def _check_draw(trace: Trace) -> None:
    if len(trace) < 2:
        raise ValueError("num_requests is 1; a load takes two or more arrivals; give more of them")
    if trace.concurrency or not np.isfinite(trace.request_rate):
        raise ValueError(
            f"{trace.name} has no rate of its own (a burst or a closed loop), so that no load can "
            f"be offered; give it arrivals"
        )
