"""The benchmark runs on a CPU, and its peers compute what ours do."""

from __future__ import annotations

import sys
from dataclasses import replace
from math import isnan

import pytest
import torch
from benchmarks.gpu.flex import flex_paged
from benchmarks.gpu.kernels import _cloned, attention_benchmarks, format_rows, run, time_peers
from benchmarks.gpu.peers import PEERS
from benchmarks.gpu.timing import Ceiling

from busdoor_gpu.kernels._launch import cdiv

CPU = torch.device("cpu")


def test_a_cpu_gets_a_row_for_every_operation():
    top, rows = run(CPU)
    rows = list(rows)
    timed = [row for row in rows if not row.note]
    assert {row.op for row in timed} == {
        "decode",
        "prefill",
        "rmsnorm",
        "swiglu",
        "rope_kv_write",
        "argmax",
        "plan_decode",
        "linear",
    }
    assert all(row.us > 0 for row in timed) and top.gb_per_s > 0
    assert [row.note for row in rows if row.note] == ["absent: no --peers folder"] * len(PEERS)
    assert len(format_rows(top, rows).splitlines()) == len(rows) + 2


FLASHINFER = """
import torch
from busdoor_gpu.kernels.paged_prefill import paged_prefill_reference

class BatchPrefillWithPagedKVCacheWrapper:
    def __init__(self, workspace, kv_layout, use_tensor_cores=False):
        assert kv_layout == "HND"

    def plan(self, starts, indptr, indices, last, q_heads, kv_heads, head_dim, page, causal=True, **types):
        self.starts, used = starts, indptr.diff().tolist()
        self.lens = (indptr.diff() - 1) * page + last
        rows = indices.split(used)
        self.table = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)

    def run(self, query, caches):
        return paged_prefill_reference(query, *caches, self.table, self.lens, self.starts)

class BatchDecodeWithPagedKVCacheWrapper(BatchPrefillWithPagedKVCacheWrapper):
    def plan(self, indptr, *rest, **options):
        super().plan(torch.arange(len(indptr)).int(), indptr, *rest, **options)
"""
VLLM = """
from vllm.triton_utils import tl, triton
from vllm.platforms import current_platform

def unified_attention(q, k, v, out, cu_seqlens_q, seqused_k, softmax_scale, causal, window_size, block_table, q_descale,
                      sinks=None):
    assert k.shape[1] == 16 and causal and window_size == (-1, -1) and q_descale is None
    out.zero_()
"""


def test_peers_whose_files_are_brought_along_are_checked_before_they_are_timed(
    tmp_path, monkeypatch
):
    """Stand-ins with peers' signatures: one computes as we do, one not, one is no library."""
    pytest.importorskip("triton")
    monkeypatch.setattr("sys.path", [*sys.path])
    for name, text in (
        ("flashinfer/__init__.py", FLASHINFER),
        ("triton_unified_attention.py", VLLM),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "_vllm_fa3_C.abi3.so").write_bytes(b"nothing that can be loaded")
    top = Ceiling(1.0, 1.0)
    for bench in attention_benchmarks(quick=True, on_gpu=False):
        if bench.kv_bits == 8:  # ours alone
            assert not list(time_peers(bench, CPU, top, tmp_path))
            continue
        fa3, flashinfer, vllm = time_peers(bench, CPU, top, tmp_path)
        assert fa3.note.startswith("failed: OSError")
        assert flashinfer.us > 0 and not flashinfer.note
        assert vllm.note.startswith(
            "failed: ArithmeticError: differs from our kernel by"
        ) and isnan(vllm.us)
    assert "vllm" not in sys.modules
    monkeypatch.delitem(sys.modules, "flashinfer")


def test_work_is_counted_by_hand():
    decode, small, prefill, mixed = attention_benchmarks(quick=False, on_gpu=False)
    assert 2 * small.kv_bytes == decode.kv_bytes
    assert (
        decode.kv_bytes == 4 * 64 * 2 * 2 * 32 * 2
    )  # sequences, tokens, K and V, KV heads, elements, bytes each
    assert prefill.flops == 4 * 4 * 32 * (
        64 * 65 / 2
    )  # two products of 2 operations, query heads, elements, pairs
    assert mixed.flops == 4 * 4 * 32 * (sum(range(49, 65)) + 4 * 40)


def test_the_paged_peer_of_pytorch_is_used_right(recwarn):
    call, (query, k, v, pages) = flex_paged(
        2, 200, 1, (4, 2, 32), torch.float32, torch.device("cpu")
    )
    out = call()
    for seq in range(2):
        slot = (pages[seq, : cdiv(200, 128), None] * 128 + torch.arange(128)).flatten()[:200]
        dense = (query[seq], k[0][:, slot], v[0][:, slot])
        wanted = torch.nn.functional.scaled_dot_product_attention(*dense, enable_gqa=True)
        assert torch.allclose(out[seq], wanted, atol=1e-6)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_case_is_copied_whole_in_any_format(bits):
    """So that a benchmark's copies exceed a GPU's cache; unused places are NaN."""
    bench = replace(attention_benchmarks(quick=True, on_gpu=False)[0], kv_bits=bits)
    case = bench.make(torch.float32, CPU)
    [copied] = _cloned(case, 1)
    assert copied.dtype == case.k_cache.dtype
    for got, wanted in ((copied[:, 0], case.k_cache), (copied[:, 1], case.v_cache)):
        assert torch.equal(got.float().nan_to_num(), wanted.float().nan_to_num())
