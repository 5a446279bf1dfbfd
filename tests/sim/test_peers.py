"""benchmarks/peers.py: what it writes for each tool, what it reads of each, and its table."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.peers import line, measure, rows
from benchmarks.peers_inputs import write_inputs
from benchmarks.peers_tools import CASES, REPORTED, Tool, blis, busdoors, sched_sim

from busdoor_workloads.formats import read_trace

CASE = CASES["start"]


def test_every_tool_gets_the_same_requests_and_step_time(tmp_path):
    write_inputs(CASE, tmp_path)
    trace = read_trace(tmp_path / "trace.jsonl")
    rows = json.loads((tmp_path / "sched_sim.json").read_text())
    assert [row["prompt_tokens"] for row in rows] == trace.input_tokens.tolist()
    assert [row["timestamp"] for row in rows] == pytest.approx(trace.arrival_s.tolist())
    ids = [block for blocks in trace.hash_ids for block in blocks]
    assert len(set(ids)) == len(ids) == sum(-(-tokens // 512) for tokens in trace.input_tokens)
    table = np.load(tmp_path / "step_time.npz")
    kv, context = table["decode_active_kv_tokens"][1], table["decode_context_length"][100]
    decode_ms = (5.5e-3 + 22e-6 * kv / context + 50e-9 * kv) * 1e3
    assert table["decode_itl"][1, 100] == pytest.approx(decode_ms)


def test_busdoor_and_another_take_turns():
    code = "print('hello'); sum(range(100_000))"
    other = Tool("other", lambda case: (sys.executable, "-c", code), lambda *_: {"ttft_ms": "?"})
    first, second = rows(CASE, measure(CASE, [*busdoors([sys.executable]), other], turns=1))
    assert (first["simulator"][:7], first["answered"], first["ratio"]) == ("busdoor", 10, 1)
    assert 0 < second["ratio"] < 1
    assert line(second).split(" | ")[1] == "other"
    assert line(second).split(" | ")[8] == "?"
    # Equal where the process of the tests, which a child's peak counts, is the largest.
    assert 5 < second["peak_mib"] <= first["peak_mib"]


def test_a_failing_tool_is_named():
    broken = Tool("broken", lambda case: (sys.executable, "-c", "1/0"), lambda *_: {})
    with pytest.raises(SystemExit, match=r"(?s)broken failed on chat, 10.*ZeroDivisionError"):
        measure(CASE, [broken], turns=1)


def test_what_sched_sim_and_blis_print_is_read():
    table = """
│ Simulation Horizon       │ Simulated Duration     │ 2531.98 s            │
│ Workload Volume          │ Completed / Total      │ 10000 / 10000        │
│ Latency Percentiles      │ TTFT (p50 / p90 / p99) │ 26.06 / 42.03 /      │
│                          │                        │ 59.04 ms             │
│ Latency Percentiles      │ End-to-End (p50 / p99) │ 1473.23 / 3698.81 ms │"""
    assert sched_sim("sched-sim").report(Path(), table) == {
        "answered": 10_000,
        "simulated_s": 2531.98,
        "ttft_ms": "26.1 (median)",
        "e2e_ms": "1,473.2 (median)",
    }
    printed = '=== Metrics ===\n{"completed_requests": 40, "ttft_mean_ms": 131.05}\nbye'
    report = blis("blis").report(Path(), printed)
    assert (report["answered"], report["ttft_ms"], report["e2e_ms"]) == (40, 131.05, None)
    assert tuple(report) == REPORTED
