"""Closed forms and simulations of the same thing, point by point, with the errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from busdoor.metrics.saturation import saturated_rates
from busdoor.metrics.statistics import mean_interval
from busdoor.theory import (
    StepLine,
    capped_sharing,
    mg1_wait_s,
    saturated_continuous_rps,
    saturated_static_rps,
    sharing_tpot_s,
)
from busdoor_workloads.lengths import Bimodal, Fixed, Geometric, Lengths, Uniform
from lessons.check_plot import plot_check
from lessons.servers import LINE, continuous, serve, static

__all__ = [
    "LAWS",
    "capped_batch",
    "longest_of_batch",
    "plot_check",
    "saturation",
    "shared_processor",
    "single_server",
    "summary",
]

Floats = NDArray[np.float64]

MEAN = 128
# Four laws of the same mean, from no spread to much: what must not matter below, and what must.
LAWS: dict[str, Lengths] = {
    "fixed": Fixed(tokens=MEAN),
    "uniform": Uniform(low=1, high=2 * MEAN - 1),
    "geometric": Geometric(mean=MEAN),
    "bimodal": Bimodal(short=Fixed(tokens=16), long=Fixed(tokens=576), long_share=0.2),
}
NUM_BATCHES = 20  # batch means of an interval


def _point(check: str, law: str, x: float, values: Floats, closed_form: float) -> dict[str, Any]:
    """Return a row of a check; its interval is by batch means, as neighbours are alike."""
    means = pd.Series([part.mean() for part in np.array_split(values, NUM_BATCHES)])
    _, low, high = mean_interval(means)
    simulated = float(values.mean())
    half = (high - low) / 2 if np.ptp(values) > 0 else 0.0
    about = {"check": check, "law": law, "x": x}
    measured = {"simulated": simulated, "low": simulated - half, "high": simulated + half}
    return about | measured | {"closed_form": closed_form, "error": simulated / closed_form - 1}


def _poisson(rate: float, n: int, rng: np.random.Generator) -> Floats:
    return np.cumsum(rng.exponential(1 / rate, n))


def _steady(values: Floats) -> Floats:
    """Leave out the tenth in which the server fills and the twentieth in which it drains."""
    return values[len(values) // 10 : -(len(values) // 20)]


def single_server(
    loads: Sequence[float] = (0.2, 0.4, 0.6, 0.8), num_requests: int = 10_000, seed: int = 0
) -> pd.DataFrame:
    """Wait before a server with one slot, against Pollaczek and Khinchine.

    Parameters
    ----------
    loads : sequence of float
        Arrival rate times mean service time, below 1.
    num_requests : int
        Of each run.
    seed : int
        Of arrivals and lengths.

    Returns
    -------
    DataFrame
        One row a law and load: `x`, the load that the draws came to; `simulated` (seconds) with
        `low` and `high`, its 95 % interval by batch means; `closed_form`; `error`, relative. All
        checks have these columns.
    """
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        [
            _single(name, law.sample(num_requests, rng), load, rng)
            for name, law in LAWS.items()
            for load in loads
        ]
    )


def _single(
    name: str, lengths: NDArray[np.int64], load: float, rng: np.random.Generator
) -> dict[str, Any]:
    service_s = LINE.step_s(1) * lengths
    arrival_s = _poisson(load / (LINE.step_s(1) * MEAN), len(lengths), rng)
    done = serve(continuous(1), lengths, arrival_s).requests
    wait_s = (done["first_scheduled_s"] - done["arrival_s"]).to_numpy()
    rate = len(lengths) / arrival_s[-1]
    cv = float(service_s.std() / service_s.mean())
    expected = mg1_wait_s(rate, float(service_s.mean()), cv)
    return _point("one slot: wait", name, rate * float(service_s.mean()), wait_s, expected)


def longest_of_batch(
    batch_sizes: Sequence[int] = (2, 4, 8, 16, 32, 64), num_batches: int = 600, seed: int = 0
) -> pd.DataFrame:
    """Iterations of static batches against the mean longest length; `x` is the batch size."""
    rng = np.random.default_rng(seed)
    rows = []
    for name, law in LAWS.items():
        for size in batch_sizes:
            done = serve(
                static(size), law.sample(size * num_batches, rng), line=StepLine(base_s=1.0)
            ).requests
            steps = (done["released_s"] - done["first_scheduled_s"]).to_numpy()[::size]
            rows.append(
                _point("static batch: iterations", name, size, steps, law.expected_max(size))
            )
    return pd.DataFrame(rows)


def shared_processor(
    loads: Sequence[float] = (0.2, 0.4, 0.6, 0.7, 0.8), num_requests: int = 6000, seed: int = 0
) -> pd.DataFrame:
    """TPOT of an uncapped continuous batch, and processor sharing; `x` is the drawn load."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        [
            _shared(name, law.sample(num_requests, rng), load, rng)
            for name, law in LAWS.items()
            for load in loads
        ]
    )


