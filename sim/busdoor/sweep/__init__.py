"""Sweeps: a what-if table over GPUs, models, limits, rates, seeds; one machine or many.

>>> from busdoor.sweep import plan
>>> points = plan({"policy": "vllm", "sweep": {"gpu.name": ["h100", "h200"], "workload.request_rate": [4.0, 8.0]}})
>>> [tuple(point.parameters.values()) for point in points]
[('h100', 4.0, 'vllm'), ('h100', 8.0, 'vllm'), ('h200', 4.0, 'vllm'), ('h200', 8.0, 'vllm')]

`run_sweep(points, "folder")` runs them and returns a `Sweep`, whose `.table` has one row per point.
What is finished stays in the folder, and the next run goes on from there.
"""

from busdoor.sweep.plan import Point, load_plan, plan
from busdoor.sweep.run import run_sweep
from busdoor.sweep.store import Store
from busdoor.sweep.table import Sweep
from busdoor.sweep.task import Record

__all__ = ["Point", "Record", "Store", "Sweep", "load_plan", "plan", "run_sweep"]
