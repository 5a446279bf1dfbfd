"""The time of a host to launch an iteration kernel by kernel: a fact of the run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np

from busdoor.calibration.log import touching, work_of, works_ahead
from busdoor.core.arrays import Floats
from busdoor.core.json import plain
from busdoor.results.result import Result
from busdoor.step_time.base import StepTime
from busdoor.step_time.calibrated import CalibratedStepTime
from busdoor.step_time.terms import TERMS

FEWEST = 6  # launches of a run: the mean of fewer is that of single interruptions


class HostLaunch(NamedTuple):
    """Seconds in which a host launches an iteration kernel by kernel, and how they are known.

    Beyond what it takes to submit a CUDA graph: `host_eager_s`. Measured at the engine's start
    (source "meta": `host_launch_s`), the mean of the run's own `launches` iterations ("run"), or
    the calibration's, because the run has neither ("calibration").
    """

    seconds: float
    source: Literal["meta", "run", "calibration"]
    launches: int

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON has them."""
        return {"seconds": plain(self.seconds), "from": self.source, "launches": self.launches}


def on_host_of(step_time: StepTime, result: Result) -> tuple[StepTime, HostLaunch | None]:
    """Put a model on the host of a run; None for a model that is no pipeline and so has no host.

    >>> step_time = CalibratedStepTime(base_s=5e-3, host_eager_s=1e-2, overlap=True, pipeline=True, graph_sizes=(1, 2))
    >>> on_host_of(step_time, Result.example())[1]
    HostLaunch(seconds=0.01, source='calibration', launches=0)
    """
    if not isinstance(step_time, CalibratedStepTime) or not step_time.pipeline:
        return step_time, None
    launch = _known(step_time, result)
    if launch.source == "calibration":
        return step_time, launch
    return replace(step_time, host_eager_s=launch.seconds), launch


def _known(step_time: CalibratedStepTime, result: Result) -> HostLaunch:
    given = result.meta.get("host_launch_s")
    if isinstance(given, int | float):
        return HostLaunch(float(given), "meta", 0)
    own_s = _launches_s(step_time, result)
    if len(own_s) >= FEWEST:
        return HostLaunch(max(0.0, float(own_s.mean())), "run", len(own_s))
    return HostLaunch(step_time.host_eager_s, "calibration", len(own_s))


def _launches_s(step_time: CalibratedStepTime, result: Result) -> Floats:
    """Return the seconds of each launch that fell into a CUDA graph, less the host's other terms.

    During launched kernels the host may have to wait for the device, which is not its own time.
    """
    table = result.iterations
    if "host_s" not in table or not works_ahead(result) or not len(table):
        return np.array([])
    work = work_of(table, step_time.graph_sizes, step_time.mixed_graph_sizes)
    eager = work.eager > 0
    rows = np.flatnonzero(
        touching(table) & ~eager[:-1] & eager[1:] & (table["repeat"].to_numpy()[:-1] == 1)
    )
    others_s = sum(
        getattr(step_time, term.name) * term.feature(work)
        for term in TERMS
        if term.part == "host" and term.name != "host_eager_s"
    )
    own_s: Floats = table["host_s"].to_numpy(dtype=float)[rows] - others_s[rows + 1]
    return own_s
