"""How far a simulated run is from the measured one."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from busdoor.calibration.quality import StepErrors, relative_errors
from busdoor.calibration.teacher_forcing import predicted_s
from busdoor.core.arrays import Floats
from busdoor.metrics import metrics
from busdoor.results.result import Result
from busdoor.step_time.base import StepTime

STATISTICS = ("mean", "p50", "p90", "p99")
LATENCIES = ("ttft", "tpot", "itl", "e2e")
# Load regimes: queueing multiplies an error of the step time by 1/(1 − ρ).
REGIMES = ((0.5, "ρ < 0.5"), (0.8, "0.5–0.8"), (1.0, "0.8–1"), (float("inf"), "> 1"))


def regime(load: float) -> str:
    """Name the load regime of ρ, the rate over the capacity; a burst (NaN) is beyond 1.

    >>> regime(0.3), regime(0.8), regime(float("nan"))
    ('ρ < 0.5', '0.8–1', '> 1')
    """
    return next((name for limit, name in REGIMES if load < limit), REGIMES[-1][1])


def step_errors(measured: Result, step_time: StepTime) -> StepErrors:
    """Teacher-forced errors of the model: the measured batches, with its durations.

    Mean and 90th percentile of the absolute relative error of iterations, and the relative error of
    their sum; NaN without iterations.

    >>> from busdoor.step_time.linear import LinearStepTime
    >>> step_errors(Result.example(), LinearStepTime(base_s=1.1)).total.__round__(6)
    0.1
    """
    table = measured.iterations[measured.iterations["duration_s"] > 0]
    timed = Result(measured.requests, table, measured.stays, measured.meta)
    repeat = table["repeat"].to_numpy(dtype=float)
    return relative_errors(
        table["duration_s"].to_numpy(dtype=float) / repeat,
        predicted_s(timed, step_time) / repeat,
        repeat,
    )


def latency_values(result: Result) -> dict[str, tuple[Floats, NDArray[np.int64]]]:
    """Seconds of every latency, and how many times each value counts."""
    table = result.latencies
    values = {name: table[name].dropna().to_numpy(dtype=float) for name in ("ttft", "tpot", "e2e")}
    counted = {name: (own, np.ones(len(own), dtype=np.int64)) for name, own in values.items()}
    if len(result.iterations) and result.meta.get("streams", True):
        counted["itl"] = metrics.token_gaps(result.iterations)
    else:
        gaps = np.array(result.meta.get("itls_s", ()), dtype=float)
        counted["itl"] = gaps, np.ones(len(gaps), dtype=np.int64)
    return counted


def statistics(result: Result) -> pd.Series[float]:
    """Mean and percentiles of latencies (s), by (latency, statistic), and ("output", "rate").

    The rate is output tokens per second from the first arrival to the last token.
    """
    table: dict[tuple[str, str], float] = {}
    for name, (values, weights) in latency_values(result).items():
        there = weights.sum() > 0
        table[name, "mean"] = float(np.average(values, weights=weights)) if there else np.nan
        for percent in (50, 90, 99):
            table[name, f"p{percent}"] = (
                metrics.weighted_percentile(values, weights, percent) if there else np.nan
            )
    table["output", "rate"] = float(result.summary["output_throughput"])
    return pd.Series(table, dtype=float)


def compare_statistics(measured: Result, simulated: Result) -> pd.DataFrame:
    """Table of measured, simulated and relative error, by (latency, statistic).

    >>> bool((compare_statistics(Result.example(), Result.example())["error"].dropna() == 0).all())
    True
    """
    table = pd.DataFrame({"measured": statistics(measured), "simulated": statistics(simulated)})
    table["error"] = table["simulated"] / table["measured"] - 1
    return table


def batch_agreement(measured: Result, simulated: Result) -> dict[str, float]:
    """Return how alike the batches are; NaN without measured iterations.

    `same`: share of the iterations that hold the same numbers of prefill and decode tokens, one
    after the other; `overlap`: share of the time that batches of a size take in both runs;
    `mean_batch`: relative error of the time-weighted mean batch.
    """
    if not len(measured.iterations):
        return dict.fromkeys(("same", "overlap", "mean_batch"), np.nan)
    ours, theirs = simulated.iterations, measured.iterations
    return {
        "same": _same(theirs, ours),
        "overlap": float(np.minimum(*_shares(theirs, ours)).sum()),
        "mean_batch": _mean_batch(ours) / _mean_batch(theirs) - 1,
    }


def _same(theirs: pd.DataFrame, ours: pd.DataFrame) -> float:
    both = [_expanded(table) for table in (theirs, ours)]
    common = min(map(len, both))
    equal = (both[0][:common] == both[1][:common]).all(axis=1).sum()
    return float(equal) / max(map(len, both))


def _expanded(table: pd.DataFrame) -> NDArray[np.int64]:
    counts = table[["num_prefill_tokens", "num_decode_tokens"]].to_numpy(dtype=np.int64)
    return np.repeat(counts, table["repeat"].to_numpy(dtype=np.int64), axis=0)


def _shares(theirs: pd.DataFrame, ours: pd.DataFrame) -> list[Floats]:
    most = int(max(theirs["num_requests"].max(), ours["num_requests"].max()))
    seconds = [
        np.bincount(table["num_requests"], table["duration_s"], most + 1)
        for table in (theirs, ours)
    ]
    return [own / own.sum() for own in seconds]


def _mean_batch(table: pd.DataFrame) -> float:
    return float((table["num_requests"] * table["duration_s"]).sum() / table["duration_s"].sum())


def knee_rate(rates: Floats, mean_e2e_s: Floats, factor: float = 2.0) -> float:
    """Rate at which mean E2E latency is `factor` times the lowest rate's, log-interpolated.

    NaN if it never is, or with fewer than three rates.

    >>> round(knee_rate(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 4.0])), 3)
    2.5
    """
    order = np.argsort(rates)
    rates, height = rates[order], np.log(mean_e2e_s[order] / mean_e2e_s[order][0])
    over = np.flatnonzero(height >= np.log(factor))
    if len(rates) < 3 or not len(over):
        return float("nan")
    after = int(over[0])
    share = (np.log(factor) - height[after - 1]) / (height[after] - height[after - 1])
    return float(rates[after - 1] + share * (rates[after] - rates[after - 1]))
