"""Energy of a configuration's GPUs from their load, a line between idle and busy power; hours."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, TypeVar

from busdoor.config.config import Config

if TYPE_CHECKING:
    import pandas as pd

Rate = TypeVar("Rate", float, "pd.Series[float]")

# Of the power limit. An H200 idles at 80 W of 700 (0.11) and draws 593 W with vLLM at batch 128
# (0.85; api.serialalice.pt/alice-benchmark, 2026-06); an A100 idles at 62 W of 400 (0.16;
# github.com/chuyishang/inference-energy, 2025-12).
IDLE_SHARE = 0.13
BUSY_SHARE = 0.85
_JOULES_PER_KWH = 3.6e6
_SECONDS_PER_HOUR = 3600
_MILLION = 1e6


def power_w(config: Config, load: float) -> float:
    """Return the watts of all GPUs of a configuration; NaN where a power limit is not known.

    The load is the rate over their saturated one; more than 1 is a full load. Power grows with load
    on a line, from idle on (Fan, Weber, Barroso, "Power provisioning for a warehouse-sized
    computer", ISCA 2007). It is that of the GPUs alone: hosts and cooling come on top.

    >>> one = Config.from_table({})                  # an H100: at most 700 W
    >>> round(power_w(one, 0.0), 3), round(power_w(one, 1.0), 3), round(power_w(one, 0.5), 3)
    (91.0, 595.0, 343.0)
    """
    limit_w = sum(
        pool.replicas * pool.num_gpus * (pool.gpu.name.tdp_w or nan) for pool in config.pools
    )
    return limit_w * (IDLE_SHARE + (BUSY_SHARE - IDLE_SHARE) * min(load, 1.0))


def hours_per_million_tokens(tokens_per_s: Rate) -> Rate:
    """Return the hours in which a million tokens are made; times a price per hour, what they cost.

    >>> round(hours_per_million_tokens(1000.0), 4)
    0.2778
    """
    return _MILLION / _SECONDS_PER_HOUR / tokens_per_s


def kwh_per_million_tokens(config: Config, load: float, tokens_per_s: float) -> float:
    """Return the kWh of a million output tokens at a load.

    >>> round(kwh_per_million_tokens(Config.from_table({}), 1.0, 5000.0), 4)
    0.0331
    """
    joules = power_w(config, load) / tokens_per_s if tokens_per_s > 0 else nan
    return joules * _MILLION / _JOULES_PER_KWH
