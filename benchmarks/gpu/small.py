"""Small kernels' benchmarks: one model's shapes, inputs in turn, bytes that must move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from busdoor_gpu.kernels.argmax import argmax, argmax_reference
from busdoor_gpu.kernels.cache import allocate_kv_cache
from busdoor_gpu.kernels.decode_plan import DecodePlan, plan_decode, plan_decode_reference
from busdoor_gpu.kernels.rmsnorm import rmsnorm, rmsnorm_reference
from busdoor_gpu.kernels.rope_kv_write import rope_kv_write, rope_kv_write_reference, rope_table
from busdoor_gpu.kernels.swiglu import swiglu, swiglu_reference

Calls = list[Callable[[], object]]


@dataclass(frozen=True)
class Small:
    """One small operation: its calls on different memory, and the bytes that one moves."""

    name: str
    shape: str
    kernel_calls: Calls
    reference_calls: Calls
    num_bytes: int
    must: str = ""


@dataclass(frozen=True)
class _Sizes:
    """Llama-3.1-8B's layer (its config.json) on a GPU, a toy on a CPU; copies in turn."""

    tokens: int
    hidden: int
    width: int
    vocab: int
    num_q: int
    num_kv: int
    head_dim: int
    copies: int

    @classmethod
    def on(cls, device: torch.device, tokens: int) -> _Sizes:
        if device.type == "cuda":
            return cls(tokens, 4096, 14336, 128256, 32, 8, 128, 4)
        return cls(min(tokens, 16), 64, 128, 1000, 4, 2, 16, 1)


def _both(kernel: Any, reference: Any, inputs: list[tuple[Any, ...]]) -> tuple[Calls, Calls]:
    return [partial(kernel, *args) for args in inputs], [
        partial(reference, *args) for args in inputs
    ]


def small_ops(device: torch.device) -> list[Small]:
    """Return the small operations at a prefill's and at a decode's number of tokens."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    ops = []
    for tokens in (4096, 64):
        sizes = _Sizes.on(device, tokens)
        shape, must = (
            f"{sizes.tokens} tokens",
            "2400 GB/s" if tokens >= 4096 else "3 us",
        )  # K10; gpu-anchors 3
        for name, make in (("rmsnorm", _rmsnorm), ("swiglu", _swiglu), ("rope_kv_write", _rope)):
            inputs, (kernel, reference), num_bytes = make(sizes, dtype, device)
            ops.append(Small(name, shape, *_both(kernel, reference, inputs), num_bytes, must))
    return [*ops, _argmax(_Sizes.on(device, 64), dtype, device), _plan(device)]


def _random(*shape: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.randn(*shape, device=device).to(dtype)


def _rmsnorm(sizes: _Sizes, dtype: torch.dtype, device: torch.device) -> Any:
    make = partial(_random, sizes.tokens, sizes.hidden, dtype=dtype, device=device)
    weight = _random(sizes.hidden, dtype=dtype, device=device)
    inputs = [(make(), weight, 1e-5, make()) for _ in range(sizes.copies)]
    return inputs, (rmsnorm, rmsnorm_reference), 4 * sizes.tokens * sizes.hidden * dtype.itemsize


def _swiglu(sizes: _Sizes, dtype: torch.dtype, device: torch.device) -> Any:
    inputs = [
        (_random(sizes.tokens, 2 * sizes.width, dtype=dtype, device=device),)
        for _ in range(sizes.copies)
    ]
    return inputs, (swiglu, swiglu_reference), 3 * sizes.tokens * sizes.width * dtype.itemsize


def _rope(sizes: _Sizes, dtype: torch.dtype, device: torch.device) -> Any:
    elements = (sizes.num_q + 2 * sizes.num_kv) * sizes.head_dim
    order = torch.arange(sizes.tokens, dtype=torch.int32, device=device)
    inv_freq = 10000.0 ** -(torch.arange(0, sizes.head_dim, 2, device=device) / sizes.head_dim)
    table = rope_table(inv_freq, sizes.tokens)
    inputs = []
    for _ in range(sizes.copies):
        qkv = _random(sizes.tokens, elements, dtype=dtype, device=device)
        caches = allocate_kv_cache(
            -(-sizes.tokens // 16), sizes.num_kv, 16, sizes.head_dim, dtype, device
        )
        inputs.append((qkv, order, order, table, caches))
    return (
        inputs,
        (rope_kv_write, rope_kv_write_reference),
        2 * sizes.tokens * elements * dtype.itemsize,
    )


def _argmax(sizes: _Sizes, dtype: torch.dtype, device: torch.device) -> Small:
    inputs = [
        (_random(sizes.tokens, sizes.vocab, dtype=dtype, device=device),)
        for _ in range(sizes.copies)
    ]
    num_bytes = sizes.tokens * sizes.vocab * dtype.itemsize
    return Small(
        "argmax", f"{sizes.tokens} rows", *_both(argmax, argmax_reference, inputs), num_bytes
    )


def _plan(device: torch.device) -> Small:
    """Return the plan of a decode of 256 sequences; once per step, so only time matters."""
    plan = DecodePlan.allocate(256, 32, 8, 128, device)
    seq_lens = torch.arange(1, 257, dtype=torch.int32, device=device) * 16
    kernel, reference = _both(plan_decode, plan_decode_reference, [(plan, seq_lens)])
    return Small("plan_decode", "256 sequences", kernel, reference, seq_lens.nbytes)
