"""Causal attention over paged KV, several queries a sequence: prefill, chunks, mixed.

    out[t, h] = sum_u softmax_u(scale * query[t, h] . K[s, h // group, u]) V[s, h // group, u],   u <= position of t

The query tokens of sequence s are its last ones: query_starts[s + 1] - query_starts[s] tokens that
end at seq_lens[s]; their K and V are already in the cache. A whole prompt, a chunk after cached
context and a single decoding token are the same case.

A program takes 128 rows: a run of query tokens times the query heads that share a KV head, enough
rows for Hopper's warpgroup product (wgmma needs 64). It reads the keys in tiles: first those that
every row attends to, without a mask, then the one or two at the diagonal, with a mask. The blocks
of the next tile are looked up one tile ahead, so that its keys and values are fetched while this
one is multiplied. The host, which knows the lengths, lists the programs longest first, so that the
last to start are short.
"""
# ruff: noqa: N803
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from busdoor_gpu.kernels._attend import attend, blocks_of
from busdoor_gpu.kernels._launch import capability, compute_dtype, jit, launch, tl
from busdoor_gpu.kernels.cache import NO_SCALES, Scales, check_cache, gather_kv

_ROWS = 128  # two warpgroups of 64, on 8 warps: the largest that does not spill at head_dim 128
_NUM_WARPS = 8


def _tile_and_stages(device: torch.device) -> tuple[int, int]:
    """Return keys per tile and pipeline stages that fit the registers without spills.

    With wgmma, the products' operands stay in shared memory: 128 keys, two tiles are loaded while
    one is multiplied (measured on an H100, gpu/results). Without it, operands pass through
    registers: a quarter of the keys.
    """
    return (128, 3) if capability(device)[0] == 9 else (32, 2)


