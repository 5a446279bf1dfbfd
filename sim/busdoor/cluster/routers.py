"""Routers: by turns, at random, by server load, or to a known conversation or prefix."""

from __future__ import annotations

from bisect import bisect_right
from heapq import heapify, heapreplace
from itertools import accumulate
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field, NonNegativeInt
from pydantic.dataclasses import dataclass

from busdoor.cluster.router import Router, max_tokens
from busdoor.cluster.sent_prefixes import SentPrefix
from busdoor.core.arrays import Integers
from busdoor.core.prefixes import NO_IDS, BlockIds
from busdoor.core.request import Request
from busdoor_workloads import Trace
from busdoor_workloads.streams import stream

# Defaults of SGLang's cache-aware router: --cache-threshold, --balance-abs-threshold,
# --balance-rel-threshold.
MIN_MATCH = 0.3
MAX_LEAD = 64
MAX_RATIO = 1.5


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
        """Reset the turns: no server has been sent anything."""
        self._line = [(1 / weight, index, 1) for index, weight in enumerate(self.weights)]
        heapify(self._line)
        self._assigned = 0

    def next_server(self) -> int:
        """Return the server with the fewest turns for its weight, this one included."""
        return self._line[0][1]

    def choose(self, request: Request) -> int:
        """Return the server whose turn it is."""
        return self._turn()

    def _turn(self) -> int:
        _, index, turn = self._line[0]
        heapreplace(self._line, ((turn + 1) / self.weights[index], index, turn + 1))
        return index

    def assign(self, trace: Trace) -> Integers:
        """Return the servers whose turns come next."""
        if min(self.weights) == max(self.weights):
            first, self._assigned = self._assigned, self._assigned + len(trace)
            return np.arange(first, self._assigned) % len(self.weights)
        return np.array([self._turn() for _ in range(len(trace))], dtype=np.int64)


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

    def assign(self, trace: Trace) -> Integers:
        """Return what is drawn for the next requests."""
        draws = self._draws.random(len(trace)) * self._steps[-1]
        drawn = np.searchsorted(self._steps, draws, side="right").clip(max=len(self._steps) - 1)
        every = np.append(self._next, drawn)
        self._next = int(every[-1])
        return every[:-1]

    def _draw(self) -> int:
        return min(
            bisect_right(self._steps, self._draws.random() * self._steps[-1]), len(self._steps) - 1
        )


class LeastOutstanding(Router):
    """The server with the fewest unanswered requests for its weight; the first of equals."""

    def choose(self, request: Request) -> int:
        """Return the server with the fewest outstanding requests for its weight."""
        return self.least()


class ShortestQueue(Router):
    """Fewest unanswered tokens for the server's weight, its own included; first of equals."""

    def choose(self, request: Request) -> int:
        """Return the server with the fewest outstanding tokens for its weight."""
        own = max_tokens(request)
        sums = [
            (tokens + own) / weight
            for tokens, weight in zip(self.outstanding_tokens, self.weights, strict=True)
        ]
        return sums.index(min(sums))


class PowerOfTwo(Router):
    """Of two servers drawn at random, the one with fewer unanswered requests per weight.

    References
    ----------
    Mitzenmacher, "The power of two choices in randomized load balancing", IEEE TPDS 12 (2001).
    """

    def prepare(self) -> None:
        """Start the stream "router" of the seed."""
        self._draws = stream(self.seed, "router")

    def choose(self, request: Request) -> int:
        """Draw two, and return the less loaded; of equals the first drawn."""
        count = len(self.servers)
        first = int(self._draws.random() * count)
        second = int(self._draws.random() * (count - 1))
        second += second >= first
        return second if self.loads[second] < self.loads[first] else first


class LeastKV(Router):
    """The server with the smallest share of KV blocks; of equals, the fewest unanswered.

    Blocks are counted as of the iteration that runs; a request that still waits at a server holds
    none.
    """

    def prepare(self) -> None:
        """Look up how many blocks each server has."""
        memories = [getattr(server.policy, "kv", None) for server in self.servers]
        self._num_blocks = [getattr(kv, "num_blocks", 1) or 1 for kv in memories]

    def choose(self, request: Request) -> int:
        """Return the server with the smallest share of blocks taken."""
        taken = [
            server.kv_blocks() / blocks
            for server, blocks in zip(self.servers, self._num_blocks, strict=True)
        ]
        return min(range(len(taken)), key=lambda index: (taken[index], self.loads[index]))


class SessionAffinity(Router):
    """All turns of a conversation to the server with the fewest unanswered when it began.

    A request without a session goes to the server that has the fewest.
    """

    def prepare(self) -> None:
        """Reset: no conversation has a server yet."""
        self._server_of: dict[int, int] = {}

    def choose(self, request: Request) -> int:
        """Return the conversation's server."""
        if request.session_id < 0:
            return self.least()
        index = self._server_of.get(request.session_id)
        if index is None:
            index = self._server_of[request.session_id] = self.least()
        return index


@dataclass(kw_only=True, eq=False, config=ConfigDict(extra="forbid"))
class PrefixAffinity(Router):
    """To the server already sent the longest beginning, if it is long and the load is even.

    Else, and among equals, to the server with the fewest unanswered requests for its weight. The
    router knows which prompts it has sent where (by their `hash_ids`), not what a server's cache
    has since lost.

    Parameters
    ----------
    min_match : float
        Share of the prompt's blocks that must be known for the beginning to count.
    max_lead : int
        The load is uneven if the busiest server has more than so many unanswered requests more than
        the idlest ...
    max_ratio : float
        ... and more than so many times as many.

    Notes
    -----
    The rule and its defaults are those of SGLang's cache-aware router; without them a prompt that
    all requests begin with would send all requests to one server.
    """

    min_match: Annotated[float, Field(ge=0, le=1)] = MIN_MATCH
    max_lead: NonNegativeInt = MAX_LEAD
    max_ratio: Annotated[float, Field(ge=1)] = MAX_RATIO

    def prepare(self) -> None:
        """Start with an empty tree of prefixes."""
        self._sent = SentPrefix(NO_IDS, 0, 0, None)

    def choose(self, request: Request) -> int:
        """Return the server that knows the beginning, and record that it knows all of it now."""
        index = self.least()
        ids = BlockIds.of(request.hash_ids)
        if num_blocks := len(ids):
            path, known = self._sent.find(ids, num_blocks)
            if known and known >= self.min_match * num_blocks and self._is_even():
                index = min(_bits(path[-1].servers), key=self.loads.__getitem__)
            self._sent.send(ids, path, known, index)
        return index

    def _is_even(self) -> bool:
        most, fewest = max(self.outstanding), min(self.outstanding)
        return most - fewest <= self.max_lead or most <= self.max_ratio * fewest


def _bits(mask: int) -> list[int]:
    """Places of the ones in a number.

    >>> _bits(0b1101)
    [0, 2, 3]
    """
    return [place for place in range(mask.bit_length()) if mask >> place & 1]
