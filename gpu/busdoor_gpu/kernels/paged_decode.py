r"""Attention of one query token per sequence over a paged KV cache.

    out[s, h] = sum_t softmax_t(scale * query[s, h] . K[s, h // group, t]) V[s, h // group, t],   t < seq_lens[s]

Decode reads every key and value once and computes little with them, so it must keep all of the
GPU's memory pipes busy for the same time at any lengths. The KV cache is cut into tiles of `tile`
tokens; all tiles of all (sequence, KV head) pairs form one line, and each of a fixed number of
programs takes an equal stretch of it. The output of a pair within one stretch is written at once;
for a pair that is cut, every program writes a partial (its output and the log of its softmax sum),
and a second kernel joins them:

    tile line   | s0 h0 ------ | s0 h1 ------ | s1 h0 - | s1 h1 - | s2 h0 -------------------- | ...
    programs    |   p0  |   p1  |   p2  |   p3  |   p4  |   p5  |   p6  |   p7  |

A program cuts at most two pairs (at its start and at its end), so the partials need 2 rows per
program for any length, and both grids depend only on the number of programs: one CUDA graph serves
any lengths. The plan (where each sequence starts on the line, and the sequence in which a program
starts) is made on the device, once per step for all layers.

The query heads that share a KV head are the rows of one matrix product, so K and V cross the memory
bus once. Softmax runs in base 2 with a factor `scale * log2(e)`: exp2 is one instruction. Masked
scores are -1e30, not -inf: a fully masked row must not become inf - inf.
"""
# ruff: noqa: N803
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from typing import Any

import torch

from busdoor_gpu.kernels._attend import attend, blocks_of
from busdoor_gpu.kernels._launch import jit, launch, next_power_of_2, tl
from busdoor_gpu.kernels.cache import NO_SCALES, Scales, check_cache
from busdoor_gpu.kernels.decode_plan import DecodePlan, plan_decode
from busdoor_gpu.kernels.paged_prefill import paged_prefill_reference

_MIN_ROWS = 16  # rows of the tensor cores' smallest product
# Per thread, as in scan 2 on an H100; without a limit sm_80 takes more than it has room for.
# Conversion of an 8-bit cache takes a few more (128 spill), and three programs fit all the same.
_MAX_REGISTERS = {2: 128, 4: 128, 1: 160}
# Partials joined at a time: [16, 128] floats are 16 registers per thread of 4 warps.
_JOIN_PIECES = 16


@jit
def _decode_kernel(
    query,
    k_cache,
    v_cache,
    block_table,
    seq_lens,
    out,
    tile_starts,
    first_seq,
    share_ptr,
    partial_out,
    partial_lse,
    scale_log2e,
    v_scale,
    num_seqs,
    stride_query,
    stride_table,
    stride_block,
    stride_head,
    stride_token,
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PAGE: tl.constexpr,
    TILE: tl.constexpr,
):
    program = tl.program_id(0)
    share = tl.load(share_ptr)
    begin = program * share
    end = tl.minimum(begin + share, tl.load(tile_starts + num_seqs) * NUM_KV_HEADS)
    seq = tl.load(first_seq + program)
    row = tl.arange(0, ROWS)
    dim = tl.arange(0, HEAD_DIM)
    here = begin
    while here < end:
        first_tile = tl.load(tile_starts + seq)
        num_tiles = tl.load(tile_starts + seq + 1) - first_tile
        head = (here - first_tile * NUM_KV_HEADS) // num_tiles
        low = (here - first_tile * NUM_KV_HEADS) % num_tiles
        high = tl.minimum(num_tiles, low + end - here)

        length = tl.load(seq_lens + seq)
        inside = (row < GROUP)[:, None]
        element = (head * GROUP + row)[:, None] * HEAD_DIM + dim[None, :]
        q = tl.load(query + seq.to(tl.int64) * stride_query + element, mask=inside, other=0.0)
        table = block_table + seq.to(tl.int64) * stride_table
        acc = tl.zeros([ROWS, HEAD_DIM], tl.float32)
        top = tl.full([ROWS], -1e30, tl.float32)
        total = tl.zeros([ROWS], tl.float32)
        # Blocks are looked up one tile ahead, as in prefill; an empty sequence has no tile.
        block = blocks_of(table, low, length, PAGE, TILE)
        for tile in range(low, tl.minimum(high, tl.cdiv(length, TILE))):
            following = blocks_of(table, tile + 1, length, PAGE, TILE)
            acc, top, total = attend(
                q, k_cache, v_cache, block, tile, length, row * 0 + length - 1, acc, top, total, scale_log2e,
                head, stride_block, stride_head, stride_token, HEAD_DIM, PAGE, TILE, True,
            )  # fmt: skip
            block = following
        acc = acc * v_scale / tl.where(total == 0.0, 1.0, total)[:, None]

        if high - low == num_tiles:
            place = seq.to(tl.int64) * NUM_KV_HEADS * GROUP * HEAD_DIM + element
            tl.store(out + place, acc.to(out.dtype.element_ty), mask=inside)
        else:
            piece = (program * 2 + (here != begin).to(tl.int32)) * GROUP + row
            tl.store(partial_out + piece[:, None] * HEAD_DIM + dim[None, :], acc, mask=inside)
            tl.store(partial_lse + piece, top + tl.log2(total), mask=row < GROUP)
        seq += ((head == NUM_KV_HEADS - 1) & (high == num_tiles)).to(tl.int32)
        here += high - low


