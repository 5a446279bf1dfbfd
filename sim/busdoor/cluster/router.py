"""A router: it takes the requests of all clients and sends each to one of several servers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from busdoor.core.arrays import Integers
from busdoor.core.request import Request
from busdoor.simulator.server import Server
from busdoor_workloads import Trace


class Router(ABC):
    """Send every request to a server, and know what each of them still has to answer.

    Write your own by subclassing and implementing `choose`; what it is constructed with are its
    settings, and `prepare` is the place for what depends on the servers. One router serves one run.

    Attributes
    ----------
    servers : sequence of Server
        Where it sends to.
    weights : sequence of float
        Their shares of the load.
    seed : int
        Of its random streams, for a router that draws.
    outstanding, outstanding_tokens : list of int
        Requests sent to each server that have not left it, and their tokens (prompt, and the cap of
        the answer, or its length where the client gave no cap).
    loads : list of float
        Outstanding requests of each server over its weight, if one more joined it.

    Examples
    --------
    >>> class Shortest(Router):                     # short prompts to server 0, the others to server 1
    ...     def choose(self, request):
    ...         return int(request.input_tokens > 100)
    >>> import simpy
    >>> from busdoor.kv.paged import PagedKV
    >>> from busdoor.policies import VllmPolicy
    >>> from busdoor.step_time import LinearStepTime
    >>> env = simpy.Environment()
    >>> policies = [VllmPolicy(PagedKV(64, 16), 4, 512, 512) for _ in range(2)]
    >>> router = Shortest()
    >>> router.connect([Server(env, policy, LinearStepTime(base_s=0.01)) for policy in policies])
    >>> router.submit(Request(0, 0.0, input_tokens=200, output_tokens=5))
    >>> router.outstanding, router.outstanding_tokens
    ([0, 1], [0, 205])
    >>> env.run()
    >>> router.outstanding
    [0, 0]
    """

    servers: Sequence[Server]
    weights: Sequence[float]
    seed: int
    outstanding: list[int]
    outstanding_tokens: list[int]
    loads: list[float]

    def connect(
        self,
        servers: Sequence[Server],
        *,
        weights: Sequence[float] | None = None,
        seed: int = 0,
        first_replica: int = 0,
        on_leave: Callable[[Request], None] | None = None,
    ) -> None:
        """Connect the servers, before any request comes.

        Parameters
        ----------
        servers : sequence of Server
            Of one environment; their `on_leave` becomes the router's.
        weights : sequence of float, optional
            Shares of the load; equal unless given.
        seed : int
            Of its random streams.
        first_replica : int
            Number of the first server, where the cluster has others beside these.
        on_leave : callable, optional
            Called with every request that leaves a server.
        """
        self.servers = servers
        self.weights = list(weights or [1.0] * len(servers))
        self.seed = seed
        self.outstanding = [0] * len(servers)
        self.outstanding_tokens = [0] * len(servers)
        self.loads = [1 / weight for weight in self.weights]
        self._first_replica = first_replica
        self._on_leave = on_leave
        for server in servers:
            server.on_leave = self._left
        self.prepare()

    def prepare(self) -> None:
        """Prepare what the choice needs; `servers`, `weights` and `seed` are known."""
        return

    @abstractmethod
    def choose(self, request: Request) -> int:
        """Return the index of a request's server; called once for each, when it arrives."""

    def next_server(self) -> int | None:
        """Return the index of the server that takes the next request; None if not known."""
        return None

    def assign(self, trace: Trace) -> Integers | None:
        """Return the servers of the requests that come next; None if these depend on the servers.

        Servers whose requests are known beforehand need not run side by side.
        """
        return None

    def least(self) -> int:
        """Return the server with the fewest outstanding for its weight, the first of equals."""
        return self.loads.index(min(self.loads))

    def submit(self, request: Request) -> None:
        """Submit a request that arrives now."""
        self.servers[self.place(request)].submit(request)

    def place(self, request: Request) -> int:
        """Choose a request's server, count it as outstanding there; return the index."""
        index = self.choose(request) if len(self.servers) > 1 else 0
        if not 0 <= index < len(self.servers):
            raise ValueError(
                f"{type(self).__name__} chose server {index} of {len(self.servers)}; they count "
                f"from 0"
            )
        request.replica = self._first_replica + index
        self._count(index, 1, request)
        return index

    def deliver(self, request: Request) -> None:
        """Submit a request that has a place to its server."""
        self.server_of(request).submit(request)

    def withdraw(self, request: Request) -> None:
        """Forget a request that has a place and will not be delivered."""
        self._count(request.replica - self._first_replica, -1, request)

    def server_of(self, request: Request) -> Server:
        """Return the server that a request was sent to."""
        return self.servers[request.replica - self._first_replica]

    def abandon(self, request: Request) -> None:
        """Abandon a request whose client has gone."""
        self.server_of(request).abandon(request)

    def expect(self, arrival_s: float) -> None:
        """Note when the next request may arrive; passed to the server that gets it, if known.

        A server ends its stretch where an arrival is expected; if all of them did, each would cost
        what all cost.
        """
        index = self.next_server() if len(self.servers) > 1 else 0
        if index is not None:
            self.servers[index].expect(arrival_s)

    def close(self) -> None:
        """Close: no request will arrive any more."""
        for server in self.servers:
            server.close()

    def _left(self, request: Request) -> None:
        self._count(request.replica - self._first_replica, -1, request)
        if self._on_leave:
            self._on_leave(request)

    def _count(self, index: int, change: int, request: Request) -> None:
        self.outstanding[index] += change
        self.outstanding_tokens[index] += change * max_tokens(request)
        self.loads[index] = (self.outstanding[index] + 1) / self.weights[index]


def max_tokens(request: Request) -> int:
    """Prompt and answer as long as the client allows; the true length where it has no cap.

    >>> max_tokens(Request(0, 0.0, 100, 10)), max_tokens(Request(0, 0.0, 100, 10, max_output_tokens=50))
    (110, 150)
    """
    return request.input_tokens + (request.max_output_tokens or request.output_tokens)
