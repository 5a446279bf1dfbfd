"""Do 95 % intervals cover? Synthetic worlds: drawn, measured, calibrated, answered, compared.

In each world a true step time is drawn. A server of it is measured (with noise of single iterations
and drift), a step time is fitted to that, and the highest rate within an SLO is answered with its
interval. The truth is that of the true step time, times an error of the model that the fit cannot
see, on draws of its own. Coverage is the share of the worlds whose truth lies inside.

    python benchmarks/coverage.py --worlds 200 --jobs 2
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from busdoor.calibration import calibrate
from busdoor.capacity.answer import Answer
from busdoor.capacity.api import make_study
from busdoor.capacity.confidence.rates import belief
from busdoor.capacity.estimate import stability
from busdoor.capacity.runs import Runs
from busdoor.capacity.trial import probe
from busdoor.comparison.sources import ModelError
from busdoor.config import Config
from busdoor.config.limits import limits_for
from busdoor.config.run import carried_rps, run
from busdoor.metrics.statistics import student_t
from busdoor.results.result import Result

BISECTIONS = 6  # 2 % of the rate
NOISE, DRIFT = 0.05, 0.02  # of an iteration; of a piece of a hundred
MODEL_ERROR = 0.02  # standard deviation of the error that no calibration sees
SERVER = {"kv": {"num_blocks": 4000, "max_model_len": 512}, "lookahead": 0}
POLICY = {"name": "vllm", "max_num_seqs": 16, "max_num_batched_tokens": 512}
LAWS = {
    "input_tokens": {"type": "uniform", "low": 10, "high": 200},
    "output_tokens": {"type": "exponential", "mean": 20, "max": 100},
}


def config_of(step_time: dict[str, Any], seed: int, num_requests: int, slo: str) -> Config:
    """Return the configuration of a server with a step time."""
    workload = {**LAWS, "arrival": 5.0, "num_requests": num_requests}
    tables = {"workload": workload, "policy": [POLICY], "step_time": step_time, "seed": seed}
    return Config.from_table({**tables, **SERVER, "slo": {"e2e_mean": slo}, "replications": 6})


def true_terms(rng: np.random.Generator) -> dict[str, Any]:
    """Draw the terms of a server: each within a factor of about two of a small GPU's."""
    typical = {"base_s": 8e-3, "per_request_s": 2e-4, "per_chunk_s": 4e-4, "per_context_s": 1e-6}
    drawn = {key: value * math.exp(rng.normal(0, 0.35)) for key, value in typical.items()}
    return {"name": "calibrated", **drawn, "per_token_s": [3e-5 * math.exp(rng.normal(0, 0.35))]}


