"""An engine's memory: weights, KV cache, slots, counted before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from busdoor.policies.base import Policy
from busdoor_gpu.engine.model_config import ModelConfig
from busdoor_workloads.memory_check import GIB, check_memory

_INT32, _FLOAT32 = 4, 4
# Integers of a slot beside its tokens and its blocks: tokens computed, tokens known.
_SLOT_COUNTS = 2
# Bytes of Python objects, by tracemalloc on Python 3.12: 370 per slot in a profile's grid, 36 per
# block in a list.
_HOST_SLOT_BYTES, _HOST_BLOCK_BYTES = 400, 40


@dataclass(frozen=True)
class Sizes:
    """Sizes of an engine: KV blocks, requests that run at once, and the most tokens of one."""

    num_blocks: int
    block_size: int
    num_slots: int
    row_tokens: int

    @property
    def slot_bytes(self) -> int:
        """Bytes of slot table, tokens, block table and counts by slot, and a step's own table."""
        width = (
            self.row_tokens + 1 + 2 * -(-(self.row_tokens + 1) // self.block_size) + _SLOT_COUNTS
        )
        return self.num_slots * width * _INT32

    @property
    def host_slot_bytes(self) -> int:
        """Bytes of Python's own records of slots, on any device."""
        return self.num_slots * _HOST_SLOT_BYTES

    @property
    def host_block_bytes(self) -> int:
        """Bytes of Python's own records of blocks, on any device."""
        return self.num_blocks * _HOST_BLOCK_BYTES


def sizes_of(policy: Policy, row_tokens: int) -> Sizes:
    """Return the sizes of an engine that serves a policy."""
    kv = getattr(policy, "kv", None)
    num_blocks, block_size = getattr(kv, "num_blocks", 0), getattr(kv, "block_size", 1)
    return Sizes(num_blocks, block_size, policy.num_slots, row_tokens)


def weight_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Return the bytes of a model's weights and of its table of positions.

    >>> from busdoor_gpu.engine.model_config import find_model
    >>> round(weight_bytes(find_model("llama-3.1-8b"), torch.float32) / GIB, 1)
    30.0
    """
    shape = config.shape
    positions = shape.max_position_embeddings * shape.head_dim * _FLOAT32
    return shape.num_parameters * dtype.itemsize + positions


def block_bytes(config: ModelConfig, dtype: torch.dtype, block_size: int) -> int:
    """Return the bytes of keys and values of one block in all layers.

    >>> from busdoor_gpu.engine.model_config import find_model
    >>> block_bytes(find_model("tiny-llama"), torch.float32, 16)     # 2 layers, K and V, 2 heads of 16 floats
    8192
    """
    shape = config.shape
    return (
        2
        * shape.num_hidden_layers
        * shape.num_key_value_heads
        * shape.head_dim
        * block_size
        * dtype.itemsize
    )


def check_weights(config: ModelConfig, dtype: torch.dtype) -> None:
    """Raise ValueError if the machine's memory cannot hold a model."""
    check_memory(weight_bytes(config, dtype), f"{config.shape.name} on the CPU (weights alone)")


def check_engine(
    config: ModelConfig,
    formats: tuple[torch.dtype, torch.dtype],
    device: torch.device,
    sizes: Sizes,
    loaded: bool = False,
) -> None:
    """Raise ValueError if an engine and (unless loaded) its model do not fit the memory.

    `formats` are those of weights and KV cache. With a GPU the machine holds only the records of
    slots and blocks; the GPU's own memory is measured later.
    """
    if device.type != "cpu":
        needed = sizes.host_slot_bytes + sizes.host_block_bytes
        check_memory(
            needed, f"a record of {sizes.num_slots:,} slots and {sizes.num_blocks:,} KV blocks"
        )
        return
    weights = 0 if loaded else weight_bytes(config, formats[0])
    cache = (
        sizes.num_blocks * block_bytes(config, formats[1], sizes.block_size)
        + sizes.host_block_bytes
    )
    slots = sizes.slot_bytes + sizes.host_slot_bytes
    parts = [] if loaded else [f"weights {_gib(weights)}"]
    parts += [
        f"KV {_gib(cache)} for {sizes.num_blocks:,} blocks",
        f"{_gib(slots)} for {sizes.num_slots:,} slots",
    ]
    check_memory(weights + cache + slots, f"{config.shape.name} on the CPU ({', '.join(parts)})")


def _gib(count: float) -> str:
    return f"{count / GIB:,.1f} GiB"
