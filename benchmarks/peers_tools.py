"""The simulators that benchmarks/peers.py runs: their commands, and what they report."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_SEQS, MAX_TOKENS, BLOCK_TOKENS = 256, 2048, 16
# llama-3.1-8b on an H100: 16 GB of weights at 2.9 TB/s, 16 GFLOP a token at 0.73 PFLOP/s.
BASE_S, PER_TOKEN_S = 5.5e-3, 22e-6

# What a tool reports beside its cost.
REPORTED = "answered", "output_tokens", "simulated_s", "ttft_ms", "tpot_ms", "e2e_ms", "cached"


@dataclass(frozen=True)
class Case:
    """A trace and the server that gets it."""

    name: str
    title: str
    requests: int
    request_rate: float = 4.0
    num_blocks: int = 8_000
    per_context_s: float = 50e-9  # reading 128 KiB of keys and values at 2.6 TB/s
    agentic: bool = False


CASES = {
    case.name: case
    for case in (
        Case("start", "chat, 10 (start-up)", 10),
        Case("10k", "chat, 10,000", 10_000),
        Case("100k", "chat, 100,000", 100_000),
        # Prompts of 87,000 tokens, 97 % of them cached: 3.2 M tokens of memory (eight H100s) hold all
        # conversations. No time per context: DynoSim's prefill times know new tokens alone.
        Case("agentic", "agentic, 1,500", 1_500, 1.0, 200_000, 0.0, agentic=True),
    )
}
Report = dict[str, float | str | None]


@dataclass(frozen=True)
class Tool:
    """A simulator: its command in a case's folder, and what it reported, from its files or print.

    `leaves_out` says why it does not run a case, or nothing if it does.
    """

    name: str
    command: Callable[[Case], Sequence[str]]
    report: Callable[[Path, str], Report]
    leaves_out: Callable[[Case], str] = lambda case: ""
    cwd: Path | None = None


def busdoor(python: str, name: str) -> Tool:
    command = (python, "-m", "busdoor", "simulate", "trace.jsonl", "--config", "busdoor.toml")
    return Tool(name, lambda case: (*command, "--lookahead", "0", "--out", "out"), busdoor_report)


def busdoor_report(folder: Path, printed: str) -> Report:
    said = json.loads((folder / "out" / "summary.json").read_text(encoding="utf-8"))
    shutil.rmtree(folder / "out")
    cached = (said["cached_tokens"] or 0) / said["total_input_tokens"]
    keys = "completed", "total_output_tokens", "duration"
    means = (said[f"mean_{name}_ms"] for name in ("ttft", "tpot", "e2el"))
    return dict(zip(REPORTED, (*(said[key] for key in keys), *means, cached), strict=True))


def compiled(python: str) -> bool:
    """Whether an interpreter's busdoor is a compiled one."""
    ask = "import busdoor.policies.vllm as module; print(module.__file__)"
    printed = subprocess.run((python, "-c", ask), check=True, stdout=subprocess.PIPE, text=True)
    return not printed.stdout.strip().endswith(".py")


def busdoors(pythons: Sequence[str]) -> list[Tool]:
    """Return busdoor in some environments; where two are alike, the interpreter is named too."""
    kinds = ["busdoor, compiled" if compiled(python) else "busdoor" for python in pythons]
    return [
        busdoor(
            str(Path(python).absolute()), kind if kinds.count(kind) == 1 else f"{kind} ({python})"
        )
        for python, kind in zip(pythons, kinds, strict=True)
    ]


def dynosim(python: str) -> Tool:
    def command(case: Case) -> Sequence[str]:
        engine = {
            "num_gpu_blocks": case.num_blocks,
            "block_size": BLOCK_TOKENS,
            "max_num_seqs": MAX_SEQS,
            "max_num_batched_tokens": MAX_TOKENS,
            "enable_prefix_caching": case.agentic,
            "planner_profile_data": "step_time.npz",
        }
        options = "--num-workers", "1", "--replay-mode", "offline", "--report-json", "report.json"
        arguments = "trace.jsonl", "--extra-engine-args", json.dumps(engine)
        return (python, "-m", "dynamo.replay", *arguments, *options)

    return Tool("DynoSim", command, dynosim_report)


def dynosim_report(folder: Path, printed: str) -> Report:
    said = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    values = (
        said["completed_requests"],
        said["total_output_tokens"],
        said["duration_ms"] / 1e3,
        *(said[f"mean_{name}_ms"] for name in ("ttft", "tpot", "e2e_latency")),
        said["prefix_cache_reused_ratio"],
    )
    return dict(zip(REPORTED, values, strict=True))


def sched_sim(command: str) -> Tool:
    options = "-s", "chunked", "-h", "hardware.json", "--token-budget", str(MAX_TOKENS)

    def leaves_out(case: Case) -> str:
        if case.agentic:
            return "its traces have no shared prefixes"
        return "a run of it takes more than a minute" if case.requests > 10_000 else ""

    return Tool(
        "sched-sim",
        lambda case: (command, "trace", "sched_sim.json", *options, "--no-gantt"),
        sched_sim_report,
        leaves_out,
    )


def sched_sim_report(folder: Path, printed: str) -> Report:
    """Read its table, which has medians for means."""
    cells = " ".join(re.sub(r"[^\w./() ]", " ", printed).split())
    number = r"([\d.]+)"
    found = {
        key: re.search(pattern + number, cells)
        for key, pattern in (
            ("answered", r"Completed / Total "),
            ("simulated_s", r"Simulated Duration "),
            ("ttft_ms", r"TTFT \(p50 / p90 / p99\) "),
            ("tpot_ms", r"TPOT \(p50 / p90 / p99\) "),
            ("e2e_ms", r"End to End \(p50 / p99\) "),
        )
    }
    said: Report = {key: float(match[1]) for key, match in found.items() if match}
    return said | {key: f"{said[key]:,.1f} (median)" for key in said if key.endswith("_ms")}


def blis(binary: str) -> Tool:
    def command(case: Case) -> Sequence[str]:
        options = {
            "model": "meta-llama/llama-2-7b-hf",
            "model-config-folder": "model_configs/llama-2-7b-hf",
            "hardware": "H100",
            "tp": 1,
            "rate": case.request_rate,
            "num-requests": case.requests,
            "prompt-tokens": 750,
            "prompt-tokens-stdev": 500,
            "prompt-tokens-max": 2000,
            "output-tokens": 232,
            "output-tokens-stdev": 150,
            "output-tokens-max": 1000,
            "timeout": -1,
            "log": "error",
        }
        flags = (word for key, value in options.items() for word in (f"--{key}", str(value)))
        return (binary, "run", *flags)

    return Tool(
        "BLIS, lengths of its own",
        command,
        blis_report,
        lambda case: "it draws its own lengths, without shared prefixes" if case.agentic else "",
        Path(binary).resolve().parent,
    )


def blis_report(folder: Path, printed: str) -> Report:
    """Read the JSON that it prints, among other lines."""
    said = json.loads(printed[printed.index("{") : printed.rindex("}") + 1])
    keys = "completed_requests", "total_output_tokens", "vllm_estimated_duration_s"
    means = (said.get(f"{name}_mean_ms") for name in ("ttft", "itl", "e2e"))
    return dict(zip(REPORTED, (*(said.get(key) for key in keys), *means, None), strict=True))
