"""Seconds per unit of a roofline's work: model and formats at the GPU's reached shares."""

from __future__ import annotations

from busdoor.catalog import BYTES_PER_VALUE
from busdoor.catalog.dtypes import lm_head_dtype
from busdoor.step_time.roofline_attention import Windows
from busdoor.step_time.roofline_costs import (
    ACTIVATION_BYTES,
    FLOP_PER_PARAMETER,
    Costs,
    activation_bytes,
    all_reduce_of,
)
from busdoor.step_time.roofline_fields import RooflineFields


def costs_of(roofline: RooflineFields) -> Costs:
    """Work the costs out for a model on a GPU."""
    card, shape, tp = roofline.gpu, roofline.model, roofline.tp
    weights, expert_weights = roofline.weights, shape.expert_dtype or roofline.weights
    head_dtype = lm_head_dtype(weights)
    gemm = roofline.gemm_efficiency or card.gemm_efficiency
    bandwidth = card.bandwidth_bytes_per_s * (roofline.memory_efficiency or card.memory_efficiency)
    kv_bandwidth = card.bandwidth_bytes_per_s * (roofline.kv_efficiency or card.kv_efficiency)
    expert_share = card.expert_efficiency.get(expert_weights, card.memory_efficiency)
    expert_bandwidth = card.bandwidth_bytes_per_s * (roofline.memory_efficiency or expert_share)
    read_s = BYTES_PER_VALUE[weights] / tp / bandwidth
    expert_read_s = BYTES_PER_VALUE[expert_weights] / tp / expert_bandwidth
    row_s, expert_row_s = (
        FLOP_PER_PARAMETER / tp / (card.rate(dtype) * gemm) for dtype in (weights, expert_weights)
    )
    key_s = (
        shape.kv_bytes_per_token(roofline.kv_dtype or shape.kv_dtype_with(weights), tp)
        / kv_bandwidth
    )
    flop_s = 1 / tp / (card.rate("bf16") * roofline.attention_efficiency)
    decode_flop_s = shape.decode_flop_per_pair * flop_s
    activation_s = activation_bytes(shape, tp) / bandwidth
    ring_s, latency_s = _all_reduce(roofline)
    step_s, request_s = roofline.host_s
    return Costs(
        fixed_s=step_s + roofline.layers_s + latency_s,
        request_s=request_s,
        token_s=activation_s + ring_s,
        activation_s=activation_s,
        all_reduce_s=latency_s,
        dense_read_s=shape.dense_parameters * read_s,
        dense_row_s=shape.dense_parameters * row_s,
        head_read_s=shape.lm_head_parameters * BYTES_PER_VALUE[head_dtype] / tp / bandwidth,
        head_row_s=shape.lm_head_parameters
        * FLOP_PER_PARAMETER
        / tp
        / (card.rate(head_dtype) * gemm),
        num_experts=shape.num_experts,
        experts_per_tok=shape.num_experts_per_tok,
        expert_read_s=shape.expert_parameters * expert_read_s,
        expert_row_s=shape.expert_parameters * expert_row_s,
        key_s=key_s,
        pair_s=shape.attention_flop_per_pair * flop_s,
        decode_flop_s=decode_flop_s,
        # Decode kernels pack the query heads of a KV head into the rows of one tile: far from the
        # matrix rate, so the same share of it as a prefill's is generous, and it is the bytes that
        # count on every GPU listed. Latent attention multiplies so much for each byte that its FLOP
        # can be the longer part.
        decode_pair_s=max(key_s, decode_flop_s),
        windows=Windows(shape.sliding_window, shape.window_share) if shape.sliding_window else None,
    )


def _all_reduce(roofline: RooflineFields) -> tuple[float, float]:
    """Seconds a position, and seconds of latency, of two ring all-reduces a layer."""
    tp, shape = roofline.tp, roofline.model
    if tp == 1:
        return 0.0, 0.0
    rings = 2 * shape.num_hidden_layers
    sent_bytes = 2 * (tp - 1) / tp * shape.hidden_size * ACTIVATION_BYTES
    latency_s, share = all_reduce_of(roofline.gpu.link_bytes_per_s, tp)
    latency_s = (
        latency_s if roofline.all_reduce_latency_s is None else roofline.all_reduce_latency_s
    )
    rate = roofline.gpu.link_bytes_per_s * (roofline.link_efficiency or share)
    return rings * sent_bytes / rate, rings * latency_s
