"""Routers that send requests to where their past is: to the server that has the KV of their conversation or prefix."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, NonNegativeInt
from pydantic.dataclasses import dataclass

from busdoor.cluster.router import Router
from busdoor.core.request import Request

# Defaults of SGLang's cache-aware router: --cache-threshold, --balance-abs-threshold, --balance-rel-threshold.
MIN_MATCH = 0.3
MAX_LEAD = 64
MAX_RATIO = 1.5


class SessionAffinity(Router):
    """All turns of a conversation to one server: where the fewest unanswered requests were when it began.

    A request without a session goes to the server that has the fewest.
    """

    def prepare(self) -> None:
        """No conversation has a server yet."""
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
    """To the server that was sent the longest beginning of the prompt before, if it is long and the load is even.

    Else, and among equals, to the server with the fewest unanswered requests for its weight. The router knows which
    prompts it has sent where (by their `hash_ids`), not what a server's cache has since lost.

    Parameters
    ----------
    min_match : float
        Share of the prompt's blocks that must be known for the beginning to count.
    max_lead : int
        The load is uneven if the busiest server has more than so many unanswered requests more than the idlest ...
    max_ratio : float
        ... and more than so many times as many.

    Notes
    -----
    The rule and its defaults are those of SGLang's cache-aware router; without them a prompt that all requests begin
    with would send all requests to one server.
    """

    min_match: Annotated[float, Field(ge=0, le=1)] = MIN_MATCH
    max_lead: NonNegativeInt = MAX_LEAD
    max_ratio: Annotated[float, Field(ge=1)] = MAX_RATIO

    def prepare(self) -> None:
        """Start with an empty tree of prefixes."""
        self._nodes: dict[tuple[int, int], int] = {}  # (parent, hash id): node; the root is 0
        self._servers_of = [0]  # of each node, the servers that were sent this prefix, a bit each

    def choose(self, request: Request) -> int:
        """Return the server that knows the beginning, and remember that it now knows all of the prompt."""
        index = self.least()
        if request.hash_ids:
            known, servers = self._longest(request.hash_ids)
            if known and known >= self.min_match * len(request.hash_ids) and self._is_even():
                index = min(_bits(servers), key=self.loads.__getitem__)
            self._remember(request.hash_ids, index)
        return index

    def _longest(self, hash_ids: tuple[int, ...]) -> tuple[int, int]:
        """How many blocks at the beginning some server was sent before, and which servers."""
        node, servers = 0, 0
        for known, hash_id in enumerate(hash_ids):
            child = self._nodes.get((node, hash_id))
            if child is None:
                return known, servers
            node, servers = child, self._servers_of[child]
        return len(hash_ids), servers

    def _remember(self, hash_ids: tuple[int, ...], index: int) -> None:
        node = 0
        for hash_id in hash_ids:
            child = self._nodes.setdefault((node, hash_id), len(self._servers_of))
            if child == len(self._servers_of):
                self._servers_of.append(0)
            self._servers_of[child] |= 1 << index
            node = child

    def _is_even(self) -> bool:
        most, fewest = max(self.outstanding), min(self.outstanding)
        return most - fewest <= self.max_lead or most <= self.max_ratio * fewest


def _bits(mask: int) -> list[int]:
    """Places of the ones in a number.

    Examples
    --------
    >>> _bits(0b1101)
    [0, 2, 3]
    """
    return [place for place in range(mask.bit_length()) if mask >> place & 1]
