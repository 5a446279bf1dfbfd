"""What a request does while it holds a slot: prefill, decode, and wait finished."""

from __future__ import annotations

import numpy as np
import pandas as pd

from busdoor.core.arrays import Floats
from busdoor.plots.runs import IterationClock, Run, served

# What a stay in a slot consists of, and the columns of `stay_phases` at which each piece begins and
# ends.
PIECES = (
    ("prefill", "enter_s", "prefill_end_s"),
    ("decode", "prefill_end_s", "done_s"),
    ("finished", "done_s", "leave_s"),
)


def stay_phases(run: Run) -> pd.DataFrame:
    """Split every stay in a slot into prefill, decode and idle time.

    Returns the stays in order of replica, slot and time, with the requests' columns and four more:
    `prefill_end_s` (its first token of this stay is out), `done_s` (its last wanted token is out,
    or it was preempted), `ends_request`, and `whole` (its tokens were released all at once). Always
    enter_s <= prefill_end_s <= done_s <= leave_s. Raises ValueError if the run has no iterations.

    A static batch released whole shows every token at its end, so its requests do not show when a
    row had really finished. The iterations do: a row has finished after one iteration for each of
    its tokens. The prefill that repeats after a preemption ends with the first iteration of the
    stay that completes a prefill.
    """
    requests = run.requests.drop(columns=["replica"], errors="ignore")
    stays = served(run).stays.merge(requests, on="request_id", how="left")
    stays["whole"] = released_whole(stays) | (not run.meta.get("streams", True))
    phases = pd.concat(
        [_phases_of_replica(part, run.iterations) for _, part in stays.groupby("replica")]
    )
    return phases.sort_values(["replica", "slot", "enter_s"], ignore_index=True)


def _phases_of_replica(stays: pd.DataFrame, iterations: pd.DataFrame) -> pd.DataFrame:
    own = iterations[iterations["replica"] == stays["replica"].iloc[0]]
    enter_s, leave_s = stays["enter_s"].to_numpy(float), stays["leave_s"].to_numpy(float)
    first_token_s = stays["first_token_s"].to_numpy(float)
    finish_s = stays["finish_s"].to_numpy(float)
    whole = stays["whole"].to_numpy(bool)
    completing_s = _next_prefill_end_s(own, enter_s)
    known = ~whole & (first_token_s > enter_s) & (first_token_s <= leave_s)
    prefill_end_s = np.where(
        known, first_token_s, np.minimum(np.fmin(completing_s, leave_s), leave_s)
    )
    done_s = np.fmin(np.where(whole, _row_end_s(own, prefill_end_s, stays), finish_s), leave_s)
    done_s = np.maximum(done_s, prefill_end_s)
    return stays.assign(
        prefill_end_s=prefill_end_s, done_s=done_s, ends_request=finish_s <= leave_s
    )


def released_whole(requests: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which requests got all their tokens at once, although they generated more than one."""
    together = requests["first_token_s"].to_numpy(float) >= requests["finish_s"].to_numpy(float)
    flags: np.ndarray[tuple[int], np.dtype[np.bool_]] = together & (
        requests["output_tokens"].to_numpy() > 1
    )
    return flags


def _next_prefill_end_s(iterations: pd.DataFrame, after_s: Floats) -> Floats:
    """Return when the next iteration that completes a prefill has run once; NaN if none does."""
    completing = iterations[iterations["num_first_tokens"] + iterations["num_resumed"] > 0]
    end_s = (completing["start_s"] + completing["first_duration_s"]).to_numpy(float)
    row = np.searchsorted(end_s, after_s, side="right")
    return np.append(end_s, np.nan)[row]


def _row_end_s(iterations: pd.DataFrame, prefill_end_s: Floats, stays: pd.DataFrame) -> Floats:
    """Return when a row has run an iteration per token; the prefill yielded the first."""
    clock = IterationClock(iterations)
    return clock.time_s(clock.count(prefill_end_s) + stays["output_tokens"].to_numpy(float) - 1)
