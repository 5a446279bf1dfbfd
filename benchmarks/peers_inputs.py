"""Write a case of benchmarks/peers.py in every tool's form: python -m benchmarks.peers_inputs CASE DIR.

A process of its own: the peak memory of a command that a large process starts counts that too.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.peers_tools import (
    BASE_S,
    BLOCK_TOKENS,
    CASES,
    MAX_SEQS,
    MAX_TOKENS,
    PER_TOKEN_S,
    Case,
)

from busdoor_workloads import Trace, preset, workload_from_table
from busdoor_workloads.formats.mooncake import BLOCK_SIZE, MOONCAKE


def write_inputs(case: Case, folder: Path) -> None:
    """Write the case's trace and settings in every tool's form."""
    with (folder / "trace.jsonl").open("w", encoding="utf-8") as file:
        MOONCAKE.write(trace(case), file)
    with (folder / "trace.jsonl").open(encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    keys = {"prompt_tokens": "input_length", "output_tokens": "output_length"}
    rows = [
        {"timestamp": r["timestamp"] / 1e3} | {key: r[theirs] for key, theirs in keys.items()}
        for r in records
    ]
    (folder / "sched_sim.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "hardware.json").write_text(json.dumps(sched_sim_hardware(case)), encoding="utf-8")
    (folder / "busdoor.toml").write_text(busdoor_toml(case), encoding="utf-8")
    write_dynamo_table(case, folder / "step_time.npz")


def trace(case: Case) -> Trace:
    """Draw a case's requests; a prompt that shares nothing has blocks of its own."""
    if case.agentic:
        drawn = preset("agentic").generate(seed=0, num_requests=case.requests)
        gaps_s = np.random.default_rng(0).exponential(1 / case.request_rate, case.requests)
        return drawn.with_arrivals(gaps_s.cumsum())
    lengths = {"type": "normal", "min": 1}
    table = {
        "input_tokens": lengths | {"mean": 750, "std": 500, "max": 2000},
        "output_tokens": lengths | {"mean": 232, "std": 150, "max": 1000},
        "arrival": {"process": "poisson", "request_rate": case.request_rate},
    }
    drawn = workload_from_table(table).generate(seed=0, num_requests=case.requests)
    ends = np.cumsum(-(-drawn.input_tokens // BLOCK_SIZE)).tolist()
    blocks = tuple(tuple(range(*ids)) for ids in pairwise((0, *ends)))
    return replace(drawn, hash_ids=blocks, block_size=BLOCK_SIZE)


def busdoor_toml(case: Case) -> str:
    return f"""[policy]
name = "vllm"
max_num_seqs = {MAX_SEQS}
max_num_batched_tokens = {MAX_TOKENS}
prefix_caching = {str(case.agentic).lower()}
[kv]
num_blocks = {case.num_blocks}
block_size = {BLOCK_TOKENS}
max_model_len = 262144
[step_time]
name = "linear"
base_s = {BASE_S}
per_token_s = {PER_TOKEN_S}
per_context_s = {case.per_context_s}
"""


def write_dynamo_table(case: Case, path: Path) -> None:
    """Write DynoSim's table: ms of a prefill by tokens, of a decode by KV tokens and mean context."""
    prompt = np.arange(0.0, 300_000.0, BLOCK_TOKENS)
    kv = np.array([0.0, case.num_blocks * BLOCK_TOKENS])
    context = np.unique(np.round(np.geomspace(1, 300_000, 400)))
    prefill_s = PER_TOKEN_S * prompt + case.per_context_s * prompt * (prompt + 1) / 2
    decode_s = BASE_S + kv[:, None] * (PER_TOKEN_S / context[None, :] + case.per_context_s)
    np.savez(
        path,
        prefill_isl=prompt,
        prefill_ttft_ms=prefill_s * 1e3,
        decode_active_kv_tokens=kv,
        decode_context_length=context,
        decode_itl=decode_s * 1e3,
    )


def sched_sim_hardware(case: Case) -> dict[str, Any]:
    """Return the GPU whose roofline has our coefficients, and memory for our blocks."""
    layers, heads, head_dim, dtype_bytes, flops = 32, 8, 128, 2, 2e6  # a model of a megaparameter
    kv_bytes = 2 * layers * heads * head_dim * dtype_bytes
    bytes_per_s = kv_bytes / (case.per_context_s or 50e-9)
    blocks_bytes = (case.num_blocks + 0.5) * BLOCK_TOKENS * kv_bytes
    return {
        "name": "linear",
        "memory_bandwidth_gb_s": bytes_per_s / 1e9,
        "kernel_launch_overhead_ms": (BASE_S - flops / bytes_per_s) * 1e3,
        "parameter_count_billions": flops / 2e9,
        "fp16_tflops": flops / PER_TOKEN_S / 1e12,
        "tensor_core_efficiency": 1.0,
        "num_layers": layers,
        "num_kv_heads": heads,
        "head_dim": head_dim,
        "dtype_bytes": dtype_bytes,
        "vram_gb": (flops + blocks_bytes) / 1024**3 + 0.5,  # it keeps half a GiB free
    }


if __name__ == "__main__":
    write_inputs(CASES[sys.argv[1]], Path(sys.argv[2]))
