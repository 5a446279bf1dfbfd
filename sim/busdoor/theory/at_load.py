"""Mean latency at a rate, with any step-time model: shared in turn, or in whole batches."""

from __future__ import annotations

from math import inf

import numpy as np
from numpy.typing import ArrayLike

from busdoor.core.batch import Batch
from busdoor.step_time.base import StepTime
from busdoor.theory.capacity import as_lengths, interpolate, prompts_s
from busdoor.theory.full_batches import fixed_batch_wait_s
from busdoor.theory.static import fill_wait_s

_ROUNDS = 200  # of the fixed point: near saturation each round takes a small step
_SAME = 1e-9


def decode_step_s(step_time: StepTime, rows: float, context: float) -> float:
    """Return the seconds of an iteration in which so many requests decode, of a mean context."""

    def at(count: int) -> float:
        tokens = round(count * context)
        return step_time.duration_s(Batch(num_decode_tokens=count, decode_context_tokens=tokens))

    return interpolate(at, max(1.0, rows))


def prompt_s(step_time: StepTime, tokens: float) -> float:
    """Return the seconds of an iteration that computes one whole prompt, and nothing else."""
    return prompts_s(step_time, 1, max(1, round(tokens)))


def lone_latency_s(
    step_time: StepTime, input_tokens: ArrayLike, output_tokens: ArrayLike, *, prompts: bool = True
) -> float:
    """Return the mean E2E latency if no request ever meets another one: the floor of every policy.

    Without `prompts` (a prefix cache may have them) only the answers count.

    Examples
    --------
    >>> from busdoor.step_time import LinearStepTime
    >>> round(lone_latency_s(LinearStepTime(base_s=0.01), [5, 5], [10, 20]), 3)
    0.15
    """
    rows = zip(*as_lengths(input_tokens, output_tokens), strict=True)
    total, number = 0.0, 0
    for prompt, answer in rows:
        first = prompt_s(step_time, prompt) if prompts else 0.0
        batch = Batch(num_decode_tokens=1, decode_context_tokens=round(prompt))
        steps = round(answer) - 1
        total += first + (float(step_time.durations_s(batch, steps).sum()) if steps else 0.0)
        number += 1
    return total / max(1, number)


def shared_latency_s(
    step_time: StepTime,
    input_tokens: ArrayLike,
    output_tokens: ArrayLike,
    rate_rps: float,
    max_num_seqs: float = inf,
) -> float:
    """Return the mean E2E latency of continuous batching at a rate: M/G/1 processor sharing.

    `sharing_latency_s` for any step-time model: an arrival joins the mean number in the batch, whose
    iterations are that long; prompts take their share of the time. Infinite where that number is
    beyond the slots or finds no balance.

    Examples
    --------
    >>> from busdoor.step_time import LinearStepTime
    >>> from busdoor.theory.continuous import sharing_latency_s
    >>> from busdoor.theory.line import StepLine
    >>> line, model = StepLine(0.020, 0.0005), LinearStepTime(base_s=0.020, per_request_s=0.0005)
    >>> rate = 0.6 / (128 * 0.0005)
    >>> round(shared_latency_s(model, [1], [128], rate), 3), round(sharing_latency_s(rate, line, 128), 3)
    (6.484, 6.56)
    """
    prompts, answers = as_lengths(input_tokens, output_tokens)
    prompt, answer = float(prompts.mean()), float(answers.mean())
    context = float((answers * (prompts + answers / 2)).sum() / answers.sum())
    first_s = prompt_s(step_time, prompt)
    # what a prompt adds to the iteration that it shares with decodes
    added_s = max(0.0, first_s - decode_step_s(step_time, 1, context))
    if rate_rps * added_s >= 1:
        return inf
    latency_s = first_s
    for _ in range(_ROUNDS):
        rows = 1 + rate_rps * latency_s
        if rows > max_num_seqs + 1:
            return inf
        step_s = decode_step_s(step_time, rows, context)
        found = (first_s + (answer - 1) * step_s) / (1 - rate_rps * added_s)
        if abs(found - latency_s) <= _SAME * found:
            return found
        latency_s = found
    return latency_s if latency_s < inf else inf


def batched_latency_s(
    output_tokens: ArrayLike, rate_rps: float, batch_size: int, capacity_rps: float
) -> float:
    """Return the mean E2E latency of whole batches that leave full: fill, wait, and service.

    Bailey's batch queue (`fixed_batch_wait_s`) for Poisson arrivals and answers released whole;
    a batch takes as long as its longest answer, in proportion, and b / `capacity_rps` on average.

    Examples
    --------
    >>> round(batched_latency_s([10, 10], 1.0, 2, 4.0), 3)          # fill 0.5 s, service 0.5 s
    1.019
    """
    lengths = as_lengths([1], output_tokens)[1]
    if not rate_rps < capacity_rps:
        return inf
    longest = np.maximum.reduceat(lengths, np.arange(0, len(lengths), batch_size))
    service_s = longest / longest.mean() * batch_size / capacity_rps
    equal = np.full(len(service_s), 1 / len(service_s))
    wait_s = fixed_batch_wait_s(rate_rps, batch_size, service_s, equal)
    return fill_wait_s(rate_rps, batch_size) + wait_s + float(service_s.mean())
