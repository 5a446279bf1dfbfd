"""A queue in place of static batching: batches follow from arrivals, times in closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from busdoor.capacity.control.fcfs import backlogs
from busdoor.capacity.control.variate import Control, compared
from busdoor.core.arrays import Floats, Integers
from busdoor.core.batch import Batch
from busdoor.metrics.slo_target import Target
from busdoor.step_time.base import StepTime
from busdoor.theory.capacity import prompts_s
from busdoor_workloads import Trace

Number = TypeVar("Number", np.float64, np.int64)

# lengths at which a prefill is timed; it is a line between them to a part in a thousand
_PROMPTS = 512


class Draws(NamedTuple):
    """Requests by draw: arrivals at one per second, tokens, seconds from the batch's start."""

    arrival: Floats
    output_tokens: Integers
    first_token_s: Floats
    finish_s: Floats
    busy_s: Floats  # of each batch


@dataclass(frozen=True)
class WholeBatches:
    """Static batching of `batch_size` in order of arrival, that always waits until a batch is full.

    Exact where every row computes to the end and a batch always fits the memory; elsewhere close.
    `padding`: prompt and answer that every batch is padded to; with `reads_padding` decodes read
    the keys of the padding too.

    Three requests of 1, 2 and 3 tokens, a second for each iteration, one request at a time:

    >>> from busdoor.step_time import LinearStepTime
    >>> trace = Trace(arrival_s=[0, 1, 1], input_tokens=[5, 5, 5], output_tokens=[1, 2, 3])
    >>> queue = WholeBatches(LinearStepTime(base_s=1.0), 1, True)
    >>> queue.lateness(queue.draws([trace], 3), 1.0)(Target("ttft_p99", {"ttft": 2.0}, 0.99))
    array([[0.5, 0.5, 1.5]])
    """

    step_time: StepTime
    batch_size: int
    streams: bool
    padding: tuple[int, int] | None = None
    reads_padding: bool = False

    def draws(self, traces: Sequence[Trace], length: int) -> Draws:
        """Stack the requests and time their batches."""
        arrival, inputs, outputs = (
            np.stack([getattr(trace, name)[:length] for trace in traces])
            for name in ("arrival_s", "input_tokens", "output_tokens")
        )
        prompts, answers = (
            self._longest(tokens, place) for place, tokens in enumerate((inputs, outputs))
        )
        prefill_s = np.interp(prompts, *self._prefills(int(prompts.max())))
        keys = prompts.astype(np.float64) if self.reads_padding else self._mean(inputs)
        contexts_s = self._contexts_s(int(prompts.max() + max(answers.max(), outputs.max())))

        def decode_s(keys: Floats, answers: Integers) -> Floats:
            """Return seconds from prefill to an answer's end, with so many keys per row."""
            ends_s: Floats = np.interp(
                [keys + answers - 1, keys], np.arange(len(contexts_s)), contexts_s
            )
            lasts_s: Floats = ends_s[0] - ends_s[1]
            return lasts_s

        busy_s = prefill_s + decode_s(keys, answers)
        if not self.streams:
            finish_s = self._of_rows(busy_s, length)
            return Draws(arrival, outputs, finish_s, finish_s, busy_s)
        first = self._of_rows(prefill_s, length)
        return Draws(
            arrival, outputs, first, first + decode_s(self._of_rows(keys, length), outputs), busy_s
        )

    def lateness(self, draws: Draws, request_rate: float) -> Callable[[Target], Floats]:
        """Return latencies over their limit; of several, the one that is furthest beyond it."""
        arrival_s = draws.arrival / request_rate
        last_s = np.maximum.reduceat(arrival_s, self._edges(arrival_s.shape[1]), axis=1)
        start_s = last_s + backlogs(np.diff(last_s), draws.busy_s)
        wait_s = self._of_rows(start_s, arrival_s.shape[1]) - arrival_s

        def lateness(target: Target) -> Floats:
            over = [
                _latency(name, draws, wait_s) / limit_s for name, limit_s in target.limits_s.items()
            ]
            worst: Floats = np.maximum.reduce(over)
            return worst

        return lateness

    def control(self, target: Target, own: Floats, others: Floats, ratio: float) -> Control:
        """Compare shares beyond the limit, or means: an excess of a run is the same excess here."""
        if target.share is None:
            return compared(own, others, slope=target.limit_s)
        return compared(own > 1, others > 1, slope=1.0)

    def _edges(self, length: int) -> Integers:
        return np.arange(0, length, self.batch_size)

    def _longest(self, tokens: Integers, place: int) -> Integers:
        """Return the longest of every batch, or what it is padded to."""
        longest: Integers = np.maximum.reduceat(tokens, self._edges(tokens.shape[1]), axis=1)
        return longest if self.padding is None else np.full_like(longest, self.padding[place])

    def _mean(self, tokens: Integers) -> Floats:
        """Return the mean of every batch."""
        edges = self._edges(tokens.shape[1])
        sizes = np.diff(np.append(edges, tokens.shape[1]))
        means: Floats = np.add.reduceat(tokens, edges, axis=1) / sizes
        return means

    def _of_rows(self, values: NDArray[Number], length: int) -> NDArray[Number]:
        """Return of each request what its batch has."""
        return np.repeat(values, self.batch_size, axis=1)[:, :length]

    def _contexts_s(self, longest: int) -> Floats:
        """Seconds of all decodes of full batches at contexts below 0, 1, 2 ... tokens a row."""
        batch = Batch(num_decode_tokens=self.batch_size, decode_context_tokens=0)
        return np.concatenate([[0.0], np.cumsum(self.step_time.durations_s(batch, longest))])

    def _prefills(self, longest: int) -> tuple[Integers, Floats]:
        """Lengths of prompts, and the seconds that full batches of them take to prefill."""
        lengths = np.unique(np.geomspace(1, longest, _PROMPTS).astype(np.int64))
        rows, step_time = self.batch_size, self.step_time
        return lengths, np.array([prompts_s(step_time, rows, each) for each in lengths.tolist()])


def _latency(name: str, draws: Draws, wait_s: Floats) -> Floats:
    """Return a latency in seconds; TPOT of one token is 0, and ITL a request's mean gap."""
    if name == "ttft":
        return wait_s + draws.first_token_s
    if name in ("tpot", "itl"):
        gaps_s: Floats = (draws.finish_s - draws.first_token_s) / np.maximum(
            1, draws.output_tokens - 1
        )
        return gaps_s
    e2e_s = wait_s + draws.finish_s
    return e2e_s / draws.output_tokens if name == "normalized" else e2e_s
