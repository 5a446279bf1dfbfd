"""Rotary embedding of Q and K after optional RMS norm; write of K and V to paged cache.

    n = x / sqrt(mean(x^2) + eps) * weight            per head of Q and K, where the model has that norm (Qwen3)
    y[:d/2] = n[:d/2] * cos(p) - n[d/2:] * sin(p)     p: the token's position; angles p * inv_freq, halves paired
    y[d/2:] = n[d/2:] * cos(p) + n[:d/2] * sin(p)

Q goes to a buffer of its own, K and V to the token's slot of the cache; slot -1 (padding) writes
neither.
"""
# ruff: noqa: N803
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import NamedTuple

import torch

from busdoor_gpu.kernels._launch import cdiv, compute_dtype, jit, launch, tl
from busdoor_gpu.kernels.cache import NO_SCALES, Caches, Scales, as_bytes, largest

_HEADS = 16  # heads of a program: 2048 elements at head_dim 128, 16 per thread of 4 warps


class HeadNorm(NamedTuple):
    """Weights [head_dim] of the norms of Q and K heads, and the number added to the mean square."""

    q_weight: torch.Tensor
    k_weight: torch.Tensor
    eps: float


def rope_table(inv_freq: torch.Tensor, max_positions: int) -> torch.Tensor:
    """Return cosines, then sines, of every position: float32 [max_positions, head_dim].

    `inv_freq` is [head_dim / 2], radians per position, scaled as the model wants.

    >>> rope_table(torch.tensor([torch.pi / 2]), 3).round()
    tensor([[ 1.,  0.],
            [-0.,  1.],
            [-1., -0.]])
    """
    position = torch.arange(max_positions, dtype=torch.float64, device=inv_freq.device)
    angle = position[:, None] * inv_freq.double()[None, :]
    return torch.cat([angle.cos(), angle.sin()], dim=-1).float()


