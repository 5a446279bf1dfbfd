"""Benchmark of the linear layers, three quarters of a decode step: cuBLAS, called as the engine calls it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from benchmarks.gpu.rows import Row, row_of
from benchmarks.gpu.timing import Ceiling, median_us
from torch.nn.functional import linear

from busdoor_gpu.kernels._launch import cdiv

# Rows: a decode of 1, 8, 64, 256; a step of 512 tokens, the default budget; prefill.
_ROWS = (1, 8, 64, 256, 512, 2048, 8192)
_L2_COPIES = 3  # times the L2 cache that all copies of a matrix take together


@dataclass(frozen=True)
class Linear:
    """One matrix of a layer: its name, and its sizes."""

    name: str
    out_features: int
    in_features: int


# Of Llama-3.1-8B (its config.json), as the engine fuses them.
_LINEARS = (
    Linear("qkv", 6144, 4096),
    Linear("attention_out", 4096, 4096),
    Linear("gate_up", 28672, 4096),
    Linear("down", 4096, 14336),
    Linear("lm_head", 128256, 4096),
)


def time_linears(device: torch.device, top: Ceiling, quick: bool) -> Iterator[Row]:
    """Time each matrix at each number of rows, with copies that the L2 cache does not hold.

    Examples
    --------
    >>> row = next(time_linears(torch.device("cpu"), Ceiling(10.0, 0.1), quick=True))
    >>> row.op, row.shape
    ('linear', 'qkv, 4 rows, 64 x 32')
    """
    if device.type != "cuda":
        yield _timed(Linear("qkv", 64, 32), 4, 1, torch.float32, device, top)
        return
    cache_bytes = torch.cuda.get_device_properties(device).L2_cache_size
    for one in _LINEARS:
        num_bytes = one.out_features * one.in_features * torch.bfloat16.itemsize
        copies = cdiv(_L2_COPIES * cache_bytes, num_bytes)
        for rows in _ROWS[2:3] if quick else _ROWS:
            if one.name != "lm_head" or rows <= 256:  # it has one row per request
                yield _timed(one, rows, copies, torch.bfloat16, device, top)


def _timed(
    one: Linear, rows: int, copies: int, dtype: torch.dtype, device: torch.device, top: Ceiling
) -> Row:
    n, k = one.out_features, one.in_features
    x = torch.randn(rows, k, device=device).to(dtype)
    weights = [torch.randn(n, k, device=device).to(dtype) for _ in range(copies)]
    us = median_us([partial(linear, x, weight) for weight in weights], device)
    num_bytes = (n * k + rows * (n + k)) * dtype.itemsize
    what = f"{one.name}, {rows} rows, {n} x {k}"
    return row_of("linear", what, "torch", us, num_bytes, 2 * rows * n * k, top)
