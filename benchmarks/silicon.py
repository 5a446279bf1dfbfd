"""Replay serving points that others measured, and compare predictions with them.

    python benchmarks/silicon.py                     # every third point: minutes on two cores
    python benchmarks/silicon.py --every 1           # all of them
    python benchmarks/silicon.py --engine vllm --gpu h200
    python benchmarks/silicon.py --every 1 --mixtures      # vLLM 0.15 to 0.19, no part of the halves
    python benchmarks/silicon.py --choose            # which host terms fit the chosen half best
    python benchmarks/silicon.py --lengths           # how the clients of each set drew their lengths
    python benchmarks/silicon.py --spread 0.1        # lengths drawn from 90 to 110 % of those stated

The points are `systems/silicon_sample.csv` of aiconfigurator-core (pip install
'busdoor[operators]'): TTFT and TPOT of vLLM, SGLang and TensorRT-LLM at so many clients and such
lengths. Taken are those of dense models in one piece (not disaggregated) on H100, H200 and B200.
Each is replayed as a closed loop in ten rounds, with the engine's policy (SGLang as
`prefill_first`), the preset of its version, and what is known of how it was run. Beside
our two step times stands the package's own static estimate: one batch, prefilled at once, then
decoded.

With lengths that are all the same, all clients keep step: they wait for their prompts together
(long TTFT) and decode together (short TPOT). With lengths that differ it is the reverse. E2E, which
is TTFT and a TPOT for each further token, hardly depends on that, and is shown too. InferenceX
draws lengths from 80 to 100 % of those stated; of the others nothing is known, and `--lengths`
shows which draws reproduce the TTFT of the chosen half.

Host terms are chosen on every other (model, GPU) pair of an engine, from the last in the alphabet;
what counts are the errors on the pairs between ("held out"). A set of points is left out if any of
it would need more than 70 % of the GPUs' matrix rate, which no server reaches: its prompts must
have been in a prefix cache. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd

POLICIES = {"vllm": "vllm", "sglang": "prefill_first", "trtllm": "trtllm"}
GPUS = {"h100_sxm": "h100", "h200_sxm": "h200", "b200_sxm": "b200"}
ROUNDS = 10  # requests per client, as InferenceX sends
INFERENCE_X_SPREAD = (
    0.8  # of the stated lengths: InferenceX draws evenly from there to 1 (its issue 356)
)
SPREADS = (0.0, 0.02, 0.05, 0.1, 0.2)  # what `--lengths` tries: evenly so far to both sides
# The best of them for the TTFT of the chosen half; 0 for the others.
SPREAD = {("vllm", "0.12.0"): 0.02, ("trtllm", "1.0.0rc3"): 0.02}
# InferenceX ran Llama 70B on 2025-10-29 with these images (its .github/workflows/70b-tmpl.yml) ...
INFERENCE_X = {"vllm": "0.10.2", "trtllm": "1.1.0rc2.post2"}
# ... vLLM with asynchronous scheduling, on B200 with full CUDA graphs too, as from 0.14 on, and
# budgets of its own (its benchmarks/70b_*.sh). That image captured no attention in graphs unless
# told to: on Hopper it is the preset of older versions.
BUDGETS = {"vllm b200": 8192, "vllm h100": 8192, "vllm h200": 8192, "trtllm b200": 16384}
SET = ["engine", "model", "gpu", "format"]
MOST_MFU = 0.7
# Mixtures of `--mixtures`, in our words: Kimi-K2.5 has Kimi-K2's shape.
MIXTURES: dict[str, dict[str, str]] = {
    "gpt-oss-120b": {"name": "gpt-oss-120b"},
    "kimi-k2.5 int4_wo": {"name": "kimi-k2", "weight_dtype": "bf16", "expert_dtype": "int4"},
    "kimi-k2.5 nvfp4": {
        "name": "kimi-k2",
        "weight_dtype": "bf16",
        "expert_dtype": "nvfp4",
        "kv_dtype": "fp8",
    },
}
WHAT = ("tpot", "ttft", "e2e")
STEP_TIMES = ("roofline", "operators", "static")
HOSTS = {
    "step_overhead_s": np.arange(0, 3.01e-3, 0.1e-3),
    "request_overhead_s": np.arange(0, 81e-6, 4e-6),
}


def read_points(mixtures: bool = False) -> pd.DataFrame:
    """Read the points of dense models, or of vLLM's mixtures, a row each, in our words."""
    file = resources.files("aiconfigurator_core").joinpath("systems", "silicon_sample.csv")
    with file.open(encoding="utf-8") as lines:
        table = pd.read_csv(lines)
    table = table[(table["mode"] == "agg") & table["system"].isin(GPUS)]
    table = table[_newer_mixtures(table) if mixtures else _dense(table)]
    inference_x = table["silicon_data_source"].str.match(r"source_file=\d{4}-|db-dump")
    unnamed = table["backend"].map(INFERENCE_X)
    version = table["backend_version"].fillna(unnamed.where(inference_x, "")).fillna("")
    name = (
        table["model_path"]
        .str.lower()
        .str.extract(r"(llama-3\.1-\d+b|qwen3-32b|gpt-oss-120b|kimi-k2\.5)")
    )
    kind = (" " + table["gemm_quant_mode"].fillna("")).where(name[0] == "kimi-k2.5", "")
    return pd.DataFrame(
        {
            "engine": table["backend"],
            "version": version,
            "model": name[0] + kind,
            "gpu": table["system"].map(GPUS),
            "tp": table["tp_size"].astype(int),
            "format": table["gemm_quant_mode"].fillna(""),
            "concurrency": table["batch_size"].astype(int),
            "isl": table["isl"],
            "osl": table["osl"],
            "inference_x": inference_x,
            "spread": [
                SPREAD.get(pair, 0.0) for pair in zip(table["backend"], version, strict=True)
            ],
            "ttft_ms": table["silicon_ttft_ms"],
            "tpot_ms": table["silicon_tpot_ms"],
        }
    ).sort_values([*SET, "tp", "isl", "osl", "concurrency"], ignore_index=True)


