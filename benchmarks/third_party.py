"""Predict a third party's gain, then measure it: transformers' generate_batch against its generate.

    OMP_NUM_THREADS=1 PYTHONPATH=sim:workloads:. python benchmarks/third_party.py

Takes two minutes of CPU, and needs transformers 5.19 and PyTorch. A small llama of random weights
answers a burst of requests of forced lengths on a CPU, (a) in static batches: `generate`,
left-padded, all in, all out; (b) by continuous batching, with what `generate_batch` runs (its
manager, so that each request has a length of its own), blocks not shared. Short runs of other
requests calibrate a step time of each, host included. The gain and its ladder are printed before
the burst is served. Then both serve it in turn, three times or more. The clock is the CPU time of
the process (one thread computes), because machines are shared; `--clock wall` takes the wall's.
The last line is JSON.

Gain: ratio of saturated output tokens/s, as everywhere in busdoor. The spread is the standard
deviation of the repetitions. Passes within 5 % or twice the spread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from benchmarks.transformers_server import (
    BLOCKS,
    BUDGET,
    PAGE,
    SLOTS,
    Floats,
    Run,
    Server,
    features,
)
from scipy.optimize import nnls

from busdoor.core.batch import Batch
from busdoor.core.json import write_json
from busdoor.kv.config import KVConfig
from busdoor.metrics.saturation import burst_rates
from busdoor.policies import policy_config
from busdoor.simulator.simulate import simulate
from busdoor.step_time import StepTime
from busdoor_workloads import Trace

PASS = 0.05  # of the gain
CLOCKS = {"cpu": time.process_time, "wall": time.perf_counter}


def burst(seed: int, number: int) -> Trace:
    """Draw a burst: prompts of 16 to 128 tokens, answers of a long-tailed law, 2 to 100 tokens."""
    rng = np.random.default_rng(seed)
    return Trace(
        arrival_s=np.zeros(number),
        input_tokens=rng.integers(16, 129, number),
        output_tokens=rng.lognormal(np.log(25), 0.9, number).astype(int).clip(2, 100),
    )


class Fitted(StepTime):
    """A step time of those terms. `packed`: every query meets every key of the batch, masked.

    That is how transformers' continuous batching attends on a CPU (sdpa over one packed sequence);
    `generate` has a dense tensor of rows, in which a query meets the keys of its row.
    """

    def __init__(self, runs: list[Run], packed: bool) -> None:
        self.packed = packed
        self.matrix = np.array([step for run in runs for step in run.steps])
        self.target = np.concatenate([run.seconds for run in runs])
        self.coefficients: Floats = nnls(self.matrix, self.target)[0]

    @property
    def error(self) -> float:
        """Mean relative error of a step, over the runs that it is fitted to."""
        return float(np.mean(np.abs(self.matrix @ self.coefficients / self.target - 1)))

    def durations_s(self, batch: Batch, repeat: int) -> Floats:
        """Durations of the repetitions: the keys grow by one per row."""
        rows = batch.num_decode_rows
        own = batch.decode_context_tokens + rows * (np.arange(repeat) + 1.0)
        keys = own + batch.prefill_context_tokens
        tokens = batch.num_tokens
        pairs = tokens * keys if self.packed else own + batch.prefill_attention
        return np.array(
            [
                np.dot(self.coefficients, features(tokens, batch.num_requests, *step))
                for step in zip(keys, pairs, strict=True)
            ]
        )


def rate(requests: pd.DataFrame, whole_batch: bool) -> float:
    """Return the saturated output tokens per second."""
    return float(burst_rates(requests, {"whole_batch": whole_batch})["output_throughput"])


DENSE = "static, as generate"
PAGED = "transformers' scheduler at its own step time"
STATIC = {"batch_size": SLOTS, "decode_reads": "padded"}
CONTINUOUS = {"max_num_seqs": SLOTS, "max_num_batched_tokens": BUDGET}


def simulated(trace: Trace, name: str, step_time: StepTime, **fields: Any) -> Any:
    """Simulate the burst."""
    kv = KVConfig(num_blocks=BLOCKS, block_size=PAGE, max_model_len=256)
    return simulate(trace, policy_config(name, **fields).build(kv, trace), step_time, lookahead=0)


def predict(trace: Trace, dense: StepTime, paged: StepTime) -> tuple[dict[str, float], Any]:
    """Return the saturated tokens/s of each rung, and the simulated continuous run."""
    final = simulated(trace, "transformers", paged, **CONTINUOUS)
    runs = {
        DENSE: simulated(trace, "static", dense, **STATIC),
        "+ finished rows skipped": simulated(
            trace, "static", dense, **STATIC, finished_rows="skip"
        ),
        "transformers' scheduler at generate's step time": simulated(
            trace, "transformers", dense, **CONTINUOUS
        ),
        PAGED: final,
    }
    key = "saturated_output_throughput"
    return {name: float(run.summary[key]) for name, run in runs.items()}, final


def same_batches(run: Run, final: Any) -> float:
    """Return the share of measured iterations whose batch is the simulated one."""
    rows = final.iterations
    expected = [
        (int(row.num_prefill_tokens), int(row.num_decode_tokens))
        for row in rows.itertuples()
        for _ in range(int(row.repeat))
    ]
    equal = sum(a == b for a, b in zip(run.batches, expected, strict=False))
    return equal / max(len(expected), len(run.batches))


def calibrate(server: Server) -> tuple[Fitted, Fitted]:
    """Measure shorter bursts in turn, of requests that are not the burst's; one more warms up.

    They are four batches long, so that full batches weigh more than the drain, as in the burst.
    """
    server.static(burst(99, 4), 4)
    server.continuous(burst(99, 4))
    statics, continuous = [], []
    for seed, batch_size in enumerate((SLOTS, SLOTS, SLOTS // 2) * 2, start=100):
        statics.append(server.static(burst(seed, 4 * batch_size), batch_size))
        continuous.append(server.continuous(burst(seed, 4 * batch_size)))
    return Fitted(statics, packed=False), Fitted(continuous, packed=True)


def ladder_lines(rates: dict[str, float]) -> Iterator[str]:
    """Return the ladder as rows of a Markdown table."""
    below = start = next(iter(rates.values()))
    yield "| rung | tokens/s | factor | over static |\n|:--|--:|--:|--:|"
    for name, found in rates.items():
        yield f"| {name} | {found:.0f} | {found / below:.2f} | {found / start:.2f} |"
        below = found


def main() -> None:
    """Calibrate, predict, measure, compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--num-requests", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clock", choices=list(CLOCKS), default="cpu")
    parser.add_argument("--out", type=Path, help="file for the last line")
    given = parser.parse_args()
    server, trace = Server(CLOCKS[given.clock]), burst(0, given.num_requests)
    dense, paged = calibrate(server)
    rates, final = predict(trace, dense, paged)
    predicted = rates[PAGED] / rates[DENSE]
    print(*ladder_lines(rates), sep="\n")
    print(f"step errors: generate {dense.error:.1%}, continuous {paged.error:.1%}")
    print(f"predicted gain: {predicted:.3f}", flush=True)
    measured, shares = [], []
    for _ in range(given.repeats):
        static, continuous = server.static(trace), server.continuous(trace)
        measured.append((rate(static.requests, True), rate(continuous.requests, False)))
        shares.append(same_batches(continuous, final))
        print("measured tokens/s: {:.0f} static, {:.0f} continuous".format(*measured[-1]))
    gains = np.array([continuous / static for static, continuous in measured])
    spread = float(gains.std(ddof=1) / gains.mean()) if len(gains) > 1 else 0.0
    error = predicted / float(gains.mean()) - 1
    print(f"measured gain: {gains.mean():.3f} ± {spread:.1%}; error of the prediction {error:+.1%}")
    answer = {
        "predicted_gain": predicted,
        "measured_gains": gains.tolist(),
        "spread": spread,
        "error": error,
        "passes": abs(error) <= max(PASS, 2 * spread),
        "tokens_per_s": {"predicted": rates, "measured": measured},
        "step_errors": {"generate": dense.error, "continuous": paged.error},
        "same_batches": min(shares),
        "clock": given.clock,
    }
    print(json.dumps(answer))
    if given.out:
        write_json(given.out, answer)


if __name__ == "__main__":
    main()
