"""Settings of static batching, and the largest batch that fits."""

from __future__ import annotations

from math import inf, isinf
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, NonNegativeFloat, PositiveInt
from pydantic.dataclasses import dataclass

from busdoor.kv.config import KVConfig
from busdoor.policies.config import MAX_NUM_SEQS, for_memory, needs_answers
from busdoor.policies.static import StaticPolicy
from busdoor_workloads import Trace


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class WholeBatchConfig:
    """What `static` and `dynamic` have in common.

    Parameters
    ----------
    batch_size : int, optional
        Requests in a full batch. Unless given, as many as fit the KV memory whatever they are: each with the longest
        prompt and the longest output cap of the trace (without a trace: `max_model_len`), and at most as many as the
        users of a closed loop.
    max_num_seqs : int
        Most rows, whatever would fit.
    max_output_tokens : int, optional
        Cap on the output of requests whose trace gives none; unless given, all that `max_model_len` leaves.
    max_wait_s : float
        Seconds after which the oldest request leaves in a batch that is not full.
    finished_rows : {"compute", "skip"}
        Whether a finished row still costs an iteration's work.
    decode_reads : {"own", "padded"}
        Whether a decode reads each row's own keys only, as paged kernels do (ours in `busdoor replay`), or those of the
        padding too, as dense attention under a mask does.
    release : {"batch", "request"}
        Whether answers appear when the batch ends, or each token as it is made.
    pad_to : {"batch", "dataset"}
        Whether a batch has the lengths of its longest, or those of the longest of the whole trace.
    pad_input_tokens, pad_output_tokens : int, optional
        With `pad_to = "dataset"`: lengths to use in place of the trace's longest.
    """

    batch_size: PositiveInt | None = None
    max_num_seqs: PositiveInt = MAX_NUM_SEQS
    max_output_tokens: PositiveInt | None = None
    max_wait_s: NonNegativeFloat = inf
    finished_rows: Literal["compute", "skip"] = "compute"
    decode_reads: Literal["own", "padded"] = "own"
    release: Literal["batch", "request"] = "batch"
    pad_to: Literal["batch", "dataset"] = "batch"
    pad_input_tokens: PositiveInt | None = None
    pad_output_tokens: PositiveInt | None = None

    def __post_init__(self) -> None:
        if self.pad_to == "dataset" and self.finished_rows == "skip":
            raise ValueError('pad_to = "dataset" lets no row finish early; finished_rows must be "compute" with it')
        if self.pad_to == "batch" and (self.pad_input_tokens or self.pad_output_tokens):
            raise ValueError('pad_input_tokens and pad_output_tokens are the lengths for pad_to = "dataset"')

    def _options(self, kv: KVConfig, trace: Trace | None) -> dict[str, Any]:
        """Arguments of the policy."""
        padding = self._padding(trace)
        row_tokens = sum(padding) - 1 if padding else self._longest_row(kv, trace)
        batch_size = self._batch_size(kv.num_tokens // row_tokens, trace)
        if trace is not None and isinf(self.max_wait_s) and needs_answers(trace):
            _check_fills(batch_size, trace)
        return {
            "kv": kv.contiguous(),
            "batch_size": batch_size,
            "max_model_len": kv.max_model_len,
            "max_wait_s": self.max_wait_s,
            "finished_rows": self.finished_rows,
            "decode_reads": self.decode_reads,
            "release": self.release,
            "max_output_tokens": self.max_output_tokens,
            "pad_input_tokens": padding and padding[0],
            "pad_output_tokens": padding and padding[1],
        }

    def _padding(self, trace: Trace | None) -> tuple[int, int] | None:
        if self.pad_to == "batch":
            return None
        inputs, outputs = self.pad_input_tokens, self.pad_output_tokens
        if trace is not None and len(trace):
            inputs = inputs or int(trace.input_tokens.max())
            outputs = outputs or int(trace.output_tokens.max())
        if inputs is None or outputs is None:
            raise ValueError('pad_to = "dataset" needs a trace, or both pad_input_tokens and pad_output_tokens')
        return inputs, outputs

    def _longest_row(self, kv: KVConfig, trace: Trace | None) -> int:
        """Tokens of a row with the longest prompt and the longest cap of all that can be served."""
        if trace is None:
            return kv.max_model_len
        left = kv.max_model_len - trace.input_tokens
        fits = trace.output_tokens <= left
        if not fits.any():
            return kv.max_model_len
        caps = left if self.max_output_tokens is None else np.minimum(left, self.max_output_tokens)
        if trace.max_output_tokens is not None:
            caps = np.minimum(left, trace.max_output_tokens)
        return int(trace.input_tokens[fits].max() + caps[fits].max()) - 1

    def _batch_size(self, largest: int, trace: Trace | None) -> int:
        if self.batch_size is not None:
            return min(self.batch_size, self.max_num_seqs)
        users = trace.concurrency if trace is not None and trace.concurrency else largest
        return max(1, min(largest, users, self.max_num_seqs))


def _check_fills(batch_size: int, trace: Trace) -> None:
    """Refuse a batch that would wait for ever, because those who are to fill it wait for its answers."""
    if not trace.concurrency:
        raise ValueError("later turns wait for answers, so that a batch may never fill; set max_wait_s")
    if trace.concurrency < batch_size:
        raise ValueError(
            f"batch_size is {batch_size} but only {trace.concurrency} users ask at a time, so that no batch would "
            f"fill; set max_wait_s, or a batch_size of at most {trace.concurrency}"
        )


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class StaticConfig(WholeBatchConfig):
    """Settings of the policy `static`; see `WholeBatchConfig` for the fields.

    Examples
    --------
    >>> trace = Trace(arrival_s=[0, 0], input_tokens=[100, 90], output_tokens=[10, 20], max_output_tokens=[50, 60])
    >>> policy = StaticConfig().build(KVConfig(num_blocks=100, max_model_len=1000), trace)
    >>> policy.num_slots     # 1600 // (100 + 60 - 1)
    10
    """

    name: Literal["static"] = "static"

    @for_memory
    def build(self, kv: KVConfig, trace: Trace | None = None) -> StaticPolicy:
        """Make the policy for a server with this memory.

        Raises
        ------
        ValueError
            If a batch could never fill on this trace, or no lengths to pad to are known.
        """
        return StaticPolicy(**self._options(kv, trace))
