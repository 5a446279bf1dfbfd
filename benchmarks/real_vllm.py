"""Measure the real vLLM on a CPU: predict, then measure, each load twice or more.

    python benchmarks/real_vllm.py URL STEPS.jsonl --round 1 --out FOLDER --pin vllm.entrypoints \
        --short preempting URL STEPS.jsonl --short preempting-cached URL STEPS.jsonl
    python benchmarks/real_vllm.py - - --out FOLDER --pack tests/measured/vllm_server

Servers as docs/real-servers.md starts them, with engine and model in one process
(VLLM_ENABLE_V1_MULTIPROCESSING=0 and --distributed-executor-backend uni): one with memory for all,
two short of it (`--num-gpu-blocks-override 57 --max-model-len 1024`), so that they preempt, of which
one has `--no-enable-prefix-caching`. Round 1 finds the capacity by a short burst, measures 0.3 and
0.8 of it, calibrates on their step logs, writes the predictions of everything else and then measures
it: 0.55 and 1.1 of the capacity, a burst, the same burst in static batches of 16, and a burst of each
short server. Round 2, 3 ... measure all of them again with the same requests, so that the spread is
the machine's. A round takes two and a half minutes; what is there is not measured again.

The engine's process gets a core of its own, server and client share another: --pin.
"""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import replace
from pathlib import Path
from shutil import copy, copytree
from time import sleep

import numpy as np

from busdoor.calibration import Calibration
from busdoor.calibration.import_logs import ENGINE_FOLDER
from busdoor.core.json import read_object, write_json
from busdoor.metrics.saturation import burst_rates
from busdoor.observe.api import observe
from busdoor.observe.how import How
from busdoor.observe.step_log import SETTLE_S, recorded_run
from busdoor.observe.twin.compare import write_comparison
from busdoor.observe.twin.folder import CALIBRATION, PREDICTIONS, RUNS, runs_in
from busdoor.observe.twin.make import Plan, make_twin, model_of, predict_and_measure
from busdoor.results.result import Result
from busdoor_workloads import Trace

LOADS, CALIBRATED = (0.3, 0.55, 0.8, 1.1), (0.3, 0.8)
SLOTS = 16


def drawn(seed: int, number: int, rate: float = 0.0) -> Trace:
    """Draw requests as tests/measured has them: prompts U(16, 256), answers 1 + Exp(40) <= 201."""
    rng = np.random.default_rng(seed)
    return Trace(
        arrival_s=np.cumsum(rng.exponential(1 / rate, number)) if rate else np.zeros(number),
        input_tokens=rng.integers(16, 257, number),
        output_tokens=1 + np.minimum(rng.exponential(40, number), 200).astype(int),
        name=f"rate {rate:g}" if rate else "burst",
    )


def pin(name: str) -> None:
    """Give the processes of vLLM's engines core 0, all others of vLLM and this one core 1."""
    for status in Path("/proc").glob("[0-9]*/comm"):
        tasks = status.parent / "task"
        command = (status.parent / "cmdline").read_bytes()
        engine = status.read_text().startswith("VLLM::Engine")
        if engine or re.search(name.encode(), command):
            for task in tasks.iterdir():
                os.sched_setaffinity(int(task.name), {0 if engine else 1})
    os.sched_setaffinity(0, {1})


def capacity_rps(url: str, steps: Path, file: Path) -> float:
    """Find the rate that the server can carry: a short burst's saturated requests per second."""
    if not file.exists():
        seen = observe(url, drawn(99, 120))
        sleep(SETTLE_S)
        engine = recorded_run(steps, seen.result.meta, "the capacity's burst")
        rates = burst_rates(engine.requests, engine.meta)
        write_json(file, {"capacity_rps": float(rates["request_throughput"])})
    return float(read_object(file)["capacity_rps"])


