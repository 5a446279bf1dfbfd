"""Routers that look at the servers' load, or at nothing."""

from __future__ import annotations

from bisect import bisect_right
from heapq import heapify, heapreplace
from itertools import accumulate

from busdoor.cluster.router import Router, promised_tokens
from busdoor.core.request import Request
from busdoor_workloads.streams import stream


class RoundRobin(Router):
    """One after another; with weights, the server furthest behind its share.

    Examples
    --------
    >>> import simpy
    >>> from busdoor.kv.paged import PagedKV
    >>> from busdoor.policies import VllmPolicy
    >>> from busdoor.simulator.server import Server
    >>> from busdoor.step_time import LinearStepTime
    >>> env, router = simpy.Environment(), RoundRobin()
    >>> policies = [VllmPolicy(PagedKV(64, 16), 4, 512, 512) for _ in range(2)]
    >>> servers = [Server(env, policy, LinearStepTime(base_s=0.01)) for policy in policies]
    >>> router.connect(servers, weights=[2, 1])
    >>> [router.place(Request(i, 0.0, 8, 8)) for i in range(6)]
    [0, 0, 1, 0, 0, 1]
    """

    def prepare(self) -> None:
        """Reset: no server has been sent anything."""
        self._line = [(1 / weight, index, 1) for index, weight in enumerate(self.weights)]
        heapify(self._line)

    def next_server(self) -> int:
        """Whose turn it is: the server with the least turns, this one included, for its weight."""
        return self._line[0][1]

    def choose(self, request: Request) -> int:
        """Whose turn it is."""
        _, index, turn = self._line[0]
        heapreplace(self._line, ((turn + 1) / self.weights[index], index, turn + 1))
        return index


class Random(Router):
    """Any server with the probability of its weight, from the stream "router" of the seed."""

    def prepare(self) -> None:
        """Draw the first choice."""
        self._draws = stream(self.seed, "router")
        self._steps = list(accumulate(self.weights))
        self._next = self._draw()

    def next_server(self) -> int:
        """Return what has been drawn for the next request."""
        return self._next

    def choose(self, request: Request) -> int:
        """Return what has been drawn."""
        index, self._next = self._next, self._draw()
        return index

    def _draw(self) -> int:
        return min(bisect_right(self._steps, self._draws.random() * self._steps[-1]), len(self._steps) - 1)


class LeastOutstanding(Router):
    """The server with the fewest unanswered requests for its weight; the first of equals."""

    def choose(self, request: Request) -> int:
        """Fewest outstanding requests."""
        return self.least()


class ShortestQueue(Router):
    """The server with the fewest unanswered tokens for its weight, the request's included; the first of equals."""

    def choose(self, request: Request) -> int:
        """Fewest outstanding tokens."""
        own = promised_tokens(request)
        sums = [(tokens + own) / weight for tokens, weight in zip(self.outstanding_tokens, self.weights, strict=True)]
        return sums.index(min(sums))


class PowerOfTwo(Router):
    """Of two different servers drawn at random, the one with fewer unanswered requests for its weight.

    References
    ----------
    Mitzenmacher, "The power of two choices in randomized load balancing", IEEE TPDS 12 (2001).
    """

    def prepare(self) -> None:
        """Start the stream "router" of the seed."""
        self._draws = stream(self.seed, "router")

    def choose(self, request: Request) -> int:
        """Draw two, take the less loaded; of equals the first drawn."""
        count = len(self.servers)
        first = int(self._draws.random() * count)
        second = int(self._draws.random() * (count - 1))
        second += second >= first
        return second if self.loads[second] < self.loads[first] else first


class LeastKV(Router):
    """The server with the smallest share of KV blocks taken; of equals, the one with the fewest unanswered requests.

    Blocks are counted as of the iteration that runs; who still waits at a server holds none.
    """

    def prepare(self) -> None:
        """Look up how many blocks each server has."""
        memories = [getattr(server.policy, "kv", None) for server in self.servers]
        self._num_blocks = [getattr(kv, "num_blocks", 1) or 1 for kv in memories]

    def choose(self, request: Request) -> int:
        """Smallest share of blocks taken."""
        taken = [server.kv_blocks() / blocks for server, blocks in zip(self.servers, self._num_blocks, strict=True)]
        return min(range(len(taken)), key=lambda index: (taken[index], self.loads[index]))