def _dense(table: pd.DataFrame) -> pd.Series:
    return table["model_path"].str.contains("Llama-3.1|Qwen3-32B")


def _newer_mixtures(table: pd.DataFrame) -> pd.Series:
    """Whether a row is of vLLM 0.15 or later, with experts that are shared as the rest is."""
    newer = table["backend_version"].str.match(r"0\.1[5-9]\.", na=False)
    alone = (table["attention_dp_size"] == 1) & (table["moe_ep_size"] == 1)
    return (
        newer
        & alone
        & (table["backend"] == "vllm")
        & table["model_path"].str.contains("gpt-oss-120b|Kimi-K2.5")
    )


def formats(point: Mapping[str, Any]) -> tuple[str, str | None, str]:
    """Return the formats of a point's weights, in our words and the tables', and of its KV cache.

    A blank is 16 bits. InferenceX serves NVIDIA's checkpoints, whose scales are fixed, with an
    8-bit cache; TensorRT-LLM, too, keeps an 8-bit cache beside 8-bit weights.
    """
    given = point["format"]
    if not given:
        return "bf16", None, "bf16"
    narrow = point["inference_x"] or point["engine"] == "trtllm"
    quant_mode = "fp8_static" if given == "fp8" and point["inference_x"] else given
    return "nvfp4" if given == "nvfp4" else "fp8", quant_mode, "fp8" if narrow else "bf16"


def held_out(points: pd.DataFrame) -> pd.Series:
    """Return for each point whether its pair is one of those that no host term was chosen on."""
    pairs = points["model"] + " " + points["gpu"]
    every_other = {
        engine: sorted(set(of), reverse=True)[1::2]
        for engine, of in pairs.groupby(points["engine"])
    }
    return pd.Series(
        [pair in every_other[engine] for pair, engine in zip(pairs, points["engine"], strict=True)],
        points.index,
    )


def mfu(points: pd.DataFrame) -> pd.Series:
    """Return the share of the GPUs' dense matrix rate that the tokens of each point need, attention not counted."""
    from busdoor.catalog import gpu, model

    seconds = (points["ttft_ms"] + (points["osl"] - 1) * points["tpot_ms"]) / 1e3
    tokens_per_s = points["concurrency"] * (points["isl"] + points["osl"]) / seconds
    flop = points["model"].map(lambda name: 2 * model(name).num_parameters)
    rates = [
        tp * gpu(card).rate(formats(point)[0])
        for tp, card, point in zip(
            points["tp"], points["gpu"], points.to_dict("records"), strict=True
        )
    ]
    return tokens_per_s * flop / np.array(rates)


