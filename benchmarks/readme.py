"""Print every figure that README and pages state, section by section, and where each stands.

    python benchmarks/readme.py                     # all; some minutes, most of them for `speed`
    python benchmarks/readme.py --only compare true # some sections
    python benchmarks/readme.py --list              # which there are, their pages, and what else is claimed

Each section runs the command, or reads the measurements in gpu/results, that its page names for
it. Reading measured runs needs pyarrow.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "gpu" / "results"
H100 = "h100-llama-3.1-8b"
SECTIONS: dict[str, Callable[[], None]] = {}
PAGES: dict[str, str] = {}
# What pages claim that takes too long for here, or that tests hold: the claim, its page, its command.
ELSEWHERE = (
    ("vLLM's scheduler, 6,683 random cases", "how-true.md", "pytest -m oracle tests/oracle"),
    ("stretches equal single steps", "how-true.md", "pytest tests/sim/test_policies_properties.py"),
    ("queueing laws", "how-true.md", "pytest tests/sim/theory"),
    ("the roofline's errors", "gpus-and-models.md", "pytest tests/sim -k step_time_anchors"),
    ("KV sizes of vLLM's logs", "gpus-and-models.md", "pytest tests/sim/test_kv_tokens.py"),
    ("5,221 serving points", "operators.md", "python benchmarks/silicon.py --every 1"),
    ("what a sweep's point costs", "clusters.md", "python benchmarks/sweep.py"),
    ("the compiled build", "how-fast.md", "python benchmarks/compiled.py --turns 9"),
    ("what a replica costs", "replicas.md", "python benchmarks/cluster.py"),
    ("transformers' server", "real-servers.md", "python benchmarks/third_party.py"),
    ("the twin of two virtual cores", "how-true.md", "busdoor twin --budget 120s --out twin"),
    ("the H100's campaign", "how-true.md", "python -m benchmarks.gpu.campaign"),
)


def section(page: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register a function as the section of its name, whose figures stand on a page."""

    def register(function: Callable[[], None]) -> Callable[[], None]:
        SECTIONS[function.__name__], PAGES[function.__name__] = function, page
        return function

    return register


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; all columns but the first are numbers."""
    print(f"| {' | '.join(head)} |")
    print(f"| --- |{' ---: |' * (len(head) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def busdoor(*arguments: str) -> str:
    """Run a command and return what it prints, without where it wrote its tables."""
    with tempfile.TemporaryDirectory() as folder:
        out = ["--out", f"{folder}/out"]
        command = [sys.executable, "-m", "busdoor", *arguments, *out]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return "\n".join(line.rstrip() for line in printed.splitlines() if folder not in line)


@section("README.md")
def introduction() -> None:
    """Four requests and a fifth: the idea in ten lines."""
    print(busdoor("demo"))


@section("README.md")
def compare() -> None:
    """The table of the first command, its verdict and the ladder."""
    print(busdoor("compare"))


@section("docs/static-vs-continuous.md")
def gains() -> None:
    """The same job under both step times, static batches reading their own keys or padded ones."""
    columns = "saturated_output_throughput", "over_static", "over_best_static"
    rows = []
    for step_time in ("roofline", H100):
        for decode_reads in ("own", "padded"):
            found = _comparison(step_time, decode_reads)
            table = found.table.join(found.gain)
            for policy in found.policies:
                tokens_per_s, *gain = table.loc[policy, list(columns)]
                cells = f"{tokens_per_s:,.0f}", *(f"{each:.2f}×" for each in gain)
                rows.append((f"{policy}, decodes read {decode_reads}, {step_time}", *cells))
    markdown(("policy", "saturated: tokens/s", "gain over static", "over its best batch"), rows)


def _comparison(step_time: str, decode_reads: str) -> Any:
    from busdoor import compare as run

    measured = (
        {} if step_time == "roofline" else {"step_time": {"name": "calibrated", "path": step_time}}
    )
    return run(None, [{"name": "static", "decode_reads": decode_reads}, "vllm"], **measured)


@section("docs/how-fast.md")
def speed() -> None:
    """Requests per CPU second, by benchmarks/speed.py."""
    subprocess.run([sys.executable, str(ROOT / "benchmarks" / "speed.py")], check=True)


@section("docs/how-fast.md")
def peers() -> None:
    """Whole commands beside other simulators': PEERS="--dynamo PYTHON --sched-sim COMMAND"."""
    flags = shlex.split(os.environ.get("PEERS", ""))
    subprocess.run([sys.executable, "-m", "benchmarks.peers", *flags], cwd=ROOT, check=True)


@cache
def validation(name: str) -> Any:
    """Replay a twin's measured runs in the simulator."""
    from busdoor.validation.twin_folder import Twin

    return Twin(RESULTS / name).validate()


@section("docs/how-true.md")
def true() -> None:
    """Return the largest errors of the H100's replays, by load."""
    runs = validation(H100).runs
    groups = {
        "at loads of 0.08 to 0.75": [run for run in runs if run.load < 0.8],
        "at 0.9": [run for run in runs if 0.8 <= run.load < 1],
        "bursts and overload": [run for run in runs if not run.load < 1],
    }
    quantities = {
        "time of all iterations, on the measured batches": "step_total",
        "time of an iteration, mean absolute": "step_mean_absolute",
        "E2E latency, mean": "e2e_mean", "E2E latency, p99": "e2e_p99", "TPOT, mean": "tpot_mean",
        "ITL, p99": "itl_p99", "TTFT, mean": "ttft_mean", "TTFT, p99": "ttft_p99", "tokens per second": "output_rate",
    }  # fmt: skip
    rows = [
        (title, *(_largest(group, key) for group in groups.values()))
        for title, key in quantities.items()
    ]
    heads = [f"{title} ({_counts(group)})" for title, group in groups.items()]
    markdown(("quantity", *heads), rows)
    print(
        f"\n{len(runs)} replays at loads of {min(run.load for run in runs):.2f} and more;", end=" "
    )
    print(f"batches repeated: {min(run.agreement['played'] for run in runs):.0%}")
    print(f"rate at which the mean latency has doubled: {validation(H100).knee['error']:+.1%}\n")
    for title, table in (
        ("gain", validation(H100).gain),
        ("E2E ratio", validation(H100).e2e_ratio),
    ):
        print(
            f"{title}:\n{table.round(3).to_string(index=False) if len(table) else 'no pair of runs'}\n"
        )
    print(validation(H100).verdict)