@jit
def _prefill_kernel(
    query,
    k_cache,
    v_cache,
    block_table,
    seq_lens,
    query_starts,
    plan,
    out,
    scale_log2e,
    v_scale,
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
    head = tl.program_id(0)
    seq = tl.load(plan + tl.program_id(1) * 2)
    first = tl.load(plan + tl.program_id(1) * 2 + 1)
    query_start = tl.load(query_starts + seq)
    query_len = tl.load(query_starts + seq + 1) - query_start
    context = tl.load(seq_lens + seq) - query_len
    row = tl.arange(0, ROWS)
    dim = tl.arange(0, HEAD_DIM)
    token = first + row // GROUP
    inside = ((row < ROWS // GROUP * GROUP) & (token < query_len))[:, None]
    element = (head * GROUP + row % GROUP)[:, None] * HEAD_DIM + dim[None, :]
    index = (query_start + token).to(tl.int64)[:, None]
    q = tl.load(query + index * stride_query + element, mask=inside, other=0.0)
    table = block_table + seq.to(tl.int64) * stride_table

    acc = tl.zeros([ROWS, HEAD_DIM], tl.float32)
    top = tl.full([ROWS], -1e30, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    # Keys that the last row sees, and tiles that the first row, and so every row, sees in full;
    # padding, of length 0, has a context below 0.
    end = tl.maximum(context + tl.minimum(first + ROWS // GROUP, query_len), 0)
    whole = tl.maximum(context + first + 1, 0) // TILE
    block = blocks_of(table, 0, end, PAGE, TILE)
    for tile in range(0, whole):
        following = blocks_of(table, tile + 1, end, PAGE, TILE)
        acc, top, total = attend(
            q, k_cache, v_cache, block, tile, end, context + token, acc, top, total, scale_log2e,
            head, stride_block, stride_head, stride_token, HEAD_DIM, PAGE, TILE, False,
        )  # fmt: skip
        block = following
    for tile in tl.range(whole, tl.cdiv(end, TILE), num_stages=1):  # one or two tiles: no pipeline
        block = blocks_of(table, tile, end, PAGE, TILE)
        acc, top, total = attend(
            q, k_cache, v_cache, block, tile, end, context + token, acc, top, total, scale_log2e,
            head, stride_block, stride_head, stride_token, HEAD_DIM, PAGE, TILE, True,
        )  # fmt: skip
    acc = (
        acc * v_scale / tl.where(total == 0.0, 1.0, total)[:, None]
    )  # padding of length 0 has seen no key
    place = index * (NUM_KV_HEADS * GROUP * HEAD_DIM) + element
    tl.store(out + place, acc.to(out.dtype.element_ty), mask=inside)


def prefill_programs(
    query_lens: Sequence[int] | NDArray[Any], seq_lens: NDArray[Any], group: int
) -> NDArray[np.int32]:
    """List the programs of one step's prefill attention, longest first, for all layers.

    From the query tokens of each sequence, and its length with them (0: padding); `group` query
    heads per KV head. Returns int32 [num_programs, 2]: sequence, and its first query token of the
    program.

    >>> prefill_programs([40, 1, 0], np.array([40, 90, 7]), group=4).tolist()
    [[1, 0], [0, 32], [0, 0]]
    """
    tokens = _ROWS // group
    lens = np.asarray(query_lens, dtype=np.int64)
    blocks = -(-lens // tokens)
    seq = np.repeat(np.arange(len(lens)), blocks)
    first = (np.arange(len(seq)) - np.repeat(blocks.cumsum() - blocks, blocks)) * tokens
    keys = seq_lens[seq] - np.maximum(lens[seq] - first - tokens, 0)
    order = np.argsort(-keys, kind="stable")
    return np.stack([seq[order], first[order]], axis=1).astype(np.int32)


def max_programs(num_tokens: int, num_seqs: int, group: int) -> int:
    """Return the most programs that so many sequences, with so many query tokens, can have.

    >>> max_programs(64, 3, group=4)
    5
    """
    return num_tokens // (_ROWS // group) + num_seqs


def plan_prefill(
    query_lens: Sequence[int],
    seq_lens: Sequence[int],
    group: int,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Return `prefill_programs` on a device, int32 [num_programs, 2]; this waits for the device."""
    return torch.from_numpy(
        prefill_programs(query_lens, np.asarray(seq_lens, dtype=np.int64), group)
    ).to(device)


def paged_prefill(
    query: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_starts: torch.Tensor,
    plan: torch.Tensor | None = None,
    scale: float | None = None,
    out: torch.Tensor | None = None,
    kv_scales: Scales = NO_SCALES,
) -> torch.Tensor:
    """Attend causally from each sequence's last tokens to its cached tokens, theirs included.

    `query` [num_tokens, num_q_heads, head_dim] has the sequences' query tokens one after another;
    `query_starts`, int32 [num_seqs + 1], says where each sequence's start (equal neighbours: none
    this step); `seq_lens` count them too. `plan` is `plan_prefill`'s with the same lengths; made
    here if absent, which waits for the device. All else, and the errors, are as for
    `paged_decode`.
    """
    check_cache(query, k_cache, v_cache)
    num_q_heads, head_dim = query.shape[1:]
    num_kv_heads, page = k_cache.shape[1:3]
    group = num_q_heads // num_kv_heads
    if plan is None:
        plan = plan_prefill(query_starts.diff().tolist(), seq_lens.tolist(), group, query.device)
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device) if out is None else out
    if plan.shape[0] == 0:
        return out
    tile, num_stages = _tile_and_stages(query.device)
    launch(
        _prefill_kernel, (num_kv_heads, plan.shape[0]),
        query, k_cache, v_cache, block_table, seq_lens, query_starts, plan, out,
        (scale or head_dim**-0.5) * math.log2(math.e) * kv_scales[0], kv_scales[1],
        query.stride(0), block_table.stride(0), *k_cache.stride()[:3],
        NUM_KV_HEADS=num_kv_heads, GROUP=group, ROWS=_ROWS, HEAD_DIM=head_dim, PAGE=page, TILE=tile,
        num_warps=_NUM_WARPS, num_stages=num_stages,
    )  # fmt: skip
    return out


def paged_prefill_reference(
    query: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_starts: torch.Tensor,
    plan: torch.Tensor | None = None,
    scale: float | None = None,
    out: torch.Tensor | None = None,
    kv_scales: Scales = NO_SCALES,
) -> torch.Tensor:
    """As `paged_prefill`, in plain PyTorch, one sequence after another; the plan is not needed."""
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device) if out is None else out
    starts = query_starts.tolist()
    for seq, length in enumerate(seq_lens.tolist()):
        tokens = slice(starts[seq], starts[seq + 1])
        k, v = (
            gather_kv(cache, block_table[seq], length).to(compute_dtype(query)) * own
            for cache, own in zip((k_cache, v_cache), kv_scales, strict=True)
        )
        out[tokens] = _attention(query[tokens], k, v, scale or query.shape[-1] ** -0.5)
    return out


def _attention(query: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    """Causal attention of last tokens: query [tokens, q heads, d], k, v [KV heads, len, d]."""
    dtype = compute_dtype(query)
    num_tokens, num_q_heads, head_dim = query.shape
    num_kv_heads, length, _ = k.shape
    q = query.to(dtype).reshape(num_tokens, num_kv_heads, num_q_heads // num_kv_heads, head_dim)
    scores = torch.einsum("tghd,gud->ghtu", q * scale, k.to(dtype))
    position = torch.arange(length - num_tokens, length, device=query.device)
    hidden = torch.arange(length, device=query.device)[None, :] > position[:, None]
    weights = scores.masked_fill(hidden, -math.inf).softmax(-1)
    return torch.einsum("ghtu,gud->tghd", weights, v.to(dtype)).reshape(query.shape).to(query.dtype)
