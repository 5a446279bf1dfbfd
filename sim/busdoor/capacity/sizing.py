"""From the rates at which one server meets its SLO to the number of servers."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, nan
from typing import NamedTuple

import numpy as np
import pandas as pd

from busdoor.config.energy import hours_per_million_tokens

_MINUTES = 60  # of an hour: start-up times are rounded up to whole ones
_ROUNDING = 1e-12  # must not add a server: 42 / 14 is 3, whatever its last bit


class Day(NamedTuple):
    """Rates by hour in requests/s, seconds that a server takes to start, servers always there."""

    hourly_rps: Sequence[float]
    startup_s: float = 0.0
    floor: int = 0


def replicas_needed(request_rate: float, low_rps: float, least_rps: float = 0.0) -> float:
    """Return how many servers meet the SLO at a rate that is split evenly; NaN if no number does.

    Each then sees its share of the rate, and thinned Poisson arrivals are Poisson. That share has
    to be in the range of rates that one server meets the SLO at: the fewest servers that are enough
    give each the most, so that where this is too little (whole batches fill too slowly), no number
    will do.

    Parameters
    ----------
    request_rate : float
        Requests per second, of all together.
    low_rps : float
        The highest rate at which one is known to meet the SLO.
    least_rps : float
        The lowest such rate; 0 where every lower one will do.

    Examples
    --------
    >>> replicas_needed(40.0, 14.0), replicas_needed(42.0, 14.0)
    (3, 3)
    >>> replicas_needed(15.0, 14.0, least_rps=8.0)
    nan
    """
    if not low_rps > 0:
        return nan
    fewest = ceil(request_rate / low_rps * (1 - _ROUNDING))
    return fewest if request_rate >= fewest * least_rps * (1 - _ROUNDING) else nan


def plan(
    low_rps: pd.Series[float],
    request_rate: float,
    *,
    mean_output_tokens: float,
    least_rps: pd.Series[float] | None = None,
    tp: int | pd.Series[int] = 1,
    price_per_hour: float | pd.Series[float] | None = None,
) -> pd.DataFrame:
    """Return how many servers each policy needs, and what they cost.

    Parameters
    ----------
    low_rps : Series
        By policy: the highest rate at which one server is known to meet the SLO.
    request_rate : float
        To be served.
    mean_output_tokens : float
        Of a request.
    least_rps : Series, optional
        By policy: the lowest rate at which one server is known to meet the SLO, 0 where every lower
        one does; by default 0 for all.
    tp : int or Series
        GPUs of a server, or by policy.
    price_per_hour : float or Series, optional
        Of one GPU, or by policy.

    Returns
    -------
    DataFrame
        One row per policy: `replicas`, `gpus`, `rate_per_replica`, `headroom` (how much the rate
        may grow, as a share), `may_fall` (how much it may fall before the batches of so many
        servers fill too slowly), and with a price `cost_per_hour` and
        `cost_per_million_output_tokens`. NaN where no number of servers meets the SLO.

    Examples
    --------
    >>> low = pd.Series({"static": 1.0, "vllm": 15.0})
    >>> plan(low, 40.0, mean_output_tokens=200, price_per_hour=2.0).loc["vllm"].round(3).tolist()
    [3.0, 3.0, 13.333, 0.125, 1.0, 6.0, 0.208]
    """
    if not (np.isfinite(request_rate) and request_rate > 0):
        raise ValueError(
            f"rate is {request_rate}; it must be a number of requests per second, more than 0"
        )
    ranges = _ranges(low_rps, least_rps)
    replicas = pd.Series(
        {name: replicas_needed(request_rate, *ends) for name, *ends in ranges}, dtype=float
    )
    least = pd.Series({name: end for name, _, end in ranges}, dtype=float)
    table = pd.DataFrame(
        {
            "replicas": replicas,
            "gpus": replicas * tp,
            "rate_per_replica": request_rate / replicas,
            "headroom": replicas * low_rps / request_rate - 1,
            "may_fall": 1 - replicas * least / request_rate,
        }
    )
    if price_per_hour is not None:
        table["cost_per_hour"] = table["gpus"] * price_per_hour
        hours = hours_per_million_tokens(request_rate * mean_output_tokens)
        table["cost_per_million_output_tokens"] = table["cost_per_hour"] * hours
    return table.rename_axis("policy")


def plan_day(
    low_rps: pd.Series[float],
    hourly_rps: Sequence[float],
    least_rps: pd.Series[float] | None = None,
    floor: int = 0,
) -> pd.DataFrame:
    """Return how many servers each policy needs hour by hour.

    Parameters
    ----------
    low_rps, least_rps : Series
        As for `plan`.
    hourly_rps : sequence of float
        Requests per second in each hour, taken as constant within it: answers take seconds, not
        hours.
    floor : int
        Servers that run at any hour, needed or not, and share the rate.

    Returns
    -------
    DataFrame
        One row per hour: `request_rate`, and a column per policy; NaN where no number of servers
        from the floor on meets the SLO.

    Examples
    --------
    >>> plan_day(pd.Series({"vllm": 15.0}), [10.0, 40.0])["vllm"].tolist()
    [1.0, 3.0]

    Two servers get too little each, so that batches fill too slowly:

    >>> low, least = pd.Series({"static": 4.0}), pd.Series({"static": 2.0})
    >>> plan_day(low, [3.0, 8.0], least, floor=2)["static"].tolist()
    [nan, 2.0]
    """
    columns = {
        name: [_at_least(floor, rate, low, least) for rate in hourly_rps]
        for name, low, least in _ranges(low_rps, least_rps)
    }
    table = pd.DataFrame({"request_rate": list(hourly_rps), **columns}, dtype=float)
    return table.rename_axis("hour")


def billed_hours(servers: Sequence[float], startup_s: float = 0.0) -> float:
    """Return the server-hours of a day that a fleet follows, start-up times included.

    `servers` are needed in each hour. One must start `startup_s` before it is needed, and is billed
    from then on; one that would be needed again within that time runs on. The day repeats.

    A second server for one hour, ordered half an hour earlier:

    >>> billed_hours([1, 1, 2, 1]), billed_hours([1, 1, 2, 1], startup_s=1800)
    (5.0, 5.5)
    """
    minutes = np.repeat(np.asarray(servers, dtype=float), _MINUTES)
    ahead = min(ceil(startup_s / 60), len(minutes))
    running = np.max([np.roll(minutes, -early) for early in range(ahead + 1)], axis=0)
    return float(running.sum()) / _MINUTES


def fixed_fleet(
    low_rps: pd.Series[float],
    hourly_rps: Sequence[float],
    least_rps: pd.Series[float] | None = None,
    floor: int = 0,
) -> pd.Series[float]:
    """Return how many servers, `floor` or more, each policy needs all day; NaN where none will do.

    >>> low = pd.Series({"static": 4.0, "vllm": 15.0})
    >>> least = pd.Series({"static": 2.0, "vllm": 0.0})
    >>> fixed_fleet(low, [10.0, 40.0], least).to_dict()
    {'static': nan, 'vllm': 3.0}
    """
    peak, trough, fleet = max(hourly_rps), min(hourly_rps), {}
    for name, low, least in _ranges(low_rps, least_rps):
        number = max(replicas_needed(peak, low), floor)
        fleet[name] = number if trough >= number * least * (1 - _ROUNDING) else nan
    return pd.Series(fleet, dtype=float)


def _at_least(floor: int, request_rate: float, low_rps: float, least_rps: float) -> float:
    """Return the servers for a rate that is shared by `floor` of them, or more; NaN if too many."""
    number = replicas_needed(request_rate, low_rps, least_rps)
    if not number < floor:
        return number
    enough = request_rate >= floor * least_rps * (1 - _ROUNDING)
    return floor if enough or request_rate == 0 else nan


def _ranges(
    low_rps: pd.Series[float], least_rps: pd.Series[float] | None
) -> list[tuple[str, float, float]]:
    """Return each policy with the highest and the lowest rate that meet the SLO."""
    least = [0.0] * len(low_rps) if least_rps is None else least_rps.reindex(low_rps.index)
    return [
        (str(name), float(low), float(end))
        for (name, low), end in zip(low_rps.items(), least, strict=True)
    ]
