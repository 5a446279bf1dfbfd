"""Clients of servers that run apart: which server gets which request is known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

import numpy as np

from busdoor.core.arrays import Floats, Integers
from busdoor.core.request import Request
from busdoor.simulator.clients import Clients, turns
from busdoor.simulator.server import Server
from busdoor_workloads import Trace


def sends_in_order(trace: Trace) -> bool:
    """Return whether no request waits for an answer to another."""
    return not trace.concurrency and not turns(trace)[1]


def start_apart(
    clients: Clients,
    servers: Sequence[Server],
    assign: Callable[[Trace], Integers | None],
    on_leave: Callable[[Request], None],
    hints: bool,
) -> None:
    """Start to send each server, in an environment of its own, what `assign` gives it.

    All happens at the times at which it does where one client sends to all: a server is `hints`
    told of its next request when the one before it, of any server, arrives; and all close when the
    last of all has arrived.
    """
    rows = clients.in_order(np.arange(len(clients.trace)))
    server_of = assign(clients.trace.select(rows))
    assert server_of is not None
    reach_s = np.fromiter(clients.reach_s(rows), np.float64, len(rows))
    now_s = _clock(reach_s)
    since_s = np.concatenate(([-inf], now_s[:-1])) if hints else np.full(len(rows), inf)
    close_s = float(now_s.max(initial=0.0))
    for number, server in enumerate(servers):
        server.on_leave = on_leave
        own = np.flatnonzero(server_of == number)
        times_s = now_s[own], reach_s[own], since_s[own]
        clients.apart(server.env).start_apart(server, number, rows[own], times_s, close_s)


def _clock(reach_s: Floats) -> Floats:
    """Return a clock's times that waits from each of some times to the next, as SimPy's adds up."""
    now, times = 0.0, []
    for at_s in reach_s.tolist():
        if at_s > now:
            now += at_s - now
        times.append(now)
    return np.array(times)
