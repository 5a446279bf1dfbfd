"""The step time of a model shape on a GPU that was not measured: bytes over bandwidth, FLOP over rate."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, ConfigDict, Field, PositiveInt
from pydantic.dataclasses import dataclass

from busdoor.catalog import (
    BYTES_PER_VALUE,
    DEFAULT_ENGINE,
    GPU,
    Dtype,
    Engine,
    ModelShape,
    gpu,
    gpu_names,
    model,
    model_names,
)
from busdoor.catalog import engine as find_engine
from busdoor.catalog.dtypes import lm_head_dtype
from busdoor.catalog.gpus import Share
from busdoor.catalog.memory import check_weights_fit
from busdoor.core.batch import Batch
from busdoor.core.registry import in_one_sentence
from busdoor.step_time.base import LineStepTime, TermSeconds
from busdoor.step_time.roofline_costs import (
    ACTIVATION_BYTES,
    FLOP_PER_PARAMETER,
    HALF_TILE_ROWS,
    Costs,
    activation_bytes,
)


@in_one_sentence
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class RooflineStepTime(LineStepTime):
    """Each part of an iteration takes the longer of its bytes over the bandwidth and its FLOP over the rate.

    The parts add, because a layer's kernels run one after the other and each waits for the one before: attention does
    not overlap the GEMMs of its own layer. They are

    - dense: all weights but embeddings, LM head and experts, once a step; 2 FLOP a parameter and position;
    - experts: the expected number of distinct experts that T positions visit, E·(1 − (1 − k/E)^T), read once each;
    - lm_head: for the last position of every request, as vLLM computes it;
    - prefill_attention: the keys and values of each chunk's context, or 4·heads·head_dim FLOP a pair and layer;
    - decode_attention: likewise for the rows that decode: bytes and FLOP both grow with the context, so that the longer
      of the two stays the longer, and a stretch of decodes is exactly a line;
    - activations: what norms, rotary embedding, KV write and activation function read and write;
    - all_reduce: with `tp`, two rings a layer over the GPUs' links (underestimates messages of 0.1 to 1 MB on NVLink by
      2 or 3, see sglang PR 2904);
    - overhead: launch gaps of every layer, and the engine's host time of a step and of each request.

    A GEMM of M rows computes M + min(M, 64) rows: its 128-row tiles are half empty on average (see `costs`).
    `tp` divides weights, FLOP and KV heads. Embeddings and LM head stay at 16 bits under quantised weights.

    Parameters
    ----------
    gpu, model : GPU, ModelShape, or what `busdoor.catalog.gpu` and `model` take
        What runs what.
    tp : int
        GPUs that share the model.
    weight_dtype, kv_dtype : str
        Formats; the KV cache is at 16 bits unless said otherwise.
    memory_efficiency, kv_efficiency, gemm_efficiency : float, optional
        In place of the catalogue's for the GPU.
    attention_efficiency : float
        Share of the 16-bit matrix rate that prefill attention reaches (FlashAttention 3 on an H100: 0.39, 0.53 and 0.61
        at prompts of 2k, 4k and 8k tokens; aiconfigurator h100_sxm sweep, vLLM 0.24).
    engine : Engine, or what `busdoor.catalog.engine` takes
        Whose host it is; vllm unless given.
    step_overhead_s, request_overhead_s : float, optional
        Host time of a step, and of a request in it, in place of the engine's.
    layer_overhead_s : float
        Launch gaps and ramps of a layer's kernels (BLIS's fit on an H100: 32.1 µs).
    all_reduce_latency_s : float
        Latency of one all-reduce (vLLM's custom kernel on an H100: 9 µs at tp 2, 4 and 8; sglang PR 2904).
    link_efficiency : float
        Share of the link bandwidth that an all-reduce reaches (NCCL rings: about 0.8).

    Notes
    -----
    How far off it is, against published measurements (tests/sim/test_step_time_anchors.py holds it to them):

    - H100, bf16, decode of one request: Qwen3-8B 6.76 ms against SGLang's 6.94 at 1k of context, 8.26 against 9.04 at
      32k, where attention reaches less bandwidth with one request than with many; Llama-3.1-8B 6.58.
    - H100, vLLM, TPOT at a steady load (which includes some prefill): Llama-2-7B within 2 % at 9 to 22 requests in
      flight, 7 % slow at 83; Llama-2-70B, Mixtral-8x7B and CodeLlama-34B on 2 or 4 GPUs within 10 %.
    - H100, prefill: Llama-3.1-8B 40 to 43 thousand tokens/s; good engines reach 33 to 40. Optimistic below 2k tokens,
      where attention kernels run at half the rate that they reach on long prompts.
    - A100: 9 % faster than gpt-fast decodes Llama-3.1-8B. On two PCIe cards, Sarathi-Serve's Yi-34B prefilled within
      30 % of this, but its decodes, bound by the host of 2023, took twice as long.
    - Other GPUs: nothing to compare with yet; all but the MI300X borrow the H100's efficiencies.

    Examples
    --------
    >>> step_time = RooflineStepTime(gpu("h100"), model("llama-3.1-8b"), engine="busdoor")
    >>> batch = Batch(num_decode_tokens=64, decode_context_tokens=64 * 1024)
    >>> first_s, growth_s = step_time.line(batch)
    >>> round(first_s * 1e3, 2), round(growth_s * 1e6, 2)
    (9.69, 2.69)
    >>> {part: round(float(time_s[0]) * 1e3, 2) for part, time_s in step_time.parts_s(batch, 1).items()}
    {'dense': 4.66, 'experts': 0.0, 'lm_head': 0.35, 'prefill_attention': 0.0, 'activations': 0.12,
     'all_reduce': 0.0, 'overhead': 1.81, 'decode_attention': 2.76}
    """

    gpu: Annotated[GPU, BeforeValidator(gpu)]
    model: Annotated[ModelShape, BeforeValidator(model)]
    tp: PositiveInt = 1
    weight_dtype: Dtype = "bf16"
    kv_dtype: Dtype | None = None
    memory_efficiency: Share | None = None
    kv_efficiency: Share | None = None
    gemm_efficiency: Share | None = None
    attention_efficiency: Share = 0.55
    engine: Annotated[Engine, BeforeValidator(find_engine)] = Field(default_factory=lambda: find_engine(DEFAULT_ENGINE))
    step_overhead_s: TermSeconds | None = None
    layer_overhead_s: TermSeconds = 32e-6
    request_overhead_s: TermSeconds | None = None
    all_reduce_latency_s: TermSeconds = 9e-6
    link_efficiency: Share = 0.8

    def __post_init__(self) -> None:
        self.model.check_tp(self.tp)
        check_weights_fit(self.gpu, self.model, self.weight_dtype, self.tp)

    @property
    def host_s(self) -> tuple[float, float]:
        """Host seconds of a step, and of a request in it."""
        step_s, request_s = self.step_overhead_s, self.request_overhead_s
        return (
            self.engine.host_per_step_s if step_s is None else step_s,
            self.engine.host_per_request_s if request_s is None else request_s,
        )

    @cached_property
    def costs(self) -> Costs:
        """Seconds of each unit of work on this GPU."""
        return costs_of(self)

    def line(self, batch: Batch) -> tuple[float, float]:
        """Seconds of the first iteration, and how many more each repetition takes."""
        # The simulator's hot loop: plain floats, one attribute each.
        cost = self.costs
        rows = batch.num_decode_tokens + batch.num_idle_rows
        requests = rows + len(batch.chunks)
        tokens = batch.num_prefill_tokens + batch.num_decode_tokens + batch.num_padded_tokens
        pair_s = cost.decode_pair_s
        seconds = cost.fixed_s + requests * cost.request_s + tokens * cost.token_s
        seconds += (batch.decode_context_tokens + rows) * pair_s
        read_s = cost.dense_read_s
        compute_s = (tokens + (tokens if tokens < HALF_TILE_ROWS else HALF_TILE_ROWS)) * cost.dense_row_s
        seconds += read_s if read_s > compute_s else compute_s
        read_s = cost.head_read_s
        compute_s = (requests + (requests if requests < HALF_TILE_ROWS else HALF_TILE_ROWS)) * cost.head_row_s
        seconds += read_s if read_s > compute_s else compute_s
        if cost.num_experts > 1:
            seconds += cost.experts_s(tokens)
        if batch.prefill_attention:
            read_s = batch.prefill_context_tokens * cost.key_s
            compute_s = batch.prefill_attention * cost.pair_s
            seconds += read_s if read_s > compute_s else compute_s
        return seconds, rows * pair_s

    def parts_s(self, batch: Batch, repeat: int) -> dict[str, NDArray[np.float64]]:
        """Seconds of each part in each of `repeat` iterations of a batch, arrays of shape (repeat,), by name."""
        cost, tokens, requests = self.costs, batch.num_tokens, batch.num_requests
        pairs = batch.decode_attention + batch.num_decode_rows * np.arange(repeat)
        constant = {
            "dense": cost.gemm_s(tokens, cost.dense_read_s, cost.dense_row_s),
            "experts": cost.experts_s(tokens),
            "lm_head": cost.gemm_s(requests, cost.head_read_s, cost.head_row_s),
            "prefill_attention": max(batch.prefill_context_tokens * cost.key_s, batch.prefill_attention * cost.pair_s),
            "activations": tokens * cost.activation_s,
            "all_reduce": cost.all_reduce_s + tokens * (cost.token_s - cost.activation_s),
            "overhead": cost.fixed_s - cost.all_reduce_s + requests * cost.request_s,
        }
        parts = {part: np.full(repeat, seconds) for part, seconds in constant.items()}
        return {**parts, "decode_attention": pairs * cost.decode_pair_s}

    def durations_s(self, batch: Batch, repeat: int) -> NDArray[np.float64]:
        """Durations of the `repeat` iterations of a batch, in seconds, shape (repeat,)."""
        return sum(self.parts_s(batch, repeat).values(), np.zeros(repeat))

    def describe(self) -> dict[str, Any]:
        """Name and parameters, as a result's meta.json keeps them; GPU and model by name where the catalogue has them.

        Examples
        --------
        >>> table = RooflineStepTime(gpu("h100"), model("qwen3-0.6b")).describe()
        >>> table["gpu"], table["weight_dtype"]
        ('h100', 'bf16')
        """
        fields = (name for name in self.__dataclass_fields__ if name not in ("gpu", "model", "engine"))
        parameters = {name: getattr(self, name) for name in fields if getattr(self, name) is not None}
        card = self.gpu.name if self.gpu in map(gpu, gpu_names()) else asdict(self.gpu)
        shape = self.model.name if self.model in map(model, model_names()) else asdict(self.model)
        named = {"gpu": card, "model": shape, "engine": self.engine.describe()}
        return {"name": "roofline", **named, **parameters}


def costs_of(roofline: RooflineStepTime) -> Costs:
    """Work the costs out for a model on a GPU."""
    card, shape, tp = roofline.gpu, roofline.model, roofline.tp
    head_dtype = lm_head_dtype(roofline.weight_dtype)
    gemm = roofline.gemm_efficiency or card.gemm_efficiency
    bandwidth = card.bandwidth_bytes_per_s * (roofline.memory_efficiency or card.memory_efficiency)
    kv_bandwidth = card.bandwidth_bytes_per_s * (roofline.kv_efficiency or card.kv_efficiency)
    read_s = BYTES_PER_VALUE[roofline.weight_dtype] / tp / bandwidth
    row_s = FLOP_PER_PARAMETER / tp / (card.rate(roofline.weight_dtype) * gemm)
    key_s = shape.kv_bytes_per_token(roofline.kv_dtype or head_dtype, tp) / kv_bandwidth
    pair_s = shape.attention_flop_per_pair / tp / (card.rate("bf16") * roofline.attention_efficiency)
    activation_s = activation_bytes(shape, tp) / bandwidth
    ring_s, latency_s = _all_reduce(roofline)
    step_s, request_s = roofline.host_s
    return Costs(
        fixed_s=step_s + shape.num_hidden_layers * roofline.layer_overhead_s + latency_s,
        request_s=request_s,
        token_s=activation_s + ring_s,
        activation_s=activation_s,
        all_reduce_s=latency_s,
        dense_read_s=shape.dense_parameters * read_s,
        dense_row_s=shape.dense_parameters * row_s,
        head_read_s=shape.lm_head_parameters * BYTES_PER_VALUE[head_dtype] / tp / bandwidth,
        head_row_s=shape.lm_head_parameters * FLOP_PER_PARAMETER / tp / (card.rate(head_dtype) * gemm),
        num_experts=shape.num_experts,
        experts_per_tok=shape.num_experts_per_tok,
        expert_read_s=shape.expert_parameters * read_s,
        expert_row_s=shape.expert_parameters * row_s,
        key_s=key_s,
        pair_s=pair_s,
        # Decode kernels pack the query heads of a KV head into the rows of one tile: far from the matrix rate, so
        # the same share of it as a prefill's is generous, and it is the bytes that count on every GPU listed.
        decode_pair_s=max(key_s, pair_s),
    )


def _all_reduce(roofline: RooflineStepTime) -> tuple[float, float]:
    """Seconds a position, and seconds of latency, of two ring all-reduces a layer."""
    tp, shape = roofline.tp, roofline.model
    if tp == 1:
        return 0.0, 0.0
    rings = 2 * shape.num_hidden_layers
    sent_bytes = 2 * (tp - 1) / tp * shape.hidden_size * ACTIVATION_BYTES
    rate = roofline.gpu.link_bytes_per_s * roofline.link_efficiency
    return rings * sent_bytes / rate, rings * roofline.all_reduce_latency_s
