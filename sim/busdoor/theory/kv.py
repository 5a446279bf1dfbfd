"""KV memory in the long run: how many tokens lie in it, how many requests it lets run."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def kv_token_steps(input_tokens: ArrayLike, output_tokens: ArrayLike) -> float:
    """Mean over requests of cached tokens summed over iterations: E[P N + N (N - 1) / 2].

    Its N iterations hold P, P + 1 ... P + N - 1 tokens; the last answer token is never fed back.
    (The survey's formula has N (N + 1) / 2: it counts that token too.)

    Parameters
    ----------
    input_tokens, output_tokens : array of int, shape (n,)
        Lengths of the requests.

    Examples
    --------
    >>> kv_token_steps([10], [3])          # 10 + 11 + 12
    33.0
    """
    prompts, answers = np.asarray(input_tokens, dtype=float), np.asarray(output_tokens, dtype=float)
    return float(np.mean(prompts * answers + answers * (answers - 1) / 2))


def reserved_token_steps(reserved_tokens: ArrayLike, output_tokens: ArrayLike) -> float:
    """Mean over requests of a reservation held throughout: E[R N]; units as `kv_token_steps`.

    Examples
    --------
    >>> reserved_token_steps([100], [3])
    300.0
    """
    return float(
        np.mean(np.asarray(reserved_tokens, dtype=float) * np.asarray(output_tokens, dtype=float))
    )


def kv_occupancy_tokens(rate_rps: float, step_s: float, token_steps: float) -> float:
    """Mean tokens in the cache (Little's law) if each iteration takes `step_s`, none waits.

    Parameters
    ----------
    rate_rps : float
        Arrivals per second, of any kind.
    step_s : float
        Seconds of an iteration.
    token_steps : float
        `kv_token_steps`, or `reserved_token_steps` for what is reserved.

    Examples
    --------
    >>> kv_occupancy_tokens(4.0, 0.02, kv_token_steps([272], [64]))
    1553.92
    """
    return rate_rps * step_s * token_steps


def kv_limited_batch(kv_tokens: float, token_steps: float, mean_output_tokens: float) -> float:
    """Mean number of requests that run at once when memory, not slots, is what they wait for.

    A slot holds token_steps / E[N] tokens on average over its iterations, long answers counting for
    longer.

    Parameters
    ----------
    kv_tokens : float
        Tokens that the cache holds.
    token_steps : float
        `kv_token_steps` where memory is taken on demand, `reserved_token_steps` where it is
        reserved.
    mean_output_tokens : float
        E[N].

    Notes
    -----
    Fragmentation, the last block's empty part and preemptions are left out. What paging buys is the
    ratio of two such batches (the survey's check 27).

    Examples
    --------
    OPT-13B on a 40 GB A100 has 15.7K slots of KV; its maximum length of 2,048 lets seven requests
    in:

    >>> round(kv_limited_batch(15_700, reserved_token_steps([2048], [338]), 338), 1)
    7.7
    """
    return kv_tokens * mean_output_tokens / token_steps
