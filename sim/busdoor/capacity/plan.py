"""From a rate that one server meets its SLO at to what has to be bought."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
import pandas as pd

_SECONDS_PER_HOUR = 3600
_MILLION = 1e6


def replicas_needed(request_rate: float, low_rps: float) -> float:
    """Servers that meet the SLO at a rate, when a router deals requests out evenly; NaN if none ever does.

    Each then sees its share of the rate, and thinned Poisson arrivals are Poisson.

    Parameters
    ----------
    request_rate : float
        Requests per second, of all together.
    low_rps : float
        At which one is known to meet the SLO.

    Examples
    --------
    >>> replicas_needed(40.0, 14.0), replicas_needed(42.0, 14.0)
    (3, 3)
    """
    # Rounding must not buy a server: 42 / 14 is 3, whatever the last bit says.
    return ceil(request_rate / low_rps * (1 - 1e-12)) if low_rps > 0 else float("nan")


def plan(
    low_rps: pd.Series[float],
    request_rate: float,
    *,
    mean_output_tokens: float,
    tp: int = 1,
    price_per_hour: float | None = None,
) -> pd.DataFrame:
    """Say how many servers each policy needs, and what they cost.

    Parameters
    ----------
    low_rps : Series
        By policy: the rate at which one server is known to meet the SLO.
    request_rate : float
        To be served.
    mean_output_tokens : float
        Of a request.
    tp : int
        GPUs of a server.
    price_per_hour : float, optional
        Of one GPU.

    Returns
    -------
    DataFrame
        One row a policy: `replicas`, `gpus`, `headroom` (how much more they carry, as a share), and with a price
        `cost_per_hour` and `cost_per_million_output_tokens`. NaN where no rate meets the SLO.

    Examples
    --------
    >>> low = pd.Series({"static": 1.0, "vllm": 15.0})
    >>> plan(low, 40.0, mean_output_tokens=200, price_per_hour=2.0).loc["vllm"].round(3).tolist()
    [3.0, 3.0, 0.125, 6.0, 0.208]
    """
    if not (np.isfinite(request_rate) and request_rate > 0):
        raise ValueError(f"rate is {request_rate}; it has to be a number of requests per second, more than 0")
    replicas = pd.Series({name: replicas_needed(request_rate, low) for name, low in low_rps.items()}, dtype=float)
    table = pd.DataFrame(
        {"replicas": replicas, "gpus": replicas * tp, "headroom": replicas * low_rps / request_rate - 1}
    )
    if price_per_hour is not None:
        table["cost_per_hour"] = table["gpus"] * price_per_hour
        tokens_per_hour = request_rate * mean_output_tokens * _SECONDS_PER_HOUR
        table["cost_per_million_output_tokens"] = table["cost_per_hour"] / tokens_per_hour * _MILLION
    return table.rename_axis("policy")


def plan_day(low_rps: pd.Series[float], hourly_rps: Sequence[float]) -> pd.DataFrame:
    """Say how many servers each policy needs hour by hour.

    Parameters
    ----------
    low_rps : Series
        As for `plan`.
    hourly_rps : sequence of float
        Requests per second in each hour, taken as constant within it: answers take seconds, not hours.

    Returns
    -------
    DataFrame
        One row an hour: `request_rate`, and a column a policy.

    Examples
    --------
    >>> plan_day(pd.Series({"vllm": 15.0}), [10.0, 40.0])["vllm"].tolist()
    [1.0, 3.0]
    """
    columns = {name: [replicas_needed(rate, low) for rate in hourly_rps] for name, low in low_rps.items()}
    table = pd.DataFrame({"request_rate": list(hourly_rps), **columns}, dtype=float)
    return table.rename_axis("hour")