def _shared(
    name: str, lengths: NDArray[np.int64], load: float, rng: np.random.Generator
) -> dict[str, Any]:
    arrival_s = _poisson(load / (MEAN * LINE.per_request_s), len(lengths), rng)
    done = serve(continuous(), lengths, arrival_s).requests
    tokens = done["output_tokens"] - 1
    tpot_s = _steady(((done["finish_s"] - done["first_token_s"]) / tokens)[tokens > 0].to_numpy())
    rate = lengths.sum() / arrival_s[-1] / MEAN
    return _point(
        "no cap: TPOT",
        name,
        rate * MEAN * LINE.per_request_s,
        tpot_s,
        sharing_tpot_s(rate, LINE, MEAN),
    )


def capped_batch(
    loads: Sequence[float] = (0.3, 0.5, 0.7, 0.8, 0.9),
    slots: Sequence[int] = (8, 32),
    num_requests: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Continuous batch, few slots, geometric answers: latency against a birth-death chain."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        [_capped(size, load, num_requests, rng) for size in slots for load in loads]
    )


def _capped(slots: int, load: float, n: int, rng: np.random.Generator) -> dict[str, Any]:
    most = saturated_continuous_rps(LINE, slots, MEAN)
    arrival_s, lengths = _poisson(load * most, n, rng), Geometric(mean=MEAN).sample(n, rng)
    rate = lengths.sum() / arrival_s[-1] / MEAN
    done = serve(continuous(slots), lengths, arrival_s).requests
    latency_s = _steady((done["finish_s"] - done["arrival_s"]).to_numpy())
    chain = capped_sharing(rate, LINE, MEAN, slots)
    # A slot changes hands, and an arrival is seen, at the end of an iteration only: half of one
    # more.
    late_s = LINE.step_s(min(slots, chain.mean_in_system)) / 2
    return _point(
        "slots: latency", f"{slots} slots", rate / most, latency_s, chain.latency_s + late_s
    )


def saturation(
    slots: Sequence[int] = (2, 4, 8, 16, 32, 64), num_requests: int = 12_800, seed: int = 0
) -> pd.DataFrame:
    """Saturated requests/s of both kinds, geometric answers, prompts of 512; `x`: slots, rows.

    The closed forms are at the mean and the mean longest of the lengths drawn (whole batches of
    them).
    """
    rng = np.random.default_rng(seed)
    rows = []
    for size in slots:
        lengths = Geometric(mean=MEAN).sample(num_requests // size * size, rng)
        rows += _saturated(size, lengths)
    return pd.DataFrame(rows)


def _saturated(size: int, lengths: NDArray[np.int64]) -> list[dict[str, Any]]:
    line, mean = StepLine(LINE.base_s, LINE.per_request_s, 2e-5), float(lengths.mean())
    longest = float(lengths.reshape(-1, size).max(axis=1).mean())
    full = serve(continuous(size), lengths, input_tokens=512, line=line)
    door = saturated_rates(full.requests, full.meta)["output_throughput"] / mean
    bus = (
        len(lengths)
        / serve(static(size), lengths, input_tokens=512, line=line).requests["finish_s"].max()
    )
    closed = (
        saturated_continuous_rps(line, size, mean, 511),
        saturated_static_rps(line, size, mean, longest, 511),
    )
    check = "saturated: requests/s"
    return [
        _point(check, name, size, np.full(NUM_BATCHES, float(rate)), expected)
        for name, rate, expected in zip(("continuous", "static"), (door, bus), closed, strict=True)
    ]


def summary(*tables: pd.DataFrame) -> pd.DataFrame:
    """Sum up checks: points, mean and largest error (%), intervals with the closed form."""
    table = pd.concat(tables)
    table["percent"] = 100 * table["error"].abs()
    table["inside"] = (
        table["closed_form"]
        .between(table["low"], table["high"])
        .where(table["high"] > table["low"])
    )
    by = table.groupby("check", sort=False)
    columns = {
        "points": by.size(),
        "mean_error_%": by["percent"].mean(),
        "largest_error_%": by["percent"].max(),
    }
    return pd.DataFrame(
        {**columns, "with_interval": by["inside"].count(), "interval_holds_it": by["inside"].sum()}
    )
