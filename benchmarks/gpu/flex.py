"""PyTorch's FlexAttention over `torch.nn.attention.experimental` pages, GPU-compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from busdoor_gpu.kernels._launch import cdiv

_PAGE = 128  # FlexAttention's block mask has blocks of 128 x 128, and its pages must have that size


def flex_paged(
    num_seqs: int,
    length: int,
    new: int,
    heads: tuple[int, int, int],
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Callable[[], torch.Tensor], Any]:
    """Prepare a call over random K and V, sequences of `length` tokens, `new` of them queries.

    Parameters
    ----------
    num_seqs, length, new : int
        The batch.
    heads : tuple of int
        Query heads, KV heads, head size.
    dtype, device
        Of the tensors.

    Returns
    -------
    call : callable
        Runs the attention; the first call compiles for tens of seconds on a GPU.
    inputs : tuple
        For checks: query [num_seqs, q heads, new, d], K and V [1, KV heads, pages * 128, d], page
        table [num_seqs, pages].
    """
    from torch.nn.attention.experimental._paged_attention import PagedAttention
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    (num_q_heads, num_kv_heads, head_dim), pages = heads, cdiv(length, _PAGE)
    paged = PagedAttention(num_seqs * pages, _PAGE, num_seqs, device=str(device))
    for seq in range(num_seqs):
        paged.reserve(torch.tensor(seq, device=device), torch.tensor(length, device=device))
    context = length - new

    def causal(batch: Any, head: Any, query: Any, key: Any) -> Any:
        return query + context >= key

    logical = create_block_mask(
        causal, num_seqs, None, new, pages * _PAGE, device=str(device), BLOCK_SIZE=_PAGE
    )
    mask = paged.convert_logical_block_mask(logical)
    query = torch.randn(num_seqs, num_q_heads, new, head_dim, device=device).to(dtype)
    k, v = (
        torch.randn(1, num_kv_heads, num_seqs * pages * _PAGE, head_dim, device=device).to(dtype)
        for _ in "kv"
    )
    attention: Any = torch.compile(flex_attention) if device.type == "cuda" else flex_attention
    return lambda: attention(query, k, v, block_mask=mask, enable_gqa=True), (
        query,
        k,
        v,
        paged.page_table,
    )
