"""What one rate showed: all targets together, and whether the runs were long enough to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from busdoor.capacity.control import StandIn
from busdoor.capacity.reading import Outcome, Reading, readings
from busdoor.capacity.sample import Sample
from busdoor.capacity.slo import Target
from busdoor.capacity.window import Window, settling_requests, steady_window


def probe(
    request_rate: float,
    samples: Sequence[Sample],
    targets: Sequence[Target],
    load: Reading,
    stand_in: StandIn | None = None,
) -> Probe:
    """Measure all targets in the steady window of the replications.

    Parameters
    ----------
    request_rate : float
        Requests per second.
    samples : sequence of Sample
        One a replication. A single one is cut into ten parts that stand for replications (batch means).
    targets : sequence of Target
        What is promised.
    load : Reading
        Of the server at this rate; without risks where it is unknown.
    stand_in : StandIn, optional
        Tells how lucky the draws were.
    """
    length = min(len(sample.arrival_s) for sample in samples)
    window = steady_window(
        np.stack([sample.latencies_s["e2e"].to_numpy()[:length] for sample in samples]), request_rate
    )
    controls = stand_in.controls(targets, request_rate, length, window) if stand_in else ()
    read = readings(samples, targets, window, controls)
    settling = max(settling_requests(load.value, request_rate, target.limit_s, target.share) for target in targets)
    return Probe(request_rate, length, (*read, *([load] if len(load.risks) else [])), window, settling)