def pack(folder: Path, out: Path) -> None:
    """Write the runs of a folder small: times to the microsecond, without chunks."""
    for place in sorted((folder / RUNS).iterdir()):
        small = out / RUNS / place.name
        for part in (place, place / ENGINE_FOLDER):
            found, own = rounded(Result.load(part)), small / part.relative_to(place)
            own.mkdir(parents=True, exist_ok=True)
            meta = {key: value for key, value in found.meta.items() if key != "itls_s"}
            write_json(own / "meta.json", {"complete": True, **meta})
            found.requests.to_csv(own / "requests.csv", index=False)
            for name in ("iterations", "stays"):
                table = getattr(found, name)
                if len(table):
                    table.to_parquet(own / f"{name}.parquet", index=False, compression="brotli")
                else:
                    table.to_csv(own / f"{name}.csv", index=False)
    for name in (PREDICTIONS, CALIBRATION, "found_capacity.json"):
        how = copytree if (folder / name).is_dir() else copy
        how(folder / name, out / name)
    calibration = Calibration.load(out / CALIBRATION)
    fitted = calibration.about["runs"]
    names = [place.name for place in sorted((out / RUNS).iterdir())]
    seen = dict(zip(names, runs_in(out, names), strict=True))
    calibrated = {name: seen.pop(name) for name in fitted}
    model = model_of(calibration, list(calibrated.values()), None)
    write_comparison(calibration, model, calibrated, seen, out)


def rounded(result: Result) -> Result:
    """Round times; an iteration still ends where the next one begins."""
    steps = result.iterations
    seconds = [name for name in steps if name.endswith("_s")]
    starts, ends = (
        own.round(6) for own in (steps["start_s"], steps["start_s"] + steps["duration_s"])
    )
    exact = dict.fromkeys(("duration_s", "first_duration_s", "last_duration_s"), ends - starts)
    steps = steps.round(dict.fromkeys(seconds, 6)).assign(**exact if len(steps) else {})
    requests = result.requests.round(6)
    return replace(result, requests=requests, iterations=steps, stays=result.stays.round(6))


def main() -> None:
    """Measure one round."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("steps", type=Path)
    parser.add_argument("--short", nargs=3, action="append", default=[])
    parser.add_argument("--round", type=int, default=1)
    parser.add_argument("--num-requests", type=int, default=300)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pin", default="", help="what the command lines of the servers contain")
    parser.add_argument("--pack", type=Path, help="measure nothing: write the runs as small files")
    given = parser.parse_args()
    if given.pack:
        pack(given.out, given.pack)
        return
    if given.pin:
        pin(given.pin)
    number, folder = given.num_requests, given.out
    folder.mkdir(parents=True, exist_ok=True)
    capacity = capacity_rps(given.url, given.steps, folder / "found_capacity.json")
    traces = {
        f"load-{load:g}": drawn(10 + at, number, round(capacity * load, 1))
        for at, load in enumerate(LOADS)
    }
    first = {f"{name}-1": own for name, own in traces.items()}
    fitted = {f"load-{load:g}-1": first.pop(f"load-{load:g}-1") for load in CALIBRATED}
    again = {f"{name}-{given.round}": own for name, own in traces.items()}
    loads = first if given.round == 1 else again
    burst = drawn(20, number)
    bursts = {f"{kind}-{given.round}": burst for kind in ("burst", "static")}
    static = {f"static-{given.round}": SLOTS}
    plan = Plan(given.url, fitted, {**loads, **bursts}, How(), given.steps, static=static)
    make_twin(plan, folder, lambda share, text: print(text, flush=True))
    short(given.short, plan, folder, given.round)


def short(servers: list[list[str]], plan: Plan, folder: Path, number: int) -> None:
    """Predict and measure the burst on servers that are short of memory."""
    calibration = Calibration.load(folder / CALIBRATION)
    model = model_of(calibration, runs_in(folder, list(plan.calibrated)), None)
    for kind, url, steps in servers:
        seen = observe(url, drawn(98, 4))  # what memory has it?
        meta = {**model.meta, "num_blocks": seen.result.meta["num_blocks"]}
        name = f"{kind}-{number}"
        own = replace(plan, url=url, step_log=Path(steps), predicted={name: drawn(30, 150)})
        predict_and_measure(own, replace(model, meta=meta), folder, lambda share, text: print(text))


if __name__ == "__main__":
    main()
