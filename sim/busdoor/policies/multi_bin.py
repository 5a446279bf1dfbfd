"""Static batching in bins: requests of like length wait together, so that a batch's longest is near its mean."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import count, islice, pairwise
from math import isinf
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt
from pydantic.dataclasses import dataclass

from busdoor.core.request import Request
from busdoor.kv.config import KVConfig
from busdoor.policies.config import for_memory, needs_answers
from busdoor.policies.queues import LengthError, ShortestJobQueue
from busdoor.policies.static import StaticPolicy
from busdoor.policies.static_batch import StaticBatch
from busdoor.policies.static_config import WholeBatchConfig
from busdoor_workloads import Trace

# Large batches of lengths uniform from 0 are served 1.6 times as fast out of four bins, and twice out of any number
# (`busdoor.theory.multi_bin_max`).
NUM_BINS = 4
MAX_BINS = 1024  # far beyond what any gain comes from


class MultiBinPolicy(StaticPolicy):
    """Static batches out of bins: each bin collects its own batch, and full ones are served in order of filling.

    A bin whose oldest request has waited `max_wait_s` is served though it is not full, and when no arrival is left, so
    are all; whichever of these came first.

    Parameters
    ----------
    *args, **options
        As `StaticPolicy`.
    edges : sequence of float
        Longest length of each bin but the last, in tokens, ascending.
    by : {"output", "input"}
        Length that is compared: the answer's, true or predicted, or the prompt's.
    length_error, length_seed
        How far off the answers are predicted, and the seed of that: see `ShortestJobQueue`. 0 knows the lengths.

    References
    ----------
    Guldogan et al., "Multi-bin batching for increasing LLM inference throughput", arXiv 2412.04504.

    Examples
    --------
    >>> from busdoor.kv.contiguous import ContiguousKV
    >>> policy = MultiBinPolicy(ContiguousKV(6400), batch_size=2, max_model_len=512, edges=[50])
    >>> for i, n in enumerate((90, 20, 80, 30)):
    ...     policy.add(Request(i, 0.0, input_tokens=3, output_tokens=n))
    >>> [request.request_id for request in policy.schedule(0.0).admitted]
    [0, 2]
    """

    def __init__(
        self,
        *args: Any,
        edges: Sequence[float],
        by: str = "output",
        length_error: float = 0.0,
        length_seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.edges = list(edges)
        self.by = by
        self._predicted = ShortestJobQueue(length_error, length_seed).rank
        self._bins: list[OrderedDict[Request, int]] = [OrderedDict() for _ in range(len(self.edges) + 1)]
        self._places = count()  # in the order of arrival, among requests that arrive at once

    def bin_of(self, request: Request) -> int:
        """Number of the bin that a request waits in, from 0, the shortest."""
        length = request.input_tokens if self.by == "input" else self._predicted(request)
        return bisect_left(self.edges, length)

    def bins_of(self, trace: Trace) -> NDArray[np.int64]:
        """Number of the bin of every request of a trace, as far as lengths are known exactly; shape (n,)."""
        return np.searchsorted(self.edges, trace.input_tokens if self.by == "input" else trace.output_tokens)

    def admission_order(self, trace: Trace) -> NDArray[np.int64]:
        """Return the rows of a trace in order of admission: bin by bin; shape (n,)."""
        return np.argsort(self.bins_of(trace), kind="stable")

    def add(self, request: Request) -> None:
        """Add a request that has arrived, or refuse it with its reason in `status`."""
        super().add(request)
        if request.status == "waiting":
            self._bins[self.bin_of(request)][request] = next(self._places)

    def _ready(self, line: OrderedDict[Request, int]) -> tuple[float, int]:
        """When a bin with a request in it may leave, and the place of the request that decides it."""
        oldest, place = next(iter(line.items()))
        due = oldest.arrival_s + self.max_wait_s, place
        if len(line) < self.num_slots:
            return due
        last, place = next(islice(line.items(), self.num_slots - 1, None))
        return min(due, (last.arrival_s, place))

    def _departure_s(self) -> float:
        return min(self._ready(line) for line in self._bins if line)[0]

    def _leaves(self, now_s: float) -> bool:
        return bool(self._waiting) and (self._closed or now_s >= self._departure_s() or self._any_full())

    def _any_full(self) -> bool:
        return any(len(line) >= self.num_slots for line in self._bins)

    def _candidates(self) -> Iterable[Request]:
        """Return the next batch: the bin that could leave first, the oldest first."""
        line = min((line for line in self._bins if line), key=self._ready)
        return islice(line, self.num_slots)

    def _board(self) -> StaticBatch:
        running = super()._board()
        for row in running.rows:
            del self._bins[self.bin_of(row)][row]
        return running

    def would_admit(self, request: Request) -> bool:
        """Only an idle server has an ear: for the first of all, and for the one that makes a bin full."""
        if self._batch is not None:
            return False
        return not self._waiting or len(self._bins[self.bin_of(request)]) + 1 >= self.num_slots

    def abandon(self, request: Request) -> None:
        """Drop a request whose client has gone; one that runs keeps its row, but is not answered."""
        if request.status == "waiting":
            del self._bins[self.bin_of(request)][request]
        super().abandon(request)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class MultiBinConfig(WholeBatchConfig):
    """Settings of the policy `multi_bin`; see `WholeBatchConfig` for the other fields.

    Parameters
    ----------
    num_bins : int
        Bins.
    by : {"output", "input"}
        Length that sorts requests into bins: the answer's or the prompt's.
    spacing : {"probability", "width"}
        Whether bins are equally likely or equally wide, on the lengths of the trace.
    edges : tuple of float, optional
        Longest length of each bin but the last, in place of `num_bins` and `spacing`; without a trace they are needed.
    length_error, length_seed
        With `by = "output"`, how far off the answers are predicted, and the seed of that: see `ShortestJobQueue`.

    Examples
    --------
    >>> trace = Trace(arrival_s=[0] * 4, input_tokens=[9] * 4, output_tokens=[10, 20, 30, 90])
    >>> kv = KVConfig(num_blocks=100, max_model_len=1000)
    >>> for spacing in ("probability", "width"):
    ...     print(MultiBinConfig(batch_size=2, num_bins=2, spacing=spacing).build(kv, trace).edges)
    [20.0]
    [50.0]
    """

    name: Literal["multi_bin"] = "multi_bin"
    num_bins: Annotated[int, Field(ge=1, le=MAX_BINS)] = NUM_BINS
    by: Literal["output", "input"] = "output"
    spacing: Literal["probability", "width"] = "probability"
    edges: tuple[NonNegativeFloat, ...] | None = None
    length_error: LengthError = 0.0
    length_seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.edges is not None and any(high <= low for low, high in pairwise(self.edges)):
            raise ValueError(f"edges {self.edges} do not ascend")
        if self.length_error and self.by == "input":
            raise ValueError(f'length_error = {self.length_error} applies only to by = "output"; prompts are known')

    @for_memory
    def build(self, kv: KVConfig, trace: Trace | None = None) -> MultiBinPolicy:
        """Make the policy for a server with this memory.

        Raises
        ------
        ValueError
            If a batch could never fill on this trace, or no lengths are known to put bins to.
        """
        return MultiBinPolicy(
            **self._options(kv, trace),
            edges=self._edges(trace),
            by=self.by,
            length_error=self.length_error,
            length_seed=self.length_seed,
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
        return [float(edge) for edge in edges]

    def _options(self, kv: KVConfig, trace: Trace | None) -> dict[str, Any]:
        options = super()._options(kv, trace)
        if trace is not None and isinf(self.max_wait_s) and needs_answers(trace) and trace.concurrency:
            self._check_some_bin_fills(options["batch_size"], trace.concurrency)
        return options

    def _most_filled(self, users: int) -> int:
        """Return the longest queue that so many waiting requests make in one bin at least, however they fall."""
        bins = self.num_bins if self.edges is None else len(self.edges) + 1
        return (users - 1) // bins + 1

    def _check_some_bin_fills(self, batch_size: int, users: int) -> None:
        """Refuse a batch that would wait for ever, because those who are to fill it wait in other bins."""
        if batch_size > self._most_filled(users):
            raise ValueError(
                f"batch_size is {batch_size} but {users} users may all wait in bins that are not full; set max_wait_s, "
                f"or a batch_size of at most {self._most_filled(users)}"
            )

    def _batch_size(self, largest: int, trace: Trace | None) -> int:
        if self.batch_size is None and trace is not None and trace.concurrency:
            largest = min(largest, self._most_filled(trace.concurrency))
        return super()._batch_size(largest, trace)
