"""Use of the slot-iterations and of the KV cache of a run."""

from __future__ import annotations

import numpy as np
import pandas as pd

from busdoor.plots.phases import stay_phases
from busdoor.plots.runs import IterationClock, Run, served, server_meta

SLOT_PARTS = ("useful", "stalled", "finished")
"""Parts of the held slot-iterations, from what was wanted to what was not."""
KV_PARTS = ("used", "reserved", "unused", "holes", "free")
"""Parts of the KV cache, from what holds a token to what is free."""


def slot_account(run: Run) -> dict[str, float]:
    """Split the held slot-iterations (one slot, held for one iteration) by what the slot did.

    They add up to all that were held. useful: yielded a wanted token or computed a prompt, with its
    padding; stalled: held by a request that this iteration left out (another's prefill ran, or the
    token budget was spent); finished: held by a request that had finished.
    """
    iterations = run.iterations
    working = (iterations["num_requests"] - iterations["num_idle_rows"]).to_numpy(float)
    useful = float((working * iterations["repeat"].to_numpy(float)).sum())
    held, finished = _held(run)
    return dict(
        zip(SLOT_PARTS, (useful, max(0.0, held - finished - useful), finished), strict=True)
    )


def bubble_share(run: Run) -> float:
    """Return the share of held slot-iterations without a wanted token (a prefill is no bubble).

    The same number as `Result.summary["bubble_share"]`.
    """
    parts = slot_account(run)
    held = sum(parts.values())
    return 1 - parts["useful"] / held if held else float("nan")


def _held(run: Run) -> tuple[float, float]:
    """Return all held slot-iterations, and those held by requests that had finished."""
    held = finished = 0.0
    for replica, stays in stay_phases(run).groupby("replica"):
        clock = IterationClock(run.iterations[run.iterations["replica"] == replica])
        enter, done, leave = (
            clock.count(stays[column]) for column in ("enter_s", "done_s", "leave_s")
        )
        held += float((leave - enter).sum())
        finished += float((leave - done).sum())
    return held, finished


def kv_capacity_tokens(run: Run, replica: int = 0) -> float:
    """Return the capacity of one server's KV cache in tokens."""
    own = server_meta(run, replica)
    return float(own["num_blocks"]) * float(own["block_size"])


def kv_curves(iterations: pd.DataFrame, block_size: int, capacity_tokens: float) -> pd.DataFrame:
    """Return one server's KV tokens by use, at the start and last repetition of every stretch.

    Two rows per stretch: `time_s` and one column in tokens for each of `KV_PARTS`, which add up to
    `capacity_tokens`.
    """
    first, last = _kv_at_first(iterations), _kv_at_last(iterations, block_size)
    start_s, end_s = iterations["start_s"], iterations["start_s"] + iterations["duration_s"]
    both = pd.concat([first.assign(time_s=start_s), last.assign(time_s=end_s)])
    both = both.sort_index(kind="stable").reset_index(drop=True)
    taken = both["reserved"] + both["holes"]
    both["reserved"] = (both["reserved"] - both["used"] - both["unused"]).clip(lower=0.0)
    both["free"] = (capacity_tokens - taken).clip(lower=0.0)
    return both[["time_s", *KV_PARTS]]


def _kv_at_first(iterations: pd.DataFrame) -> pd.DataFrame:
    names = {
        "kv_reserved_tokens": "reserved",
        "kv_used_tokens": "used",
        "kv_unused_tokens": "unused",
    }
    return (
        iterations[[*names, "kv_hole_tokens"]]
        .rename(columns={**names, "kv_hole_tokens": "holes"})
        .astype(float)
    )


def _kv_at_last(iterations: pd.DataFrame, block_size: int) -> pd.DataFrame:
    """Return the tokens at the last repetition: each decode writes one, and blocks fill."""
    table = _kv_at_first(iterations)
    table["reserved"] += block_size * (
        iterations["kv_blocks_used_last"] - iterations["kv_blocks_used"]
    )
    written = iterations["context_tokens_last"] - iterations["context_tokens"]
    table["used"] = np.minimum(table["used"] + written, table["reserved"])
    table["unused"] = np.minimum(table["unused"], table["reserved"] - table["used"])
    return table


def kv_account(run: Run) -> dict[str, float]:
    """Split the KV cache by what it held, averaged over the time in which iterations ran.

    Tokens of a server's cache, adding up to its capacity (the mean over the time of all servers).
    used: holds a token; reserved: will be written; unused: reserved, never written; holes: free,
    but too scattered to be given out; free: the rest.
    """
    own = [(int(str(number)), rows) for number, rows in served(run).iterations.groupby("replica")]
    curves = pd.concat(
        kv_curves(rows, server_meta(run, number)["block_size"], kv_capacity_tokens(run, number))
        for number, rows in own
    )
    seconds = np.concatenate([rows["duration_s"].to_numpy(float) for _, rows in own])
    weight = np.repeat(seconds / 2, 2)  # trapezia: half at each end
    return {part: float(np.average(curves[part], weights=weight)) for part in KV_PARTS}
