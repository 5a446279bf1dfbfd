"""Flags that replay, profile and twin share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cyclopts import Parameter

Clock = Literal["wall", "cpu", "paced"]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class MachineFlags:
    """Which device runs which model, and how: flags of replay, profile and twin.

    Parameters
    ----------
    backend
        triton: our kernels, on a GPU; torch: plain PyTorch, anywhere; by default triton, or torch
        without a GPU.
    model
        Model of the catalogue, tiny-llama, tiny-qwen2, tiny-qwen3, or the folder of a checkpoint;
        by default the configuration's, else llama-3.1-8b on a GPU and tiny-llama on a CPU.
    device
        cuda, cuda:1 or cpu; by default a GPU, or the CPU without one or with --backend torch.
    dtype
        Format of weights and KV cache; by default bfloat16 on a GPU and float32 on a CPU.
    kv_dtype
        fp8: keep the KV cache in 8 bits (e4m3, unscaled), which holds twice the tokens.
    clock
        wall: real seconds; cpu: this process's processor time, which a busy machine does not
        lengthen; paced: processor time scaled by a reference computation beside every iteration,
        for shared cores. By default wall; for twin on a CPU paced.
    lookahead
        0: the next batch is scheduled when the previous one has ended; by default while it still
        runs.
    eager
        Run without CUDA graphs.
    """

    backend: Literal["triton", "torch"] | None = None
    model: str | None = None
    device: str | None = None
    dtype: Literal["bfloat16", "float16", "float32"] | None = None
    kv_dtype: Literal["fp8"] | None = None
    clock: Clock | None = None
    lookahead: Literal[0, 1] | None = None
    eager: bool = False

    @property
    def batches_ahead(self) -> Literal[0, 1]:
        """The lookahead: 1 by default."""
        return 1 if self.lookahead is None else self.lookahead


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class GridFlags:
    """Bounds of the grid of iterations: flags of profile and twin.

    Parameters
    ----------
    max_num_seqs
        Largest batch; by default 256 on a GPU, 16 on a CPU.
    max_num_batched_tokens
        Most tokens of an iteration; by default 8192 on a GPU, 256 on a CPU.
    max_model_len
        Longest request; by default 8192 on a GPU, 512 on a CPU.
    num_blocks
        KV blocks of 16 tokens; by default as many as the GPU has room for, on a CPU as many as the
        batch can fill.
    """

    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    max_model_len: int | None = None
    num_blocks: int | None = None
