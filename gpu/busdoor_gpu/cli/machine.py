"""From flags to a device with a model, and to the bounds of a grid that fits it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from busdoor_gpu.cli.flags import GridFlags, MachineFlags

if TYPE_CHECKING:
    from busdoor_gpu.engine.backend import Backend
    from busdoor_gpu.engine.model import Model
    from busdoor_gpu.engine.model_config import ModelConfig
    from busdoor_gpu.engine.place import Place
    from busdoor_gpu.twin.grid import GridLimits

_BLOCK_SIZE = 16  # vLLM's, as everywhere
# Defaults: on a GPU vLLM's max_num_seqs and max_num_batched_tokens (server on an H100,
# `busdoor.catalog.memory`), on a CPU what a tiny model computes in tens of milliseconds.
_GPU_LIMITS = {"max_num_seqs": 256, "max_num_batched_tokens": 8192, "max_model_len": 8192}
_CPU_LIMITS = {"max_num_seqs": 16, "max_num_batched_tokens": 256, "max_model_len": 512}


def place_of(machine: MachineFlags, configured: ModelConfig | None = None) -> Place:
    """Return the device, backend and model of flags; `configured` is the model without a flag.

    Raises ValueError if there is no such device or model, or the backend does not run there.
    """
    from busdoor_gpu.engine.place import settle_place

    model = configured if machine.model is None else machine.model
    return settle_place(model, machine.backend, machine.device, machine.dtype, machine.kv_dtype)


def settle_machine(place: Place, grid: GridFlags, seed: int) -> tuple[Model, Backend, GridLimits]:
    """Settle the grid's bounds, check that they fit the memory, and load model and backend.

    Raises ValueError if a bound is out of range, or the machine's memory too small, EngineError if
    the GPU has no memory left.
    """
    from dataclasses import replace

    from busdoor_gpu.engine.footprint import Sizes
    from busdoor_gpu.engine.kv_memory import measure_num_blocks

    limits = grid_limits(place, grid)
    place.check(
        Sizes(limits.num_blocks, limits.block_size, limits.max_num_seqs, limits.max_model_len)
    )
    model, backend = place.load(seed)
    if grid.num_blocks is None and place.on_gpu:
        blocks = measure_num_blocks(model, backend, limits.block_size, limits.max_model_len)
        limits = replace(limits, num_blocks=blocks)
    return model, backend, limits


def grid_limits(place: Place, grid: GridFlags) -> GridLimits:
    """Return the grid's bounds: as requested, else the device's defaults, within the model.

    By default there are as many blocks as the largest batch can fill; on a GPU they are measured
    later.
    """
    from busdoor.cli.flags import values
    from busdoor_gpu.engine.passes import PASS_TOKENS
    from busdoor_gpu.twin.grid import GridLimits

    for name, value in values(grid).items():
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}; it must be 1 or more")
    defaults = _GPU_LIMITS if place.on_gpu else _CPU_LIMITS
    bounds = {name: getattr(grid, name) or default for name, default in defaults.items()}
    bounds["max_model_len"] = min(
        bounds["max_model_len"], place.config.shape.max_position_embeddings
    )
    filled = -(-bounds["max_model_len"] // _BLOCK_SIZE) * bounds["max_num_seqs"]
    prompts = min(PASS_TOKENS, bounds["max_num_seqs"] * bounds["max_model_len"] // 2)
    return GridLimits(
        **bounds,
        num_blocks=grid.num_blocks or filled,
        block_size=_BLOCK_SIZE,
        max_prefill_tokens=prompts,
    )
