"""KV blocks that fit a GPU, measured: what weights and the largest forward pass leave."""

from __future__ import annotations

import torch

from busdoor_gpu.engine.backend import Backend
from busdoor_gpu.engine.footprint import block_bytes
from busdoor_gpu.engine.model import Model
from busdoor_gpu.engine.passes import PASS_TOKENS, guarded
from busdoor_gpu.engine.slots import EngineError
from busdoor_gpu.kernels.cache import allocate_kv_cache
from busdoor_gpu.kernels.paged_prefill import plan_prefill
from busdoor_gpu.kernels.slot_table import StepInputs

NOT_MEASURED = "KV memory can be measured on a GPU only; give [kv] num_blocks in the configuration"
_GRAPH_BYTES = (
    2**30
    # left for CUDA graphs and their workspaces, which are captured later (vLLM logs 0.5-1 GiB for 8B)
)


def measure_num_blocks(
    model: Model,
    backend: Backend,
    block_size: int,
    max_model_len: int,
    gpu_memory_utilization: float = 0.9,
) -> int:
    """Run the largest possible forward pass, and divide the memory that it leaves into blocks.

    `gpu_memory_utilization` is the share of the GPU's memory that weights, activations and cache
    may take together. Raises EngineError if the device is not a GPU, or has no memory left.
    """
    device = model.device
    if device.type != "cuda":
        raise EngineError(NOT_MEASURED)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    guarded(_largest_pass, model, backend, block_size, max(PASS_TOKENS, max_model_len))
    peak = torch.cuda.max_memory_allocated(device)
    free, total = torch.cuda.mem_get_info(device)
    others = total - free - torch.cuda.memory_reserved(device)  # the context, and other processes
    torch.cuda.empty_cache()
    left = int(total * gpu_memory_utilization) - others - peak - _GRAPH_BYTES
    each = block_bytes(model.config, model.kv_dtype, block_size)
    if left < each:
        raise EngineError(
            f"{model.config.shape.name} leaves no memory for KV blocks: {peak / 2**30:.1f} GiB are "
            f"weights and activations and {others / 2**30:.1f} GiB in other use, of "
            f"{total / 2**30:.1f} GiB; use a larger GPU, or raise gpu_memory_utilization"
        )
    return left // each


@torch.inference_mode()
def _largest_pass(model: Model, backend: Backend, block_size: int, num_tokens: int) -> None:
    """Run one prompt of this many tokens, with one layer's cache, to which all layers write."""
    shape, device = model.config.shape, model.device
    num_blocks = -(-num_tokens // block_size)
    cache = allocate_kv_cache(
        num_blocks, shape.num_key_value_heads, block_size, shape.head_dim, model.kv_dtype, device
    )
    tokens = torch.arange(num_tokens, dtype=torch.int32, device=device)
    table = torch.arange(num_blocks, dtype=torch.int32, device=device)[None]
    positions = tokens % model.rope.shape[0]
    lens = torch.tensor([num_tokens], dtype=torch.int32, device=device)
    starts = torch.tensor([0, num_tokens], dtype=torch.int32, device=device)
    plan = plan_prefill(
        [num_tokens], [num_tokens], shape.num_attention_heads // shape.num_key_value_heads, device
    )
    inputs = StepInputs(tokens % shape.vocab_size, positions, tokens, lens, table)

    def attend(query: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return backend.paged_prefill(query, k, v, table, lens, starts, plan)  # type: ignore[no-any-return]

    model.forward(backend, inputs, [cache] * shape.num_hidden_layers, attend, starts[1:] - 1)
    torch.cuda.synchronize(device)