def _counts(runs: Sequence[Any]) -> str:
    """Return how many runs and requests a column of errors is the largest of."""
    requests = sum(len(run.measured.requests) for run in runs)
    return f"{len(runs)} run{'s' * (len(runs) > 1)}, {requests:,} requests"


def _largest(runs: Sequence[Any], key: str) -> str:
    """Return the largest error of some runs, in per cent with its sign."""
    errors = [run.errors[key] for run in runs if run.errors[key] == run.errors[key]]
    worst = max(errors, key=abs, default=float("nan"))
    return f"{100 * worst:+.{0 if abs(worst) >= 0.3 else 1}f} %" if errors else ""


@section("docs/how-true.md")
def predicted() -> None:
    """An H200 predicted from the H100: errors of what was written down before it was measured."""
    from busdoor.results.result import Result

    folder = RESULTS / "h200-from-h100"
    prediction = json.loads((folder / "prediction.json").read_text(encoding="utf-8"))["runs"]
    rows = []
    for name, numbers in prediction.items():
        result = Result.load(folder / "runs" / name)
        e2e_s = result.latencies["e2e"]
        measured = {"e2e mean": e2e_s.mean(), "e2e p99": e2e_s.quantile(0.99)}
        rate = (
            numbers["output rate"] / result.summary["output_throughput"] - 1
            if "output rate" in numbers
            else None
        )
        errors = [f"{numbers[key] / value - 1:+.1%}" for key, value in measured.items()]
        rows.append((name, *errors, "" if rate is None else f"{rate:+.2%}"))
    markdown(("run", "E2E mean", "E2E p99", "tokens/s"), rows)


@section("docs/how-true.md")
def others() -> None:
    """The twin of two virtual cores, and the logs of the real vLLM on a CPU."""
    sys.path.insert(0, str(ROOT / "notebooks"))
    from lessons.twins import vllm_runs

    from busdoor.calibration import calibrate
    from busdoor.validation.validate import validate

    print(f"cpu-tiny-llama: {validation('cpu-tiny-llama').verdict}\n")
    logs = vllm_runs()
    fitted = calibrate(
        [logs["rate_4"], logs["rate_20"]], ["rate_4", "rate_20"], name="vllm-cpu", resamples=0
    )
    (run,) = validate([logs["rate_12"]], fitted.step_time, ["rate_12"], about=fitted.about).runs
    print(
        f"vLLM on a CPU: mean E2E latency {run.errors['e2e_mean']:+.1%}, drift of the log "
        f"{fitted.about['drift']:.1%}"
    )


@section("docs/how-fast.md")
def kernels() -> None:
    """Kernels beside others', and the engine, on an H100."""
    bench = json.loads(
        (RESULTS / "nvidia-h100-80gb-hbm3" / "bench.json").read_text(encoding="utf-8")
    )
    shown = {
        "decode, 64 sequences of 4,096": ("decode", "B=64 ctx=4096"),
        "decode, 1 of 32,768": ("decode", "B=1 ctx=32768"),
        "decode, 63 of 512 and 1 of 32,768": ("decode", "63 x 512 and 1 x 32768"),
        "causal prefill, 4,096 tokens": ("prefill", "4096 tokens"),
    }
    about = "model", "what", "policy"
    names = {"ours": "triton", "FA3": "FA3 (vLLM's build)", "vLLM, Triton": "vLLM, Triton"}
    us = {(row["op"], row["shape"], row["implementation"]): row["us"] for row in bench["kernels"]}
    rows = []
    for title, (op, shape) in shown.items():
        rows.append((title, *(f"{us[op, shape, name]:,.0f} µs" for name in names.values())))
    markdown(("", *names), rows)
    print()
    keys = "tokens_per_s", "busy", "padding", "bubbles"
    rows = [
        (*(row[key] for key in about), *(_cell(row[key]) for key in keys))
        for row in bench["engine"]
    ]
    markdown((*about, "tokens/s", "device busy", "padding", "rows that have ended"), rows)


def _cell(value: float | None) -> str:
    if value is None or value != value:
        return ""
    return f"{value:,.0f}" if value > 2 else f"{value:.1%}"


@section("docs/how-true.md")
def tests() -> None:
    """Return the number of recorded cases of the real scheduler in the tests."""
    cases = [path.name for path in sorted((ROOT / "tests" / "golden").glob("*.out.json"))]
    print(f"{len(cases)} cases: {', '.join(name.removesuffix('.out.json') for name in cases)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION"
    )
    parser.add_argument("--list", action="store_true", help="name the sections")
    options = parser.parse_args()
    for name in options.only:
        about = (SECTIONS[name].__doc__ or "").splitlines()[0]
        if options.list:
            print(f"{PAGES[name]}: {about} python benchmarks/readme.py --only {name}")
            continue
        print(f"\n## {name}\n\n{about} ({PAGES[name]})\n", flush=True)
        SECTIONS[name]()
    if options.list:
        print(*(f"docs/{page}: {claim}: {command}" for claim, page, command in ELSEWHERE), sep="\n")


if __name__ == "__main__":
    main()
