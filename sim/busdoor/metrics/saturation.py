"""Saturated throughput: a server's maximum, measured on a burst; a gain is a ratio of two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from busdoor.metrics.throughput import accepted, finished

FILLING_SHARE = 0.25  # of the answers, while the server fills: they would bias the rate by 10 %
LEAST_BATCHES = 3  # static ones: the first fills, the last drains
# of continuous answers, before the last admission: fewer would be short ones mostly
LEAST_SHARE = 0.5
RATES = ("request_throughput", "output_throughput")


def saturated_rates(requests: pd.DataFrame, meta: Mapping[str, Any]) -> pd.Series[float]:
    """Return a server's throughput while it is full and requests wait: the meaning of "saturated".

    The requests all wait from the start (in a closed loop: one per user). `request_throughput` and
    `output_throughput` count, per second, completions from the time that the first quarter of them
    was answered (until then the server fills) to the last admission (after it the server drains).
    NaN where the queue is too short for that: fewer than three static batches, or most continuous
    answers after the last admission.

    >>> from busdoor.results.result import Result
    >>> run = Result.example()          # every request is admitted at once: no queue
    >>> bool(saturated_rates(run.requests, run.meta).isna().all())
    True
    """
    counted, since_s, until_s = _window(requests)
    if not until_s > since_s or not _lasting(requests, counted, is_whole_batch(meta)):
        return _no_rates()
    after = counted[counted["finish_s"] > since_s]
    span_s = until_s - since_s
    return pd.Series([len(after) / span_s, after["output_tokens"].sum() / span_s], index=RATES)


def burst_rates(requests: pd.DataFrame, meta: Mapping[str, Any]) -> pd.Series[float]:
    """Return `saturated_rates` of a burst; NaN where requests arrive while rates are counted.

    >>> from busdoor.results.result import Result
    >>> sorted(burst_rates(Result.example().requests, {}).index)
    ['output_throughput', 'request_throughput']
    """
    _, since_s, _ = _window(requests)
    arrived = accepted(requests)["arrival_s"].max()
    return saturated_rates(requests, meta) if arrived <= since_s else _no_rates()


def _no_rates() -> pd.Series[float]:
    return pd.Series(np.nan, index=RATES)


def _window(requests: pd.DataFrame) -> tuple[pd.DataFrame, float, float]:
    """Return the answers before the last admission, and the seconds between which they count."""
    done = finished(requests)
    until_s = float(done["first_scheduled_s"].max())
    counted = done.loc[done["finish_s"] <= until_s, ["finish_s", "output_tokens"]]
    first = int(FILLING_SHARE * len(counted))
    ends_s = counted["finish_s"].to_numpy()
    since_s = float(np.partition(ends_s, first)[first]) if len(counted) else np.nan
    return counted, since_s, until_s


def _lasting(requests: pd.DataFrame, counted: pd.DataFrame, whole_batch: bool) -> bool:
    """Whether the queue lasted long enough for a rate."""
    done = finished(requests)
    if whole_batch:
        return bool((done.groupby("replica")["first_scheduled_s"].nunique() >= LEAST_BATCHES).all())
    return len(counted) >= LEAST_SHARE * len(done)


def is_whole_batch(meta: Mapping[str, Any]) -> bool:
    """Return whether a saved run was scheduled in whole batches (`Policy.whole_batch`).

    Older folders do not have it; there, answers that were released whole decide.

    >>> is_whole_batch({"whole_batch": True}), is_whole_batch({"streams": True})
    (True, False)
    """
    return bool(meta.get("whole_batch", not meta.get("streams", True)))
