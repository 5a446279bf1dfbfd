"""What fits: GPU memory less weights and workspace, in KV blocks; vLLM's defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from busdoor.catalog.dtypes import Dtype
from busdoor.catalog.gpus import GIB, GPU, gpu
from busdoor.catalog.models import model
from busdoor.catalog.shape import ModelShape
from busdoor.catalog.working_space import NEWEST, VllmVersion, reserve_bytes

GPU_MEMORY_UTILIZATION = 0.92  # vLLM 0.32, config/cache.py; 0.9 in older versions


@dataclass(frozen=True)
class MemoryPlan:
    """Where one GPU's memory goes, in bytes.

    Attributes
    ----------
    usable_bytes : float
        Memory times `gpu_memory_utilization`.
    weight_bytes, reserve_bytes : float
        This GPU's share of the weights; working space.
    block_bytes : float
        One KV block on this GPU.
    num_blocks : int
        KV blocks in what is left; negative where nothing is.
    """

    usable_bytes: float
    weight_bytes: float
    reserve_bytes: float
    block_bytes: float

    @property
    def kv_bytes(self) -> float:
        """Bytes left for the KV cache."""
        return self.usable_bytes - self.weight_bytes - self.reserve_bytes

    @property
    def num_blocks(self) -> int:
        """KV blocks in what is left; negative where nothing is."""
        return int(self.kv_bytes // self.block_bytes)


def default_max_num_batched_tokens(card: GPU, offline: bool = False) -> int:
    """Token budget of an iteration where the user gives none, as vLLM chooses it.

    Parameters
    ----------
    card : GPU
        The GPU: from 160 GiB (B200, MI300X) the largest budget, from 70 GiB and not an A100 the
        next.
    offline : bool
        vLLM's `LLM` class instead of its server.

    References
    ----------
    vllm-project/vllm 0.32, `vllm/engine/arg_utils.py`, `EngineArgs.get_batch_defaults`; why not an
    A100: PR 17885.

    Examples
    --------
    >>> [default_max_num_batched_tokens(gpu(name)) for name in ("b200", "h100", "a100-80gb")]
    [16384, 8192, 2048]
    """
    if card.memory_gib >= 160:
        return 16384
    server, llm = (8192, 16384) if _large(card) else (2048, 8192)
    return llm if offline else server


def default_max_num_seqs(card: GPU) -> int:
    """Most requests in a batch where the user gives none, as vLLM chooses it (source as above).

    Examples
    --------
    >>> default_max_num_seqs(gpu("h100")), default_max_num_seqs(gpu("l40s"))
    (1024, 256)
    """
    return 1024 if _large(card) else 256


def _large(card: GPU) -> bool:
    return card.memory_gib >= 70 and "a100" not in card.name


def memory_plan(
    card: str | GPU,
    shape: str | ModelShape,
    *,
    gpu_memory_utilization: float = GPU_MEMORY_UTILIZATION,
    weight_dtype: Dtype | None = None,
    kv_dtype: Dtype | None = None,
    tp: int = 1,
    block_size: int = 16,
    context_tokens: float | None = None,
    max_num_batched_tokens: int | None = None,
    max_num_seqs: int | None = None,
    vllm: VllmVersion = NEWEST,
) -> MemoryPlan:
    """Split a GPU's memory as vLLM does, whether or not the model fits.

    Parameters
    ----------
    card, shape : str, GPU or ModelShape
        GPU and model, or their names.
    gpu_memory_utilization : float
        Share of the memory that the engine may take.
    weight_dtype, kv_dtype : str
        Formats; the checkpoint's unless given, the KV cache at 16 bits where it has none.
    tp : int
        GPUs that share the model.
    block_size : int
        Tokens of a KV block.
    context_tokens : float, optional
        Mean length of the requests: where layers attend to a window, a token of a long request
        takes less. Without it every layer keeps every token, which is how vLLM counts in its log.
    max_num_batched_tokens, max_num_seqs : int
        Limits that the working space depends on; vLLM's defaults for the GPU unless given.
    vllm : {"0.9", "0.11", "0.18"}
        Version whose working space it is: up to 0.11.0, 0.11.1 to 0.17, or from 0.18 on.

    Raises
    ------
    ValueError
        If a name is not known, `tp` does not divide the heads, or the utilisation is not in (0, 1].

    Examples
    --------
    >>> plan = memory_plan("h100", "llama-3.1-8b")
    >>> [round(part / 2**30, 1) for part in (plan.usable_bytes, plan.weight_bytes, plan.reserve_bytes, plan.kv_bytes)]
    [72.8, 15.0, 2.4, 55.4]
    """
    card, shape = gpu(card), model(shape)
    shape.check_tp(tp)
    weight_dtype = weight_dtype or shape.weight_dtype
    kv_dtype = kv_dtype or shape.kv_dtype_with(weight_dtype)
    if not 0 < gpu_memory_utilization <= 1:
        raise ValueError(
            f"gpu_memory_utilization = {gpu_memory_utilization} must be over 0 and at most 1"
        )
    tokens = max_num_batched_tokens or default_max_num_batched_tokens(card)
    return MemoryPlan(
        usable_bytes=card.memory_bytes * gpu_memory_utilization,
        weight_bytes=shape.weight_bytes(weight_dtype) / tp,
        reserve_bytes=reserve_bytes(
            shape, tokens, max_num_seqs or default_max_num_seqs(card), tp, vllm
        ),
        block_bytes=block_size * shape.kv_bytes_per_token(kv_dtype, tp, context_tokens),
    )


def kv_capacity(card: str | GPU, shape: str | ModelShape, **options: Any) -> int:
    """KV blocks that a GPU (or each of `tp`) holds beside the model.

    Parameters
    ----------
    card, shape : str, GPU or ModelShape
        GPU and model, or their names.
    **options
        As `memory_plan`: gpu_memory_utilization, weight_dtype, kv_dtype, tp, block_size,
        context_tokens, max_num_batched_tokens, max_num_seqs, vllm.

    Returns
    -------
    int
        Blocks of `block_size` tokens. With `tp`, every GPU holds its heads' part of each of them.

    Raises
    ------
    ValueError
        If the model does not fit; the message names the sizes and the smallest `tp`, or a weight
        format, that would.

    Examples
    --------
    >>> kv_capacity("h100", "llama-3.1-8b") * 16
    453776
    >>> kv_capacity("h100", "llama-3.1-70b")
    Traceback (most recent call last):
    ValueError: llama-3.1-70b (131.4 GiB of bf16 weights and 2.4 GiB of working space) does not fit the 72.8 GiB ...
    """
    card, shape = gpu(card), model(shape)
    plan = memory_plan(card, shape, **options)
    if plan.num_blocks < 1:
        raise ValueError(_does_not_fit(card, shape, plan, options))
    return plan.num_blocks


def check_weights_fit(card: GPU, shape: ModelShape, weight_dtype: Dtype, tp: int) -> None:
    """Raise ValueError, as `kv_capacity` does, if not even the weights fit the GPU."""
    if shape.weight_bytes(weight_dtype) / tp > card.memory_bytes:
        options = {"weight_dtype": weight_dtype, "tp": tp}
        raise ValueError(
            _does_not_fit(
                card, shape, memory_plan(card, shape, weight_dtype=weight_dtype, tp=tp), options
            )
        )


def _does_not_fit(card: GPU, shape: ModelShape, plan: MemoryPlan, options: dict[str, Any]) -> str:
    tp, dtype = options.get("tp", 1), options.get("weight_dtype") or shape.weight_dtype
    each = f" on each of {tp} GPUs" if tp > 1 else ""
    share = options.get("gpu_memory_utilization", GPU_MEMORY_UTILIZATION)
    return (
        f"{shape.name} ({plan.weight_bytes / GIB:.1f} GiB of {dtype} weights and "
        f"{plan.reserve_bytes / GIB:.1f} GiB of working space{each}) does not fit the "
        f"{plan.usable_bytes / GIB:.1f} GiB that {card.name} lends with gpu_memory_utilization = "
        f"{share}; use {_way_out(card, shape, options)}"
    )


def _way_out(card: GPU, shape: ModelShape, options: dict[str, Any]) -> str:
    def fits(**change: Any) -> bool:
        try:
            return memory_plan(card, shape, **{**options, **change}).num_blocks >= 1
        except ValueError:  # the heads cannot be dealt out to so many
            return False

    ways = [f"tp = {tp}" for tp in (2, 4, 8, 16, 32) if tp > options.get("tp", 1) and fits(tp=tp)][
        :1
    ]
    ways += [f"weight_dtype = '{dtype}'" for dtype in ("fp8", "int4") if fits(weight_dtype=dtype)][
        :1
    ]
    return " or ".join(ways) or "a larger GPU"
