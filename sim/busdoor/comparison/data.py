"""Results of policies on the same draws, as data: table, intervals, gain and ladder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np
import pandas as pd

from busdoor.comparison.bounds import SDS, bounds_table
from busdoor.comparison.ladder import ladder_table
from busdoor.comparison.rescaled import SAMPLES
from busdoor.config import Config
from busdoor.config.energy import hours_per_million_tokens, kwh_per_million_tokens
from busdoor.metrics.saturation import is_whole_batch
from busdoor.metrics.statistics import mean_interval, paired_difference, paired_ratio
from busdoor.results.result import Result

# Columns of the table: metrics of `Result.summary`, means over the replications.
METRICS = (
    "output_throughput",
    "request_throughput",
    "median_ttft_ms",
    "p99_ttft_ms",
    "median_tpot_ms",
    "p99_tpot_ms",
    "median_e2el_ms",
    "p99_e2el_ms",
    "num_slots",
    "slot_use",
    "mean_batch_size_time",
    "padding_share",
    "bubble_share",
    "kv_wasted_share",
)
_ENDS = ("", "_low", "_high")


@dataclass(frozen=True, eq=False)
class ComparisonData:
    """Results of policies on the same draws.

    `results` are each policy's first replication. A row per policy and replication: `summaries` has
    every metric of `Result.summary` at the offered load, `capacities` `request_throughput` and
    `output_throughput` (per second) when saturated (see `saturated_rates`), `rungs` the same of
    each step of the ladder; empty where there is none. `forms` has the
    closed forms by policy, `chances` how likely the GPUs of `table` meet the SLO; see
    `slo_chance.Likelihood.row`.
    """

    config: Config
    results: Mapping[str, Result]
    summaries: pd.DataFrame
    capacities: pd.DataFrame
    rungs: pd.DataFrame = field(default_factory=lambda: frame_of({}))
    forms: pd.DataFrame = field(default_factory=pd.DataFrame)
    chances: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def policies(self) -> list[str]:
        """Names of the rows, in order."""
        return list(dict.fromkeys(self.summaries.index.get_level_values("policy")))

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per policy: means over the replications.

        Columns as in `Result.summary` (times in ms); `saturated_output_throughput` and
        `saturated_request_throughput`, the maximum throughput of the server or the cluster, per
        second; `offered_load`, the rate over it; `gpus`, how many GPUs the load needs: the fewest
        whose throughputs together exceed it (of a cluster whose servers differ, as many whole
        clusters as that takes); `kwh_per_million_output_tokens` of the simulated GPUs, see
        `busdoor.config.energy`; with a price, `cost_per_hour` of `gpus` and
        `cost_per_million_output_tokens` of the simulated ones; of a cluster, `imbalance`, the
        tokens of the busiest server over the mean; with an [slo], `request_goodput` and `slo_met`,
        the share of replications that met all targets.
        """
        means = self.summaries.groupby("policy", sort=False).mean()
        capacity = self.capacities.groupby("policy", sort=False).mean().add_prefix("saturated_")
        table = means[list(METRICS)].join(capacity)
        refused = means["num_refused"] / (means["completed"] + means["failed"])
        table["offered_load"] = (
            self.request_rate * (1 - refused) / table["saturated_request_throughput"]
        )
        units = self.config.num_units
        table["gpus"] = np.ceil(table["offered_load"] * units) * (self.config.num_gpus / units)
        tokens = table["output_throughput"]
        table["kwh_per_million_output_tokens"] = [
            kwh_per_million_tokens(self.config, load, rate)
            for load, rate in zip(table["offered_load"].fillna(1.0), tokens, strict=True)
        ]
        if (price := self.config.price_per_hour) is not None:
            table["cost_per_hour"] = table["gpus"] * (price / self.config.num_gpus)
            table["cost_per_million_output_tokens"] = price * hours_per_million_tokens(tokens)
        more = ["imbalance"] if self.config.cluster is not None else []
        more += ["request_goodput", "slo_met"] if self.config.slo else []
        return table.join(means[more])

    @cached_property
    def intervals(self) -> pd.DataFrame:
        """95 % intervals over the replications, one row per policy and metric.

        `mean`, `low`, `high` of the metric itself; `ratio`, `ratio_low`, `ratio_high` and
        `difference`, `difference_low`, `difference_high` against the first policy, paired by
        replication.
        """
        rows = {}
        for metric, values in self._by_replication().items():
            first = values[self.policies[0]]
            for policy in self.policies:
                ours, theirs = _shared(values[policy], first)
                parts = (
                    mean_interval(values[policy]),
                    paired_ratio(ours, theirs),
                    paired_difference(ours, theirs),
                )
                rows[policy, metric] = [end for part in parts for end in part]
        ends = [
            "mean",
            "low",
            "high",
            *(f"{name}{end}" for name in ("ratio", "difference") for end in _ENDS),
        ]
        frame = pd.DataFrame(list(rows.values()), columns=ends)
        frame.index = pd.MultiIndex.from_tuples(rows, names=["policy", "metric"])
        return frame

    def _by_replication(self) -> dict[str, dict[str, pd.Series[float]]]:
        """Return the values of each metric and policy, by replication."""
        numbers = self.summaries[list(METRICS)].join(self.capacities.add_prefix("saturated_"))
        return {
            str(metric): {
                policy: numbers[metric].xs(policy, level="policy") for policy in self.policies
            }
            for metric in numbers
        }

    @cached_property
    def gain(self) -> pd.DataFrame:
        """Ratios of saturated output tokens per second, by policy, with paired 95 % intervals.

        `over_static`, `over_static_low`, `over_static_high`: against static batching as configured
        (against the first policy, if there is none); `over_best_static` ...: against static
        batching at its best batch size.
        """
        tokens_per_s = self._by_replication()["saturated_output_throughput"]
        columns: dict[str, list[float]] = {}
        for name, base in (("over_static", self.static), ("over_best_static", self.best_static)):
            if base is not None:
                rows = [
                    paired_ratio(*_shared(values, tokens_per_s[base]))
                    for values in tokens_per_s.values()
                ]
                for end, values in zip(_ENDS, zip(*rows, strict=True), strict=True):
                    columns[name + end] = list(values)
        return pd.DataFrame(columns, index=pd.Index(self.policies, name="policy"))

    @cached_property
    def bounds(self) -> pd.DataFrame:
        """Figures of the first replication beside their closed forms; see `bounds_table`."""
        first = self.summaries.xs(0, level="replication")
        rates = self.capacities.xs(0, level="replication")["request_throughput"]
        return bounds_table(self.forms, first.assign(saturated_request_throughput=rates))

    @cached_property
    def gpus_suffice(self) -> pd.Series[float]:
        """By policy, the probability that `gpus` of the table carry the load, by throughput.

        Sampling over the replications (Student's t), the calibration and the model's error (normal,
        independent). NaN where one of them is not known.
        """
        rates = self.capacities["request_throughput"]
        rng, chances = np.random.default_rng(self.config.seed), {}
        for policy in self.policies if SDS[0] in self.forms else ():
            own = np.log(rates.xs(policy, level="policy").to_numpy(float))
            sds = self.forms.loc[policy, list(SDS)].to_numpy(float)
            room = np.log(self.table["gpus"][policy] / self.config.num_gpus)
            room -= np.log(self.table["offered_load"][policy])
            if len(own) < 2 or not np.isfinite([*sds, room]).all():
                chances[policy] = np.nan
                continue
            sampling = own.std(ddof=1) / np.sqrt(len(own)) * rng.standard_t(len(own) - 1, SAMPLES)
            model = rng.normal(0.0, np.sqrt((sds**2).sum()), SAMPLES)
            chances[policy] = float((sampling + model <= room).mean())
        return pd.Series(chances, dtype=float)

    @cached_property
    def ladder(self) -> pd.DataFrame:
        """From static batching to vllm, one change at a time; empty unless both are compared.

        One row per step: `tokens_per_s`, saturated; `factor` times the step below, and
        `over_static` times the first, each with `_low` and `_high`, the paired 95 % interval.
        """
        return ladder_table(self.rungs.get("output_throughput", pd.Series(dtype=float)))

    @property
    def request_rate(self) -> float:
        """Offered requests per second, as configured or drawn; NaN in a burst or a closed loop."""
        drawn = float(self.summaries["request_rate"].mean())
        wanted = self.config.workload.request_rate
        return drawn if wanted is None or np.isnan(drawn) else wanted

    @property
    def static(self) -> str:
        """The baseline of gains: the first static row, else of whole batches, else the first."""
        named = {
            policy.label: policy.name
            for policy in self.config.policies
            if policy.label in self.policies
        }
        statics = [label for label, name in named.items() if name == "static"]
        return next(iter([*statics, *filter(self.is_whole_batch, self.results), *self.policies]))

    @property
    def bus_and_door(self) -> dict[str, Result]:
        """The two runs shown side by side: static at its best, and the last continuous policy."""
        bus = next(
            name for name in (self.best_static, self.static) if name and name in self.results
        )
        others = [name for name in self.results if name not in (self.static, self.best_static)]
        doors = [name for name in others if not self.is_whole_batch(name)]
        return {name: self.results[name] for name in (bus, *(doors or others)[-1:])}

    def is_whole_batch(self, policy: str) -> bool:
        """Whether a row's policy runs whole batches; the row of the best batch size does."""
        return is_whole_batch(self.results[policy].meta) if policy in self.results else True

    @property
    def best_static(self) -> str | None:
        """The row of static batching at its best batch size, if it was searched for."""
        return next(
            (name for name in self.policies if name.startswith(f"{self.static} (best batch")), None
        )

    @property
    def complete(self) -> bool:
        """Whether every policy has run on every draw; not after an interruption."""
        counts = self.summaries.groupby("policy").size()
        labels = {policy.label for policy in self.config.policies}
        return labels <= set(counts.index) and bool((counts == self.config.replications).all())


def frame_of(rows: Mapping[tuple[str, int], pd.Series[Any]]) -> pd.DataFrame:
    """Return rows by policy and replication as a table of numbers."""
    index = pd.MultiIndex.from_tuples(list(rows) or [("", 0)], names=["policy", "replication"])[
        : len(rows)
    ]
    return cast(pd.DataFrame, pd.DataFrame(list(rows.values()), index=index).apply(pd.to_numeric))


def _shared(
    ours: pd.Series[float], theirs: pd.Series[float]
) -> tuple[pd.Series[float], pd.Series[float]]:
    """Return the values of two policies for the replications that both have run."""
    both = ours.index.intersection(theirs.index)
    return ours.loc[both], theirs.loc[both]
