"""`busdoor recommend` against exhaustive search: the same winner, in how many requests.

Run `python benchmarks/recommend.py` (some minutes on two cores); `--write` adds exhaustive
answers that are missing to tests/cases/recommend/exhaustive.json, which the tests compare with.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from busdoor.capacity.estimate import Outcome
from busdoor.core.toml import Document
from busdoor.recommend.executors import executor
from busdoor.recommend.race import STAGES
from busdoor.recommend.recommender import Recommender
from busdoor.recommend.records import Records
from busdoor.recommend.space import Candidate
from busdoor.recommend.study import Search
from busdoor.sweep.store import Store

FILE = Path(__file__).parents[1] / "tests" / "cases" / "recommend" / "exhaustive.json"
NUM_REQUESTS = 120
GPUS = [
    {"name": "l4", "price_per_hour": 0.8},
    {"name": "l40s", "price_per_hour": 1.86},
]
AXES = {
    "tp": [1, 2],
    "max_num_seqs": [16],
    "max_num_batched_tokens": [],
    "chunked_prefill": [True],
    "max_replicas": 6,
    "disaggregated": False,
}
LAWS: dict[str, dict[str, Any]] = {
    "short": {
        "input_tokens": {"type": "uniform", "low": 20, "high": 600},
        "output_tokens": {"type": "uniform", "low": 20, "high": 120},
        "arrival": 1.0,
    }
}
# By workload: requests/s, and two SLOs.
CASES: dict[str, tuple[float, tuple[dict[str, str], ...]]] = {
    "azure-conv": (8.0, ({"ttft_p99": "2s"}, {"ttft_p99": "1s", "tpot_p99": "60ms"})),
    "azure-code": (4.0, ({"ttft_p99": "4s"}, {"ttft": "2s", "goodput": 0.9})),
    "short": (24.0, ({"e2e_p99": "8s"}, {"ttft_p99": "0.5s", "tpot_mean": "50ms"})),
}


def cases() -> dict[str, tuple[str, float, dict[str, Any]]]:
    """Return every case by name: workload, rate and SLO."""
    return {
        f"{name} {number}": (name, rate, slo)
        for name, (rate, slos) in CASES.items()
        for number, slo in enumerate(slos)
    }


def study(name: str, rate: float, slo: dict[str, Any]) -> Recommender:
    """Return a small study of one model."""
    tables = {
        "workload": {"name": name, **LAWS.get(name, {})},
        "slo": slo,
        "gpu": {"model": "llama-3.1-8b"},
        "recommend": AXES,
    }
    made = Recommender(Document(tables), GPUS, rate)
    made.num_requests = NUM_REQUESTS
    return made


def exhaustive(made: Recommender, jobs: int) -> dict[str, Any]:
    """Run every number of servers with every setup and router until it is decided."""
    with tempfile.TemporaryDirectory() as folder, executor(jobs, None) as workers:
        search = Search(
            made.servers,
            made.axes,
            made.trace,
            made.request_rate,
            made.num_requests,
            Records(workers.execute, Store(Path(folder))),
        )
        entries = []
        for server in made.servers:
            for replicas in range(1, made.axes.max_replicas + 1):
                for setup in search._setups(server):
                    routers = made.axes.router if replicas > 1 else made.axes.router[:1]
                    for router in routers:
                        own = Candidate(server, replicas, setup._replace(router=router))
                        entries.append(search._entry(own))
        undecided = entries
        for stage in STAGES[2:]:
            search._stage(undecided, stage._replace(bursts=0))
            undecided = [one for one in undecided if one.outcome is not Outcome.MISSES]
            search._stage(undecided, stage)
            undecided = [one for one in undecided if one.outcome is Outcome.OPEN]
        meeting = [one for one in entries if one.outcome is Outcome.MEETS]
        best = min(meeting, key=lambda one: (one.candidate.cost_per_hour, one.ratio))
        return {
            "servers": best.candidate.title,
            "cost_per_hour": best.candidate.cost_per_hour,
            "num_candidates": len(entries),
            "num_requests": search.records.num_requests,
        }


def main() -> None:
    """Print a line per case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--jobs", type=int, default=-1)
    given = parser.parse_args()
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    for title, case in cases().items():
        began_s = time.monotonic()
        if given.write and title not in known:
            known[title] = exhaustive(study(*case), given.jobs)
            FILE.parent.mkdir(parents=True, exist_ok=True)
            FILE.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n")
        if title not in known:
            print(f"{title}: no exhaustive answer is recorded; run with --write")
            continue
        between_s = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found = study(*case).run(Path(folder), given.jobs, None, None, False, False)
        share = found.num_requests / known[title]["num_requests"]
        winner = found.best(found.winner).candidate.title if found.winner else "none"
        cost = found.winner.cost_per_hour if found.winner else float("nan")
        print(
            f"{title}: {winner} {cost:.2f} (exhaustive: {known[title]['servers']} "
            f"{known[title]['cost_per_hour']:.2f}), {found.num_requests:,} of "
            f"{known[title]['num_requests']:,} requests, {100 * share:.1f} %; "
            f"{between_s - began_s:.0f} s and {time.monotonic() - between_s:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
