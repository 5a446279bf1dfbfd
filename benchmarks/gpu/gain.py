"""Gain of continuous over static batches at nine points, predicted before it is measured.

Bursts of answers of at most 256 tokens (all equal, uniform, lognormal) in static batches of 8, 32
and 128, each against continuous batching on the same requests. `prediction.json` is written before
the first run; a gain is the ratio of saturated output tokens per second, as everywhere.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

import numpy as np

from busdoor.calibration import Calibration
from busdoor.core.json import write_json
from busdoor.kv.config import KVConfig
from busdoor.metrics.saturation import saturated_rates
from busdoor.policies import policy_config
from busdoor.policies.base import Policy
from busdoor.results.result import Result
from busdoor.simulator.simulate import simulate
from busdoor.step_time.base import StepTime
from busdoor_gpu.cli.flags import GridFlags
from busdoor_gpu.cli.machine import settle_machine
from busdoor_gpu.engine.place import settle_place
from busdoor_gpu.replay.replay import replay
from busdoor_gpu.twin.grid import GridLimits
from busdoor_gpu.twin.held_out_runs import Machine, memory_for
from busdoor_workloads import Trace
from busdoor_workloads.lengths import Fixed, Lengths, LogNormal, Uniform

_SIZES = (8, 32, 128)  # rows of a static batch, and slots of continuous batching: the largest
_BATCHES = 4  # static batches of a burst: the first fills, the last drains, two count
_PROMPT, _LONGEST = 128, 256  # tokens: short, so that nine points fit 100 s of an H100
_SHRINK = 16  # divides lengths in a rehearsal on a CPU


@dataclass(frozen=True)
class Point:
    """A burst under a policy."""

    law: str
    trace: Trace
    fields: dict[str, Any]
    kv: KVConfig

    @property
    def name(self) -> str:
        """Name of its folder: the law of the answers, the policy and its size."""
        return f"{self.law}-{self.fields['name']}-{self.fields['max_num_seqs']}"

    def policy(self) -> Policy:
        """Build a fresh scheduler."""
        built: Policy = policy_config(**self.fields).build(self.kv, self.trace)
        return built


def laws(longest: int) -> dict[str, Lengths]:
    """Return the laws of the answers; their means are about half of the longest."""
    half = longest / 2
    return {
        "fixed": Fixed(tokens=longest // 2),
        "uniform": Uniform(low=1, high=longest - 1),
        "lognormal": LogNormal(mean=half, median=0.6 * half, min=1, max=longest),
    }


def points(limits: GridLimits, shrink: int = 1, seed: int = 0) -> Iterator[Point]:
    """Draw the bursts: for each law, continuous batching and the static batches.

    Examples
    --------
    >>> [point.name for point in points(GridLimits(256, 2048, 8192, 10000))][:4]
    ['fixed-vllm-128', 'fixed-static-8', 'fixed-static-32', 'fixed-static-128']
    """
    slots = [min(size, limits.max_num_seqs) for size in _SIZES]
    for number, (law, lengths) in enumerate(laws(_LONGEST // shrink).items()):
        count = _BATCHES * slots[-1]
        outputs = lengths.sample(count, np.random.default_rng([seed, number]))
        trace = Trace(
            arrival_s=np.zeros(count),
            input_tokens=np.full(count, _PROMPT // shrink),
            output_tokens=outputs,
            max_output_tokens=np.full(count, _LONGEST // shrink),
            name=law,
        )
        budget = limits.max_num_batched_tokens
        vllm = {"name": "vllm", "max_num_seqs": slots[-1], "max_num_batched_tokens": budget}
        yield Point(law, trace, vllm, memory_for("vllm", limits))
        for size in dict.fromkeys(slots):
            own = trace.select(np.arange(_BATCHES * size))
            fields = {"name": "static", "max_num_seqs": size}
            yield Point(law, own, fields, memory_for("static", limits))


def rate_of(result: Result) -> float:
    """Return the saturated output tokens per second of a burst."""
    return float(saturated_rates(result.requests, result.meta)["output_throughput"])


def gains(rates: dict[str, float]) -> dict[str, float]:
    """Return the gain over each static batch.

    >>> gains({"fixed-vllm-128": 300.0, "fixed-static-8": 100.0})
    {'fixed-static-8': 3.0}
    """
    continuous = {name.split("-")[0]: rate for name, rate in rates.items() if "-vllm-" in name}
    return {
        name: continuous[name.split("-")[0]] / rate
        for name, rate in rates.items()
        if "-static-" in name
    }


def run(machine: Machine, step_time: StepTime, folder: Path, shrink: int = 1) -> dict[str, Any]:
    """Predict all gains and write them; then measure, write and return both, with the errors."""
    chosen = list(points(machine.limits, shrink))
    options = {"lookahead": machine.lookahead}
    predicted = gains(
        {p.name: rate_of(simulate(p.trace, p.policy(), step_time, **options)) for p in chosen}
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "prediction.json", {"written_at": time(), "gain": predicted})
    rates = {}
    for point in chosen:
        meta = {"policy_config": point.fields, "seed": 0}
        model, backend = machine.model, machine.backend
        result = replay(point.trace, point.policy(), model, backend, meta=meta, **machine.options)
        result.save(folder / "runs" / point.name)
        rates[point.name] = rate_of(result)
        print(f"{point.name}: {rates[point.name]:,.0f} tokens/s", flush=True)
    measured = gains(rates)
    errors = {name: predicted[name] / gain - 1 for name, gain in measured.items()}
    found = {"predicted": predicted, "measured": measured, "error": errors}
    write_json(folder / "gain.json", found)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Predict and measure from the command line: on a GPU, or as a rehearsal on a CPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.gain", description=__doc__)
    parser.add_argument("--calibration", required=True, help="of this machine: a file, or a name")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--model", default="llama-3.1-8b")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args(arguments)
    place = settle_place(options.model, None, options.device, None)
    machine = Machine(*settle_machine(place, GridFlags(), 0), "wall" if place.on_gpu else "paced")
    step_time = Calibration.load(options.calibration).step_time
    found = run(machine, step_time, options.out, 1 if place.on_gpu else _SHRINK)
    for name, error in found["error"].items():
        gain, predicted = found["measured"][name], found["predicted"][name]
        print(f"{name}: gain {gain:.2f}, predicted {predicted:.2f} ({100 * error:+.1f} %)")


if __name__ == "__main__":
    main()
