"""Batches for attention: random tensors in a shuffled paged cache, NaN in unused places.

Tests and benchmarks share them. NaN spreads to every result that uses it, so a kernel that reads a
wrong place fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from busdoor_gpu.kernels._launch import cdiv


@dataclass(frozen=True)
class Case:
    """One batch for `paged_decode` (one query token per sequence) or `paged_prefill`.

    Attributes
    ----------
    query : Tensor
        [num_tokens, num_q_heads, head_dim].
    k_cache, v_cache : Tensor
        [num_blocks, num_kv_heads, block_size, head_dim].
    block_table, seq_lens, query_starts : Tensor
        int32, as the kernels take them.
    """

    query: torch.Tensor
    k_cache: torch.Tensor
    v_cache: torch.Tensor
    block_table: torch.Tensor
    seq_lens: torch.Tensor
    query_starts: torch.Tensor

    def to(self, dtype: torch.dtype) -> Case:
        """Convert the values to another floating type, such as float64 for the reference."""
        return replace(
            self,
            query=self.query.to(dtype),
            k_cache=self.k_cache.to(dtype),
            v_cache=self.v_cache.to(dtype),
        )

    def with_cache(self, dtype: torch.dtype) -> Case:
        """Convert K and V alone, such as to 8 bits."""
        return replace(self, k_cache=self.k_cache.to(dtype), v_cache=self.v_cache.to(dtype))

    @property
    def decode_args(
        self,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Arguments of `paged_decode`."""
        return self.query, self.k_cache, self.v_cache, self.block_table, self.seq_lens

    @property
    def prefill_args(
        self,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Arguments of `paged_prefill`."""
        return *self.decode_args, self.query_starts


def make_case(
    seq_lens: Sequence[int],
    query_lens: Sequence[int] | None = None,
    num_q_heads: int = 4,
    num_kv_heads: int = 2,
    head_dim: int = 32,
    block_size: int = 16,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Case:
    """Return a random batch with NaN in unused places.

    Parameters
    ----------
    seq_lens, query_lens : sequence of int
        Length of each sequence with its query tokens, and the number of these (by default one).
    num_q_heads, num_kv_heads, head_dim, block_size : int
        Shape of attention and cache.
    dtype, device, seed
        Of the tensors.

    Returns
    -------
    Case
        Blocks are assigned in random order; some are unused.

    Examples
    --------
    >>> case = make_case([20, 0], block_size=16)
    >>> case.k_cache.isnan().any(dim=3).any(dim=1).sum().item()         # all but the 20 used slots of 16-token blocks
    44
    """
    generator = torch.Generator(device).manual_seed(seed)
    query_lens = [1] * len(seq_lens) if query_lens is None else query_lens
    used = [cdiv(n, block_size) for n in seq_lens]
    num_blocks = sum(used) + 2  # two are unused
    order = torch.randperm(num_blocks, generator=generator, device=device).to(torch.int32)
    # An entry that must not be read names an unused block, all NaN.
    table = order[-1:].repeat(len(seq_lens), max(used, default=0) + 1)
    caches = torch.full(
        (2, num_blocks, num_kv_heads, block_size, head_dim), torch.nan, dtype=dtype, device=device
    )
    start = 0
    for row, (length, blocks) in enumerate(zip(seq_lens, used, strict=True)):
        table[row, :blocks] = order[start : start + blocks]
        token = torch.arange(length, device=device)
        values = torch.randn(
            2,
            length,
            num_kv_heads,
            head_dim,
            generator=generator,
            device=device,
            dtype=torch.float32,
        )
        slot_block = table[row, token // block_size].long()
        for cache, value in zip(caches, values.to(dtype), strict=True):
            cache[slot_block, :, token % block_size] = value
        start += blocks
    starts = torch.tensor([0, *query_lens]).cumsum(0).to(device=device, dtype=torch.int32)
    query = torch.randn(
        sum(query_lens),
        num_q_heads,
        head_dim,
        generator=generator,
        device=device,
        dtype=torch.float32,
    )
    lens = torch.tensor(list(seq_lens), dtype=torch.int32, device=device)
    return Case(query.to(dtype), caches[0], caches[1], table, lens, starts)


def error(result: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the largest difference relative to the reference's maximum; infinite for NaN.

    >>> error(torch.tensor([1.0, float("nan")]), torch.tensor([1.0, 2.0]))
    inf
    """
    if result.numel() == 0:
        return 0.0
    if not bool(result.isfinite().all()):
        return float("inf")
    difference = (result.double() - reference.double()).abs().max()
    return float(difference / reference.double().abs().max().clamp(min=1e-6))


# Rounding of the products' inputs and of the output: a few units in the last place of the type
# (2^-8 for bfloat16's 8 bits, 2^-11 for float16's 11). float32 products are exact in the
# interpreter and TF32 (11 bits) on a GPU.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 4 * 2**-11, torch.bfloat16: 4 * 2**-8}