def measured(config: Config, rng: np.random.Generator) -> Result:
    """Run a server iteration by iteration; its times have noise and drift."""
    trace = config.workload.trace(config.seed, 0)
    result = run(config, config.policies[0], trace, limits_for(config, [trace]), step_by_step=True)
    table = result.iterations
    drift = np.repeat(rng.normal(0, DRIFT, len(table) // 100 + 1), 100)[: len(table)]
    noisy = table["duration_s"] * np.exp(rng.normal(0, NOISE, len(table)) + drift)
    iterations = table.assign(duration_s=noisy)
    meta = {**result.meta, "step_time": {"name": "measured"}}
    return Result(result.requests, iterations, result.stays, meta)


def highest_rate(config: Config, num_requests: int) -> tuple[Runs, Answer]:
    """Return the runs of a configuration, and its highest rate by bisection.

    The bracket is that of a one-sided 95 % bound on the mean over the replications, carried over to
    rates by the slope: capacity's search, without its cost.
    """
    runs = make_study(config, num_requests=num_requests, max_doublings=0).runs
    policy = config.policies[0]
    most = carried_rps(config, policy, runs.traces[0], runs.limits)

    def logs(rate: float) -> np.ndarray:
        samples = runs.at_rate(policy, rate, num_requests, len(runs.traces))
        tried = probe(rate, samples, config.slo.targets, stability(0.0, np.empty(0)))
        reading = tried.readings[0]
        return np.log(reading.risks / reading.allowed)

    low, high = 0.25 * most, 1.1 * most
    for _ in range(BISECTIONS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if logs(middle).mean() < 0 else (low, middle)
    rate = math.sqrt(low * high)
    below, above = logs(0.9 * rate), logs(1.1 * rate)
    slope = (above - below).mean() / math.log(1.1 / 0.9)
    one_sided = student_t(0.9, len(below) - 1)
    luck = one_sided * float((below + above).std(ddof=1)) / 2 / math.sqrt(len(below)) / slope
    ends = rate * math.exp(-luck), rate * math.exp(luck)
    return runs, Answer("vllm", rate, *ends, "e2e_mean", most, "")


def world(seed: int) -> dict[str, Any]:
    """Answer one world, and compare with its truth."""
    rng = np.random.default_rng([2026, seed])
    true = true_terms(rng)
    hidden = math.exp(rng.normal(0, MODEL_ERROR))
    slower = {key: scaled(value, hidden) for key, value in true.items() if key != "name"}
    # a mean E2E about 1.6 times a lone request's, prompts included: a load of some 0.6
    slo = f"{1.6 * 20 * (true['base_s'] + 4 * true['per_request_s']):.4f}s"
    seen = measured(config_of(true, seed, 150, slo), rng)
    fit = calibrate([seen], without=["eager_s", "per_prefill_pair_s"], resamples=60, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        path = str(fit.save(Path(folder) / "fit.toml"))
        config = config_of({"name": "calibrated", "path": path}, seed, 250, slo)
        runs, answer = highest_rate(config, 250)
        error = ModelError(MODEL_ERROR, "drawn")
        found = belief(runs, config.slo, config.policies[0], answer, 250, error=error)
    low, high = found.interval
    real = config_of({"name": "calibrated", **slower}, 10**6 + seed, 500, slo)
    _, truth = highest_rate(real, 500)
    row = {"world": seed, "truth": truth.rate, "answer": answer.rate, "low": low, "high": high}
    # the truth is a simulation too: its own error is no fault of the interval
    sd = math.log(truth.high / truth.low) / 2 / 1.645
    blurred = found.rates * np.exp(rng.normal(0, sd, len(found.rates)))
    row["blurred_low"], row["blurred_high"] = np.percentile(blurred, [2.5, 97.5]).tolist()
    return {**row, "truth_half_width": 1.96 * sd, **found.half_widths()}


def scaled(value: Any, factor: float) -> Any:
    """Return a term, or the list of a term's segments, times a factor."""
    return [own * factor for own in value] if isinstance(value, list) else value * factor


def attempt(seed: int) -> dict[str, Any]:
    """Answer a world; a world that has no answer says why."""
    try:
        return world(seed)
    except ValueError as error:
        return {"world": seed, "failed": str(error)}


def main() -> int:
    """Run the worlds that the file has not, and print the coverage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("coverage.jsonl"))
    flags = parser.parse_args()
    lines = flags.out.read_text().splitlines() if flags.out.exists() else []
    done = {json.loads(line)["world"] for line in lines}
    with ProcessPoolExecutor(flags.jobs) as pool, flags.out.open("a") as file:
        for row in pool.map(attempt, [i for i in range(flags.worlds) if i not in done]):
            file.write(json.dumps(row) + "\n")
            file.flush()
    table = pd.DataFrame([json.loads(line) for line in flags.out.read_text().splitlines()])
    report(table)
    return 0


def report(table: pd.DataFrame) -> None:
    """Print the coverage with its own error, and what each source contributes."""
    known = table[table["truth"] > 0]
    for what, ends in (
        ("as given", ("low", "high")),
        ("with the truth's error", ("blurred_low", "blurred_high")),
    ):
        low, high = (known[end] for end in ends)
        share = float(((low <= known["truth"]) & (known["truth"] <= high)).mean())
        error = 1.96 * math.sqrt(share * (1 - share) / max(1, len(known)))
        print(f"{what}: {100 * share:.1f} % ± {100 * error:.1f} % of {len(known)} worlds")
    print(known[["sampling", "calibration", "model", "truth_half_width"]].describe().round(4))


if __name__ == "__main__":
    sys.exit(main())
