"""Time a sweep's overhead: a point's cost beyond its work, and its share of a 1 s point.

    python benchmarks/sweep.py                       # 40 points of a second in two processes
    python benchmarks/sweep.py --cluster local       # the same on a Dask cluster of this machine

Points are real runs of three requests, with a step-time model that computes until it has used a
given CPU time. A point costs beyond itself:

- gap: how long its worker had nothing to do between one point and the next (messages, batches,
  waiting). Records say when their points began and ended, so that neither starting workers nor
  other load on the machine is taken for it.
- driver: CPU time of the process in charge (planning, sending, writing records, the table), less
  what a sweep of four points takes; on two cores with two workers it is taken from the points.

Neither grows with the number of points, so that their sum over a second is the share that 10,000
such points lose.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from busdoor.step_time import StepTime
from busdoor.sweep import Record, plan, run_sweep


@dataclass
class Busy(StepTime):
    """Computes for `work_s` of CPU time before its first answer."""

    work_s: float = 0.0
    number: int = 0

    def line(self, batch: Any) -> tuple[float, float]:
        """Compute once, then return the line."""
        until_s, self.work_s = time.process_time() + self.work_s, 0.0
        while time.process_time() < until_s:
            pass
        return 0.01, 0.0

    def durations_s(self, batch: Any, repeat: int) -> Any:
        """Not called, since `line` exists."""
        raise NotImplementedError


def study(count: int, work_s: float) -> dict[str, Any]:
    lengths = {"input_tokens": {"type": "uniform", "low": 9, "high": 9}}
    lengths["output_tokens"] = {"type": "uniform", "low": 2, "high": 9}
    model = {"name": "sweep:Busy", "work_s": work_s}
    sweep = {"step_time": [{**model, "number": number} for number in range(count)]}
    return {
        "workload": {**lengths, "num_requests": 3},
        "policy": "vllm",
        "replications": 1,
        "sweep": sweep,
    }


def gaps_s(records: Iterable[Record]) -> list[float]:
    """Return the seconds that each worker waited between two points."""
    by_worker: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.finished_at_s):
        by_worker.setdefault(record.worker, []).append(record)
    pairs = itertools.chain.from_iterable(map(itertools.pairwise, by_worker.values()))
    return [
        later.finished_at_s - later.duration_s - earlier.finished_at_s for earlier, later in pairs
    ]


def timed(count: int, work_s: float, jobs: int, cluster: str | None) -> tuple[float, list[float]]:
    """Return the driver's CPU time of a whole sweep, and the workers' gaps."""
    began_s = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        sweep = run_sweep(plan(study(count, work_s)), folder, jobs=jobs, cluster=cluster)
        sweep.save(folder)
        assert not sweep.failed and not sweep.missing
        return time.process_time() - began_s, gaps_s(sweep.records.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=40)
    parser.add_argument("--work", type=float, default=1.0, help="seconds of CPU time a point")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--cluster", choices=["local"])
    options = parser.parse_args()
    here = str(Path(__file__).parent)
    sys.path.insert(0, here)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    few = 4
    start_s, _ = timed(few, options.work, options.jobs, options.cluster)
    total_s, gaps = timed(few + options.points, options.work, options.jobs, options.cluster)
    gap_ms = 1e3 * sum(gaps) / len(gaps)
    driver_ms = 1e3 * (total_s - start_s) / options.points
    print(
        "| points | work s | jobs | workers | gap ms per point | driver CPU ms per point | both, "
        "per second |"
    )
    print("| ---: | ---: | ---: | --- | ---: | ---: | ---: |")
    print(
        f"| {options.points} | {options.work:g} | {options.jobs} | "
        f"{options.cluster or 'processes'} "
        f"| {gap_ms:.1f} | {driver_ms:.1f} | {(gap_ms + driver_ms) / 10:.2f} % |"
    )


if __name__ == "__main__":
    main()
