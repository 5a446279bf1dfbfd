"""The results of a capacity study as data: tables, and plans computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import nan
from typing import Any, NamedTuple

import pandas as pd

from busdoor.capacity.answer import Answer
from busdoor.capacity.draws import NONE_REFUSED, Refused
from busdoor.capacity.sizing import Day, billed_hours, fixed_fleet, plan, plan_day
from busdoor.config import Config
from busdoor.config.energy import kwh_per_million_tokens
from busdoor.metrics.slo import SLO


@dataclass(frozen=True, eq=False)
class CapacityData:
    """The highest rate at which each policy meets an SLO.

    `answers` are one per row of the table. `num_runs` and `num_requests` count everything that was
    simulated, tried batch sizes included; `replications` are draws of the workload, numbered from 0
    under the configuration's seed; `refused` requests are refused by all policies and no load;
    `complete`: whether every policy has its answer, which is not so after an interruption; `servers`,
    by row, where there are servers of several kinds; `uncertainty`: how sure the answers are, where
    that was asked for.
    """

    config: Config
    slo: SLO
    answers: tuple[Answer, ...]
    mean_output_tokens: float
    num_runs: int
    num_requests: int
    replications: int
    refused: Refused = NONE_REFUSED
    complete: bool = True
    servers: Mapping[str, Config] = field(default_factory=dict)
    uncertainty: Mapping[str, Any] = field(default_factory=dict)

    def server(self, row: object) -> Config:
        """Return the configuration of a row of the table."""
        return self.servers.get(str(row), self.config)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per policy.

        `request_rate`, the best estimate of the highest rate, between `low`, which meets for
        certain, and `high`, which misses for certain (requests/s); `least`, the lowest rate that
        meets for certain, and `least_misses`, the highest below it that misses for certain (both 0
        where every lower rate meets); `binds`, the target that is missed first; `value` of it at
        `low` (seconds; a share for goodput); `saturated_request_rate`, the maximum throughput,
        beside its `closed_form_rate`;
        `num_requests` of its longest runs, `warmup_share` and `drain_share` that are cut off them;
        `reason` why the rate is 0 or the bracket wide.
        """
        rows = {answer.policy: _row(answer) for answer in self.answers}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("policy")

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per policy, rate, length of run and replication.

        One column per target has the quantity whose mean over the replications has a limit: the
        share of requests beyond a limit, a mean latency in seconds, or (stability) the load.
        """
        rows = [
            {"policy": answer.policy, **row}
            for answer in self.answers
            for p in answer.probes
            for row in p.rows()
        ]
        return pd.DataFrame(rows)

    @cached_property
    def points(self) -> pd.DataFrame:
        """One row per policy, rate and target: `value` (seconds, or a share) and `outcome`."""
        rows = [
            {
                "policy": answer.policy,
                "request_rate": probe.request_rate,
                "num_requests": probe.num_requests,
            }
            | {"steady": probe.window is not None and probe.window.steady}
            | {
                "target": reading.key,
                "value": reading.value,
                "ratio": reading.ratio,
                "outcome": str(reading.outcome),
            }
            for answer in self.answers
            for probe in answer.probes
            for reading in probe.readings
        ]
        columns = [
            "policy",
            "request_rate",
            "num_requests",
            "steady",
            "target",
            "value",
            "ratio",
            "outcome",
        ]
        return pd.DataFrame(rows, columns=columns)

    @property
    def low(self) -> pd.Series[float]:
        """By policy, the rate in requests/s that meets for certain."""
        return self.table["low"]

    def plan(self, request_rate: float, price_per_hour: float | None = None) -> pd.DataFrame:
        """Return what each policy needs for a rate; see `busdoor.capacity.sizing.plan`.

        The rate is of all servers together; the price is of one GPU, by default the
        configuration's.
        """
        gpus = pd.Series({name: self.server(name).num_gpus for name in self.low.index}, dtype=int)
        prices = pd.Series(
            {
                name: price_per_hour or (self.server(name).price_per_hour or nan) / gpus[name]
                for name in self.low.index
            },
            dtype=float,
        )
        table = plan(
            self.low,
            request_rate,
            mean_output_tokens=self.mean_output_tokens,
            least_rps=self.table["least"],
            tp=gpus,
            price_per_hour=prices if prices.notna().any() else None,
        )
        loads = table["rate_per_replica"] / self.table["saturated_request_rate"]
        tokens = table["rate_per_replica"] * self.mean_output_tokens
        table["kwh_per_million_output_tokens"] = [
            kwh_per_million_tokens(self.server(name), loads[name], tokens[name])
            for name in table.index
        ]
        return table

    def plan_day(self, hourly_rps: Sequence[float], floor: int = 0) -> pd.DataFrame:
        """Return how many servers each policy needs by hour; see `sizing.plan_day`."""
        return plan_day(self.low, hourly_rps, self.table["least"], floor)

    def bill_day(self, day: Day) -> pd.DataFrame:
        """Return what a day costs if the fleet follows the rate, and if it does not.

        A row per policy: `gpu_hours`, `fixed_gpu_hours` of the peak's number all day, and with a price
        `cost_per_day`.
        """
        hours = self.plan_day(day.hourly_rps, day.floor)
        fixed = self.fixed_fleet(day.hourly_rps, day.floor)
        rows = {}
        for name in self.table.index:
            server = self.server(name)
            billed = billed_hours(hours[name].tolist(), day.startup_s)
            rows[name] = {
                "gpu_hours": server.num_gpus * billed,
                "fixed_gpu_hours": server.num_gpus * fixed[name] * len(hours),
                "cost_per_day": billed * (server.price_per_hour or nan),
            }
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("policy")
        return table.dropna(axis="columns", how="all")

    def fixed_fleet(self, hourly_rps: Sequence[float], floor: int = 0) -> pd.Series[float]:
        """Return how many servers each policy needs all day; see `sizing.fixed_fleet`."""
        return fixed_fleet(self.low, hourly_rps, self.table["least"], floor)


class Saved(NamedTuple):
    """A study as its folder has it; the tables as in `CapacityData`."""

    slo: SLO
    table: pd.DataFrame
    points: pd.DataFrame
    about: Mapping[str, Any]


Drawable = CapacityData | Saved


def _row(answer: Answer) -> dict[str, Any]:
    probe = answer.at_low
    value = (
        float("nan")
        if probe is None
        else next((r.value for r in probe.readings if r.key == answer.binds), float("nan"))
    )
    window = probe.window if probe else None
    return {
        "request_rate": answer.rate,
        "low": answer.low,
        "high": answer.high,
        "least": answer.least,
        "least_misses": answer.least_misses,
        "binds": answer.binds,
        "value": value,
        "saturated_request_rate": answer.saturated_rps,
        "closed_form_rate": answer.closed_rps,
        "num_requests": answer.num_requests,
        "warmup_share": window.begin / probe.num_requests if probe and window else float("nan"),
        "drain_share": 1 - window.end / probe.num_requests if probe and window else float("nan"),
        "num_rates": len({probe.request_rate for probe in answer.probes}),
        "refused_share": answer.refused.share,
        "reason": answer.reason,
    }
