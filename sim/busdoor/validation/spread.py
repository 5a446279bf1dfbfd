"""How much the measured machine differs from itself: no simulator can be closer to it than that."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import NamedTuple

import numpy as np
import pandas as pd

from busdoor.core.arrays import Floats
from busdoor.validation.run import RunValidation

_PARTS = 8  # of a run: each then spans some seconds, as drifts and neighbours on shared cores do
_LIKE = 1.1  # contexts of like iterations: within a tenth
_FEWEST = 8  # like iterations of a part: with fewer, single iterations decide
# Processor time over the wall's while one thread works without a pause. A quiet core gives all but
# a few per cent; at less than this, others had a tenth of it.
QUIET_SHARE = 0.9


class Spread(NamedTuple):
    """How much a machine differs from itself, by its iterations and clocks; NaN where unknown.

    `each`: mean relative difference of a decode iteration from the one right before it, of as many
    requests. `parts`: standard deviation of how much the parts of a run differ from like decode
    iterations of its other parts. `cpu_s`, `wall_s`: seconds of the processor and of the wall clock
    that the runs took; `core_share`: one over the other, where a processor was at work all the
    time.
    """

    each: float
    parts: float
    cpu_s: float
    wall_s: float
    core_share: float


def machine_spread(runs: Sequence[RunValidation]) -> Spread:
    """Return the spread of the machine that measured these runs.

    >>> from busdoor.validation.validate import validate
    >>> from busdoor.comparison.demo import introductory_scenario
    >>> from busdoor.step_time.linear import LinearStepTime
    >>> machine_spread(validate(introductory_scenario(), LinearStepTime(base_s=1.0), ["bus", "door"]).runs).each
    nan
    """
    with_steps = [run for run in runs if len(run.measured.iterations)]
    pairs = [_like_pairs(run) for run in with_steps]
    parts = [own for run in with_steps for own in _parts(run)]
    cpu_s, wall_s = (_total(runs, key) for key in ("cpu_s", "wall_s"))
    works = all(
        (run.measured.meta.get("step_time") or {}).get("clock") in ("cpu", "paced") for run in runs
    )
    return Spread(
        each=float(np.mean(np.concatenate(pairs))) if any(map(len, pairs)) else nan,
        parts=float(np.std(parts)) if len(parts) > 1 else nan,
        cpu_s=cpu_s,
        wall_s=wall_s,
        core_share=min(1.0, cpu_s / wall_s) if works and wall_s > 0 else nan,
    )


def _decodes(run: RunValidation) -> pd.DataFrame:
    """Return iterations amid equal decodes: row, requests, context, seconds and ratio.

    The host prepares the next batch meanwhile, so that a change of the batch shows in the time of
    the one before.
    """
    table = run.measured.iterations
    size = table["num_requests"].where((table["num_prefill_tokens"] == 0) & (table["repeat"] == 1))
    chosen = (size == size.shift()) & (size == size.shift(-1))
    own = table.loc[chosen, ["num_requests", "context_tokens", "duration_s"]].astype(float)
    ratio = own["duration_s"] / run.predicted_s[np.flatnonzero(chosen)]
    return own.assign(row=np.flatnonzero(chosen), ratio=ratio).reset_index(drop=True)


def _like_pairs(run: RunValidation) -> Floats:
    """Return relative differences of like consecutive decodes, each the noise of one."""
    own = _decodes(run)
    like = own["row"].diff() == 1
    second, first = own["duration_s"][like], own["duration_s"].shift()[like]
    pairs: Floats = (np.abs(second - first) / (second + first) * 2 / np.sqrt(2)).to_numpy()
    return pairs


def _parts(run: RunValidation) -> list[float]:
    """Return how much slower each part of a run was than like iterations of the others, as a share.

    Like are decodes of as many requests and, within a tenth, as much context, whose difference the
    model takes out.
    """
    own = _decodes(run)
    part = np.arange(len(own)) * _PARTS // max(1, len(own))
    like = [
        own["num_requests"],
        np.floor(np.log(own["context_tokens"].clip(lower=1)) / np.log(_LIKE)),
    ]
    groups = own.assign(part=part).groupby(like)
    apart = (own["ratio"] / groups["ratio"].transform("mean") - 1)[
        groups["part"].transform("nunique") > 1
    ]
    means = apart.groupby(part[apart.index]).agg(["mean", "count"])
    return [float(mean) for mean in means["mean"][means["count"] >= _FEWEST]]


def _total(runs: Sequence[RunValidation], key: str) -> float:
    return sum((float(run.measured.meta.get(key, nan)) for run in runs), 0.0)
