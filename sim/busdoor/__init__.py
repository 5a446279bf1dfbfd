"""What continuous batching is worth against static, on your lengths, arrivals and GPU.

>>> from busdoor import compare
>>> comparison = compare("azure-conv", ["static", "vllm"], request_rate=12, num_requests=200, replications=2)
>>> comparison.policies
['static', 'static (best batch, ...)', 'vllm']

Then `comparison.table`, `.gain`, `.verdict`, `.plot()`, `.plot_timeline()`, `.plot_latency_cdf()`.
How many requests a second a server carries within a promise, and how many servers a rate needs:

>>> from busdoor import find_capacity
>>> found = find_capacity("azure-conv", ["vllm"], "e2e_p99=60s", num_requests=300, replications=4, tolerance=0.2)
>>> found.table.index.tolist(), bool(10 < found.low["vllm"] < 30)
(['vllm'], True)

`found.plan(40)`, `.plan_day(...)`, `.plot()`, `.verdict()` and more: it is `capacity` of the
package `busdoor.capacity`, which it would hide under its own name. Everything is imported when it
is first used, so that `import busdoor` costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from busdoor._version import __version__

if TYPE_CHECKING:
    from busdoor.capacity import find_capacity
    from busdoor.comparison.api import compare
    from busdoor.comparison.comparison import Comparison
    from busdoor.comparison.demo import introductory_scenario
    from busdoor.comparison.explore import explore
    from busdoor.config import Config, load_config
    from busdoor.policies import Policy, policy_config
    from busdoor.results.result import Result
    from busdoor.simulator.server import Server
    from busdoor.simulator.simulate import simulate
    from busdoor.step_time import StepTime, make_step_time
    from busdoor_workloads import Trace, Workload, profile
    from busdoor_workloads.formats import read_trace, write_trace

_HOME = {
    "Comparison": "busdoor.comparison.comparison",
    "Config": "busdoor.config",
    "Policy": "busdoor.policies",
    "Result": "busdoor.results.result",
    "Server": "busdoor.simulator.server",
    "StepTime": "busdoor.step_time",
    "Trace": "busdoor_workloads",
    "Workload": "busdoor_workloads",
    "compare": "busdoor.comparison.api",
    "explore": "busdoor.comparison.explore",
    "find_capacity": "busdoor.capacity",
    "introductory_scenario": "busdoor.comparison.demo",
    "load_config": "busdoor.config",
    "make_step_time": "busdoor.step_time",
    "policy_config": "busdoor.policies",
    "profile": "busdoor_workloads",
    "read_trace": "busdoor_workloads.formats",
    "simulate": "busdoor.simulator.simulate",
    "write_trace": "busdoor_workloads.formats",
}

__all__ = [
    "Comparison",
    "Config",
    "Policy",
    "Result",
    "Server",
    "StepTime",
    "Trace",
    "Workload",
    "__version__",
    "compare",
    "explore",
    "find_capacity",
    "introductory_scenario",
    "load_config",
    "make_step_time",
    "policy_config",
    "profile",
    "read_trace",
    "simulate",
    "write_trace",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'busdoor' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        # Importing the module busdoor.simulate must not hide the function of that name.
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
