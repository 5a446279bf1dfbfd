"""Waiting lines: first come first served, or by priority."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from itertools import count
from typing import Protocol

from busdoor.request import Request


class Queue(Protocol):
    """A waiting line that shows its head."""

    def push(self, request: Request) -> None:
        """Let a new request join."""

    def push_back(self, request: Request) -> None:
        """Let a preempted request come back to where it stood."""

    def head(self) -> Request:
        """Show who is next."""

    def pop_head(self) -> Request:
        """Take who is next."""

    def precedes(self, request: Request) -> bool:
        """Whether a request that joined now would be next."""

    def remove(self, request: Request, /) -> None:
        """Let a request go from wherever it stands."""

    def __len__(self) -> int: ...


class FcfsQueue(deque[Request]):
    """First come, first served; whoever was preempted goes to the front."""

    push = deque.append
    push_back = deque.appendleft
    pop_head = deque.popleft

    def head(self) -> Request:
        """Show who is next."""
        return self[0]

    def precedes(self, request: Request) -> bool:
        """Whether a request that joined now would be next: only in an empty line."""
        return not self


class PriorityQueue:
    """Smaller priority first, then earlier arrival, then the trace's order."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, float, int, int, Request]] = []
        self._entries = count()

    def push(self, request: Request) -> None:
        """Let a request join at its place."""
        heappush(self._heap, (request.priority, request.arrival_s, request.request_id, next(self._entries), request))

    push_back = push

    def head(self) -> Request:
        """Show who is next."""
        return self._heap[0][-1]

    def pop_head(self) -> Request:
        """Take who is next."""
        return heappop(self._heap)[-1]

    def precedes(self, request: Request) -> bool:
        """Whether a request that joined now would be next."""
        return not self._heap or (request.priority, request.arrival_s, request.request_id) < self._heap[0][:3]

    def remove(self, request: Request) -> None:
        """Let a request go from wherever it stands."""
        left = [entry for entry in self._heap if entry[-1] is not request]
        self._heap[:] = sorted(left)

    def __len__(self) -> int:
        return len(self._heap)


QUEUES: dict[str, type[FcfsQueue] | type[PriorityQueue]] = {"fcfs": FcfsQueue, "priority": PriorityQueue}
