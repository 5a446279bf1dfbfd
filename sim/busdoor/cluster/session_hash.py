"""A router that keeps a conversation on one server without a look at any."""

from __future__ import annotations

from itertools import accumulate

import numpy as np

from busdoor.cluster.router import Router
from busdoor.core.arrays import Integers
from busdoor.core.request import Request
from busdoor_workloads import Trace


class SessionHash(Router):
    """All turns of a conversation to the server that a hash of its number names.

    With weights, a server gets its share of the conversations. A request without a session goes
    round robin, whatever the weights. What is known beforehand is also what it cannot heed: load.

    Notes
    -----
    The hash is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). The vLLM
    production stack routes sessions by such a hash, on a ring, which matters only where servers
    come and go.
    """

    def prepare(self) -> None:
        """Share out the hashes by weight."""
        ends = list(accumulate(self.weights))
        self._ends = np.array(ends[:-1]) / ends[-1]
        self._turn = 0
        self._server_of: dict[int, int] = {}

    def choose(self, request: Request) -> int:
        """Return the conversation's server."""
        session = request.session_id
        if session < 0:
            self._turn += 1
            return (self._turn - 1) % len(self.weights)
        if session not in self._server_of:
            self._server_of[session] = int(self._servers(np.array([session]))[0])
        return self._server_of[session]

    def assign(self, trace: Trace) -> Integers:
        """Return the servers of the conversations that come next."""
        sessions = np.full(len(trace), -1) if trace.session_id is None else trace.session_id
        servers = self._servers(sessions)
        alone = np.flatnonzero(sessions < 0)
        servers[alone] = (self._turn + np.arange(len(alone))) % len(self.weights)
        self._turn += len(alone)
        return servers

    def _servers(self, sessions: Integers) -> Integers:
        with np.errstate(over="ignore"):
            bits = (sessions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
            bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        shares = ((bits ^ (bits >> np.uint64(31))) >> np.uint64(11)) / 2.0**53
        return np.searchsorted(self._ends, shares, side="right").astype(np.int64)