@jit
def _join_kernel(
    out,
    tile_starts,
    first_seq,
    share_ptr,
    partial_out,
    partial_lse,
    num_seqs,
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PIECES: tl.constexpr,
):
    program = tl.program_id(0)
    row = tl.program_id(1)
    share = tl.load(share_ptr)
    border = (program + 1) * share
    if border < tl.load(tile_starts + num_seqs) * NUM_KV_HEADS:
        seq = tl.load(first_seq + program + 1)
        first_tile = tl.load(tile_starts + seq)
        num_tiles = tl.load(tile_starts + seq + 1) - first_tile
        head = (border - first_tile * NUM_KV_HEADS) // num_tiles
        start = first_tile * NUM_KV_HEADS + head * num_tiles
        # A cut pair is joined here by the program in whose stretch it starts; a border between
        # pairs cuts nothing.
        if (start < border) & (start >= program * share):
            dim = tl.arange(0, HEAD_DIM)
            last = (start + num_tiles - 1) // share
            acc = tl.zeros([HEAD_DIM], tl.float32)
            top = -1e30
            total = 0.0
            for base in range(program, last + 1, PIECES):
                owner = base + tl.arange(0, PIECES)
                later = (owner == program) & (start > program * share)
                piece = (owner * 2 + later.to(tl.int32)) * GROUP + row
                lse = tl.load(partial_lse + piece, mask=owner <= last, other=-1e30)
                part = tl.load(
                    partial_out + piece[:, None] * HEAD_DIM + dim[None, :],
                    mask=(owner <= last)[:, None],
                    other=0.0,
                )
                new_top = tl.maximum(top, tl.max(lse, 0))
                weight = tl.where(owner <= last, tl.exp2(lse - new_top), 0.0)
                acc = acc * tl.exp2(top - new_top) + tl.sum(part * weight[:, None], 0)
                total = total * tl.exp2(top - new_top) + tl.sum(weight, 0)
                top = new_top
            place = (seq.to(tl.int64) * NUM_KV_HEADS + head) * GROUP + row
            tl.store(out + place * HEAD_DIM + dim, (acc / total).to(out.dtype.element_ty))


def paged_decode(
    query: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    plan: DecodePlan | None = None,
    scale: float | None = None,
    out: torch.Tensor | None = None,
    kv_scales: Scales = NO_SCALES,
) -> torch.Tensor:
    """Attend from one token per sequence to the sequence's cached tokens, its own included.

    `query` [num_seqs, num_q_heads, head_dim] may be a view of the fused projection; K and V are
    [num_blocks, num_kv_heads, block_size, head_dim], see `busdoor_gpu.kernels.cache`, whose
    `kv_scales` an 8-bit cache is multiplied by. `block_table`, int32 [num_seqs, max_blocks], is not
    read past a sequence's length; `seq_lens`, int32, are 0 for padding of a graph, which gives
    zeros. `plan`, updated by `plan_decode` with these lengths, and `out`, contiguous and shaped as
    the query, are made here if absent; `scale` of the scores is 1 / sqrt(head_dim) unless given.
    Returns `out`. Raises ValueError if the kernel cannot read these heads, strides or head_dim.
    """
    check_cache(query, k_cache, v_cache)
    num_seqs, num_q_heads, head_dim = query.shape
    num_kv_heads, page = k_cache.shape[1:3]
    if plan is None:
        plan = DecodePlan.allocate(num_seqs, num_q_heads, num_kv_heads, head_dim, query.device)
        plan_decode(plan, seq_lens)
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device) if out is None else out
    group = num_q_heads // num_kv_heads
    shared = (plan.tile_starts, plan.first_seq, plan.share, plan.partial_out, plan.partial_lse)
    shape: dict[str, Any] = {"NUM_KV_HEADS": num_kv_heads, "GROUP": group, "HEAD_DIM": head_dim}
    launch(
        _decode_kernel, (plan.num_programs,), query, k_cache, v_cache, block_table, seq_lens, out, *shared,
        (scale or head_dim**-0.5) * math.log2(math.e) * kv_scales[0], kv_scales[1], num_seqs,
        query.stride(0), block_table.stride(0), *k_cache.stride()[:3],
        **shape, ROWS=max(_MIN_ROWS, next_power_of_2(group)), PAGE=page, TILE=plan.tile,
        num_warps=4, num_stages=3, maxnreg=_MAX_REGISTERS[k_cache.dtype.itemsize],
    )  # fmt: skip
    launch(
        _join_kernel,
        (plan.num_programs, group),
        out,
        *shared,
        num_seqs,
        **shape,
        PIECES=_JOIN_PIECES,
        num_warps=4,
    )
    return out


def paged_decode_reference(
    query: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    plan: DecodePlan | None = None,
    scale: float | None = None,
    out: torch.Tensor | None = None,
    kv_scales: Scales = NO_SCALES,
) -> torch.Tensor:
    """`paged_decode` in plain PyTorch: a prefill of one query token per sequence, no plan."""
    starts = torch.arange(query.shape[0] + 1, dtype=torch.int32)
    return paged_prefill_reference(
        query, k_cache, v_cache, block_table, seq_lens, starts, None, scale, out, kv_scales
    )
