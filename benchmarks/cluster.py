"""Time a cluster: N replicas at N times the load should cost N times the time of one.

    python benchmarks/cluster.py                       # the default router, 1, 4 and 16 replicas
    python benchmarks/cluster.py --router round_robin --replicas 1 8

Lengths of the `azure-conv` profile, Poisson arrivals at 0.8 of the closed-form capacity of all
replicas, `vllm` on the roofline of llama-3.1-8b on an H100; so many requests a replica. A time is
the CPU time of `simulate_cluster` (and, in the first row, of `simulate` with as many requests as
the largest cluster), the least of some runs. A cluster has more events per request than one server
has: of two arrivals within an iteration's time, which one server admits at once, each begins a
batch of its own. So the last column compares the same batches: every server's requests again, each
on one server alone, in turns with the cluster; the median of paired ratios. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import Any

import numpy as np

from busdoor.catalog import kv_capacity
from busdoor.cluster import ROUTERS, Replica, simulate_cluster
from busdoor.kv.config import KVConfig
from busdoor.policies import VllmConfig
from busdoor.simulator.simulate import simulate
from busdoor.step_time import make_step_time
from busdoor_workloads import Trace, profile

STEP_TIME = make_step_time("roofline", gpu="h100", model="llama-3.1-8b")
KV = KVConfig(block_size=16, num_blocks=kv_capacity("h100", "llama-3.1-8b"), max_model_len=20_000)


def arriving(replicas: int, per_replica: int) -> Trace:
    trace = profile("azure-conv").generate(
        seed=0, num_requests=replicas * per_replica, request_rate=1.0
    )
    return trace.at_rate(0.8 * replicas * VllmConfig().build(KV).capacity_rps(trace, STEP_TIME))


def one(trace: Trace) -> Any:
    return simulate(trace, VllmConfig().build(KV), STEP_TIME, lookahead=0)


def many(trace: Trace, replicas: int, router: str) -> Any:
    return simulate_cluster(
        trace,
        [Replica(VllmConfig().build(KV), STEP_TIME) for _ in range(replicas)],
        router,
        lookahead=0,
    )


def least_cpu_s(run: Any, runs: int) -> tuple[float, Any]:
    times = []
    for _ in range(runs):
        begin = time.process_time()
        result = run()
        times.append(time.process_time() - begin)
    return min(times), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--router", default="least_outstanding", choices=ROUTERS)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--requests", type=int, default=4000, help="requests a replica")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    print(
        "| servers | requests | CPU µs per request | over one server's | events per request | CPU "
        "µs per event | over its servers alone |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    alone = arriving(1, options.requests * max(options.replicas))
    cpu_s, result = least_cpu_s(lambda: one(alone), options.runs)
    base_s = cpu_s / len(alone)
    print(row("one, without a router", cpu_s, result, base_s))
    for replicas in options.replicas:
        trace = arriving(replicas, options.requests)
        cpu_s, result = least_cpu_s(
            lambda t=trace, n=replicas: many(t, n, options.router), options.runs
        )
        same = f"{over_alone(trace, replicas, options.router, options.runs):.2f}"
        print(row(str(replicas), cpu_s, result, base_s, same), flush=True)


def over_alone(trace: Trace, replicas: int, router: str, runs: int) -> float:
    """Return a cluster's CPU time over that of its servers' requests, on one server each."""
    server_of = many(trace, replicas, router).requests["replica"].to_numpy()
    shares = [trace.select(np.flatnonzero(server_of == number)) for number in range(replicas)]
    ratios = []
    for _ in range(runs):
        alone_s, _ = least_cpu_s(lambda: [one(share) for share in shares], 1)
        together_s, _ = least_cpu_s(lambda: many(trace, replicas, router), 1)
        ratios.append(together_s / alone_s)
    return median(ratios)


def row(name: str, cpu_s: float, result: Any, base_s: float, same: str = "") -> str:
    requests, events = len(result.requests), len(result.iterations)
    cells = (
        name,
        f"{requests:,}",
        f"{cpu_s / requests * 1e6:.0f}",
        f"{cpu_s / requests / base_s:.2f}",
    )
    last = f"{events / requests:.2f}", f"{cpu_s / events * 1e6:.0f}", same
    return f"| {' | '.join((*cells, *last))} |"


if __name__ == "__main__":
    main()
