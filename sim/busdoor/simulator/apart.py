"""Clients of servers that run apart: which server gets which request is known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

import numpy as np
import simpy

from busdoor.core.arrays import Floats, Integers
from busdoor.core.request import Request
from busdoor.simulator.clients import CHUNK, Clients, Process, turns
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
    for number, server in enumerate(servers):
        server.on_leave = on_leave
        own = np.flatnonzero(server_of == number)
        share = _Share(clients, server, number, now_s[-1:])
        share.start_with(rows[own], now_s[own], reach_s[own], since_s[own])


def _clock(reach_s: Floats) -> Floats:
    """Return a clock's times that waits from each of some times to the next, as SimPy's adds up."""
    now, times = 0.0, []
    for at_s in reach_s.tolist():
        if at_s > now:
            now += at_s - now
        times.append(now)
    return np.array(times)


class _Share(Clients):
    """The clients of one server, which close it when those of all have sent."""

    def __init__(self, clients: Clients, server: Server, number: int, close_s: Floats) -> None:
        self.env, self.trace = server.env, clients.trace
        self._names, self._delay_s = clients._names, clients._delay_s
        self._answered, self._to_send = {}, 0
        self._server = self._own = server
        self._number, self._close_s = number, float(close_s.max(initial=0.0))

    def start_with(self, rows: Integers, now_s: Floats, reach_s: Floats, since_s: Floats) -> None:
        """Start to send some rows, at these times; hints of `reach_s` hold from `since_s` on."""
        self._to_send = len(rows) + 1  # it does not end with its own: the server closes later
        self.env.process(self._send_apart(rows, now_s, reach_s, since_s))

    def _send_apart(
        self, rows: Integers, now_s: Floats, reach_s: Floats, since_s: Floats
    ) -> Process:
        env, server, number = self.env, self._own, self._number
        for start in range(0, len(rows), CHUNK):
            some = slice(start, start + CHUNK)
            times = (times_s[some].tolist() for times_s in (now_s, reach_s, since_s))
            for at_s, reaches_s, from_s, request in zip(
                *times, self.requests(rows[some]), strict=True
            ):
                if at_s > env.now:
                    server.expect(reaches_s, from_s)
                    yield from _until(env, at_s)
                request.replica = number
                self.send(request)
        server.expect(inf)
        if self._close_s > env.now:
            yield from _until(env, self._close_s)
        server.close()


def _until(env: simpy.Environment, time_s: float) -> Process:
    """Wait until a time, to the last digit: a difference is exact between a number and its half."""
    if time_s > 2 * env.now:
        yield env.timeout(0.75 * time_s - env.now)
    yield env.timeout(time_s - env.now)
