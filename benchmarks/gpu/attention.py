"""Attention benchmarks: shapes with targets, our call for each, a check before timing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from benchmarks.gpu.cases import TOLERANCE, Case, error, make_case

from busdoor_gpu.kernels.cache import FP8_FROM
from busdoor_gpu.kernels.decode_plan import DecodePlan, plan_decode
from busdoor_gpu.kernels.paged_decode import paged_decode, paged_decode_reference
from busdoor_gpu.kernels.paged_prefill import paged_prefill, paged_prefill_reference, plan_prefill


@dataclass(frozen=True)
class Attention:
    """One attention benchmark: lengths, heads, and the target on an H100."""

    op: str
    shape: str
    seq_lens: list[int]
    query_lens: list[int]
    num_q_heads: int = 32
    num_kv_heads: int = 8
    head_dim: int = 128
    block_size: int = 16
    must: str = ""
    kv_bits: int = 16

    def make(self, dtype: torch.dtype, device: torch.device) -> Case:
        """Build the batch."""
        heads = (self.num_q_heads, self.num_kv_heads, self.head_dim, self.block_size)
        case = make_case(self.seq_lens, self.query_lens, *heads, dtype=dtype, device=device)
        return case if self.kv_bits == 16 else case.with_cache(torch.float8_e4m3fn)

    @property
    def kv_bytes(self) -> int:
        """Bytes of the keys and values that must be read, in half precision or 8 bits."""
        return 2 * self.kv_bits // 8 * sum(self.seq_lens) * self.num_kv_heads * self.head_dim

    @property
    def flops(self) -> float:
        """Operations of two products of every query with every key that it attends to."""
        pairs = sum(
            q * (n - q) + q * (q + 1) / 2
            for n, q in zip(self.seq_lens, self.query_lens, strict=True)
        )
        return 4 * self.num_q_heads * self.head_dim * pairs


_SHORT = {
    "num_q_heads": "Hq",
    "num_kv_heads": "Hkv",
    "head_dim": "d",
    "block_size": "block",
    "kv_bits": "KV bits",
}


def _decode(batch: int, context: int, must: str = "", **shape: Any) -> Attention:
    named = "".join(f" {_SHORT[name]}={value}" for name, value in shape.items())
    return Attention(
        "decode",
        f"B={batch} ctx={context}{named}",
        [context] * batch,
        [1] * batch,
        must=must,
        **shape,
    )


def attention_benchmarks(quick: bool, on_gpu: bool) -> list[Attention]:
    """Return the benchmarks: K1 to K9 of references/gpu-anchors 7, others; toys on a CPU."""
    if not on_gpu:
        toy: dict[str, Any] = {"num_q_heads": 4, "num_kv_heads": 2, "head_dim": 32}
        return [
            _decode(4, 64, **toy),
            _decode(4, 64, kv_bits=8, **toy),
            Attention("prefill", "64 tokens", [64], [64], **toy),
            Attention("prefill", "16 on 48 and 4 decodes", [64, *[40] * 4], [16, *[1] * 4], **toy),
        ]
    first = [
        _decode(64, 4096, "400 us"),
        _decode(256, 1024, "415 us"),
        _decode(1, 32768, "80 us"),
        Attention("prefill", "4096 tokens", [4096], [4096], must="300 TFLOP/s"),
    ]
    if quick:
        return first
    skewed = [512] * 63 + [32768]
    return [
        *first,
        _decode(32, 1024, "68 us"),
        _decode(8, 4096, "68 us"),
        _decode(1, 1024, "15 us"),
        Attention(
            "decode",
            "63 x 512 and 1 x 32768",
            skewed,
            [1] * 64,
            must="1.3 x bytes / 2.7 TB/s = 128 us",
        ),
        _decode(64, 4096, kv_bits=8),
        _decode(64, 4096, block_size=64),
        _decode(64, 4096, num_q_heads=16),
        _decode(64, 4096, head_dim=64),
        Attention("prefill", "2048 tokens", [2048], [2048], must="230 TFLOP/s"),
        Attention("prefill", "8192 tokens", [8192], [8192], must="350 TFLOP/s"),
        Attention("prefill", "16384 tokens", [16384], [16384], must="380 TFLOP/s"),
        Attention("prefill", "512 on 8192", [8704], [512]),
        Attention("prefill", "8192 tokens KV bits=8", [8192], [8192], kv_bits=8),
        Attention(
            "prefill", "512 on 8192 and 64 decodes at 1024", [8704] + [1024] * 64, [512] + [1] * 64
        ),
    ]


def our_call(bench: Attention, case: Case, on_gpu: bool) -> Callable[[], torch.Tensor]:
    """Prepare one call; the plan belongs to the step, not to the layer, and is timed separately."""
    group = bench.num_q_heads // bench.num_kv_heads
    if bench.op == "decode" and on_gpu:
        plan = DecodePlan.allocate(
            len(bench.seq_lens),
            bench.num_q_heads,
            bench.num_kv_heads,
            bench.head_dim,
            case.query.device,
        )
        plan_decode(plan, case.seq_lens)
        return partial(paged_decode, *case.decode_args, plan=plan, out=torch.empty_like(case.query))
    if bench.op == "decode":
        return partial(paged_decode_reference, *case.decode_args)
    if not on_gpu:
        return partial(paged_prefill_reference, *case.prefill_args)
    blocks = plan_prefill(bench.query_lens, bench.seq_lens, group, case.query.device)
    return partial(paged_prefill, *case.prefill_args, plan=blocks, out=torch.empty_like(case.query))


def has_fp8(device: torch.device) -> bool:
    """Return whether a device has numbers of 8 bits: a CPU by its references, a GPU from Ada on."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= FP8_FROM


def check(device: torch.device) -> float:
    """Compare attention with float64 on odd batches amid NaN; return the largest error.

    Raises
    ------
    AssertionError
        If an error exceeds the tolerance of the type, so that no wrong kernel is timed.
    """
    if device.type != "cuda":
        return 0.0
    worst = 0.0
    for head_dim, block_size in ((64, 16), (128, 16), (128, 64)):
        shape: dict[str, Any] = {
            "num_q_heads": 32,
            "num_kv_heads": 8,
            "head_dim": head_dim,
            "block_size": block_size,
        }
        bench = Attention("decode", "check", [1, 0, 777, 5000, 64], [1] * 5, **shape)
        mixed = Attention("prefill", "check", [300, 1000, 77, 129], [300, 200, 1, 129], **shape)
        small = [replace(one, kv_bits=8) for one in (bench, mixed) if has_fp8(device)]
        for one in (bench, mixed, *small):
            case = one.make(torch.bfloat16, device)
            exact = case.to(torch.float64)
            decode = one.op == "decode"
            wanted = (
                paged_decode_reference(*exact.decode_args)
                if decode
                else paged_prefill_reference(*exact.prefill_args)
            )
            worst = max(worst, error(our_call(one, case, True)(), wanted))
    assert worst < TOLERANCE[torch.bfloat16], (
        f"attention differs from its reference by {worst:.2g}; nothing was timed"
    )
    return worst
