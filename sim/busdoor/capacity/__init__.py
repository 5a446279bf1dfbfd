"""Capacity planning: the highest rate that meets an SLO, and how many GPUs a rate needs.

>>> from busdoor.metrics.slo import SLO
>>> print(SLO.from_table({"preset": "mlperf-llama3.1-8b-server"}))
TTFT p99 ≤ 2 s, TPOT p99 ≤ 100 ms (mlperf-llama3.1-8b-server)
"""

from busdoor.capacity.answer import Answer
from busdoor.capacity.api import capacity, capacity_of, make_study
from busdoor.capacity.result import Capacity
from busdoor.capacity.sizing import plan, plan_day, replicas_needed
from busdoor.capacity.study import Study
from busdoor.capacity.traffic import daily_wave, hourly_rates
from busdoor.metrics.slo import SLO, slo_table
from busdoor.metrics.slo_presets import PRESETS
from busdoor.metrics.slo_target import Target

Promise = SLO  # its name until 0.2
find_capacity = capacity  # what `busdoor` calls it: there its own name is this package's

__all__ = [
    "PRESETS",
    "SLO",
    "Answer",
    "Capacity",
    "Study",
    "Target",
    "capacity",
    "capacity_of",
    "daily_wave",
    "find_capacity",
    "hourly_rates",
    "make_study",
    "plan",
    "plan_day",
    "replicas_needed",
    "slo_table",
]
