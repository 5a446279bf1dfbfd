"""One tile of keys in an online softmax, for paged decode and paged prefill."""
# ruff: noqa: N803
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from busdoor_gpu.kernels._launch import jit, tl


@jit
def blocks_of(table, tile, length, PAGE: tl.constexpr, TILE: tl.constexpr):
    """Return the block of each token of a tile; past the end, the last token's."""
    last = tl.maximum(length, 1) - 1
    token = tl.arange(0, TILE)
    if TILE % PAGE == 0:  # a tile begins with a block: all but one addition is done before the loop
        return tl.load(table + tl.minimum(tile * (TILE // PAGE) + token // PAGE, last // PAGE))
    return tl.load(table + tl.minimum(tile * TILE + token, last) // PAGE)


@jit
def attend(
    q,
    k_cache,
    v_cache,
    block,
    tile,
    length,
    position,
    acc,
    top,
    total,
    scale_log2e,
    head,
    stride_block,
    stride_head,
    stride_token,
    HEAD_DIM: tl.constexpr,
    PAGE: tl.constexpr,
    TILE: tl.constexpr,
    MASKED: tl.constexpr,
):
    """Add these keys to the online softmax: `acc`, maximum `top`, sum `total`, base 2.

    The scale is applied where the maximum is subtracted: one instruction for both. Every row sees a
    key of the first tile that it is given, so that no maximum is a masked score.
    """
    token = tile * TILE + tl.arange(0, TILE)
    dim = tl.arange(0, HEAD_DIM)
    # Places past the end may hold anything, and weight 0 times NaN is NaN: masked tokens read the
    # last token again instead (in cache, and 30 registers fewer than masked loads).
    # Where no token is masked and a tile begins with a block, places within blocks never change.
    read = tl.minimum(token, length - 1) if MASKED else token
    within = tl.arange(0, TILE) % PAGE if TILE % PAGE == 0 and not MASKED else read % PAGE
    # 64-bit: a layer's cache passes 2**31 elements at 4 GiB.
    inner = head.to(tl.int64) * stride_head + (within * stride_token)[:, None] + dim[None, :]
    outer = (block.to(tl.int64) * stride_block)[:, None]
    k = tl.load(k_cache + inner + outer).to(q.dtype)  # an 8-bit cache is multiplied in 16 bits
    v = tl.load(v_cache + inner + outer).to(q.dtype)
    score = tl.dot(q, tl.trans(k))
    if MASKED:
        score = tl.where(token[None, :] <= position[:, None], score, -1e30)
    new_top = tl.maximum(top, tl.max(score, 1) * scale_log2e)
    weight = tl.exp2(score * scale_log2e - new_top[:, None])
    shrink = tl.exp2(top - new_top)
    total = total * shrink + tl.sum(weight, 1)
    acc = tl.dot(weight.to(v.dtype), v, acc * shrink[:, None])
    return acc, new_top, total
