"""`busdoor profile`: a designed grid of iterations on real hardware."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from busdoor_gpu.engine.backend import Backend
    from busdoor_gpu.engine.model import Model
    from busdoor_gpu.engine.place import Place
    from busdoor_gpu.twin.grid import GridLimits

Flag = Parameter(negative="")
_BLOCK_SIZE = 16  # vLLM's, as everywhere
# Defaults: on a GPU vLLM's max_num_seqs and max_num_batched_tokens (server on an H100, `busdoor.catalog.memory`), on a
# CPU what a tiny model computes in tens of milliseconds.
_GPU_LIMITS = {"max_num_seqs": 256, "max_num_batched_tokens": 8192, "max_model_len": 8192}
_CPU_LIMITS = {"max_num_seqs": 16, "max_num_batched_tokens": 256, "max_model_len": 512}


def profile(
    *,
    backend: Literal["triton", "torch"] | None = None,
    model: str | None = None,
    out: Path | None = None,
    overwrite: Annotated[bool, Flag] = False,
    budget: str = "180s",
    max_num_seqs: int | None = None,
    max_num_batched_tokens: int | None = None,
    max_model_len: int | None = None,
    num_blocks: int | None = None,
    clock: Literal["wall", "cpu", "paced"] = "wall",
    device: str | None = None,
    dtype: Literal["bfloat16", "float16", "float32"] | None = None,
    seed: int = 0,
    lookahead: Literal[0, 1] = 1,
    eager: Annotated[bool, Flag] = False,
) -> int:
    """Measure iterations of many shapes on this machine, for `busdoor calibrate`.

    Decodes over batch and context (equal and skewed), prefill over chunk and prior context, and both together. The
    folder has iterations (with device_s, host_s and cell) and meta.json, in the simulator's format.

    Parameters
    ----------
    backend
        triton: our kernels, on a GPU; torch: plain PyTorch, anywhere; by default triton, or torch without a GPU.
    model
        Model of the catalogue, tiny-llama, tiny-qwen3, or the folder of a Llama or Qwen3 checkpoint; by default
        llama-3.1-8b on a GPU and tiny-llama on a CPU.
    out
        Folder for the result; by default a fresh busdoor-profile-001.
    overwrite
        Replace whole what an earlier study left in the folder of --out.
    budget
        Time to measure, such as 60s or 3min; at most a tenth of it is warm-up.
    max_num_seqs
        Largest batch; by default 256 on a GPU, 16 on a CPU.
    max_num_batched_tokens
        Most tokens of an iteration; by default 8192 on a GPU, 256 on a CPU.
    max_model_len
        Longest request; by default 8192 on a GPU, 512 on a CPU.
    num_blocks
        KV blocks of 16 tokens; by default as many as the GPU has room for, on a CPU as many as the batch can fill.
    clock
        wall: real seconds; cpu: this process's processor time, which a busy machine does not lengthen; paced: processor
        time scaled by a reference computation beside every iteration, for shared cores.
    device
        cuda, cuda:1 or cpu; by default a GPU, or the CPU without one or with --backend torch.
    dtype
        Of weights and KV cache; by default bfloat16 on a GPU and float32 on a CPU.
    seed
        Seed of the weights and of the order.
    lookahead
        0: the next batch is scheduled when the previous one has ended; by default while it still runs.
    eager
        Run without CUDA graphs.
    """
    from busdoor.cli.progress import progress_bar
    from busdoor.core.study_folder import study_folder
    from busdoor.core.units import parse_seconds
    from busdoor.results.result import write_result
    from busdoor_gpu.cli.folder import broken_off
    from busdoor_gpu.engine.place import settle_place
    from busdoor_gpu.engine.slots import EngineError
    from busdoor_gpu.replay.replay import ReplayError
    from busdoor_gpu.twin import profile as profiling

    budget_s = parse_seconds(budget)
    asked = {
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max_num_batched_tokens,
        "max_model_len": max_model_len,
    }
    place = settle_place(model, backend, device, dtype)
    with study_folder(out, "profile", overwrite) as study:
        try:
            loaded, kernels, limits = settle_machine(place, asked, num_blocks, seed)
            with progress_bar(f"measuring for {budget_s:g} s"):
                result = profiling.profile(
                    loaded, kernels, limits, budget_s, lookahead=lookahead, clock=clock, cuda_graphs=not eager,
                    seed=seed, meta={"seed": seed},
                )  # fmt: skip
        except ReplayError as error:
            write_result(error.result, study.part)
            return broken_off(error, f"what was measured so far is in {study.publish()}")
        except EngineError as error:
            raise ValueError(str(error)) from error
        write_result(result, study.part)
        folder = study.publish()
    measured = result.iterations["cell"]
    print(f"{len(measured):,} iterations of {measured.nunique()} of {result.meta['num_cells']} designed shapes")
    print(f"Result: {folder}")
    return 0


def settle_machine(
    place: Place, asked: Mapping[str, int | None], num_blocks: int | None, seed: int
) -> tuple[Model, Backend, GridLimits]:
    """Settle the grid's bounds, check that they fit the machine's memory, and load model and backend.

    Raises
    ------
    ValueError
        If a bound is out of range, or the machine's memory too small.
    EngineError
        If the GPU has no memory left.
    """
    from dataclasses import replace

    from busdoor_gpu.engine.footprint import Sizes
    from busdoor_gpu.engine.kv_memory import measure_num_blocks

    limits = grid_limits(place, asked, num_blocks)
    place.check(Sizes(limits.num_blocks, limits.block_size, limits.max_num_seqs, limits.max_model_len))
    model, backend = place.load(seed)
    if num_blocks is None and place.on_gpu:
        blocks = measure_num_blocks(model, backend, limits.block_size, limits.max_model_len)
        limits = replace(limits, num_blocks=blocks)
    return model, backend, limits


def grid_limits(place: Place, asked: Mapping[str, int | None], num_blocks: int | None) -> GridLimits:
    """Return the grid's bounds: as requested, else the device's defaults, and never beyond the model.

    By default there are as many blocks as the largest batch can fill; on a GPU they are measured later.
    """
    from busdoor_gpu.engine.passes import PASS_TOKENS
    from busdoor_gpu.twin.grid import GridLimits

    for name, value in {**asked, "num_blocks": num_blocks}.items():
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be 1 or more")
    defaults = _GPU_LIMITS if place.on_gpu else _CPU_LIMITS
    bounds = {name: asked.get(name) or default for name, default in defaults.items()}
    bounds["max_model_len"] = min(bounds["max_model_len"], place.config.shape.max_position_embeddings)
    filled = -(-bounds["max_model_len"] // _BLOCK_SIZE) * bounds["max_num_seqs"]
    prompts = min(PASS_TOKENS, bounds["max_num_seqs"] * bounds["max_model_len"] // 2)
    return GridLimits(**bounds, num_blocks=num_blocks or filled, block_size=_BLOCK_SIZE, max_prefill_tokens=prompts)
