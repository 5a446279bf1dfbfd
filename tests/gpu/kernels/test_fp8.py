"""A KV cache of 8 bits (e4m3) is read exactly, and written rounded and cut, with its scales."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from benchmarks.gpu.cases import TOLERANCE, error, make_case

from busdoor_gpu.kernels.cache import allocate_kv_cache
from busdoor_gpu.kernels.paged_decode import paged_decode, paged_decode_reference
from busdoor_gpu.kernels.paged_prefill import paged_prefill, paged_prefill_reference
from busdoor_gpu.kernels.rope_kv_write import rope_kv_write, rope_kv_write_reference, rope_table

FP8 = torch.float8_e4m3fn
SCALES = (0.5, 4.0)
CASES = [
    ([40, 65, 0, 33], None, paged_decode, paged_decode_reference),
    ([40, 65, 1, 33], [1, 20, 1, 33], paged_prefill, paged_prefill_reference),
]


def eight_bits(case):
    """The case with its cache in 8 bits, and what these mean in float64."""
    kept = replace(
        case,
        k_cache=(case.k_cache.float() / SCALES[0]).to(FP8),
        v_cache=(case.v_cache.float() / SCALES[1]).to(FP8),
    )
    meant = kept.to(torch.float64)
    return kept, replace(
        meant, k_cache=meant.k_cache * SCALES[0], v_cache=meant.v_cache * SCALES[1]
    )


@pytest.mark.parametrize(("lens", "query_lens", "kernel", "reference"), CASES)
@pytest.mark.parametrize("head_dim", [32, 128])
def test_attention_reads_8_bits_as_exactly_as_16(
    device, dtype, lens, query_lens, kernel, reference, head_dim
):
    case = make_case(lens, query_lens, head_dim=head_dim, dtype=dtype, device=device)
    kept, meant = eight_bits(case)
    args = "decode_args" if query_lens is None else "prefill_args"
    out = kernel(*getattr(kept, args), kv_scales=SCALES)
    assert error(out, reference(*getattr(meant, args))) < TOLERANCE[dtype]
    assert error(reference(*getattr(kept, args), kv_scales=SCALES), out) < TOLERANCE[dtype]
    # Three bits after the point: a value is off by at most one part in 16, an average by less.
    assert error(out, reference(*getattr(case.to(torch.float64), args))) < 2**-4


def test_keys_and_values_are_written_divided_rounded_and_cut(device, dtype):
    """Position 0 turns nothing. The interpreter rounds wrongly: it gets what needs no rounding."""
    num_tokens, heads, head_dim = 5, 2, 32
    values = torch.arange(num_tokens * 4 * head_dim, device=device).view(num_tokens, -1) % 15 - 7.0
    if torch.cuda.is_available():
        values = torch.randn(num_tokens, 4 * head_dim, device=device) * 3
    values[1, 3], values[2, -1] = 1000.0, -3000.0
    qkv = torch.cat([values[:, : 2 * head_dim], values], dim=1).to(dtype)
    slots = torch.tensor([17, 0, 9, 5, -1], dtype=torch.int32, device=device)
    table = rope_table(torch.ones(head_dim // 2, device=device), 2)
    results = []
    for run in (rope_kv_write, rope_kv_write_reference):
        caches = allocate_kv_cache(2, heads, 16, head_dim, FP8, device)
        position = torch.zeros(num_tokens, dtype=torch.int32, device=device)
        query = run(qkv, position, slots, table, caches, kv_scales=SCALES)
        results.append([query.float(), *(cache.float() for cache in caches)])
    for got, wanted in zip(*results, strict=True):
        assert torch.equal(got, wanted)
    _, keys, values = results[0]
    assert (keys.max(), values.min()) == (448.0, -448.0)
    assert keys.isfinite().all() and values.isfinite().all()
