"""Seconds of each unit of a roofline's work, worked out once so that an iteration costs a few multiplications."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from busdoor.catalog import ModelShape
from busdoor.step_time.roofline_attention import Windows

Count = TypeVar("Count", float, NDArray[np.float64])

# GEMM tiles have 128 rows on Ampere and Hopper (cuBLAS and CUTLASS), of which the last is half empty on average;
# kernels with shorter tiles take over below that, so that never more than as many rows again are wasted. Against
# aiconfigurator's h100_sxm sweep (N = 6144, K = 4096) it is 11 % short at M = 256 and 9 % long at 512.
HALF_TILE_ROWS = 64
FLOP_PER_PARAMETER = 2  # a multiply and an add
ACTIVATION_BYTES = 2  # bf16 between kernels whatever the weights' format


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of a unit of work on one GPU.

    Attributes
    ----------
    fixed_s, request_s, token_s : float
        Whatever the batch; a request; a position (activations, and with `tp` its share of the all-reduces).
    activation_s, all_reduce_s : float
        The part of `token_s` that is activations; the part of `fixed_s` that is latency of all-reduces.
    dense_read_s, dense_row_s : float
        Reading the dense weights once; multiplying one row by them.
    head_read_s, head_row_s : float
        The same of the LM head.
    num_experts, experts_per_tok, expert_read_s, expert_row_s
        Experts of a layer; those that a token visits; reading one expert of every layer; multiplying one row by it.
    key_s, pair_s, decode_flop_s, decode_pair_s : float
        Reading the key and value of a token; multiplying a query-key pair of a prompt, and of a
        decode; a decode's pair, the longer of reading and multiplying.
    windows : Windows, optional
        Layers that attend to a window of the context only.
    """

    fixed_s: float
    request_s: float
    token_s: float
    activation_s: float
    all_reduce_s: float
    dense_read_s: float
    dense_row_s: float
    head_read_s: float
    head_row_s: float
    num_experts: int
    experts_per_tok: int
    expert_read_s: float
    expert_row_s: float
    key_s: float
    pair_s: float
    decode_flop_s: float
    decode_pair_s: float
    windows: Windows | None

    def gemm_s(self, rows: float, read_s: float, row_s: float) -> float:
        """Seconds of a GEMM that reads its weights in `read_s` and takes `row_s` a row."""
        return max(read_s, (rows + min(rows, HALF_TILE_ROWS)) * row_s)

    def experts_s(self, tokens: int) -> float:
        """Seconds of the experts that so many positions are expected to visit; 0 in a dense model."""
        if self.num_experts == 1:
            return 0.0
        distinct = distinct_experts(tokens, self.num_experts, self.experts_per_tok)
        visits, half_tiles = tokens * self.experts_per_tok, HALF_TILE_ROWS * distinct
        compute_s = (visits + (visits if visits < half_tiles else half_tiles)) * self.expert_row_s
        read_s = distinct * self.expert_read_s
        return read_s if read_s > compute_s else compute_s


def distinct_experts(tokens: Count, num_experts: int, experts_per_tok: int) -> Count:
    """Experts of a layer that `tokens` positions are expected to visit, each choosing evenly and on its own.

    Examples
    --------
    >>> [round(distinct_experts(tokens, 8, 2), 2) for tokens in (0.0, 1.0, 4.0, 32.0)]
    [0.0, 2.0, 5.47, 8.0]
    """
    missed: Count = (1.0 - experts_per_tok / num_experts) ** tokens
    return num_experts * (1.0 - missed)


def activation_bytes(shape: ModelShape, tp: int) -> float:
    """Bytes that a position moves in all layers between the GEMMs, which keep their own inputs and outputs in flight.

    Per layer: norms with residual (two reads or writes of the width for each norm, and two for the
    sums), rotary embedding and KV write (queries, keys and values read and written), and the
    activation function (its inputs read, its output written).
    """
    latent = shape.kv_lora_rank + shape.qk_rope_head_dim
    keys = latent if shape.kv_lora_rank else 2 * shape.num_key_value_heads * shape.head_dim
    heads = shape.num_attention_heads * shape.head_dim + keys
    mlp = (3 if shape.mlp == "gated" else 2) * shape.mlp_widths
    values = shape.num_hidden_layers * (8 * shape.hidden_size + 2 * heads / tp) + mlp / tp
    return values * ACTIVATION_BYTES
