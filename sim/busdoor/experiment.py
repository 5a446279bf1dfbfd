"""Running a comparison: every policy on the same draws, once saturated and once at the load offered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from busdoor.config import SLO, Config, PolicyTable
from busdoor.config.workload import burst
from busdoor.result import Result
from busdoor.run import limits_for, run
from busdoor_workloads import Trace

Report = Callable[[float, str], None]  # told the share of the work that is done, and what is being done
Draw = Callable[[int], Trace]
Key = tuple[str, int]

MAX_BATCH_SIZE = 1024  # where the search for static's best one ends: vLLM's max_num_seqs on large GPUs
FILLING_SHARE = 0.25  # of a saturated run's answers, while the server fills: they would bias the rate by 10 %


class Experiment:
    """A comparison that is being run. What is done can be read at any time, also after an interruption.

    Parameters
    ----------
    config : Config
        What to compare.
    draw : callable
        Makes the trace of a replication, 0 first; the same one for the same number.
    report : callable, optional
        Told about progress.

    Attributes
    ----------
    results : dict of str to Result
        By policy, of the first replication at the load offered.
    summaries, capacities : dict of (str, int) to Series
        By policy and replication: metrics at the load offered; requests and output tokens per second when saturated.
    """

    def __init__(self, config: Config, draw: Draw, report: Report | None = None) -> None:
        self.config = config
        self.draw = draw
        self.limits = limits_for(config, (draw(i) for i in range(config.replications)))
        self.results: dict[str, Result] = {}
        self.summaries: dict[Key, pd.Series[Any]] = {}
        self.capacities: dict[Key, pd.Series[float]] = {}
        self.tuned: PolicyTable | None = None
        self.report = report or (lambda share, what: None)
        self._to_tune = next((policy for policy in config.policies if _wants_tuning(policy)), None)
        # The search is about as long as a replication.
        self._weight = 1 / (config.replications + (self._to_tune is not None))
        self._done = 0.0

    def run(self) -> None:
        """Run everything, one replication after the other, so that an interruption leaves whole ones."""
        for replication in range(self.config.replications):
            trace = self.draw(replication)
            full = burst(trace)
            if replication == 0:
                self._tune(full, trace.concurrency)
            policies = list(self.policies())
            for policy in policies:
                what = f"replication {replication + 1} of {self.config.replications}: {policy.label}"
                self._advance(self._weight / len(policies), what)
                key = policy.label, replication
                self.capacities[key] = self._capacity(policy, full)
                self._serve(policy, trace, key)
        self.report(1.0, "done")

    def policies(self) -> Iterator[PolicyTable]:
        """Return all that run: those of the configuration, and after the first static one the same at its best."""
        for policy in self.config.policies:
            yield policy
            if self.tuned is not None and policy is self._to_tune:
                yield self.tuned

    def _serve(self, policy: PolicyTable, trace: Trace, key: Key) -> None:
        meta = {"replication": key[1], "offered_load": _rate(trace) / self.capacities[key]["request_throughput"]}
        result = run(self.config, policy, trace, self.limits, meta=meta)
        about = pd.Series({"num_slots": result.meta["num_slots"], "request_rate": _rate(trace)}, dtype=object)
        self.summaries[key] = pd.concat([about, result.summary, promises(result, self.config.slo)])
        if key[1] == 0 and policy is not self.tuned:
            self.results[policy.label] = result

    def _capacity(self, policy: PolicyTable, full: Trace) -> pd.Series[float]:
        return saturated_rates(run(self.config, policy, full, self.limits, iterations=False))

    def _tune(self, full: Trace, num_users: int | None) -> None:
        """Find static's best batch size: its default, or a power of two; until two in a row bring nothing."""
        policy = self._to_tune
        if policy is None:
            return
        most = min(MAX_BATCH_SIZE, policy.config.max_num_seqs, num_users or MAX_BATCH_SIZE)
        sizes = [1 << power for power in range(most.bit_length())]
        tokens_per_s: dict[int, float] = {}
        for size in sizes:
            self._advance(self._weight / len(sizes), f"{policy.label}: trying a batch size of {size}")
            candidate = policy.with_fields(policy.label, batch_size=size)
            tokens_per_s[size] = self._capacity(candidate, full)["output_throughput"]
            if size // 4 in tokens_per_s and max(tokens_per_s, key=tokens_per_s.__getitem__) <= size // 4:
                break
        default = run(self.config, policy, full, self.limits, iterations=False)
        tokens_per_s.setdefault(default.meta["num_slots"], saturated_rates(default)["output_throughput"])
        best = max(tokens_per_s, key=tokens_per_s.__getitem__)
        self.tuned = policy.with_fields(f"{policy.label} (best batch, {best})", batch_size=best)

    def _advance(self, share: float, what: str) -> None:
        self.report(self._done, what)
        self._done = min(1.0, self._done + share)


def saturated_rates(result: Result) -> pd.Series[float]:
    """Measure what a server carries when everybody is there from the start.

    Parameters
    ----------
    result : Result
        Of a burst.

    Returns
    -------
    Series
        `request_throughput` and `output_throughput`, per second: completions from the time that the first quarter of
        them was answered (until then the server fills) to the last admission (after it the server drains).

    Examples
    --------
    >>> rates = saturated_rates(Result.example())      # everybody is admitted at once: there is no such time
    >>> bool(rates.isna().all())
    True
    """
    done = result.requests[result.requests["status"] == "finished"]
    until = done["first_scheduled_s"].max()
    counted = done[done["finish_s"] <= until].sort_values("finish_s")
    if not len(counted):
        return pd.Series({"request_throughput": np.nan, "output_throughput": np.nan})
    since = counted["finish_s"].iloc[int(FILLING_SHARE * len(counted))]
    counted = counted[counted["finish_s"] > since]
    span = until - since if len(counted) else np.nan
    return pd.Series(
        {"request_throughput": len(counted) / span, "output_throughput": counted["output_tokens"].sum() / span}
    )


def _wants_tuning(policy: PolicyTable) -> bool:
    """Whether it is static batching whose batch size nobody has chosen."""
    return policy.name == "static" and policy.config.batch_size is None


def _rate(trace: Trace) -> float:
    """Requests per second; NaN where clients have no rate of their own: in a burst, and in a closed loop."""
    return float("nan") if trace.concurrency or not np.isfinite(trace.request_rate) else trace.request_rate


def promises(result: Result, slo: SLO) -> pd.Series[Any]:
    """Return the share of requests within each limit of the [slo], and whether all are kept; NaN without any."""
    limits = slo.shares()
    shares = {f"slo_{key}": result.slo(**{metric: limit}) for key, (metric, limit, _) in limits.items()}
    met = all(shares[f"slo_{key}"] >= promised for key, (_, _, promised) in limits.items())
    return pd.Series({**shares, "slo_met": met if limits else np.nan}, dtype=object)
