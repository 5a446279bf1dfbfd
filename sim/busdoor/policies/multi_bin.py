"""Static batching in bins: like lengths wait together, so the longest is near the mean."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import count, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from busdoor.core.compiled import mypyc_attr
from busdoor.core.request import Request
from busdoor.kv.contiguous import ContiguousKV
from busdoor.policies.queues import ShortestJobQueue
from busdoor.policies.static import StaticPolicy
from busdoor.policies.static_batch import StaticBatch
from busdoor.policies.whole_batch_config import MultiBinConfig
from busdoor_workloads import Trace


@mypyc_attr(allow_interpreted_subclasses=True)
class MultiBinPolicy(StaticPolicy):
    """Static batches out of bins: each collects its own, full ones are served as filled.

    A bin whose oldest request has waited `max_wait_s` is served though it is not full, and when no
    arrival is left, so are all; whichever of these came first.

    Parameters
    ----------
    kv, batch_size, max_model_len
        As `StaticPolicy`.
    edges, **settings
        Fields of `MultiBinConfig`.

    References
    ----------
    Guldogan et al., "Multi-bin batching for increasing LLM inference throughput", arXiv 2412.04504.

    Examples
    --------
    >>> policy = MultiBinPolicy(ContiguousKV(6400), batch_size=2, max_model_len=512, edges=[50])
    >>> for i, n in enumerate((90, 20, 80, 30)):
    ...     policy.add(Request(i, 0.0, input_tokens=3, output_tokens=n))
    >>> [request.request_id for request in policy.schedule(0.0).admitted]
    [0, 2]
    """

    settings_class = MultiBinConfig
    settings: MultiBinConfig

    def __init__(
        self,
        kv: ContiguousKV,
        batch_size: int,
        max_model_len: int,
        *,
        edges: Sequence[float],
        **settings: Any,
    ) -> None:
        super().__init__(kv, batch_size, max_model_len, edges=tuple(edges), **settings)
        chosen = self.settings
        self.edges = list(edges)
        self.by = chosen.by
        self._predicted = ShortestJobQueue(chosen.length_error, chosen.length_seed).rank
        self._bins: list[OrderedDict[Request, int]] = [
            OrderedDict() for _ in range(len(self.edges) + 1)
        ]
        self._places = count()  # in the order of arrival, among requests that arrive at once

    def bin_of(self, request: Request) -> int:
        """Return the number of the bin that a request waits in, from 0, the shortest."""
        length = request.input_tokens if self.by == "input" else self._predicted(request)
        return bisect_left(self.edges, length)

    def bins_of(self, trace: Trace) -> NDArray[np.int64]:
        """Return every request's bin, as far as lengths are known exactly; shape (n,)."""
        return np.searchsorted(
            self.edges, trace.input_tokens if self.by == "input" else trace.output_tokens
        )

    def admission_order(self, trace: Trace) -> NDArray[np.int64]:
        """Return the rows of a trace in order of admission: bin by bin; shape (n,)."""
        return np.argsort(self.bins_of(trace), kind="stable")

    def add(self, request: Request) -> None:
        """Add a request that has arrived, or refuse it with its reason in `status`."""
        super().add(request)
        if request.status == "waiting":
            self._bins[self.bin_of(request)][request] = next(self._places)

    def _ready(self, line: OrderedDict[Request, int]) -> tuple[float, int]:
        """Return when a bin with a request may start, and the place of the deciding request."""
        oldest, place = next(iter(line.items()))
        due = oldest.arrival_s + self.max_wait_s, place
        if len(line) < self.num_slots:
            return due
        last, place = next(islice(line.items(), self.num_slots - 1, None))
        return min(due, (last.arrival_s, place))

    def _departure_s(self) -> float:
        return min(self._ready(line) for line in self._bins if line)[0]

    def _leaves(self, now_s: float) -> bool:
        return bool(self._waiting) and (
            self._closed or now_s >= self._departure_s() or self._any_full()
        )

    def _any_full(self) -> bool:
        return any(len(line) >= self.num_slots for line in self._bins)

    def _candidates(self) -> Iterable[Request]:
        """Return the next batch: the bin that could leave first, the oldest first."""
        line = min((line for line in self._bins if line), key=self._ready)
        return islice(line, self.num_slots)

    def _start(self) -> StaticBatch:
        running = super()._start()
        for row in running.rows:
            del self._bins[self.bin_of(row)][row]
        return running

    def would_admit(self, request: Request) -> bool:
        """Return whether the server is idle, and it is the first to wait or fills a bin."""
        if self._batch is not None:
            return False
        return not self._waiting or len(self._bins[self.bin_of(request)]) + 1 >= self.num_slots

    def abandon(self, request: Request) -> None:
        """Drop a request whose client has gone; a running one keeps its row, unanswered."""
        if request.status == "waiting":
            del self._bins[self.bin_of(request)][request]
        super().abandon(request)
