"""How much of its capacity a trace asks of a policy: the overload flag."""

from __future__ import annotations

from bisect import bisect_right
from math import inf, nan

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from busdoor.policies.base import Policy
from busdoor.policies.dynamic import DynamicPolicy
from busdoor.policies.multi_bin import MultiBinPolicy
from busdoor.policies.orca import OrcaPolicy
from busdoor.policies.preempting import PagedPolicy
from busdoor.policies.reserving import ReservingPolicy
from busdoor.policies.static import StaticPolicy
from busdoor.step_time.base import StepTime
from busdoor.theory.capacity import continuous_capacity_rps, static_capacity_rps
from busdoor_workloads import Trace

Ints = NDArray[np.int64]


def offered_load(trace: Trace, policy: Policy, step_time: StepTime) -> float:
    """Return the trace's request rate over `capacity_rps`: 1 or more cannot be served for long.

    NaN where clients have no rate of their own: in a burst, and in a closed loop.

    Examples
    --------
    >>> from busdoor.kv.paged import PagedKV
    >>> from busdoor.policies.vllm import VllmPolicy
    >>> from busdoor.step_time import LinearStepTime
    >>> trace = Trace(arrival_s=np.arange(100) / 2, input_tokens=np.full(100, 8), output_tokens=np.full(100, 128))
    >>> policy = VllmPolicy(PagedKV(1000, 16), max_num_seqs=8, max_num_batched_tokens=512, max_model_len=512)
    >>> round(offered_load(trace, policy, LinearStepTime(base_s=0.020, per_request_s=0.0005)), 3)
    0.768
    """
    if trace.concurrency or not 0 < trace.request_rate < inf:
        return nan
    return trace.request_rate / capacity_rps(trace, policy, step_time)


def accepted(trace: Trace, requests: pd.DataFrame) -> Trace:
    """Return a trace without the requests that were refused: they are no load.

    Parameters
    ----------
    trace : Trace
        What arrived.
    requests : DataFrame
        Of the result, a row per request of the trace.
    """
    refused = requests["status"].str.startswith("refused").to_numpy(dtype=bool)
    return trace.select(~refused) if refused.any() else trace


def capacity_rps(trace: Trace, policy: Policy, step_time: StepTime) -> float:
    """Estimate the requests per second of a trace's lengths that a policy can carry.

    Parameters
    ----------
    trace : Trace
        Whose lengths arrive.
    policy : Policy
        Whole batches (`static`, `dynamic`, `multi_bin`), or any that decides at every iteration. One that is none of
        ours is taken for the latter, with nothing but its `num_slots`.
    step_time : StepTime
        Any model.

    Notes
    -----
    See `continuous_capacity_rps` and `static_capacity_rps` for the approximations. Moreover a static batch is taken to
    leave full; `prefill_first` and `tgi` are given the capacity of prompts that run beside decodes, which is a little
    too much, and the slots that `tgi` leaves empty until enough wait are counted as taken; and nothing is known of the
    prefix cache, so that a trace with hits can be carried beyond a load of 1.
    """
    if isinstance(policy, StaticPolicy):
        return _whole_batches_rps(trace, policy, step_time)
    return continuous_capacity_rps(
        step_time,
        trace.input_tokens,
        trace.output_tokens,
        max_num_seqs=policy.num_slots,
        kv_tokens=_kv_tokens(policy),
        max_num_batched_tokens=getattr(policy, "max_num_batched_tokens", None) or inf,
        reserved_tokens=_reserved(trace, policy),
    )


def _kv_tokens(policy: Policy) -> float:
    if isinstance(policy, PagedPolicy | ReservingPolicy):
        return policy.kv.num_blocks * policy.kv.block_size
    return policy.kv.num_tokens if isinstance(policy, OrcaPolicy) else inf


def _reserved(trace: Trace, policy: Policy) -> Ints | None:
    if isinstance(policy, ReservingPolicy):
        return policy.reservations(trace)
    return _orca_reserved(trace, policy) if isinstance(policy, OrcaPolicy) else None


def _orca_reserved(trace: Trace, policy: OrcaPolicy) -> Ints:
    if policy.reservation == "max":
        return np.full(len(trace), policy.max_model_len)
    if policy.reservation == "oracle":
        return trace.input_tokens + trace.output_tokens - 1
    powers = np.exp2(np.ceil(np.log2(trace.output_tokens))).astype(np.int64)
    reserved: Ints = np.minimum(trace.input_tokens + powers, policy.max_model_len)
    return reserved


def _whole_batches_rps(trace: Trace, policy: StaticPolicy, step_time: StepTime) -> float:
    order = _boarding_order(trace, policy)
    caps = _caps(trace, policy)
    prompts, answers = trace.input_tokens[order], trace.output_tokens[order]

    def region(rows: int) -> int:
        return round(rows * (_longest(prompts, rows) + _longest(caps[order], rows) - 1))

    fitting = bisect_right(range(1, min(policy.num_slots, len(trace)) + 1), policy.kv.num_tokens, key=region)
    rows = max(1, fitting)
    padded_input, padded_output = policy.padding or (_longest(prompts, rows), _longest(answers, rows))
    return static_capacity_rps(
        step_time,
        batch_size=rows,
        mean_output_tokens=float(answers.mean()),
        longest_input_tokens=float(padded_input or 1),
        longest_output_tokens=float(padded_output or 1),
        finished_rows="skip" if policy.skip_finished else "compute",
        read_input_tokens=_read_tokens(prompts, answers, rows, policy),
    )


def _read_tokens(prompts: Ints, answers: Ints, rows: int, policy: StaticPolicy) -> float:
    """Return the keys that a decoding row reads, beside those of half the mean longest answer.

    Long batches run longer than short ones, and read more: rows are weighted by their iterations.
    """
    starts = np.arange(0, len(answers), rows)
    sizes = np.diff(np.append(starts, len(answers)))
    padded = [np.repeat(np.maximum.reduceat(lengths, starts), sizes) for lengths in (prompts, answers)]
    if policy.padding:
        padded = [np.full(len(answers), length) for length in policy.padding]
    read = padded[0] if policy.reads_padding else prompts
    steps = answers if policy.skip_finished else padded[1]
    mean_keys = (read @ steps + steps @ steps / 2) / steps.sum()
    return max(1.0, float(mean_keys - padded[1].mean() / 2))


def _longest(lengths: Ints, rows: int) -> float:
    """Return the mean, over batches of so many, of the longest of a batch."""
    return float(np.maximum.reduceat(lengths, np.arange(0, len(lengths), rows)).mean())


def _caps(trace: Trace, policy: StaticPolicy) -> Ints:
    """Output tokens that the policy keeps memory for."""
    left = policy.max_model_len - trace.input_tokens
    if trace.max_output_tokens is not None:
        return np.minimum(trace.max_output_tokens, left)
    return left if policy.max_output_tokens is None else np.minimum(policy.max_output_tokens, left)


def _boarding_order(trace: Trace, policy: StaticPolicy) -> Ints:
    """Rows in the order in which they board under load: of arrival, bin by bin, or by length within a full window."""
    rows = np.arange(len(trace))
    if isinstance(policy, MultiBinPolicy):
        return np.argsort(policy.bins_of(trace), kind="stable")
    if not isinstance(policy, DynamicPolicy) or policy.sort_window <= policy.num_slots:
        return rows
    lengths = trace.output_tokens if getattr(policy, "sort_by", "input") == "output" else trace.input_tokens
    return np.lexsort((lengths, rows // policy.sort_window))
