"""A model shape's step time on an unmeasured GPU: bytes over bandwidth, FLOP over rate."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from busdoor.core.batch import Batch
from busdoor.core.registry import in_one_sentence
from busdoor.step_time.base import Line, LineStepTime
from busdoor.step_time.roofline_attention import Windows
from busdoor.step_time.roofline_costs import Costs
from busdoor.step_time.roofline_costs_of import costs_of
from busdoor.step_time.roofline_fields import RooflineFields


@in_one_sentence
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class RooflineStepTime(RooflineFields, LineStepTime):
    """Each part of an iteration takes the longer of bytes over bandwidth and FLOP over rate.

    The parts add, because a layer's kernels run one after the other and each waits for the one
    before: attention does not overlap the GEMMs of its own layer. They are

    - dense: all weights but embeddings, LM head and experts, once a step; 2 FLOP a parameter and
      position;
    - experts: the expected number of distinct experts that T positions visit, E·(1 − (1 − k/E)^T),
      read once each;
    - lm_head: for the last position of every request, as vLLM computes it;
    - prefill_attention: the keys and values of each chunk's context, or 4·heads·head_dim FLOP a
      pair and layer;
    - decode_attention: likewise for the rows that decode: bytes and FLOP both grow with the
      context, so that the longer of the two stays the longer, and a stretch of decodes is exactly a
      line; windowed layers stop at their window, by the mean context of the rows, and latent
      attention reads compressed keys and multiplies by them;
    - activations: what norms, rotary embedding, KV write and activation function read and write;
    - all_reduce: with `tp`, two rings a layer over the GPUs' links, NVLink or PCIe (underestimates
      messages of 0.1 to 1 MB on NVLink by 2 or 3, see sglang PR 2904);
    - overhead: launch gaps of every layer, and the engine's host time of a step and of each
      request.

    GEMMs of few rows waste part of their tiles, and those of many run at less of the matrix rate
    (see `roofline_costs`). `tp` divides weights, FLOP and KV heads. Embeddings and LM head stay at
    16 bits under quantised weights.

    Its fields are those of `RooflineFields`.

    Notes
    -----
    How far off it is, against published measurements (tests/sim/test_step_time_anchors.py holds it
    to them):

    - H100, bf16, decode of one request: Qwen3-8B 6.76 ms against SGLang's 6.94 at 1k of context,
      8.26 against 9.04 at 32k, where attention reaches less bandwidth with one request than with
      many; Llama-3.1-8B 6.58.
    - H100, vLLM, TPOT at a steady load (which includes some prefill): Llama-2-7B within 2 % at 9 to
      22 requests in flight, 7 % slow at 83; Llama-2-70B, Mixtral-8x7B and CodeLlama-34B on 2 or 4
      GPUs within 10 %.
    - H100, prefill: Llama-3.1-8B 45 to 38 thousand tokens/s from 1k to 8k; good engines reach 33
      to 40; operators measured one by one (aiconfigurator-core 0.12) differ by -5 to +7 %.
      Optimistic below 2k tokens, where attention kernels run at half the rate that they reach on
      long prompts.
    - A100: 8 % slower than gpt-fast decodes Llama-3.1-8B, whose kernels are fused. On two PCIe
      cards joined by NVLink, Sarathi-Serve's Yi-34B prefilled within 30 % of this, but its decodes, bound by the
      host of 2023, took twice as long.
    - Mixtures and latent attention (tests/sim/test_step_time_anchors_moe.py): gpt-oss-120b,
      Kimi-K2.5 and DeepSeek-R1 on H100, H200, B200 and B300 with 4 or 8 requests in flight within
      10 %. Kimi-K2.5 in int4 on B200 comes out 22 % too fast: vLLM 0.15 read such experts slower
      than the newer kernels that the catalogue has.
    - Small models and Qwen3-30B-A3B on an A100 within 15 % with the host of the time (engine
      vllm-0.9); Qwen3-4B on an RTX 4090 within 5 %.
    - Shares of bandwidth and rate: measured on H100 and H200; from published kernel sweeps for
      A100, L40S, B200, B300, GB200, GB300 and RTX PRO 6000; one paper's for AMD. All others borrow
      the H100's: nothing to compare with yet.

    Examples
    --------
    >>> from busdoor.catalog import gpu, model
    >>> step_time = RooflineStepTime(gpu("h100"), model("llama-3.1-8b"), engine="busdoor")
    >>> batch = Batch(num_decode_tokens=64, decode_context_tokens=64 * 1024)
    >>> first_s, growth_s = step_time.line(batch)
    >>> round(first_s * 1e3, 2), round(growth_s * 1e6, 2)
    (9.69, 2.69)
    >>> {part: round(float(time_s[0]) * 1e3, 2) for part, time_s in step_time.parts_s(batch, 1).items()}
    {'dense': 4.66, 'experts': 0.0, 'lm_head': 0.35, 'prefill_attention': 0.0, 'activations': 0.12,
     'all_reduce': 0.0, 'overhead': 1.81, 'decode_attention': 2.76}
    """

    @cached_property
    def costs(self) -> Costs:
        """Seconds of each unit of work on this GPU."""
        return costs_of(self)

    def line(self, batch: Batch) -> Line | None:  # type: ignore[override]
        """Seconds of the first iteration, and how many more each repetition takes.

        None while windowed layers still see all of the decodes' context: it may pass their window.
        """
        cost = self.costs
        return self._line_beyond(cost.windows, batch) if cost.windows else cost.line(batch)

    def line_function(self) -> Callable[[Batch], Line | None]:
        """Return what computes `line`, without a call in between where it is that of the costs."""
        own = type(self).line is not RooflineStepTime.line
        return self.line if own or self.costs.windows else self.costs.line

    def _line_beyond(self, windows: Windows, batch: Batch) -> Line | None:
        """Return the line of a batch whose decodes' mean context is past the window, or None."""
        rows = batch.num_decode_rows
        if batch.decode_attention < rows * windows.tokens:
            return None
        growth_s = rows * (1 - windows.share) * self.costs.decode_pair_s
        return float(self.durations_s(batch, 1)[0]), growth_s

    def parts_s(self, batch: Batch, repeat: int) -> dict[str, NDArray[np.float64]]:
        """Seconds of each part in each of `repeat` iterations, arrays (repeat,), by name."""
        cost, tokens, requests = self.costs, batch.num_tokens, batch.num_requests
        pairs = batch.decode_attention + batch.num_decode_rows * np.arange(repeat, dtype=np.float64)
        keys, prompt_pairs = float(batch.prefill_context_tokens), batch.prefill_attention
        if cost.windows:
            pairs = cost.windows.decode_pairs(batch.num_decode_rows, pairs)
            keys, prompt_pairs = cost.windows.prefill(batch)
        constant = {
            "dense": cost.gemm_s(tokens, cost.dense_read_s, cost.dense_row_s),
            "experts": cost.experts_s(tokens),
            "lm_head": cost.gemm_s(requests, cost.head_read_s, cost.head_row_s),
            "prefill_attention": max(keys * cost.key_s, prompt_pairs * cost.pair_s),
            "activations": tokens * cost.activation_s,
            "all_reduce": cost.all_reduce_s + tokens * (cost.token_s - cost.activation_s),
            "overhead": cost.fixed_s - cost.all_reduce_s + requests * cost.request_s,
        }
        parts = {part: np.full(repeat, seconds) for part, seconds in constant.items()}
        return {**parts, "decode_attention": pairs * cost.decode_pair_s}

    def durations_s(self, batch: Batch, repeat: int) -> NDArray[np.float64]:
        """Durations of the `repeat` iterations of a batch, in seconds, shape (repeat,)."""
        return sum(self.parts_s(batch, repeat).values(), np.zeros(repeat))
