"""Continuous batching: the saturating rate, and latency below it (processor sharing)."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from busdoor.theory.line import StepLine


def saturated_continuous_rps(
    line: StepLine, max_num_seqs: float, mean_output_tokens: float, mean_prefill_tokens: float = 0.0
) -> float:
    """Return a continuous batch's requests per second if one always waits: X_c.

    Every iteration yields a token for each of `max_num_seqs` slots, and admits as many as finish
    (renewal argument).

    Parameters
    ----------
    line : StepLine
        The step time.
    max_num_seqs : float
        Slots, all of them taken (or the mean number, where KV memory decides it).
    mean_output_tokens, mean_prefill_tokens : float
        E[N]; prompt tokens beyond the one that yields the first token, E[P] - 1.

    Examples
    --------
    >>> line = StepLine(base_s=0.020, per_request_s=0.0005)
    >>> round(saturated_continuous_rps(line, 8, 128), 4)
    2.6042
    """
    admitted = max_num_seqs / mean_output_tokens
    return admitted / (
        line.step_s(max_num_seqs) + line.per_prefill_token_s * admitted * mean_prefill_tokens
    )


def sharing_load(
    rate_rps: float, line: StepLine, mean_output_tokens: float, mean_prefill_tokens: float = 0.0
) -> float:
    """Load of an uncapped continuous batch: decode plus prefill time a second; stable below 1.

    Examples
    --------
    >>> sharing_load(12.5, StepLine(base_s=0.020, per_request_s=0.0005), 128)
    0.8
    """
    return rate_rps * (
        mean_output_tokens * line.per_request_s + mean_prefill_tokens * line.per_prefill_token_s
    )


def sharing_tpot_s(
    rate_rps: float, line: StepLine, mean_output_tokens: float, mean_prefill_tokens: float = 0.0
) -> float:
    """Mean TPOT with Poisson arrivals and room for all: (base + per_request) / (1 - load).

    Without prefill the batch is a symmetric queue with state-dependent processor sharing, so the
    law of the lengths does not matter, only its mean. With prefill it is a fluid argument, good to
    4 % at load 0.8.

    Parameters
    ----------
    rate_rps : float
        Poisson arrivals per second.
    line : StepLine
        The step time.
    mean_output_tokens, mean_prefill_tokens : float
        E[N]; prompt tokens beyond the one that yields the first token, E[P] - 1.

    Returns
    -------
    float
        Seconds; infinity when the load is 1 or more.

    References
    ----------
    Kelly, Reversibility and Stochastic Networks (1979), section 3.3; Baskett et al. (BCMP), J. ACM
    22 (1975).

    Examples
    --------
    >>> round(sharing_tpot_s(12.5, StepLine(base_s=0.020, per_request_s=0.0005), 128), 4)
    0.1025
    """
    load = sharing_load(rate_rps, line, mean_output_tokens, mean_prefill_tokens)
    return line.step_s(1) / (1 - load) if load < 1 else inf


def sharing_latency_s(
    rate_rps: float, line: StepLine, mean_output_tokens: float, mean_prefill_tokens: float = 0.0
) -> float:
    """Mean time from admission to the last token, as `sharing_tpot_s`.

    An arrival also waits for the running iteration to end, half of one on average, which is not in
    it.

    Examples
    --------
    >>> line = StepLine(base_s=0.020, per_request_s=0.0005)
    >>> [round(sharing_latency_s(load / (128 * 0.0005), line, 128), 3) for load in (0.3, 0.6, 0.8)]
    [3.749, 6.56, 13.12]
    """
    load = sharing_load(rate_rps, line, mean_output_tokens, mean_prefill_tokens)
    own_s = mean_output_tokens * line.step_s(1) + mean_prefill_tokens * line.per_prefill_token_s
    return own_s / (1 - load) if load < 1 else inf


def sharing_in_flight(
    rate_rps: float, line: StepLine, mean_output_tokens: float
) -> tuple[float, float]:
    """Mean and standard deviation of requests in an uncapped continuous batch, no prefill.

    The number is negative binomial with r = 1 + base / per_request and the load as its parameter.

    Examples
    --------
    >>> line = StepLine(base_s=0.020, per_request_s=0.0005)
    >>> [round(number, 1) for number in sharing_in_flight(12.5, line, 128)]
    [164.0, 28.6]
    """
    load = sharing_load(rate_rps, line, mean_output_tokens)
    size = 1 + line.base_s / line.per_request_s
    return size * load / (1 - load), (size * load) ** 0.5 / (1 - load)


@dataclass(frozen=True)
class CappedSharing:
    """What a continuous batch of at most so many requests comes to; see `capped_sharing`.

    Attributes
    ----------
    mean_in_system, mean_waiting : float
        Requests that have arrived and not left; those of them without a slot.
    latency_s, wait_s : float
        Mean time from arrival to the last token, and the part of it without a slot.
    """

    mean_in_system: float
    mean_waiting: float
    latency_s: float
    wait_s: float


def capped_sharing(
    rate_rps: float, line: StepLine, mean_output_tokens: float, max_num_seqs: int
) -> CappedSharing:
    """Solve a continuous batch's birth-death chain: `max_num_seqs` slots, geometric outputs.

    With n requests in the system, k = min(n, slots) run and leave at rate k / (E[N] (base +
    per_request·k)).

    Parameters
    ----------
    rate_rps : float
        Poisson arrivals per second, below what saturates the batch.
    line : StepLine
        The step time; prefill is left out.
    mean_output_tokens : float
        E[N].
    max_num_seqs : int
        Slots.

    Raises
    ------
    ValueError
        If the rate is what the slots can serve, or more.

    Examples
    --------
    >>> line = StepLine(base_s=0.020, per_request_s=0.0005)
    >>> most = saturated_continuous_rps(line, 32, 128)
    >>> [round(capped_sharing(load * most, line, 128, 32).latency_s, 3) for load in (0.5, 0.8, 0.9)]
    [3.374, 4.127, 4.856]
    """
    most = saturated_continuous_rps(line, max_num_seqs, mean_output_tokens)
    if rate_rps >= most:
        raise ValueError(
            f"{rate_rps} requests/s saturate {max_num_seqs} slots, which serve {most:.6g}; stay "
            f"below it"
        )
    running = np.arange(1, max_num_seqs + 1)
    ratios = rate_rps * mean_output_tokens * (line.base_s + line.per_request_s * running) / running
    weights = np.cumprod(np.append(1.0, ratios))
    # Beyond the slots the weights fall by the same ratio each: a geometric tail of 1, 2 ... waiting
    # requests.
    ratio, full = ratios[-1], weights[-1]
    total = weights.sum() + full * ratio / (1 - ratio)
    waiting = full * ratio / (1 - ratio) ** 2 / total
    in_slots = (
        weights @ np.arange(max_num_seqs + 1) + full * ratio / (1 - ratio) * max_num_seqs
    ) / total
    in_system = float(in_slots + waiting)
    return CappedSharing(in_system, float(waiting), in_system / rate_rps, float(waiting) / rate_rps)
