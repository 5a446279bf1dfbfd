"""Report registers, shared memory and instructions of every shipped kernel, without a GPU.

Each variant is a wrapper's launch for a real model shape: the wrapper runs on meta tensors, its
launches are recorded and compiled for the target, and the cubin is read (`benchmarks.gpu.aot`).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import torch
from benchmarks.gpu.aot import Resources, compile_launch

from busdoor_gpu.kernels import (
    argmax,
    paged_decode,
    paged_prefill,
    rmsnorm,
    rope_kv_write,
    step_inputs,
    swiglu,
)
from busdoor_gpu.kernels._launch import Launch, recording
from busdoor_gpu.kernels.cache import FP8_FROM, allocate_kv_cache
from busdoor_gpu.kernels.decode_plan import DecodePlan, plan_decode
from busdoor_gpu.kernels.slot_table import SlotTable, StepInputs

_ROWS, _TOKENS, _LENGTH = 64, 512, 4096  # any multiples of 16: the code depends on that only
# Products by warpgroup and by warp, asynchronous copies to shared memory, loads, stores.
_COUNTED = ("HGMMA", "HMMA", "LDGSTS", "LDG", "STG")


@dataclass(frozen=True)
class Shape:
    """Sizes of a model that determine the compiled code."""

    name: str
    num_q_heads: int
    num_kv_heads: int
    head_dim: int
    hidden: int
    width: int
    vocab: int
    head_norm: bool
    dtype: torch.dtype = torch.bfloat16
    kv_dtype: torch.dtype | None = None

    @property
    def cache_dtype(self) -> torch.dtype:
        """Format of the KV cache."""
        return self.kv_dtype or self.dtype


# From the models' config.json.
LLAMA_8B = Shape("llama-8b", 32, 8, 128, 4096, 14336, 128256, False)
LLAMA_1B = Shape("llama-1b", 32, 8, 64, 2048, 8192, 128256, False)
QWEN3_06B = Shape("qwen3-0.6b", 16, 8, 128, 1024, 3072, 151936, True)
QWEN3_4B = Shape("qwen3-4b", 32, 8, 128, 2560, 9728, 151936, True)
QWEN3_14B = Shape("qwen3-14b", 40, 8, 128, 5120, 17408, 151936, True)
LLAMA_8B_FP8_KV = replace(LLAMA_8B, name="llama-8b fp8 KV", kv_dtype=torch.float8_e4m3fn)
LLAMA_8B_FP16 = Shape("llama-8b fp16", 32, 8, 128, 4096, 14336, 128256, False, torch.float16)


@dataclass(frozen=True)
class Variant:
    """One kernel as launched for one model."""

    name: str
    launch: Launch
    capability: tuple[int, int]
    number: int

    def compile(self) -> Resources:
        """Compile the launch and return its resources."""
        return compile_launch(self.launch, self.capability)


def _meta(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


_ints = partial(_meta, dtype=torch.int32)


def _decode(shape: Shape, page: int) -> None:
    plan = DecodePlan.allocate(_ROWS, shape.num_q_heads, shape.num_kv_heads, shape.head_dim, "meta")
    plan_decode(plan, _ints(_ROWS))
    caches = allocate_kv_cache(
        _LENGTH, shape.num_kv_heads, page, shape.head_dim, shape.cache_dtype, "meta"
    )
    query = _meta(_ROWS, shape.num_q_heads, shape.head_dim, dtype=shape.dtype)
    paged_decode.paged_decode(query, *caches, _ints(_ROWS, _LENGTH // page), _ints(_ROWS), plan)


def _prefill(shape: Shape, page: int) -> None:
    caches = allocate_kv_cache(
        _LENGTH, shape.num_kv_heads, page, shape.head_dim, shape.cache_dtype, "meta"
    )
    query = _meta(_TOKENS, shape.num_q_heads, shape.head_dim, dtype=shape.dtype)
    table, plan = _ints(_ROWS, _LENGTH // page), _ints(_TOKENS, 2)
    paged_prefill.paged_prefill(query, *caches, table, _ints(_ROWS), _ints(_ROWS + 1), plan)


def _rope(shape: Shape, page: int) -> None:
    heads = shape.num_q_heads + 2 * shape.num_kv_heads
    caches = allocate_kv_cache(
        _LENGTH, shape.num_kv_heads, page, shape.head_dim, shape.cache_dtype, "meta"
    )
    weight = _meta(shape.head_dim, dtype=shape.dtype)
    rope_kv_write.rope_kv_write(
        _meta(_TOKENS, heads * shape.head_dim, dtype=shape.dtype), _ints(_TOKENS), _ints(_TOKENS),
        _meta(_LENGTH, shape.head_dim, dtype=torch.float32), caches,
        rope_kv_write.HeadNorm(weight, weight, 1e-6) if shape.head_norm else None,
    )  # fmt: skip


def _elementwise(shape: Shape, page: int) -> None:
    x = _meta(_TOKENS, shape.hidden, dtype=shape.dtype)
    weight = _meta(shape.hidden, dtype=shape.dtype)
    rmsnorm.rmsnorm(x, weight, 1e-6)
    rmsnorm.rmsnorm(x, weight, 1e-6, residual=x)
    swiglu.swiglu(_meta(_TOKENS, 2 * shape.width, dtype=shape.dtype))
    argmax.argmax(_meta(_ROWS, shape.vocab, dtype=shape.dtype))


def _step(shape: Shape, page: int) -> None:
    table = SlotTable.allocate(_ROWS, _LENGTH, page, "meta")
    step = StepInputs.allocate(_ROWS, _ROWS, table)
    step_inputs.prepare_step(table, _ints(_ROWS), _ints(_ROWS + 1), step)
    step_inputs.commit_step(table, _ints(_ROWS), _ints(_ROWS + 1), _ints(_ROWS))


_ATTENTION = (_decode, _prefill)
# Shipped variants: attention for both head sizes, both block sizes, groups of 2, 4 and 5 and both
# half types; the other kernels once per form.
_SHIPPED: list[tuple[Callable[[Shape, int], None], Shape, int]] = [
    *(
        (op, shape, 16)
        for op in (_decode, _prefill)
        for shape in (LLAMA_8B, LLAMA_1B, QWEN3_06B, QWEN3_14B, LLAMA_8B_FP16)
    ),
    *((op, shape, 64) for op in (_decode, _prefill) for shape in (LLAMA_8B, LLAMA_1B)),
    *((_rope, shape, 16) for shape in (LLAMA_8B, LLAMA_1B, QWEN3_06B)),
    *((_elementwise, shape, 16) for shape in (LLAMA_8B, QWEN3_4B)),
    (_step, LLAMA_8B, 16),
    *((op, LLAMA_8B_FP8_KV, 16) for op in (_decode, _prefill, _rope)),
]


def variants(capability: tuple[int, int]) -> Iterator[Variant]:
    """Yield every shipped kernel as launched on a GPU of that compute capability, only once.

    Examples
    --------
    >>> names = [variant.name for variant in variants((9, 0))]
    >>> names[:3]
    ['plan | llama-8b, block 16', 'decode | llama-8b, block 16', 'join | llama-8b, block 16']
    """
    seen = set()
    for op, shape, page in _SHIPPED:
        if shape.kv_dtype is not None and capability < FP8_FROM:
            continue  # no such numbers before Ada
        with recording(capability) as launches:
            op(shape, page)
        for launch in launches:
            kind = launch.kernel.__name__.strip("_").removesuffix("_kernel")
            types = tuple(
                x.dtype if isinstance(x, torch.Tensor) else x is None for x in launch.args
            )
            key = (kind, types, *sorted(launch.meta.items()))
            if key not in seen:
                seen.add(key)
                yield Variant(
                    f"{kind} | {shape.name}, block {page}", launch, capability, len(seen) - 1
                )


def compile_all(chosen: Iterable[Variant]) -> Iterator[tuple[Variant, Resources]]:
    """Compile variants in processes on all cores: Triton's `ast.parse` may fail in threads.

    CPython 3.11 counts its recursion once for all threads: "SystemError: AST constructor recursion
    depth mismatch".
    """
    chosen = list(chosen)
    keys = [(variant.capability, variant.number) for variant in chosen]
    workers = max(1, min(os.cpu_count() or 1, len(chosen)))
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        yield from zip(chosen, pool.map(_compile, keys), strict=True)


def _compile(key: tuple[tuple[int, int], int]) -> Resources:
    """Compile a variant in a worker, which records launches anew: they cannot be pickled."""
    capability, number = key
    return _recorded(capability)[number].compile()


@cache
def _recorded(capability: tuple[int, int]) -> list[Variant]:
    return list(variants(capability))


def table(capability: tuple[int, int]) -> str:
    """Return the report in Markdown, one row per variant."""
    lines = [
        f"# Resources of the kernels on sm_{capability[0]}{capability[1]}",
        "",
        "Read from the machine code by `python -m benchmarks.gpu.resources`; no GPU was used, "
        "nothing here is a time.",
        "Instructions are counted in the code, not as executed. `per SM`: programs by registers, "
        "shared memory, warps.",
        "",
        "| kernel | launched for | warps | registers | stack | shared KiB | per SM | "
        + " | ".join(_COUNTED)
        + " |",
        "|---|---" + "|---:" * (5 + len(_COUNTED)) + "|",
    ]
    for variant, used in compile_all(variants(capability)):
        mix = [used.opcodes[name] for name in _COUNTED]
        shared = f"{used.shared_bytes / 1024:.1f}"
        cells = [
            used.num_warps,
            used.registers,
            used.stack_bytes,
            shared,
            used.programs_per_sm,
            *mix,
        ]
        lines.append(f"| {variant.name} | " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write one report per target."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.resources", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("gpu/results"), help="folder of the reports"
    )
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for capability in ((8, 0), (9, 0)):
        path = out / f"resources-sm{capability[0]}{capability[1]}.md"
        path.write_text(table(capability))
        print(path)


if __name__ == "__main__":
    main()
