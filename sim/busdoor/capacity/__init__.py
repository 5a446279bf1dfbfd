"""Capacity planning: the highest rate that meets an SLO, and how many GPUs a rate needs.

>>> from busdoor.config import SLO
>>> print(SLO.from_table({"preset": "mlperf-llama3.1-8b-server"}))
TTFT p99 ≤ 2 s, TPOT p99 ≤ 100 ms (mlperf-llama3.1-8b-server)
"""

from busdoor.capacity.answer import Answer
from busdoor.capacity.api import capacity, capacity_of, make_study
from busdoor.capacity.capacity import Capacity
from busdoor.capacity.diurnal import daily_wave, hourly_rates
from busdoor.capacity.plan import plan, plan_day, replicas_needed
from busdoor.capacity.presets import PRESETS
from busdoor.capacity.study import Study
from busdoor.config.slo import SLO, Target, slo_table

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
