"""Waiting lines: first come first served, by priority, or the shortest job first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from math import exp
from typing import Protocol

from busdoor.core.request import Request
from busdoor_workloads.streams import stream

_DRAWN_AT_ONCE = 1024  # prediction errors: one call of the generator costs more than a number


class Queue(Protocol):
    """A waiting line that shows its head."""

    def push(self, request: Request) -> None:
        """Add a new request."""

    def push_back(self, request: Request) -> None:
        """Return a preempted request to where it stood."""

    def head(self) -> Request:
        """Return the next request."""

    def pop_head(self) -> Request:
        """Remove and return the next request."""

    def precedes(self, request: Request) -> bool:
        """Whether a request that joined now would be next."""

    def remove(self, request: Request, /) -> None:
        """Remove a request from wherever it stands."""

    def __len__(self) -> int: ...


class FcfsQueue(deque[Request]):
    """First come, first served; a preempted request goes to the front."""

    push = deque.append
    push_back = deque.appendleft
    pop_head = deque.popleft

    def head(self) -> Request:
        """Return the next request."""
        return self[0]

    def precedes(self, request: Request) -> bool:
        """Whether a request that joined now would be next: only in an empty line."""
        return not self


class BackOfLineQueue(FcfsQueue):
    """First come, first served; a preempted request goes to the end."""

    push_back = deque.append


class PriorityQueue:
    """Smaller priority first, then earlier arrival, then the trace's order."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, float, int, int, Request]] = []
        self._entries = count()

    def rank(self, request: Request) -> float:
        """Return the key that is compared first; the smallest is next."""
        return request.priority

    def push(self, request: Request) -> None:
        """Add a request at its place."""
        heappush(
            self._heap,
            (
                self.rank(request),
                request.arrival_s,
                request.request_id,
                next(self._entries),
                request,
            ),
        )

    push_back = push

    def head(self) -> Request:
        """Return the next request."""
        return self._heap[0][-1]

    def pop_head(self) -> Request:
        """Remove and return the next request."""
        return heappop(self._heap)[-1]

    def precedes(self, request: Request) -> bool:
        """Whether a request that joined now would be next."""
        return (
            not self._heap
            or (self.rank(request), request.arrival_s, request.request_id) < self._heap[0][:3]
        )

    def remove(self, request: Request) -> None:
        """Remove a request from wherever it stands."""
        left = [entry for entry in self._heap if entry[-1] is not request]
        self._heap[:] = sorted(left)

    def __len__(self) -> int:
        return len(self._heap)


class ShortestJobQueue(PriorityQueue):
    """Shortest answer first, as believed; then earlier arrival, then the trace's order.

    `error` is the standard deviation of the logarithm of predicted over true length: 0 knows the
    lengths, 0.7 is mostly within a factor of two. A request's error depends on nothing but the seed
    and its id, so that policies that are compared err alike.

    >>> queue = ShortestJobQueue()
    >>> for i, output_tokens in enumerate((50, 10, 20)):
    ...     queue.push(Request(i, 0.0, 8, output_tokens))
    >>> [queue.pop_head().output_tokens for _ in range(3)]
    [10, 20, 50]
    """

    def __init__(self, error: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        self.error = error
        self._draws = stream(seed, "length prediction")
        self._errors: list[float] = []  # by request id, of the logarithm, in standard deviations

    def rank(self, request: Request) -> float:
        """Predict the length of its answer, in tokens."""
        if not self.error:
            return request.output_tokens
        while len(self._errors) <= request.request_id:
            self._errors += self._draws.standard_normal(_DRAWN_AT_ONCE).tolist()
        return request.output_tokens * exp(self.error * self._errors[request.request_id])


QUEUES: dict[str, Callable[[], Queue]] = {
    "fcfs": FcfsQueue,
    "priority": PriorityQueue,
    "sjf": ShortestJobQueue,
}


def as_queue(queue: str | Queue) -> Queue:
    """Return a waiting line as it is, or make an empty one by its name."""
    return QUEUES[queue]() if isinstance(queue, str) else queue
