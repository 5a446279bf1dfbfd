"""Run one trace through busdoor and its peers, as whole commands, and compare CPU time and memory.

    python -m benchmarks.peers --dynamo dynamo/bin/python --sched-sim dynamo/bin/sched-sim
    python -m benchmarks.peers --dynamo ... --cases 10k --turns 3      # one case, quickly
    python -m benchmarks.peers --busdoor old/bin/python --busdoor new/bin/python --cases agentic

Peers: DynoSim (an environment with ``pip install ai-dynamo==1.4.2``), sched-sim (``pip install
sched-sim==0.2.1``) and BLIS (its binary, in the folder that has its `model_configs`). A peer that
no flag names is left out. `--busdoor` names the interpreter of an environment with busdoor, pure
or compiled; repeated, it compares two of them; by default it is the one that runs this file.

Every tool runs as a command in a process of its own: it reads the trace, simulates, and writes
what it writes by itself (busdoor: a summary and tables of requests and iterations; DynoSim: a
summary; the others print theirs). The tools take turns. A row has the medians over turns of CPU
seconds (user and system, children too) and of peak memory, and the median over turns of its CPU
seconds divided by the reference's in the same turn: DynoSim's, or the first tool's without it.
The columns after those say whether all simulate the same thing: what each tool reports about
requests, output tokens, the time simulated, mean latencies and tokens found in the prefix cache.

All serve vLLM's way: 256 sequences, 2,048 tokens an iteration, blocks of 16 tokens. The step time
is linear in the iteration's tokens and context. DynoSim reads it as a table of prefill times
(without the constant: an iteration with both kinds adds both) and decode times; sched-sim's
roofline takes the larger of compute and memory where ours adds them; BLIS draws lengths of the
same means and has its own step time (Llama-2-7B, H100), so its latencies are not comparable.
Prints a Markdown table, then the same as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers_tools import (
    CASES,
    REPORTED,
    Case,
    Report,
    Tool,
    blis,
    busdoors,
    dynosim,
    sched_sim,
)

# How a number of each column is written.
FORMS: dict[str, Callable[[float], str]] = {
    "cpu_s": "{:.2f}".format,
    "ratio": "{:.2f}".format,
    "peak_mib": "{:,.0f}".format,
    "answered": "{:,.0f}".format,
    "output_tokens": "{:,.0f}".format,
    "simulated_s": "{:,.0f}".format,
    "ttft_ms": "{:,.1f}".format,
    "tpot_ms": "{:,.2f}".format,
    "e2e_ms": "{:,.0f}".format,
    "cached": "{:.2%}".format,
}
HEADS = (
    "peak MiB", "answered", "output tokens", "simulated s", "TTFT ms", "TPOT ms", "E2E ms", "cached"
)  # fmt: skip


# Installed packages have bytecode; sources run in place may keep theirs, from the first run on.
_ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


@dataclass
class Runs:
    """What some runs of a tool took, and what the last reported."""

    cpu_s: list[float]
    peak_mib: list[float]
    report: Report


def run(tool: Tool, case: Case, folder: Path, runs: Runs) -> None:
    """Run a command and add its CPU seconds and peak memory, of its children too."""
    with (folder / "printed.txt").open("w+", encoding="utf-8") as file:
        process = subprocess.Popen(
            tool.command(case),
            cwd=tool.cwd or folder,
            env=_ENVIRONMENT,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        file.seek(0)
        printed = file.read()
    if process.returncode:
        raise SystemExit(f"{tool.name} failed on {case.title}:\n{printed[-2000:]}")
    runs.cpu_s.append(used.ru_utime + used.ru_stime)
    runs.peak_mib.append(used.ru_maxrss / 1024)
    runs.report = tool.report(folder, printed)


def measure(case: Case, tools: Sequence[Tool], turns: int) -> dict[str, Runs]:
    """Run all tools in turns, each turn begun by another."""
    runs = {tool.name: Runs([], [], {}) for tool in tools}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write = (sys.executable, "-m", "benchmarks.peers_inputs", case.name, name)
        subprocess.run(write, cwd=Path(__file__).parents[1], check=True)
        for turn in range(turns):
            first = turn % len(tools)
            for tool in (*tools[first:], *tools[:first]):
                run(tool, case, folder, runs[tool.name])
    return runs


def rows(case: Case, runs: dict[str, Runs]) -> list[dict[str, Any]]:
    """Return medians and paired ratios, over DynoSim's or else the first tool's."""
    base = runs.get("DynoSim") or next(iter(runs.values()))
    return [
        {
            "case": case.title,
            "simulator": name,
            "cpu_s": median(each.cpu_s),
            "ratio": median(a / b for a, b in zip(each.cpu_s, base.cpu_s, strict=True)),
            "peak_mib": median(each.peak_mib),
            **{key: each.report.get(key) for key in REPORTED},
            "turns_cpu_s": each.cpu_s,
        }
        for name, each in runs.items()
    ]


def line(row: dict[str, Any]) -> str:
    """Return a row of the Markdown table."""
    cells = [row["case"], row["simulator"]]
    for key, form in FORMS.items():
        value = row[key]
        cells.append(value if isinstance(value, str) else "" if value is None else form(value))
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busdoor", action="append", metavar="PYTHON")
    parser.add_argument("--dynamo", metavar="PYTHON")
    parser.add_argument("--sched-sim", metavar="COMMAND")
    parser.add_argument("--blis", metavar="BINARY")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    tools = busdoors(options.busdoor or [sys.executable])
    peers = {"dynamo": dynosim, "sched_sim": sched_sim, "blis": blis}
    for flag, peer in peers.items():
        if path := getattr(options, flag):
            tools.append(peer(str(Path(path).absolute())))
        else:
            print(f"{flag} is left out: no --{flag.replace('_', '-')} names it.", file=sys.stderr)
    reference = "DynoSim" if options.dynamo else tools[0].name
    print(f"| case | simulator | CPU s | over {reference}'s | {' | '.join(HEADS)} |")
    print(f"| --- | --- |{' ---: |' * len(FORMS)}", flush=True)
    found = []
    for case in (CASES[name] for name in options.cases):
        for tool in tools:
            if why := tool.leaves_out(case):
                print(f"{tool.name} is left out of {case.title}: {why}.", file=sys.stderr)
        found += rows(
            case, measure(case, [t for t in tools if not t.leaves_out(case)], options.turns)
        )
        print(*(line(row) for row in found if row["case"] == case.title), sep="\n", flush=True)
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
