"""Statistics of a trace, and the efficiency of static batches of its lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from busdoor_workloads.columns import FloatArray, IntArray
from busdoor_workloads.describe_plot import draw
from busdoor_workloads.hashes import HashIds
from busdoor_workloads.trace import Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH_SIZES = (2, 4, 8, 16, 32, 64)
"""Static batch sizes that `describe` looks at."""
WINDOWS_S = (1, 10, 60)
"""Windows in which arrivals are counted for their index of dispersion."""


def describe(trace: Trace, batch_sizes: Sequence[int] = BATCH_SIZES) -> pd.Series[float]:
    """Summarise a trace; NaN if there is nothing to measure, ValueError if it is empty.

    `requests`, `span_s`, `request_rate`; `mean`, `p50`, `p90`, `p99`, `max` and `cv` of input and
    output tokens; `interarrival_cv`; `idc_1s` and so on (index of dispersion for counts: variance
    over mean of the arrivals in windows of that length, 1 for a Poisson process); `correlation` of
    input and output tokens; shares of prompt blocks and tokens that an infinite prefix cache would
    hit; `decode_efficiency_b16`, `prefill_efficiency_b16` and so on: `static_efficiency`.

    >>> trace = Trace(arrival_s=[0, 1, 2], input_tokens=[10, 10, 10], output_tokens=[10, 20, 60])
    >>> summary = describe(trace)
    >>> summary["output_tokens_mean"].item(), summary["request_rate"].item(), summary["interarrival_cv"].item()
    (30.0, 1.0, 0.0)
    """
    if not len(trace):
        raise ValueError(f"{trace.name} has no requests to describe")
    return pd.Series(
        {
            "requests": len(trace),
            "span_s": trace.duration_s,
            "request_rate": trace.request_rate,
            **_spread("input_tokens", trace.input_tokens),
            **_spread("output_tokens", trace.output_tokens),
            "interarrival_cv": _cv(np.diff(trace.arrival_s)),
            **{
                f"idc_{window_s}s": index_of_dispersion(trace.arrival_s, window_s)
                for window_s in WINDOWS_S
            },
            "correlation": _correlation(trace.input_tokens, trace.output_tokens),
            **_prefix_reuse(trace),
            **static_efficiency(trace.output_tokens, batch_sizes).add_prefix("decode_efficiency_b"),
            **static_efficiency(trace.input_tokens, batch_sizes).add_prefix("prefill_efficiency_b"),
        },
        name=trace.name,
        dtype=float,
    )


def static_efficiency(
    tokens: ArrayLike, batch_sizes: Sequence[int] = BATCH_SIZES
) -> pd.Series[float]:
    """Return the share of static slot-steps with wanted work, for batches filled at random.

    A static batch of b requests lasts as long as its longest, so the share is E[N] / E[max of b].
    Both are exact for the lengths given: the maximum of b draws is at most k with probability
    F(k)^b. For prompts, padded to the longest, it is the share of wanted prompt tokens. Raises
    ValueError if a batch size is below 1, or there are no lengths.

    Half the answers are 1 token, half 3: E[N] = 2, and a pair's longest is 3 in three cases of
    four, so 2.5.

    >>> static_efficiency([1, 3], [1, 2])
    1    1.0
    2    0.8
    dtype: float64
    """
    lengths, counts = np.unique(np.asarray(tokens), return_counts=True)
    if not len(lengths):
        raise ValueError("tokens is empty; static_efficiency needs at least one length")
    if least := [b for b in batch_sizes if b < 1]:
        raise ValueError(f"batch_sizes holds {least[0]}; a batch has at least 1 request")
    at_most = np.cumsum(counts) / counts.sum()
    longest = [lengths @ np.diff(at_most**b, prepend=0.0) for b in batch_sizes]
    return pd.Series(lengths @ counts / counts.sum() / longest, index=list(batch_sizes))


def index_of_dispersion(arrival_s: ArrayLike, window_s: float) -> float:
    """Return variance over mean of the number of arrivals in successive windows.

    1 for a Poisson process, more for a bursty one. Windows that fit between the first and the last
    arrival (in order) are counted; NaN if fewer than two fit.

    >>> index_of_dispersion([0.0, 0.1, 2.5, 2.6, 4.0], window_s=1)
    1.0
    """
    since_s = np.asarray(arrival_s, dtype=float)
    since_s = since_s - since_s[0]
    num_windows = int(since_s[-1] // window_s)
    if num_windows < 2:
        return float("nan")
    # Windows without an arrival are counted, not stored: a clock may span years.
    _, counts = np.unique(
        (since_s[since_s < num_windows * window_s] // window_s).astype(np.int64), return_counts=True
    )
    mean = counts.sum() / num_windows
    return float((counts @ counts / num_windows - mean**2) / mean)


def _spread(column: str, tokens: IntArray) -> dict[str, float]:
    p50, p90, p99 = np.percentile(tokens, (50, 90, 99))
    values = {
        "mean": tokens.mean(),
        "p50": p50,
        "p90": p90,
        "p99": p99,
        "max": tokens.max(),
        "cv": _cv(tokens),
    }
    return {f"{column}_{name}": float(value) for name, value in values.items()}


def _cv(values: FloatArray | IntArray) -> float:
    mean = values.mean() if len(values) else 0.0
    return float(values.std() / mean) if mean else float("nan")


def _correlation(one: IntArray, other: IntArray) -> float:
    return float(np.corrcoef(one, other)[0, 1]) if one.std() and other.std() else float("nan")


def _prefix_reuse(trace: Trace) -> dict[str, float]:
    """Return the shares of blocks and prompt tokens that hit an infinite cache, in order."""
    if trace.hash_ids is None or not trace.block_size:
        return {"prefix_block_hit_share": float("nan"), "prefix_token_hit_share": float("nan")}
    ids = HashIds.of(trace.hash_ids)
    num_blocks, flat = ids.num_blocks, ids.flat()
    seen = np.ones(len(flat), dtype=bool)
    seen[np.unique(flat, return_index=True)[1]] = False
    # A cache serves a prompt up to its first new block: leading seen blocks, row by row.
    row = np.repeat(np.arange(len(trace)), num_blocks)
    place = np.arange(len(flat)) - np.repeat(np.cumsum(num_blocks) - num_blocks, num_blocks)
    first_new = num_blocks.copy()
    np.minimum.at(first_new, row[~seen], place[~seen])
    hit_tokens = np.minimum(first_new * trace.block_size, trace.input_tokens)
    return {
        "prefix_block_hit_share": float(first_new.sum() / len(flat)) if len(flat) else 0.0,
        "prefix_token_hit_share": float(hit_tokens.sum() / trace.input_tokens.sum()),
    }


def plot_describe(trace: Trace, batch_sizes: Sequence[int] = BATCH_SIZES) -> Figure:
    """Draw a trace's lengths, its arrivals over time, and its static efficiency by batch size.

    Raises ValueError: the trace is empty.
    """
    return draw(trace, describe(trace, batch_sizes), batch_sizes)
