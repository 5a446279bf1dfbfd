"""Arrival processes, named by `process` in configuration files."""

from busdoor_workloads.arrivals.base import AnyArrivals, Arrivals, as_arrivals
from busdoor_workloads.arrivals.gap_table import GapTable
from busdoor_workloads.arrivals.modulated import MMPP2, Diurnal, Modulated, Ramp, Spike
from busdoor_workloads.arrivals.renewal import (
    Burst,
    Constant,
    GammaArrivals,
    Poisson,
    Renewal,
    WeibullArrivals,
)
from busdoor_workloads.arrivals.replay import ClosedLoop, Measured, Replay
from busdoor_workloads.arrivals.weekly import Weekly

__all__ = [
    "MMPP2",
    "AnyArrivals",
    "Arrivals",
    "Burst",
    "ClosedLoop",
    "Constant",
    "Diurnal",
    "GammaArrivals",
    "GapTable",
    "Measured",
    "Modulated",
    "Poisson",
    "Ramp",
    "Renewal",
    "Replay",
    "Spike",
    "Weekly",
    "WeibullArrivals",
    "as_arrivals",
]