def preset(point: Mapping[str, Any]) -> str:
    """Return the engine's preset for what ran at a point."""
    inference_x = point["inference_x"]
    if point["engine"] == "vllm":
        as_now = point["model"] in MIXTURES or (inference_x and point["gpu"] == "b200")
        return "vllm" if as_now else "vllm-0.12"
    return "trtllm-1.1" if point["engine"] == "trtllm" and inference_x else str(point["engine"])


def limits(point: Mapping[str, Any]) -> dict[str, int]:
    """Return the scheduler's limits that are known, in the words of the engine's policy."""
    seats = {"max_num_seqs": max(256, point["concurrency"])}
    if not point["inference_x"]:
        return seats
    word = "max_num_tokens" if point["engine"] == "trtllm" else "max_num_batched_tokens"
    # TensorRT-LLM on H200 had --max_num_tokens $MAX_MODEL_LEN.
    budget = BUDGETS.get(f"{point['engine']} {point['gpu']}", point["isl"] + point["osl"])
    return {**seats, word: budget}


def configuration(
    point: Mapping[str, Any], step_time: str, host: Mapping[str, float] | None
) -> Any:
    """Return the configuration of the server of a point."""
    from busdoor.config import Config

    weights, quant_mode, kv_dtype = formats(point)
    fields: dict[str, Any] = {"name": step_time, **({} if host is None else host)}
    mixture = MIXTURES.get(point["model"])
    if step_time == "operators" and quant_mode and mixture is None:
        fields |= {"quant_mode": quant_mode}
    given = {"model": point["model"], "weight_dtype": weights, "kv_dtype": kv_dtype}
    return Config.from_table(
        {
            "gpu": {
                "name": point["gpu"],
                "tp": point["tp"],
                **(given if mixture is None else {"model": mixture}),
            },
            "engine": {"name": preset(point)},
            "step_time": fields,
            "policy": {"name": POLICIES[point["engine"]], **limits(point)},
            **({"lookahead": 1} if point["inference_x"] else {}),
        }
    )


def simulated(
    point: Mapping[str, Any], step_time: str, host: Mapping[str, float] | None = None
) -> tuple[float, float]:
    """Return mean TTFT and TPOT of a point's closed loop, milliseconds."""
    from busdoor.config.limits import limits_for
    from busdoor.config.run import run
    from busdoor_workloads import Trace

    requests = ROUNDS * point["concurrency"]
    rng = np.random.default_rng(0)
    spread = point["spread"]
    least, most = (INFERENCE_X_SPREAD, 1.0) if point["inference_x"] else (1 - spread, 1 + spread)
    lengths = [
        rng.integers(int(least * point[key]), int(most * point[key]) + 1, requests)
        for key in ("isl", "osl")
    ]
    trace = Trace(
        arrival_s=np.zeros(requests),
        input_tokens=lengths[0],
        output_tokens=lengths[1],
        concurrency=point["concurrency"],
    )
    config = configuration(point, step_time, host)
    table = run(
        config, config.policies[0], trace, limits_for(config, [trace]), iterations=False
    ).requests
    ttft_s = table["first_token_s"] - table["arrival_s"]
    tpot_s = (table["finish_s"] - table["first_token_s"]) / (table["output_tokens"] - 1)
    return 1e3 * float(ttft_s.mean()), 1e3 * float(tpot_s.mean())


def static_estimate(point: Mapping[str, Any]) -> tuple[float, float]:
    """Return TTFT and TPOT of one batch, prefilled at once and then decoded, as the package itself estimates it."""
    from busdoor.step_time.operator_loading import load_evaluator

    deployment = configuration(point, "operators", None).step_time.deployment
    prompt, answer = point["isl"], point["osl"]
    prefill_ms, decode_ms, _ = load_evaluator(deployment).run_static(
        point["concurrency"], 1, prompt, answer, 0, 1.0, 1.0, "static"
    )
    return prefill_ms, decode_ms / (answer - 1)


