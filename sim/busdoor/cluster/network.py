"""The network between servers: each has one link, and one transfer at a time goes over it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import simpy

from busdoor.simulator.clients import EARLY


class Links:
    """Links of senders and receivers; a transfer takes the link of either while bytes need it.

    Parameters
    ----------
    env : simpy.Environment
        Where they are.
    senders, receivers : int
        How many servers there are on either side.
    bytes_per_s : float
        Rate of every link.
    latency_s : float
        Seconds from the last byte sent to the last received; it occupies no link.

    Notes
    -----
    A sender's transfers go out in order: one that waits for its receiver holds up those behind it.

    Examples
    --------
    Two transfers of 10 bytes from the same sender, to different receivers, at 5 bytes a second:

    >>> env = simpy.Environment()
    >>> links = Links(env, senders=1, receivers=2, bytes_per_s=5.0, latency_s=0.5)
    >>> def transfer(receiver):
    ...     start_s, arrival_s = yield from links.send(10, 0, receiver)
    ...     print(start_s, arrival_s)
    >>> for receiver in range(2):
    ...     process = env.process(transfer(receiver))
    >>> env.run()
    0.0 2.5
    2.0 4.5
    """

    def __init__(
        self,
        env: simpy.Environment,
        senders: int,
        receivers: int,
        bytes_per_s: float,
        latency_s: float = 0.0,
    ) -> None:
        if not bytes_per_s > 0:
            raise ValueError(f"link_bytes_per_s is {bytes_per_s}; it must be more than 0")
        if not latency_s >= 0:
            raise ValueError(f"link_latency_s is {latency_s}; it must be 0 or more")
        self.env = env
        self.bytes_per_s = bytes_per_s
        self.latency_s = latency_s
        self._out = [_Link(env) for _ in range(senders)]
        self._in = [_Link(env) for _ in range(receivers)]

    def send(
        self, num_bytes: float, sender: int, receiver: int
    ) -> Generator[simpy.Event, Any, tuple[float, float]]:
        """Wait until the bytes are there; return when they began to flow and when the last arrived.

        It is over a rounding error early, so that what arrives at the end of an iteration is there
        for the next.
        """
        env, source, target = self.env, self._out[sender], self._in[receiver]
        ready_s = float(env.now)
        with source.resource.request() as sending:
            yield sending
            with target.resource.request() as receiving:
                yield receiving
                start_s = max(ready_s, source.free_s, target.free_s)
                end_s = source.free_s = target.free_s = start_s + num_bytes / self.bytes_per_s
                yield env.timeout(self._until(end_s))
        arrival_s = end_s + self.latency_s
        if self.latency_s:
            yield env.timeout(self._until(arrival_s))
        return start_s, arrival_s

    def _until(self, time_s: float) -> float:
        return max(0.0, time_s * (1 - EARLY) - self.env.now)


class _Link:
    """One direction of one server's link, and the exact time from which it is free."""

    def __init__(self, env: simpy.Environment) -> None:
        self.resource = simpy.Resource(env)
        self.free_s = 0.0
