"""What rate a policy can carry with any step-time model: the yardstick of the overload flag."""

from __future__ import annotations

from collections.abc import Callable
from math import expm1, floor, inf, isinf

import numpy as np
from numpy.typing import ArrayLike

from busdoor.core.arrays import Floats
from busdoor.core.batch import Batch, Chunk
from busdoor.core.request import Request
from busdoor.step_time.base import StepTime
from busdoor.theory.kv import kv_limited_batch, kv_token_steps, reserved_token_steps


def continuous_capacity_rps(
    step_time: StepTime,
    input_tokens: ArrayLike,
    output_tokens: ArrayLike,
    *,
    max_num_seqs: float,
    kv_tokens: float = inf,
    max_num_batched_tokens: float = inf,
    reserved_tokens: ArrayLike | None = None,
    prefill_alone: bool = False,
) -> float:
    """Estimate the requests per second that an iteration-level policy can carry.

    Parameters
    ----------
    step_time : StepTime
        Any model.
    input_tokens, output_tokens : array of int, shape (n,)
        Lengths of the requests.
    max_num_seqs : float
        Slots.
    kv_tokens : float
        Tokens that the KV cache holds.
    max_num_batched_tokens : float
        Token budget of an iteration.
    reserved_tokens : array of int, shape (n,), optional
        KV tokens that each request reserves at admission; on demand if left out.
    prefill_alone : bool
        Whether prompts are computed in iterations of their own, in which no request decodes.

    Returns
    -------
    float
        X_c at the mean batch that slots, memory and budget allow.

    Notes
    -----
    Approximations: the batch is taken at its mean, and answers end independently, so that the
    prompts that an iteration computes are a Poisson number (exact for a linear step time, however
    they fall); the KV's limit is a mean too, without blocks' empty parts, fragmentation and
    preemptions. Good to a few per cent where slots decide, to about 15 % where memory does.

    Examples
    --------
    >>> from busdoor.step_time import LinearStepTime
    >>> step_time = LinearStepTime(base_s=0.020, per_request_s=0.0005)
    >>> round(continuous_capacity_rps(step_time, [512], [128], max_num_seqs=8), 4)
    2.6042
    """
    prompts, answers = as_lengths(input_tokens, output_tokens)
    steps = kv_token_steps(prompts, answers)
    held = steps if reserved_tokens is None else reserved_token_steps(reserved_tokens, answers)
    mean_answer = float(answers.mean())
    # A slot's mean share of the budget: one token, and its prompt's others once in E[N] iterations.
    slot_tokens = 1 + (float(prompts.mean()) - 1) / mean_answer
    slots = min(
        max_num_seqs,
        kv_limited_batch(kv_tokens, held, mean_answer),
        max_num_batched_tokens / slot_tokens,
    )
    if isinf(slots):
        raise ValueError(
            "nothing bounds the batch; give max_num_seqs, kv_tokens or max_num_batched_tokens"
        )
    lengths = prompts, answers
    return interpolate(
        lambda rows: _iteration_rps(step_time, *lengths, rows, steps, prefill_alone),
        max(1.0, slots),
    )


def _iteration_rps(
    step_time: StepTime,
    prompts: Floats,
    answers: Floats,
    slots: int,
    token_steps: float,
    prefill_alone: bool,
) -> float:
    """Return requests per second when as many prompts begin as answers end, independently."""
    admitted = slots / float(answers.mean())
    # of the iterations, those that compute prompts: a Poisson number, not zero
    share = -expm1(-admitted)
    begun = admitted / share
    # Tokens of context, without the rows' own positions and without the prompts that are just being
    # computed.
    context = max(0.0, admitted * (token_steps - float(prompts.mean())) - slots)
    decode = Batch(num_decode_tokens=slots, decode_context_tokens=round(context))
    mixed = Batch(chunks=whole_prompts(round(begun), float(prompts.mean())))
    if not prefill_alone:
        mixed.decode_context_tokens = round(context)
        mixed.num_decode_tokens = slots - len(mixed.chunks)
    mixed.num_prefill_tokens = round(begun * float(prompts.mean()))
    mixed.prefill_attention = begun * float(np.mean(prompts * (prompts + 1) / 2))
    mixed.prefill_context_tokens = round(begun * float(prompts.mean()))
    # Where prompts run alone, the decodes' iterations are as many more, but for the first tokens,
    # which prompts yield.
    decoding = 1 - admitted / slots if prefill_alone else 1 - share
    return admitted / (
        share * step_time.duration_s(mixed) + decoding * step_time.duration_s(decode)
    )


def whole_prompts(number: int, prompt: float) -> list[Chunk]:
    """Return so many whole prompts: their pieces tell a step time it is no plain decode."""
    return [Chunk(Request(0, 0.0, round(prompt), 1), round(prompt), 0)] * number


def prompts_s(step_time: StepTime, number: int, prompt: float) -> float:
    """Return the seconds of an iteration that computes so many whole prompts, and nothing else."""
    batch = Batch(chunks=whole_prompts(number, prompt))
    batch.num_prefill_tokens = batch.prefill_context_tokens = round(number * prompt)
    batch.prefill_attention = number * prompt * (prompt + 1) / 2
    return step_time.duration_s(batch)


def as_lengths(input_tokens: ArrayLike, output_tokens: ArrayLike) -> tuple[Floats, Floats]:
    """Return the lengths of prompts and answers as arrays of floats."""
    return np.asarray(input_tokens, dtype=np.float64), np.asarray(output_tokens, dtype=np.float64)


def interpolate(function: Callable[[int], float], number: float) -> float:
    """Evaluate a function of whole numbers at a real one, on the line between its neighbours."""
    low = floor(number)
    share = number - low
    return function(low) if share == 0 else (1 - share) * function(low) + share * function(low + 1)