def predict(point: Mapping[str, Any]) -> dict[str, float]:
    """Return every prediction of a point; NaN where the tables lack something."""
    found: dict[str, float] = {}
    methods: dict[str, Callable[[], tuple[float, float]]] = {
        "roofline": lambda: simulated(point, "roofline"),
        "operators": lambda: simulated(point, "operators"),
        "static": lambda: static_estimate(point),
    }
    for name, of in methods.items():
        try:
            ttft_ms, tpot_ms = of()
        except ValueError as error:
            print(f"{name}: {str(error)[:200]}", file=sys.stderr)
            ttft_ms = tpot_ms = float("nan")
        found |= {f"{name}_ttft_ms": ttft_ms, f"{name}_tpot_ms": tpot_ms}
    return found


def hosts(point: Mapping[str, Any]) -> dict[str, float]:
    """Return TPOT of the operators with no host, and what each of its terms adds per second of it."""
    none = dict.fromkeys(HOSTS, 0.0)
    base_ms = simulated(point, "operators", none)[1]
    tried = {"step_overhead_s": 1e-3, "request_overhead_s": 20e-6}
    more = {
        name: (simulated(point, "operators", {**none, name: value})[1] - base_ms) / value
        for name, value in tried.items()
    }
    return {"base_ms": base_ms, **more}


def every(
    points: pd.DataFrame, of: Callable[[Mapping[str, Any]], dict[str, float]], jobs: int
) -> pd.DataFrame:
    """Return the points with what `of` makes of each, on so many processes."""
    rows = points.to_dict("records")
    with ProcessPoolExecutor(jobs) as pool:
        return points.join(pd.DataFrame(pool.map(of, rows, chunksize=8), index=points.index))


