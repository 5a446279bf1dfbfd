"""Seconds per unit of a roofline's work, found once: an iteration is a few products."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from busdoor.catalog import ModelShape
from busdoor.core.batch import Batch
from busdoor.step_time.roofline_attention import Windows

# GEMM tiles have up to 128 rows (cuBLAS and CUTLASS), of which the last is half empty on average;
# kernels with shorter tiles take over below that, so that never more than as many rows again are
# wasted, and beyond 256 rows larger tiles and a choice of splits win them back. Against
# aiconfigurator-core 0.12 (h100_sxm, vLLM 0.24, bf16, N and K from 4,096 to 30,000), whose GEMMs of
# 256 rows reach 0.62 of the matrix rate, of 512 0.80, of 1,024 0.83.
HALF_TILE_ROWS, TILED_ROWS = 64, 256
# Many rows run slower again, as they heat the GPU until it lowers its clock: 0.80 at 4,096 rows,
# 0.765 at 8,192, 0.75 at 16,384 (there). `gemm_efficiency` is that of about 3,000 rows: a row takes
# FEW_ROWS of the time that it says, and up to MANY_ROWS more as rows pass SLOWER_ROWS.
FEW_ROWS, MANY_ROWS, SLOWER_ROWS = 0.92, 0.30, 8192
FLOP_PER_PARAMETER = 2  # a multiply and an add
ACTIVATION_BYTES = 2  # bf16 between kernels whatever the weights' format
# bytes/s in one direction, PCIe 5 x16: links that are faster are NVLink or the like
FASTEST_PCIE = 64e9


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of a unit of work on one GPU.

    Fixed (whatever the batch), per request, per position (`token_s`: `activation_s`, and with `tp`
    its share of the all-reduces, whose latency `all_reduce_s` is a part of `fixed_s`). Reading
    dense weights, LM head and one expert of every layer once, and multiplying one row by them.
    `key_s`: reading the key and value of a token; `pair_s`, `decode_flop_s`: multiplying a
    query-key pair of a prompt, and of a decode; `decode_pair_s`: a decode's pair, the longer of
    reading and multiplying.
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

    def line(self, batch: Batch) -> tuple[float, float]:
        """Seconds of a batch's first iteration, and growth per repetition; windows left aside."""
        # The simulator's hot loop: plain floats, one attribute each.
        rows = batch.num_decode_tokens + batch.num_idle_rows
        requests = rows + len(batch.chunks)
        tokens = batch.num_prefill_tokens + batch.num_decode_tokens + batch.num_padded_tokens
        pair_s = self.decode_pair_s
        seconds = self.fixed_s + requests * self.request_s + tokens * self.token_s
        seconds += (batch.decode_context_tokens + rows) * pair_s
        read_s, compute_s = self.dense_read_s, paid_rows(tokens) * self.dense_row_s
        seconds += read_s if read_s > compute_s else compute_s
        read_s, compute_s = self.head_read_s, paid_rows(requests) * self.head_row_s
        seconds += read_s if read_s > compute_s else compute_s
        if self.num_experts > 1:
            seconds += self.experts_s(tokens)
        if batch.prefill_attention:
            read_s = batch.prefill_context_tokens * self.key_s
            compute_s = batch.prefill_attention * self.pair_s
            seconds += read_s if read_s > compute_s else compute_s
        return seconds, rows * pair_s

    @staticmethod
    def gemm_s(rows: int, read_s: float, row_s: float) -> float:
        """Seconds of a GEMM that reads its weights in `read_s` and takes `row_s` per row."""
        compute_s = paid_rows(rows) * row_s
        return read_s if read_s > compute_s else compute_s

    def experts_s(self, tokens: int) -> float:
        """Seconds of the experts that so many positions should visit; 0 in a dense model."""
        if self.num_experts == 1:
            return 0.0
        distinct: float = distinct_experts(tokens, self.num_experts, self.experts_per_tok)
        visits, half_tiles = float(tokens * self.experts_per_tok), HALF_TILE_ROWS * distinct
        compute_s = (visits + (visits if visits < half_tiles else half_tiles)) * self.expert_row_s
        read_s = distinct * self.expert_read_s
        return read_s if read_s > compute_s else compute_s


@cache  # the simulator asks twice at every event, for few different numbers
def paid_rows(rows: int) -> float:
    """Return the rows at the full rate that a GEMM of so many takes as long as.

    >>> [round(paid_rows(rows), 1) for rows in (1, 64, 256, 4096)]
    [1.8, 118.1, 297.3, 4182.0]
    """
    wasted = HALF_TILE_ROWS if rows <= TILED_ROWS else HALF_TILE_ROWS * TILED_ROWS / rows
    slower = FEW_ROWS + MANY_ROWS * rows / (rows + SLOWER_ROWS)
    return (rows + (rows if rows < wasted else wasted)) * slower


def distinct_experts(tokens: Any, num_experts: int, experts_per_tok: int) -> Any:
    """Experts of a layer `tokens` positions are expected to visit, each choosing evenly.

    A float, or an array of them: a TypeVar would not compile.

    >>> [round(distinct_experts(tokens, 8, 2), 2) for tokens in (0.0, 1.0, 4.0, 32.0)]
    [0.0, 2.0, 5.47, 8.0]
    """
    return num_experts * (1.0 - (1.0 - experts_per_tok / num_experts) ** tokens)


def activation_bytes(shape: ModelShape, tp: int) -> float:
    """Bytes that a position moves in all layers between GEMMs, which keep their own in flight.

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


def all_reduce_of(link_bytes_per_s: float, tp: int) -> tuple[float, float]:
    """Return an all-reduce's latency in seconds, and the link bandwidth share of long ones.

    NVLink: 9 µs at tp 2, 4 and 8 (vLLM's custom kernel on an H100; sglang PR 2904) and 0.8 (NCCL's
    rings). PCIe: 7, 14 and 28 µs, and 0.6 between two cards, 0.4 among more (NCCL 2.29 on RTX PRO
    6000, aiconfigurator-core 0.12). Cards of two sockets reach a third of that (there: L40S), and
    cards without peer access, as the RTX 4090's, less than here: give them a `link_efficiency`.

    >>> all_reduce_of(450e9, 8), all_reduce_of(32e9, 2)
    ((9e-06, 0.8), (7e-06, 0.6))
    """
    if link_bytes_per_s > FASTEST_PCIE:
        return 9e-6, 0.8
    return 3.5e-6 * tp, 0.6 if tp == 2 else 0.4
