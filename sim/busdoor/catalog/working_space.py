"""Memory that an engine keeps free of KV blocks beside the weights: runtime, activations, sampler, communication."""

from __future__ import annotations

from typing import Literal, NamedTuple

from busdoor.catalog.dtypes import BYTES_PER_VALUE
from busdoor.catalog.gpus import GIB
from busdoor.catalog.shape import ModelShape

VllmVersion = Literal["0.9", "0.11", "0.18"]

# The CUDA context, cuBLAS workspaces and NCCL: 0.12 to 0.35 GiB of vLLM's logs without tp.
RUNTIME_BYTES = 0.35 * GIB
ACTIVATION_BYTES = BYTES_PER_VALUE["bf16"]


class WorkingSpace(NamedTuple):
    """What vLLM's profiling run finds, which differs between versions.

    `sampler_bytes_per_logit`: bytes of each of the `max_num_seqs` rows of logits: 16 and 32-bit
    logits, probabilities, a sort. `expert_row_copies`: how often a mixture of experts holds each
    token for every expert that it visits: workspaces of M × top-k rows
    (fused_moe/experts/triton_moe.py, `workspace_shapes`), quantised copies. `tp_row_copies`: rows
    of the width for each token of the budget that tensor parallel adds: buffers of all-reduces.
    """

    sampler_bytes_per_logit: float
    expert_row_copies: float
    tp_row_copies: float


# Fitted to "GPU KV cache size" lines (tests/sim/test_kv_tokens.py names each): up to 0.11.0, 0.11.1
# to 0.17, from 0.18. The oldest has one mixture, Qwen3-235B-A22B-FP8 on 4 H100 (vllm issue 21348).
# The one in the middle held about 3 GiB more back in every log with 1,024 sequences. From 0.21 an
# estimate of CUDA graphs counts too (0.2 to 4 % of the memory in logs), which is not in here: its
# default share grew by as much.
WORKING_SPACE: dict[VllmVersion, WorkingSpace] = {
    "0.9": WorkingSpace(sampler_bytes_per_logit=17.0, expert_row_copies=10.5, tp_row_copies=0.0),
    "0.11": WorkingSpace(sampler_bytes_per_logit=38.0, expert_row_copies=3.0, tp_row_copies=4.0),
    "0.18": WorkingSpace(sampler_bytes_per_logit=17.0, expert_row_copies=3.0, tp_row_copies=15.0),
}
NEWEST: VllmVersion = "0.18"


def reserve_bytes(
    shape: ModelShape,
    max_num_batched_tokens: int,
    max_num_seqs: int,
    tp: int = 1,
    vllm: VllmVersion = NEWEST,
) -> float:
    """Working space that vLLM (this version or newer) keeps free of KV blocks on each GPU, bytes.

    The larger of two peaks of its profiling run, which do not fall together: the forward pass of a
    full token budget (the residual stream twice, and the MLP's input and output, at 16 bits) and
    the sampler over `max_num_seqs` rows; plus what the runtime takes, the rows of a mixture of
    experts and the buffers of all-reduces, which stay. CUDA graphs are not in it: vLLM captured
    them in the memory outside its share.

    >>> from busdoor.catalog import model
    >>> [round(reserve_bytes(model("llama-3.1-8b"), 8192, 1024, vllm=v) / GIB, 2) for v in ("0.11", "0.18")]
    [5.0, 2.43]
    """
    space, rows = WORKING_SPACE[vllm], max_num_batched_tokens * ACTIVATION_BYTES
    stays = space.expert_row_copies * _experts_width(shape, tp)
    stays += space.tp_row_copies * shape.hidden_size if tp > 1 else 0.0
    forward = rows * (2 * shape.hidden_size + 3 * _widest_mlp(shape) / tp)
    sampler = max_num_seqs * shape.vocab_size * space.sampler_bytes_per_logit
    return RUNTIME_BYTES + rows * stays + max(forward, sampler)


def _widest_mlp(shape: ModelShape) -> int:
    """Return the width of the widest MLP but routed experts; an expert's if no other."""
    if shape.num_expert_layers == shape.num_hidden_layers:
        return shape.shared_intermediate_size or shape.expert_width
    return max(shape.intermediate_size, shape.shared_intermediate_size)


def _experts_width(shape: ModelShape, tp: int) -> float:
    """Return the values that a mixture of experts holds of each token: its top-k rows; 0 for a dense model."""
    if shape.num_experts == 1:
        return 0.0
    return shape.num_experts_per_tok * max(shape.hidden_size, 2 * shape.expert_width / tp)
