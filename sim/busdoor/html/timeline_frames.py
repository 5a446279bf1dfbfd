"""The frames of a played timeline: its moments, and the server's counters at each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from busdoor.core.arrays import Floats, Integers
from busdoor.metrics.throughput import accepted
from busdoor.plots.phases import stay_phases
from busdoor.plots.runs import IterationClock, Run, count_slots, of_replica

VISIBLE_SLOTS = 20  # rows that are still distinct on a phone; the others are reached by scrolling
MAX_SLOTS = 256  # rows of a timeline: vLLM's usual limit on requests in a step
# stays shown: about a finger's width each on a desktop, a millimetre or two on a phone
MAX_BARS = 400
MAX_FRAMES = 600  # steps of the slider: as many as a phone has pixels for
ROUNDING = 1e-9  # relative: an event this little after a frame was meant to be on it


class Scene:
    """One server's (of several: the first's) stays in its slots, and its requests."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.replicas = sorted(run.stays["replica"].unique().tolist())
        replica = self.replicas[0]
        self.iterations, _ = of_replica(run, replica)
        phases = stay_phases(run)
        self.stays = phases[phases["replica"] == replica].sort_values("enter_s", ignore_index=True)
        self.requests = run.requests[run.requests["replica"] == replica]

    @property
    def used_slots(self) -> int:
        """Number of slots that were ever held."""
        return int(self.stays["slot"].max()) + 1

    @property
    def end_s(self) -> float:
        """When the last request left its slot."""
        return float(self.stays["leave_s"].max())

    @property
    def legible_s(self) -> float:
        """Until when each stay is wide enough to see."""
        enter_s = self.stays.loc[self.stays["slot"] < VISIBLE_SLOTS, "enter_s"].to_numpy(float)
        return float(enter_s[MAX_BARS]) if len(enter_s) > MAX_BARS else self.end_s

    def rows(self, window: Window) -> int:
        """Return how many slots are shown: as many as there are, or as either server uses."""
        return min(MAX_SLOTS, max(count_slots(self.run), self.used_slots), window.used_slots)


@dataclass(frozen=True)
class Window:
    """The moments shown: `frames` steps of `step_s` seconds from the start.

    There is one picture more than steps. `used_slots`: that any of the servers ever used; `whole`:
    whether it goes on to the end of every run.
    """

    step_s: float
    frames: int
    used_slots: int
    whole: bool

    @classmethod
    def of(cls, scenes: Sequence[Scene]) -> Window:
        """Return the longest window in which the bars of every timeline are wide enough to see."""
        end_s = max(scene.end_s for scene in scenes)
        legible_s = min(
            [scene.legible_s for scene in scenes if scene.legible_s < scene.end_s], default=end_s
        )
        shown_s = min(end_s, legible_s)
        step_s = round_step(shown_s / MAX_FRAMES)
        steps = shown_s / step_s
        whole = shown_s == end_s
        frames = int(np.ceil(steps * (1 - ROUNDING)) if whole else np.floor(steps * (1 + ROUNDING)))
        return cls(step_s, max(1, frames), max(scene.used_slots for scene in scenes), whole)

    @property
    def end_s(self) -> float:
        """Seconds from the start to the last frame."""
        return self.frames * self.step_s

    @cached_property
    def times_s(self) -> Floats:
        """When each frame is, in seconds, shape (frames + 1,)."""
        return np.arange(self.frames + 1, dtype=np.float64) * self.step_s


def round_step(seconds: float) -> float:
    """Return the next round number: 1, 2 or 5 times a power of ten.

    >>> round_step(0.09), round_step(0.21), round_step(5.0)
    (0.1, 0.5, 5.0)
    """
    power = int(np.floor(np.log10(seconds)))
    # A negative power is divided by: 5 * 10**-1 is 0.5, but 1 * 10**-1 * 3 would not be 0.3.
    steps = [
        step * 10**p if p >= 0 else step / 10**-p for p in (power, power + 1) for step in (1, 2, 5)
    ]
    return float(next(step for step in steps if step >= seconds * (1 - ROUNDING)))


def counters(scene: Scene, window: Window) -> dict[str, list[int]]:
    """Return the counters of the whole server at each frame.

    answered: requests whose answer is out. useful: share of the held slot-iterations so far that
    made a wanted token or read a prompt, in per mille; -1 before the first. waiting: requests that
    have arrived and hold no slot yet. opened: moments at which a request entered.
    """
    times_s = window.times_s * (1 + ROUNDING)
    requests, entered_s = scene.requests, scene.stays["enter_s"].unique()
    come = accepted(requests)
    waiting = _by_then(come["arrival_s"], times_s) - _by_then(_seen_to_s(scene, come), times_s)
    return {
        "answered": _by_then(requests["finish_s"], times_s).tolist(),
        "useful": _useful_permille(scene, times_s).tolist(),
        "waiting": waiting.tolist(),
        "opened": _by_then(entered_s, times_s).tolist(),
    }


def _by_then(moments_s: ArrayLike, times_s: Floats) -> Integers:
    """Count the moments up to each time; NaN never comes."""
    return np.searchsorted(np.sort(np.asarray(moments_s, float)), times_s, side="right")


def _seen_to_s(scene: Scene, requests: pd.DataFrame) -> Floats:
    """Return when each request stopped waiting: it got a slot, or its client gave up."""
    workload = scene.run.meta.get("config", {}).get("workload", {})
    # given up after an unknown time: counted as no wait
    patience_s = workload.get("timeout_s") or 0.0
    gave_up = (requests["status"] == "abandoned").to_numpy()
    gone_s = np.where(gave_up, requests["arrival_s"] + patience_s, np.nan)
    seen_s: Floats = np.fmin(requests["first_scheduled_s"].to_numpy(float), gone_s)
    return seen_s


def _useful_permille(scene: Scene, times_s: Floats) -> Integers:
    clock, table = IterationClock(scene.iterations), scene.iterations
    repeat = table["repeat"].to_numpy(float)
    working = (table["num_requests"] - table["num_idle_rows"]).to_numpy(float) * repeat
    now = clock.count(times_s)
    useful = np.interp(now, np.r_[0.0, np.cumsum(repeat)], np.r_[0.0, np.cumsum(working)])
    entered, left = (clock.count(scene.stays[column]) for column in ("enter_s", "leave_s"))
    held = _passed(now, entered) - _passed(now, left)
    share = np.divide(useful, held, out=np.full_like(held, -1e-3), where=held > 1e-9)
    # A policy may leave a slot a rounding error before its last iteration ends.
    thousandths: Integers = np.round(1000 * np.minimum(share, 1.0)).astype(np.int64)
    return thousandths


def _passed(now: Floats, since: Floats) -> Floats:
    """Return the sum of max(now - since, 0) over all moments."""
    since = np.sort(since)
    behind = np.searchsorted(since, now)
    total: Floats = now * behind - np.r_[0.0, np.cumsum(since)][behind]
    return total


def bars(scene: Scene, window: Window) -> list[list[int]]:
    """Return the stays shown: slot, enter, prefill end, done and leave, in 1/1000 of a frame."""
    shown = scene.stays
    shown = shown[(shown["slot"] < scene.rows(window)) & (shown["enter_s"] < window.end_s)]
    moments = (
        shown[["enter_s", "prefill_end_s", "done_s", "leave_s"]].to_numpy(float)
        / window.step_s
        * 1000
    )
    rows = np.column_stack([shown["slot"].to_numpy(float), moments]).round().astype(int)
    listed: list[list[int]] = rows.tolist()
    return listed
