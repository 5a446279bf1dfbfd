"""The benchmark runs on a CPU, and its peers compute what ours do."""

from __future__ import annotations

import csv

import torch

from busdoor_gpu.bench.flex import flex_paged
from busdoor_gpu.bench.kernels import attention_benchmarks, format_rows, run, write_csv
from busdoor_gpu.kernels._launch import cdiv


def test_a_cpu_gets_a_row_for_every_operation(tmp_path):
    top, rows = run(torch.device("cpu"))
    assert {row.op for row in rows} == {
        "decode",
        "prefill",
        "rmsnorm",
        "swiglu",
        "rope_kv_write",
        "argmax",
        "plan_decode",
    }
    assert all(row.us > 0 for row in rows) and top.gb_per_s > 0
    assert len(format_rows(top, rows).splitlines()) == len(rows) + 2
    write_csv(rows, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open() as file:
        assert [float(line["us"]) for line in csv.DictReader(file)] == [row.us for row in rows]


def test_work_is_counted_by_hand():
    decode, prefill, mixed = attention_benchmarks(quick=False, on_gpu=False)
    assert decode.kv_bytes == 4 * 64 * 2 * 2 * 32 * 2  # sequences, tokens, K and V, KV heads, elements, bytes each
    assert prefill.flops == 4 * 4 * 32 * (64 * 65 / 2)  # two products of 2 operations, query heads, elements, pairs
    assert mixed.flops == 4 * 4 * 32 * (sum(range(49, 65)) + 4 * 40)


def test_the_paged_peer_of_pytorch_is_used_right(recwarn):
    call, (query, k, v, pages) = flex_paged(2, 200, 1, (4, 2, 32), torch.float32, torch.device("cpu"))
    out = call()
    for seq in range(2):
        slot = (pages[seq, : cdiv(200, 128), None] * 128 + torch.arange(128)).flatten()[:200]
        dense = (query[seq], k[0][:, slot], v[0][:, slot])
        wanted = torch.nn.functional.scaled_dot_product_attention(*dense, enable_gqa=True)
        assert torch.allclose(out[seq], wanted, atol=1e-6)
