"""Time the compiled build against the pure one: the cases of `benchmarks/speed.py`, in pairs.

    BUSDOOR_COMPILE=1 pip install . && python benchmarks/compiled.py

The interpreter has the compiled build; the pure one is read from `sim/` beside this script. Each
runs in a process of its own, a run each in turn. Times are CPU times, a ratio is pure over compiled
in one turn, and the table has medians. The loop is SimPy's run alone: clients, policy, step time,
recorder, and SimPy itself, which is Python in both. `simulate` adds what is before and after it:
the result's tables, the offered load.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import simpy
from speed import QUICK, prepared

ROOT = Path(__file__).parents[1]
PURE = {"PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in ("sim", "workloads"))}
Pair = tuple[float, float]


class Worker:
    """A process that runs a case whenever it is asked to."""

    def __init__(self, number: int, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--case", str(number)],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.compiled = self._answer() == "True"
        self.ask()  # the first run is slower

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def ask(self) -> Pair:
        """Return the CPU seconds of a run: whole, and in the loop."""
        assert self._process.stdin
        print(file=self._process.stdin, flush=True)
        whole, loop = self._answer().split()
        return float(whole), float(loop)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def work(number: int) -> None:
    """Run a case for every line that is read."""
    from busdoor.core.compiled import is_compiled

    print(is_compiled(), flush=True)
    run, loops_s = simpy.Environment.run, []

    def timed(env: simpy.Environment) -> None:
        begin = time.process_time()
        run(env)
        loops_s.append(time.process_time() - begin)

    simpy.Environment.run = timed  # type: ignore[method-assign, assignment]
    _, once = prepared(QUICK[number])
    for _ in sys.stdin:
        print(once()[0], loops_s[-1], flush=True)


def paired(number: int, turns: int) -> list[tuple[Pair, Pair]]:
    """Return the seconds of the pure and the compiled build in every turn."""
    workers = [Worker(number, environment) for environment in (PURE, {})]
    if [worker.compiled for worker in workers] != [False, True]:
        sys.exit("this Python has no compiled busdoor: BUSDOOR_COMPILE=1 pip install .")
    found = []
    for turn in range(turns):
        order = (0, 1) if turn % 2 else (1, 0)
        pair = {which: workers[which].ask() for which in order}
        found.append((pair[0], pair[1]))
    for worker in workers:
        worker.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5, help="runs of each build and case")
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case is not None:
        work(options.case)
        return
    print("| case | pure, loop ms | compiled, loop ms | loop | `simulate` |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for number, case in enumerate(QUICK):
        turns = paired(number, options.turns)
        pure_ms, compiled_ms = (1e3 * median(turn[which][1] for turn in turns) for which in (0, 1))
        whole, loop = (median(pure[k] / compiled[k] for pure, compiled in turns) for k in (0, 1))
        print(f"| {case.name} | {pure_ms:.0f} | {compiled_ms:.0f} | {loop:.2f} | {whole:.2f} |")


if __name__ == "__main__":
    main()