@jit
def _rope_kv_write_kernel(
    qkv,
    query,
    k_cache,
    v_cache,
    positions,
    slot_mapping,
    table,
    q_weight,
    k_weight,
    eps,
    k_scale,
    v_scale,
    stride_qkv,
    stride_block,
    stride_head,
    stride_token,
    NUM_Q: tl.constexpr,
    NUM_KV: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PAGE: tl.constexpr,
    HEADS: tl.constexpr,
    LARGEST: tl.constexpr,
):
    HALF: tl.constexpr = HEAD_DIM // 2  # noqa: N806
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    column = tl.arange(0, HALF)[None, :]
    is_q = (head < NUM_Q)[:, None]
    is_v = (head >= NUM_Q + NUM_KV)[:, None]
    exists = (head < NUM_Q + 2 * NUM_KV)[:, None]
    source = qkv + token * stride_qkv + head[:, None] * HEAD_DIM + column
    left = tl.load(source, mask=exists, other=0.0).to(tl.float32)
    right = tl.load(source + HALF, mask=exists, other=0.0).to(tl.float32)
    turned_left, turned_right = left, right
    if q_weight is not None:
        square = tl.sum(left * left, 1) + tl.sum(right * right, 1)
        inverse = tl.rsqrt(square / HEAD_DIM + eps)[:, None]
        turned_left *= inverse * tl.where(
            is_q, tl.load(q_weight + column), tl.load(k_weight + column)
        ).to(tl.float32)
        turned_right *= inverse * tl.where(
            is_q, tl.load(q_weight + HALF + column), tl.load(k_weight + HALF + column)
        ).to(tl.float32)
    angle = table + tl.load(positions + token).to(tl.int64) * HEAD_DIM + column
    cos, sin = tl.load(angle), tl.load(angle + HALF)
    new_left = tl.where(is_v, left, turned_left * cos - turned_right * sin)
    new_right = tl.where(is_v, right, turned_right * cos + turned_left * sin)

    target = query + (token * NUM_Q + head[:, None]) * HEAD_DIM + column
    tl.store(target, new_left.to(query.dtype.element_ty), mask=is_q)
    tl.store(target + HALF, new_right.to(query.dtype.element_ty), mask=is_q)
    if LARGEST > 0:
        scale = tl.where(is_v, v_scale, k_scale)
        new_left = tl.minimum(tl.maximum(new_left / scale, -LARGEST), LARGEST)
        new_right = tl.minimum(tl.maximum(new_right / scale, -LARGEST), LARGEST)
    new_left = new_left.to(k_cache.dtype.element_ty)
    new_right = new_right.to(k_cache.dtype.element_ty)
    slot = tl.load(slot_mapping + token)
    writes = exists & (slot >= 0)
    kv_head = tl.where(is_v, head[:, None] - NUM_Q - NUM_KV, head[:, None] - NUM_Q).to(tl.int64)
    place = (
        (slot // PAGE).to(tl.int64) * stride_block
        + kv_head * stride_head
        + (slot % PAGE) * stride_token
        + column
    )
    tl.store(k_cache + place, new_left, mask=writes & ~is_q & ~is_v)
    tl.store(k_cache + place + HALF, new_right, mask=writes & ~is_q & ~is_v)
    tl.store(v_cache + place, new_left, mask=writes & is_v)
    tl.store(v_cache + place + HALF, new_right, mask=writes & is_v)


def rope_kv_write(
    qkv: torch.Tensor,
    positions: torch.Tensor,
    slot_mapping: torch.Tensor,
    table: torch.Tensor,
    caches: Caches,
    norm: HeadNorm | None = None,
    out: torch.Tensor | None = None,
    kv_scales: Scales = NO_SCALES,
) -> torch.Tensor:
    """Norm and rotate Q and K; write K and V to the cache; return Q.

    `qkv` is the fused projection [num_tokens, (num_q_heads + 2 * num_kv_heads) * head_dim];
    `positions` and `slot_mapping` (block * block_size + offset, or -1 to write nothing) are int32
    [num_tokens]; `table` is `rope_table`'s. `caches`, K and V of the layer, are written **in
    place**: in 8 bits divided by `kv_scales`, and cut where that is too large. `norm` is given if
    the model norms Q and K heads; `out`, for Q, contiguous, is allocated unless given. Returns Q,
    [num_tokens, num_q_heads, head_dim].
    """
    (num_tokens, width), k_cache = qkv.shape, caches[0]
    num_kv, page, head_dim = k_cache.shape[1:]
    num_q = width // head_dim - 2 * num_kv
    out = (
        torch.empty(num_tokens, num_q, head_dim, dtype=qkv.dtype, device=qkv.device)
        if out is None
        else out
    )
    launch(
        _rope_kv_write_kernel, (num_tokens, cdiv(num_q + 2 * num_kv, _HEADS)),
        qkv, out, *caches, positions, slot_mapping, table,
        *(norm or (None, None, 0.0)), *kv_scales, qkv.stride(0), *k_cache.stride()[:3],
        NUM_Q=num_q, NUM_KV=num_kv, HEAD_DIM=head_dim, PAGE=page, HEADS=_HEADS, LARGEST=largest(k_cache), num_warps=4,
    )  # fmt: skip
    return out


def rope_kv_write_reference(
    qkv: torch.Tensor,
    positions: torch.Tensor,
    slot_mapping: torch.Tensor,
    table: torch.Tensor,
    caches: Caches,
    norm: HeadNorm | None = None,
    out: torch.Tensor | None = None,
    kv_scales: Scales = NO_SCALES,
) -> torch.Tensor:
    """As `rope_kv_write`, in plain PyTorch."""
    k_cache = caches[0]
    num_kv, page, head_dim = k_cache.shape[1:]
    heads = qkv.view(qkv.shape[0], -1, head_dim).to(compute_dtype(qkv))
    q, k, v = torch.split(heads, [heads.shape[1] - 2 * num_kv, num_kv, num_kv], dim=1)
    if norm is not None:
        q, k = _head_norm(q, norm.q_weight, norm.eps), _head_norm(k, norm.k_weight, norm.eps)
    cos, sin = table[positions.long(), None].to(q.dtype).chunk(2, dim=-1)
    written = slot_mapping >= 0
    block, offset = slot_mapping[written].long() // page, slot_mapping[written].long() % page
    for cache, own, scale in zip(caches, (_rotate(k, cos, sin), v), kv_scales, strict=True):
        if limit := largest(cache):
            own = (own / scale).clamp(-limit, limit)
        as_bytes(cache)[block, :, offset] = as_bytes(own[written].to(cache.dtype))
    q = _rotate(q, cos, sin)
    return q.to(qkv.dtype) if out is None else out.copy_(q)


def _head_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight.to(x.dtype)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    left, right = x.chunk(2, dim=-1)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)