def errors(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return mean and median absolute errors of TPOT and TTFT, per cent, for each group of points."""
    columns: dict[str, pd.Series] = {}
    for what in WHAT:
        for name in STEP_TIMES:
            off = 100 * (_ms(table, what, f"{name}_") / _ms(table, what) - 1).abs()
            groups = off.groupby([table[column] for column in by])
            columns |= {
                f"{what} {name} mean": groups.mean(),
                f"{what} {name} median": groups.median(),
            }
    return pd.DataFrame({"points": table.groupby(by).size(), **columns})


def _ms(table: pd.DataFrame, what: str, whose: str = "") -> pd.Series:
    if what != "e2e":
        return table[f"{whose}{what}_ms"]
    return table[f"{whose}ttft_ms"] + (table["osl"] - 1) * table[f"{whose}tpot_ms"]


def print_errors(table: pd.DataFrame) -> None:
    """Print the errors by engine and half, then by what else may matter."""
    for by in (
        ["engine", "half"],
        ["preset", "bits", "shared"],
        SET,
        ["engine", "tp"],
        ["engine", "concurrency"],
    ):
        found = errors(table, by)
        print(f"\nMean and median absolute error, per cent, by {' and '.join(by)}")
        for what in WHAT:
            part = found.filter(regex=f"points|^{what}")
            part.columns = part.columns.str.removeprefix(f"{what} ")
            print(f"{what.upper()}\n{part.round(1).to_string()}")


def choose_lengths(points: pd.DataFrame, jobs: int) -> dict[str, dict[str, list[float]]]:
    """Return the median errors of TTFT and TPOT of each set of unknown lengths, by spread."""
    points = points[~points["inference_x"]]
    found: dict[str, dict[str, list[float]]] = {}
    for spread in SPREADS:
        table = every(points.assign(spread=spread), operators_alone, jobs)
        for key, group in table.groupby(["engine", "version", "model"]):
            medians = [
                100
                * float((group[f"operators_{what}_ms"] / group[f"{what}_ms"] - 1).abs().median())
                for what in ("ttft", "tpot")
            ]
            found.setdefault(" ".join(key), {})[f"{spread:g}"] = medians
            print(*key, f"spread {spread:g}: TTFT {medians[0]:.1f} %, TPOT {medians[1]:.1f} %")
    return found


def operators_alone(point: Mapping[str, Any]) -> dict[str, float]:
    """Return TTFT and TPOT of a point with the operators."""
    ttft_ms, tpot_ms = simulated(point, "operators")
    return {"operators_ttft_ms": ttft_ms, "operators_tpot_ms": tpot_ms}


def choose(points: pd.DataFrame, jobs: int) -> dict[str, Any]:
    """Return the host terms of each engine that fit its chosen half best, and their errors on both halves."""
    table = every(points, hosts, jobs)
    found: dict[str, Any] = {}
    for key, group in table.groupby(["preset", "bits", "shared"]):
        name = " ".join(map(str, key))
        if group["held_out"].all():
            continue  # nothing to choose them on
        best = min(
            (float(_off(group[~group["held_out"]], step_s, request_s).mean()), step_s, request_s)
            for step_s in HOSTS["step_overhead_s"]
            for request_s in HOSTS["request_overhead_s"]
        )
        off = _off(group, *best[1:])
        halves = {
            half: off[group["half"] == half].agg(["size", "mean", "median"]).to_dict()
            for half in set(group["half"])
        }
        terms = {"step_s": float(best[1]), "request_s": float(best[2])}
        found[name] = {**terms, **halves}
        print(name, found[name])
    return found


def _off(group: pd.DataFrame, step_s: float, request_s: float) -> pd.Series:
    tpot_ms = (
        group["base_ms"]
        + step_s * group["step_overhead_s"]
        + request_s * group["request_overhead_s"]
    )
    return 100 * (tpot_ms / group["tpot_ms"] - 1).abs()


def main() -> None:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--every", type=int, default=3, help="take every N-th point (3)")
    flags.add_argument(
        "--mixtures", action="store_true", help="replay vLLM's gpt-oss-120b and Kimi-K2.5 instead"
    )
    flags.add_argument("--engine", choices=POLICIES)
    flags.add_argument("--gpu", choices=GPUS.values())
    flags.add_argument("--jobs", type=int, default=2)
    flags.add_argument(
        "--spread", type=float, help="draw lengths so far to both sides of those stated"
    )
    flags.add_argument(
        "--lengths", action="store_true", help="find the draws that fit the chosen half's TTFT"
    )
    flags.add_argument(
        "--keep", action="store_true", help="keep the sets that no server could have run uncached"
    )
    flags.add_argument(
        "--choose", action="store_true", help="find the host terms that fit the chosen half best"
    )
    flags.add_argument("--out", help="CSV file for the points, each with its predictions")
    given = flags.parse_args()
    points = read_points(given.mixtures)
    whole = len(points)
    if not given.keep and not given.mixtures:
        too_fast = (
            mfu(points).groupby([points[column] for column in SET]).transform("max") > MOST_MFU
        )
        left_out = sorted(set(points[too_fast][SET].agg(" ".join, axis=1)))
        print(
            f"{too_fast.sum()} of {whole} points left out, as some need over 70 % of the matrix "
            f"rate: {left_out}"
        )
        points = points[~too_fast]
    points["held_out"] = held_out(points)
    points["bits"] = points["format"].map(
        {"": 16, "fp8": 8, "fp8_block": 8, "nvfp4": 4, "int4_wo": 4}
    )
    points["shared"] = np.where(points["tp"] > 1, "tp", "one")
    points["preset"] = [preset(point) for point in points.to_dict("records")]
    points["half"] = np.where(points["held_out"], "held out", "chosen")
    for name in ("engine", "gpu"):
        if getattr(given, name):
            points = points[points[name] == getattr(given, name)]
    points = points.iloc[:: given.every]
    if given.spread is not None:
        points = points.assign(spread=given.spread)
    if given.lengths:
        print(json.dumps(choose_lengths(points[~points["held_out"]], given.jobs)))
        return
    if given.choose:
        print(json.dumps(choose(points, given.jobs)))
        return
    table = every(points, predict, given.jobs)
    if given.out:
        table.to_csv(given.out, index=False)
    print_errors(table)
    summary = errors(table, ["engine", "half"]).round(2).reset_index().to_dict("records")
    print(json.dumps({"points": len(table), "errors_percent": summary}))


if __name__ == "__main__":
    main()
