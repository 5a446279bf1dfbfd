"""The paged KV cache: layout, contiguous batches as a block table, a reference's reading.

One layer's cache is one tensor of shape [num_blocks, 2, num_kv_heads, block_size, head_dim]: K is
`cache[:, 0]`, V is `cache[:, 1]`. So a block is contiguous (to copy, to swap), and so are the
tokens of one head within a block (4 KiB for 16 tokens of 128 half-precision elements), which one
program of attention reads. The kernels take K and V as [num_blocks, num_kv_heads, block_size,
head_dim] with any equal strides if head_dim is contiguous; a token-major cache is passed as a
`transpose`.

`block_table[s, i]` is the block that holds tokens i * block_size ... of sequence s; a *slot* is
block * block_size + offset.
"""

from __future__ import annotations

import torch

from busdoor_gpu.kernels._launch import cdiv

Caches = tuple[torch.Tensor, torch.Tensor]
# What K and V are divided by before they are written, where the cache has 8 bits.
Scales = tuple[float, float]
NO_SCALES: Scales = (1.0, 1.0)
FP8_FROM = (8, 9)  # compute capability of the first GPUs with numbers of 8 bits: Ada, then Hopper


def largest(cache: torch.Tensor) -> float:
    """Return the largest number of an 8-bit cache, to which values are cut; 0 for any other type.

    >>> largest(torch.zeros(1, dtype=torch.float8_e4m3fn)), largest(torch.zeros(1))
    (448.0, 0.0)
    """
    return torch.finfo(cache.dtype).max if cache.dtype.itemsize == 1 else 0.0


def as_bytes(x: torch.Tensor) -> torch.Tensor:
    """Return numbers of 8 bits as integers, which PyTorch indexes on every device; others as is."""
    return x.view(torch.uint8) if x.dtype.itemsize == 1 else x


def allocate_kv_cache(
    num_blocks: int,
    num_kv_heads: int,
    block_size: int,
    head_dim: int,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Caches:
    """Return one layer's K and V, zeroed, as two views of one tensor.

    Each is [num_blocks, num_kv_heads, block_size, head_dim].

    >>> k, v = allocate_kv_cache(10, 2, 16, 64, torch.float16, "cpu")
    >>> tuple(k.shape), k.stride() == v.stride()
    ((10, 2, 16, 64), True)
    """
    cache = torch.zeros(
        num_blocks, 2, num_kv_heads, block_size, head_dim, dtype=dtype, device=device
    )
    return cache[:, 0], cache[:, 1]


def identity_block_table(
    num_seqs: int, max_tokens: int, block_size: int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Return the block table of a contiguous (static) batch: sequence s owns run s of blocks.

    >>> identity_block_table(2, 40, 16)
    tensor([[0, 1, 2],
            [3, 4, 5]], dtype=torch.int32)
    """
    blocks = cdiv(max_tokens, block_size)
    return torch.arange(num_seqs * blocks, dtype=torch.int32, device=device).view(num_seqs, blocks)


def gather_kv(cache: torch.Tensor, blocks: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """Gather the first `num_tokens` of one sequence: [num_kv_heads, num_tokens, head_dim].

    `cache` is K or V of one layer, `blocks` the sequence's row of the block table, which is not
    read beyond these tokens.

    >>> cache = torch.arange(6.0).view(3, 1, 2, 1)
    >>> gather_kv(cache, torch.tensor([2, 0]), 3).flatten()
    tensor([4., 5., 0.])
    """
    used = blocks[: cdiv(num_tokens, cache.shape[2])].long()
    return as_bytes(cache)[used].transpose(0, 1).flatten(1, 2)[:, :num_tokens].view(cache.dtype)


def check_cache(query: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor) -> None:
    """Raise ValueError if the kernels cannot read the cache; it names what they can read."""
    head_dim = query.shape[-1]
    if head_dim not in (16, 32, 64, 128):
        raise ValueError(
            f"head_dim is {head_dim}; the kernels are written for 64 and 128 (16 and 32 in tests)"
        )
    if k_cache.shape != v_cache.shape or k_cache.stride() != v_cache.stride():
        raise ValueError(
            f"k_cache has shape {tuple(k_cache.shape)} and strides {k_cache.stride()}, "
            f"v_cache {tuple(v_cache.shape)} and {v_cache.stride()}; they have to agree"
        )
    if k_cache.shape[-1] != head_dim or k_cache.stride(-1) != 1:
        raise ValueError(
            f"k_cache has shape {tuple(k_cache.shape)} and strides {k_cache.stride()}; its last "
            f"dimension must be {head_dim} contiguous elements"
        )
    if query.shape[1] % k_cache.shape[1]:
        raise ValueError(
            f"{query.shape[1]} query heads do not divide into groups over {k_cache.shape[1]} KV "
            f"heads; use a multiple"
        )
    if query.stride(1) != head_dim or query.stride(2) != 1:
        raise ValueError(
            f"query has strides {query.stride()}; heads and elements of a token must be contiguous"
        )
