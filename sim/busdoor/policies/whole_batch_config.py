"""Settings of the policies whose batches leave whole, and the largest batch that fits."""

from __future__ import annotations

from itertools import pairwise
from math import inf, isinf
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from busdoor.kv.config import KVConfig
from busdoor.policies.base import output_caps
from busdoor.policies.config import BuiltInConfig, LengthError, settings
from busdoor_workloads import Trace

# TorchServe's default maxBatchDelay, in seconds. Triton's dynamic batcher has 0: take what is
# there.
WINDOW_S = 0.1
# The window in which the workload survey measures what sorting by length is worth.
SORT_WINDOW = 128
# Large batches of lengths uniform from 0 are served 1.6 times as fast out of four bins, and twice
# out of any number (`busdoor.theory.multi_bin_max`).
NUM_BINS = 4
MAX_BINS = 1024  # far beyond what any gain comes from


@settings
class StaticConfig(BuiltInConfig):
    """Settings of the policy `static`.

    Examples
    --------
    >>> trace = Trace(arrival_s=[0, 0], input_tokens=[100, 90], output_tokens=[10, 20], max_output_tokens=[50, 60])
    >>> policy = StaticConfig().build(KVConfig(num_blocks=100, max_model_len=1000), trace)
    >>> policy.num_slots     # 1600 // (100 + 60 - 1)
    10
    """

    name = "static"
    batch_size: PositiveInt | None = None
    """Requests in a full batch. Unset, as many as always fit the KV: each with the longest
    prompt and the longest output cap of the trace (without a trace: `max_model_len`), and at most
    as many as the users of a closed loop."""
    max_output_tokens: PositiveInt | None = None
    """Cap on the output of requests without one; by default what `max_model_len` leaves."""
    max_wait_s: NonNegativeFloat = inf
    """Seconds after which the oldest request leaves in a batch that is not full."""
    finished_rows: Literal["compute", "skip"] = "compute"
    """Whether a finished row still costs an iteration's work; it keeps its slot and KV."""
    decode_reads: Literal["own", "padded"] = "own"
    """Whether a decode reads each row's own keys only, as in `busdoor replay`, or those of the
    padding too, as dense attention under a mask does."""
    release: Literal["batch", "request"] = "batch"
    """Whether answers appear when the batch ends, or each token as it is made."""
    pad_to: Literal["batch", "dataset"] = "batch"
    """Whether a batch has the lengths of its own longest, or of the whole trace's."""
    pad_input_tokens: PositiveInt | None = None
    """With `pad_to = "dataset"`: prompt length of every batch, in place of the trace's longest."""
    pad_output_tokens: PositiveInt | None = None
    """With `pad_to = "dataset"`: output length of every batch, in place of the trace's longest."""

    def __post_init__(self) -> None:
        if self.pad_to == "dataset" and self.finished_rows == "skip":
            raise ValueError(
                'pad_to = "dataset" lets no row finish early; finished_rows must be "compute" '
                "with it"
            )
        if self.pad_to == "batch" and (self.pad_input_tokens or self.pad_output_tokens):
            raise ValueError(
                'pad_input_tokens and pad_output_tokens are the lengths for pad_to = "dataset"'
            )

    @property
    def padding(self) -> tuple[int, int] | None:
        """Input and output length of every batch, if both are given."""
        inputs, outputs = self.pad_input_tokens, self.pad_output_tokens
        return (inputs, outputs) if inputs and outputs else None

    def arguments(self, kv: KVConfig, trace: Trace | None) -> dict[str, Any]:
        """Return what the policy is called with, but for `max_model_len`.

        Raises
        ------
        ValueError
            If a batch could never fill on this trace, or no lengths to pad to are known.
        """
        padding = self._padding(trace)
        row_tokens = sum(padding) - 1 if padding else self._longest_row(kv, trace)
        batch_size = self._batch_size(kv.num_tokens // row_tokens, trace)
        if trace is not None and isinf(self.max_wait_s) and needs_answers(trace):
            _check_fills(batch_size, trace)
        chosen = self.settings("batch_size", "max_num_seqs", "pad_to")
        if padding:
            chosen["pad_input_tokens"], chosen["pad_output_tokens"] = padding
        return {**chosen, "kv": kv.contiguous(), "batch_size": batch_size}

    def _padding(self, trace: Trace | None) -> tuple[int, int] | None:
        if self.pad_to == "batch":
            return None
        inputs, outputs = self.pad_input_tokens, self.pad_output_tokens
        if trace is not None and len(trace):
            inputs = inputs or int(trace.input_tokens.max())
            outputs = outputs or int(trace.output_tokens.max())
        if inputs is None or outputs is None:
            raise ValueError(
                'pad_to = "dataset" needs a trace, or both pad_input_tokens and pad_output_tokens'
            )
        return inputs, outputs

    def _longest_row(self, kv: KVConfig, trace: Trace | None) -> int:
        """Tokens of a row with the longest prompt and the longest cap of all that can be served."""
        if trace is None:
            return kv.max_model_len
        fits = trace.input_tokens + trace.output_tokens <= kv.max_model_len
        if not fits.any():
            return kv.max_model_len
        caps = output_caps(trace, kv.max_model_len, self.max_output_tokens)
        return int(trace.input_tokens[fits].max() + caps[fits].max()) - 1

    def _batch_size(self, largest: int, trace: Trace | None) -> int:
        if self.batch_size is not None:
            return min(self.batch_size, self.max_num_seqs)
        users = trace.concurrency if trace is not None and trace.concurrency else largest
        return max(1, min(largest, users, self.max_num_seqs))


def _check_fills(batch_size: int, trace: Trace) -> None:
    """Refuse a batch that would wait for ever: those that fill it wait for its answers."""
    if not trace.concurrency:
        raise ValueError(
            "later turns wait for answers, so that a batch may never fill; set max_wait_s"
        )
    if trace.concurrency < batch_size:
        raise ValueError(
            f"batch_size is {batch_size} but only {trace.concurrency} users ask at a time, so that "
            f"no batch would fill; set max_wait_s, or a batch_size of at most {trace.concurrency}"
        )


def needs_answers(trace: Trace) -> bool:
    """Whether some client of the trace sends its next request only after an answer."""
    return bool(trace.concurrency) or (
        trace.session_id is not None and trace.turn is not None and bool(trace.turn.any())
    )


@settings
class DynamicConfig(StaticConfig):
    """Settings of the policy `dynamic`; a configuration waits for TorchServe's `max_wait_s`.

    Examples
    --------
    >>> DynamicConfig(batch_size=8).build(KVConfig(num_blocks=100, max_model_len=1000)).max_wait_s
    0.1
    """

    name = "dynamic"
    max_wait_s: NonNegativeFloat = WINDOW_S
    sort_window: NonNegativeInt = SORT_WINDOW
    """How many waiting requests are compared; others follow. 0: first come, first served."""
    sort_by: Literal["input", "output"] = "input"
    """Length compared: the prompt's, or the true output's, which only an oracle sees."""


@settings
class MultiBinConfig(StaticConfig):
    """Settings of the policy `multi_bin`.

    Examples
    --------
    >>> trace = Trace(arrival_s=[0] * 4, input_tokens=[9] * 4, output_tokens=[10, 20, 30, 90])
    >>> kv = KVConfig(num_blocks=100, max_model_len=1000)
    >>> for spacing in ("probability", "width"):
    ...     print(MultiBinConfig(batch_size=2, num_bins=2, spacing=spacing).build(kv, trace).edges)
    [20.0]
    [50.0]
    """

    name = "multi_bin"
    num_bins: Annotated[int, Field(ge=1, le=MAX_BINS)] = NUM_BINS
    """Bins, put to the lengths of the trace."""
    by: Literal["output", "input"] = "output"
    """Length that sorts requests into bins: the answer's, true or predicted, or the prompt's."""
    spacing: Literal["probability", "width"] = "probability"
    """Whether bins are equally likely or equally wide, on the lengths of the trace."""
    edges: tuple[NonNegativeFloat, ...] | None = None
    """Ascending limits (tokens) of bins but the last, for `num_bins` and `spacing`; without a
    trace they are needed."""
    length_error: LengthError = 0.0
    """With `by = "output"`, how far off lengths are predicted: standard deviation of the logarithm
    of predicted over true length. 0 is exact."""
    length_seed: NonNegativeInt = 0
    """Seed of the predictions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.edges is not None and any(high <= low for low, high in pairwise(self.edges)):
            raise ValueError(f"edges {self.edges} do not ascend")
        if self.length_error and self.by == "input":
            raise ValueError(
                f'length_error = {self.length_error} applies only to by = "output"; prompts are '
                f"known"
            )

    def _edges(self, trace: Trace | None) -> list[float]:
        if self.edges is not None:
            return list(self.edges)
        if trace is None or not len(trace):
            raise ValueError("multi_bin needs a trace to put its bins to the lengths of, or edges")
        lengths = trace.input_tokens if self.by == "input" else trace.output_tokens
        shares = np.arange(1, self.num_bins) / self.num_bins
        if self.spacing == "width":
            edges = lengths.min() + shares * np.ptp(lengths)
        else:
            edges = np.quantile(lengths, shares, method="inverted_cdf")
        return sorted({float(edge) for edge in edges})  # where equal lengths abound, some coincide

    def arguments(self, kv: KVConfig, trace: Trace | None) -> dict[str, Any]:
        """Add the bins' edges; ValueError also if no lengths are known to put bins to."""
        chosen = {**super().arguments(kv, trace), "edges": self._edges(trace)}
        if (
            trace is not None
            and isinf(self.max_wait_s)
            and needs_answers(trace)
            and trace.concurrency
        ):
            self._check_some_bin_fills(chosen["batch_size"], trace.concurrency)
        del chosen["num_bins"], chosen["spacing"]
        return chosen

    def _most_filled(self, users: int) -> int:
        """Return the longest queue that so many waiting requests make in some bin at least."""
        bins = self.num_bins if self.edges is None else len(self.edges) + 1
        return (users - 1) // bins + 1

    def _check_some_bin_fills(self, batch_size: int, users: int) -> None:
        """Refuse a batch that would wait for ever: those that fill it wait in other bins."""
        if batch_size > self._most_filled(users):
            raise ValueError(
                f"batch_size is {batch_size} but {users} users may all wait in bins that are not "
                f"full; set max_wait_s, or a batch_size of at most {self._most_filled(users)}"
            )

    def _batch_size(self, largest: int, trace: Trace | None) -> int:
        if self.batch_size is None and trace is not None and trace.concurrency:
            largest = min(largest, self._most_filled(trace.concurrency))
        return super()._batch_size(largest, trace)
