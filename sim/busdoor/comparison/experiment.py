"""Run a comparison: every policy on the same draws, once saturated and once at the offered load."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from busdoor.cluster.per_replica import imbalance
from busdoor.comparison.bounds import closed_forms
from busdoor.comparison.data import ComparisonData, frame_of
from busdoor.comparison.ladder import rungs
from busdoor.comparison.slo_chance import Likelihood, slo_chances
from busdoor.config import Config, PolicyTable
from busdoor.config.limits import limits_for, servable
from busdoor.config.recorded import FULL_REQUESTS, burst
from busdoor.config.run import run
from busdoor.core.arrays import Floats
from busdoor.core.progress import Report
from busdoor.metrics.saturation import LEAST_BATCHES, saturated_rates
from busdoor.policies.offered_load import accepted
from busdoor.results.result import Result
from busdoor.results.slo_shares import slo_shares
from busdoor.simulator.system import Progress
from busdoor.validation.data import ValidationData
from busdoor_workloads import Trace

Draw = Callable[[int], Trace]
Key = tuple[str, int]

# where the search for static's best one ends: vLLM's max_num_seqs on large GPUs
MAX_BATCH_SIZE = 1024


class Experiment:
    """A comparison that runs. What is done can be read at any time, also after an interruption.

    `draw` returns the trace of a replication, from 0 on; always the same one for a number.
    `results` are each row's first replication at the offered load; `summaries`, by row and
    replication, metrics at the offered load; `capacities` and `rungs`, by row or step of the
    ladder, requests and output tokens per second when saturated. `num_complete`: replications that
    every row has run.
    """

    def __init__(
        self,
        config: Config,
        draw: Draw,
        report: Report | None = None,
        validation: ValidationData | None = None,
    ) -> None:
        self.config = config
        self.draw = draw
        self.server = one_server(config)
        self.limits = limits_for(
            config, (servable(config, draw(i)) for i in range(config.replications))
        )
        self.results: dict[str, Result] = {}
        self.summaries: dict[Key, pd.Series[Any]] = {}
        self.capacities: dict[Key, pd.Series[float]] = {}
        self.rungs: dict[Key, pd.Series[float]] = {}
        self.forms: dict[str, dict[str, float]] = {}
        self.chances = pd.DataFrame()
        self.validation = validation
        self.num_complete = 0
        self.tuned: PolicyTable | None = None
        self.report = report or (lambda share, what: None)
        self._to_tune = next((policy for policy in config.policies if _wants_tuning(policy)), None)
        # The search is about as long as a replication, and so are the chances.
        others = (self._to_tune is not None) + bool(config.slo)
        self._weight = 1 / (config.replications + others)
        self._done = 0.0

    def run(self) -> None:
        """Run one replication after the other, so that an interruption leaves whole ones."""
        for replication in range(self.config.replications):
            trace = self.draw(replication)
            full = filling(self.config, trace)
            if replication == 0:
                self._tune(filling(self.server, trace), trace.concurrency)
            policies, steps = list(self.policies()), rungs(self.config, self.tuned)
            share = self._weight / (2 * len(policies) + len(steps))
            named = f"replication {replication + 1} of {self.config.replications}"
            for policy in policies:
                what, key = f"{named}: {policy.label}", (policy.label, replication)
                self.capacities[key] = self._capacity(
                    policy, full, self._advance(share, f"{what}, saturated")
                )
                self._serve(policy, trace, key, self._advance(share, what))
            for title, policy in steps:
                progress = self._advance(share, f"{named}: {title}, saturated")
                known = (
                    self.capacities.get((policy.label, replication)) if policy in policies else None
                )
                rates = self._capacity(policy, full, progress) if known is None else known
                self.rungs[title, replication] = rates
            self.num_complete += 1
        self.chances = self._chances()
        self.report(1.0, "done")

    def data(self) -> dict[str, Any]:
        """Return the fields of `ComparisonData` so far: replications that every row has run.

        Before the first is complete: that one, of the rows that have run it.
        """
        draws = max(1, self.num_complete)
        rows = {key: row for key, row in self.summaries.items() if key[1] < draws}
        rungs = {key: row for key, row in self.rungs.items() if key[1] < self.num_complete}
        return {
            "config": self.config,
            "results": self.results,
            "summaries": frame_of(rows),
            "capacities": frame_of({key: self.capacities[key] for key in rows}),
            "rungs": frame_of(rungs),
            "forms": pd.DataFrame.from_dict(self.forms, orient="index"),
            "chances": self.chances,
        }

    def _chances(self) -> pd.DataFrame:
        """Return how likely each row's GPUs meet the SLO, if there is one and a rate."""
        config, known = self.config, ComparisonData(**self.data())
        if not config.slo or config.replications < 2 or self.server.cluster is not None:
            return pd.DataFrame()
        traces = [self.draw(number) for number in range(config.replications)]
        of = Likelihood(self.server, self.limits, traces, self.validation)
        rates = self.capacities

        def loads(policy: str) -> Floats:
            own = np.array([rates[policy, n]["request_throughput"] for n in range(len(traces))])
            middle = float(known.table["offered_load"][policy])
            middle *= config.num_units / servers[policy]
            return np.asarray(middle * own.mean() / own, dtype=float)

        units = known.table["gpus"] * config.num_units / config.num_gpus
        servers = {str(policy): float(number) for policy, number in units.items()}
        report = partial(_within, self.report, self._done)
        return slo_chances(of, list(self.policies()), servers, loads, report)

    def policies(self) -> Iterator[PolicyTable]:
        """Yield the policies that run; after the first static one, the same at its best."""
        for policy in self.config.policies:
            yield policy
            if self.tuned is not None and policy is self._to_tune:
                yield self.tuned

    def _serve(self, policy: PolicyTable, trace: Trace, key: Key, progress: Progress) -> None:
        result = run(
            self.config, policy, trace, self.limits, meta={"replication": key[1]}, progress=progress
        )
        load = _rate(accepted(trace, result.requests)) / self.capacities[key]["request_throughput"]
        result = replace(result, meta={**result.meta, "offered_load": load})
        about = pd.Series(
            {"num_slots": result.meta["num_slots"], "request_rate": _rate(trace)}, dtype=object
        )
        if self.config.cluster is not None:
            about["imbalance"] = imbalance(result)
        self.summaries[key] = pd.concat(
            [about, result.summary, slo_shares(result, self.config.slo)]
        )
        if key[1] == 0:
            self.results[policy.label] = result
            self.forms[policy.label] = closed_forms(
                self.config,
                policy,
                accepted(trace, result.requests),
                self.limits,
                self.validation,
            )

    def _capacity(self, policy: PolicyTable, full: Trace, progress: Progress) -> pd.Series[float]:
        result = run(self.config, policy, full, self.limits, iterations=False, progress=progress)
        return saturated_rates(result.requests, result.meta)

    def _tune(self, full: Trace, num_users: int | None) -> None:
        """Find static's best batch size: its default or a power of two, until two are no better.

        Of equal servers, one runs.
        """
        policy = self._to_tune
        if policy is None:
            return
        most = min(MAX_BATCH_SIZE, policy.config.max_num_seqs, num_users or MAX_BATCH_SIZE)
        sizes = [1 << power for power in range(most.bit_length())]
        tokens_per_s: dict[int, float] = {}
        for size in sizes:
            progress = self._advance(
                self._weight / len(sizes), f"{policy.label}: trying a batch size of {size}"
            )
            candidate = policy.with_fields(policy.label, batch_size=size)
            tokens_per_s[size] = self._saturated(candidate, full, progress)[1]
            if (
                size // 4 in tokens_per_s
                and max(tokens_per_s, key=tokens_per_s.__getitem__) <= size // 4
            ):
                break
        num_slots, tokens = self._saturated(policy, full)
        if self.server.cluster is None:  # else a sum over servers, which need not be alike
            tokens_per_s.setdefault(num_slots, tokens)
        best = max(tokens_per_s, key=tokens_per_s.__getitem__)
        self.tuned = policy.with_fields(f"{policy.label} (best batch, {best})", batch_size=best)

    def _saturated(
        self, policy: PolicyTable, full: Trace, progress: Progress | None = None
    ) -> tuple[int, float]:
        """Return slots and saturated output tokens per second of the server that is tuned."""
        result = run(self.server, policy, full, self.limits, iterations=False, progress=progress)
        tokens = float(saturated_rates(result.requests, result.meta)["output_throughput"])
        return result.meta["num_slots"], tokens if tokens > 0 else 0.0

    def _advance(self, share: float, what: str) -> Progress:
        """Begin a run that is a share of the whole; return what reports the progress within it."""
        begin = self._done
        self.report(begin, what)
        self._done = min(1.0, begin + share)

        def progress(done: int, total: int) -> None:
            self.report(
                min(1.0, begin + share * done / total), f"{what}, {done:,} of {total:,} requests"
            )

        return progress


def one_server(config: Config) -> Config:
    """Return one of a cluster's servers if they are equal, else the cluster."""
    equal = config.cluster is not None and config.cluster.replicas is not None
    return replace(config, cluster=None) if equal else config


def filling(config: Config, trace: Trace) -> Trace:
    """Return a burst of requests that can be served, enough to keep every server full."""
    batch_size = max(getattr(policy.config, "batch_size", None) or 0 for policy in config.policies)
    each = max(FULL_REQUESTS, (LEAST_BATCHES + 1) * batch_size)
    return burst(servable(config, trace), each * sum(pool.replicas for pool in config.pools))


def _within(report: Report, begin: float, share: float, what: str) -> None:
    report(begin + (1 - begin) * share, what)


def _wants_tuning(policy: PolicyTable) -> bool:
    """Whether it is static batching whose batch size was not chosen."""
    return policy.name == "static" and policy.config.batch_size is None


def _rate(trace: Trace) -> float:
    """Return requests per second; NaN in a burst and in a closed loop, which have no rate."""
    if trace.concurrency or not np.isfinite(trace.request_rate):
        return float("nan")
    return trace.request_rate
