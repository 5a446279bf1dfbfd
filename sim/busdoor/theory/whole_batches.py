"""What rate a server of whole batches can carry, with any step-time model."""

from __future__ import annotations

from bisect import bisect_right
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from busdoor.core.arrays import Floats
from busdoor.core.batch import Batch
from busdoor.step_time.base import StepTime
from busdoor.theory.capacity import as_lengths, interpolate, prompts_s


def static_capacity_rps(
    step_time: StepTime,
    *,
    batch_size: int,
    mean_output_tokens: float,
    longest_input_tokens: float,
    longest_output_tokens: float,
    finished_rows: Literal["compute", "skip"] = "compute",
    read_input_tokens: float | None = None,
) -> float:
    """Estimate the requests/s a static server carries: X_s with any step-time model.

    Parameters
    ----------
    step_time : StepTime
        Any model.
    batch_size : int
        Rows, as many as fit.
    mean_output_tokens : float
        E[N].
    longest_input_tokens, longest_output_tokens : float
        What prompts and answers are padded to: E[max P] and E[max N] over a batch.
    finished_rows : {"compute", "skip"}
        Whether a row that has its answer still costs.
    read_input_tokens : float, optional
        Keys that a decode reads beside those of its answer: by default the whole padded prompt.

    Notes
    -----
    Approximations: a batch of the mean longest prompt and answer stands for all; with `skip`, one
    of the mean number of rows for all iterations. Both are exact for a step time that is linear in
    the rows and without context.

    Examples
    --------
    >>> from busdoor.step_time import LinearStepTime
    >>> step_time = LinearStepTime(base_s=0.020, per_request_s=0.0005)
    >>> lengths = {"mean_output_tokens": 128, "longest_input_tokens": 512, "longest_output_tokens": 347}
    >>> round(static_capacity_rps(step_time, batch_size=8, **lengths), 4)
    0.9606
    """
    rows = float(batch_size)
    if finished_rows == "skip":
        rows = max(1.0, rows * (mean_output_tokens - 1) / max(1.0, longest_output_tokens - 1))
    keys = longest_input_tokens if read_input_tokens is None else read_input_tokens
    decode_s = interpolate(
        lambda rows: _mean_decode_s(step_time, rows, keys, longest_output_tokens), rows
    )
    return batch_size / (
        prompts_s(step_time, batch_size, longest_input_tokens)
        + decode_s * (longest_output_tokens - 1)
    )


def whole_batch_capacity_rps(
    step_time: StepTime,
    input_tokens: ArrayLike,
    output_tokens: ArrayLike,
    caps: ArrayLike,
    *,
    batch_size: int,
    kv_tokens: float,
    padding: tuple[int, int] | None = None,
    finished_rows: Literal["compute", "skip"] = "compute",
    reads_padding: bool = False,
) -> float:
    """Estimate the requests per second of whole-batch service, from lengths as admitted.

    Parameters
    ----------
    step_time : StepTime
        Any model.
    input_tokens, output_tokens, caps : array of int, shape (n,)
        Lengths of the requests in the order in which they board under load, and the output tokens
        that memory is kept for.
    batch_size : int
        Most rows of a batch; fewer where the memory does not hold as many.
    kv_tokens : float
        Tokens that the KV cache holds.
    padding : tuple of int, optional
        Prompt and output length of every batch; by default the longest of each.
    finished_rows : {"compute", "skip"}
        Whether a row that has its answer still costs.
    reads_padding : bool
        Whether a decode reads the keys of a prompt's padding too.

    Notes
    -----
    A batch is taken to leave full; see `static_capacity_rps` for the rest.

    Examples
    --------
    >>> from busdoor.step_time import LinearStepTime
    >>> step_time = LinearStepTime(base_s=0.020, per_request_s=0.0005)
    >>> lengths = [512] * 64, [128] * 64, [128] * 64
    >>> round(whole_batch_capacity_rps(step_time, *lengths, batch_size=8, kv_tokens=1e6), 4)
    2.6042
    """
    prompts, answers = as_lengths(input_tokens, output_tokens)
    capped = np.asarray(caps, dtype=np.float64)

    def region(rows: int) -> int:
        return round(rows * (_longest(prompts, rows) + _longest(capped, rows) - 1))

    rows = max(1, bisect_right(range(1, min(batch_size, len(prompts)) + 1), kv_tokens, key=region))
    longest_input, longest_output = padding or (_longest(prompts, rows), _longest(answers, rows))
    return static_capacity_rps(
        step_time,
        batch_size=rows,
        mean_output_tokens=float(answers.mean()),
        longest_input_tokens=float(longest_input or 1),
        longest_output_tokens=float(longest_output or 1),
        finished_rows=finished_rows,
        read_input_tokens=_read_tokens(
            prompts, answers, rows, padding, finished_rows == "skip", reads_padding
        ),
    )


def _read_tokens(
    prompts: Floats,
    answers: Floats,
    rows: int,
    padding: tuple[int, int] | None,
    skips: bool,
    reads_padding: bool,
) -> float:
    """Return the keys that a decoding row reads, beside those of half the mean longest answer.

    Long batches run longer than short ones, and read more: rows are weighted by their iterations.
    """
    starts = np.arange(0, len(answers), rows)
    sizes = np.diff(np.append(starts, len(answers)))
    padded = [
        np.repeat(np.maximum.reduceat(lengths, starts), sizes) for lengths in (prompts, answers)
    ]
    if padding:
        padded = [np.full(len(answers), length) for length in padding]
    read = padded[0] if reads_padding else prompts
    steps = answers if skips else padded[1]
    mean_keys = (read @ steps + steps @ steps / 2) / steps.sum()
    return max(1.0, float(mean_keys - padded[1].mean() / 2))


def _longest(lengths: Floats, rows: int) -> float:
    """Return the mean, over batches of so many rows, of the longest of a batch."""
    return float(np.maximum.reduceat(lengths, np.arange(0, len(lengths), rows)).mean())


def _mean_decode_s(step_time: StepTime, rows: int, prompt: float, answer: float) -> float:
    batch = Batch(num_decode_tokens=rows, decode_context_tokens=round(rows * prompt))
    return float(step_time.durations_s(batch, max(1, round(answer) - 1)).mean())
