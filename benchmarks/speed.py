"""Time the simulator: requests per CPU second and peak memory, each case in a process of its own.

    python benchmarks/speed.py            # all cases, a few minutes
    python benchmarks/speed.py --quick    # the small ones, seconds

Lengths of the `azure-conv` profile, Poisson arrivals at 0.8 of each policy's closed-form capacity,
the roofline of llama-3.1-8b on an H100. A time is the CPU time of `simulate` alone (trace made
before, tables of the result included), the least of some runs: the machine may be shared, and
whatever else it does only adds. Prints a Markdown table; the README's is one of them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """What to time: `output_scale` multiplies outputs; `iterations` keeps every stretch."""

    name: str
    policy: str = "vllm"
    num_requests: int = 10_000
    runs: int = 5
    output_scale: int = 1
    step_by_step: bool = False
    iterations: bool = False


QUICK = (
    Case("vllm"),
    Case("vllm, outputs twice as long", output_scale=2),
    Case("vllm, every stretch kept", iterations=True),
    Case("static", policy="static"),
    Case("orca", policy="orca"),
    Case(
        "vllm, step by step, every step kept",
        num_requests=2_000,
        runs=2,
        step_by_step=True,
        iterations=True,
    ),
)
FULL = (*QUICK, Case("vllm, a million", num_requests=1_000_000, runs=1))


def prepared(case: Case) -> tuple[float, Callable[[], tuple[float, Any]]]:
    """Return the rate of a case, and what runs it once: its CPU seconds and its result."""
    from busdoor.catalog import kv_capacity
    from busdoor.kv.config import KVConfig
    from busdoor.policies import policy_config
    from busdoor.simulator.simulate import simulate
    from busdoor.step_time import make_step_time
    from busdoor_workloads import profile

    step_time = make_step_time("roofline", gpu="h100", model="llama-3.1-8b")
    kv = KVConfig(
        block_size=16, num_blocks=kv_capacity("h100", "llama-3.1-8b"), max_model_len=20_000
    )
    config = policy_config(case.policy)
    trace = profile("azure-conv").generate(seed=0, num_requests=case.num_requests, request_rate=1.0)
    trace = longer(trace, case.output_scale)
    rate = 0.8 * config.build(kv, trace).capacity_rps(trace, step_time)
    trace = trace.at_rate(rate)

    def once() -> tuple[float, Any]:
        policy = config.build(kv, trace)
        begin = time.process_time()
        result = simulate(
            trace,
            policy,
            step_time,
            lookahead=0,
            step_by_step=case.step_by_step,
            iterations=case.iterations,
        )
        return time.process_time() - begin, result

    return rate, once


def run(case: Case) -> dict[str, Any]:
    """Time one case in this process."""
    rate, once = prepared(case)
    times = []
    for _ in range(case.runs):
        cpu_s, result = once()
        times.append(cpu_s)
    rows = len(result.iterations) or None
    return {
        "rate": rate,
        "cpu_s": min(times),
        "requests_per_s": case.num_requests / min(times),
        "events_per_request": rows and rows / case.num_requests,
        "iterations_per_request": rows
        and float(result.iterations["repeat"].sum()) / case.num_requests,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def longer(trace: Any, scale: int) -> Any:
    """Multiply the output lengths of a trace."""
    from dataclasses import replace

    return replace(trace, output_tokens=trace.output_tokens * scale)


def in_own_process(case: Case) -> dict[str, Any]:
    """Time one case in a fresh process, so that its peak memory is its own."""
    command = [sys.executable, __file__, "--case", json.dumps(asdict(case))]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(printed.splitlines()[-1])


def number(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="leave the million requests out")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(run(Case(**json.loads(options.case)))))
        return
    print(
        "| case | requests | simulated req/s | events per request | iterations per request | CPU "
        "s | peak MiB |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for case in QUICK if options.quick else FULL:
        found = in_own_process(case)
        cells = (
            case.name,
            f"{case.num_requests:,}",
            number(found["requests_per_s"], 0),
            number(found["events_per_request"], 2),
            number(found["iterations_per_request"], 1),
            number(found["cpu_s"], 2),
            number(found["peak_mib"], 0),
        )
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
