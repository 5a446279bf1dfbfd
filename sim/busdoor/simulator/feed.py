"""Clients of a trace that comes window by window, before one server or several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import simpy

from busdoor.catalog import Engine
from busdoor.core.arrays import Integers
from busdoor.core.request import Request
from busdoor.simulator.clients import EARLY, Clients, Process, Submits, front_end_s
from busdoor.simulator.replica import Replica
from busdoor.simulator.system import kv_block_size
from busdoor_workloads.windows import Window

Rows = Callable[[Window], Integers]
# By number of a request of a session: the clients that sent it, and its row with them.
Waiting = dict[int, tuple[Clients, int]]


@dataclass
class Gate:
    """Where requests enter, and which ones of a window, as rows of its trace.

    `replica` is the server's number, where it is one server and no router that notes it; `num_sent`
    counts the requests that have entered, `num_open` the windows that still send.
    """

    submits: Submits
    rows: Rows
    replica: int | None = None
    num_sent: int = 0
    num_open: int = 0
    last: bool = False

    def close_window(self) -> None:
        """Close behind a window's last request; behind the last window's, the server too."""
        self.num_open -= 1
        self.close_if_last()

    def close_if_last(self) -> None:
        """Close the server if no request will come any more."""
        if self.last and not self.num_open:
            self.submits.close()


class Feed:
    """Send the windows of a trace, each from its beginning on, so that one is held at a time.

    `replica` is one of the servers: all have its KV block size. `at_window` is called when a window
    begins, before anything of it is sent.
    """

    def __init__(
        self,
        env: simpy.Environment,
        windows: Iterable[Window],
        gates: Sequence[Gate],
        replica: Replica,
        engine: Engine | None,
        at_window: Callable[[Window], None],
    ) -> None:
        self._env, self._windows, self._gates = env, windows, gates
        self._replica, self._engine, self._at_window = replica, engine, at_window
        self._waiting: Waiting = {}
        env.process(self._send())

    def left(self, request: Request) -> None:
        """Note that a request has left its server: the next turn of its session may be sent."""
        if self._waiting and request.request_id in self._waiting:
            clients, row = self._waiting.pop(request.request_id)
            clients.answered(row)

    def _send(self) -> Process:
        last_s = 0.0  # when the last request of all reaches its server
        for window in self._windows:
            if window.start_s > self._env.now:
                yield self._env.timeout(window.start_s - self._env.now)
            self._at_window(window)
            if len(window.trace):
                delay_s = front_end_s(window.trace, self._engine)
                reach_s = window.trace.arrival_s + (0.0 if delay_s is None else delay_s)
                last_s = max(last_s, float(reach_s.max()) * (1 - EARLY))
            for gate in self._gates:
                rows = gate.rows(window)
                if len(rows):
                    trace = window.trace.select(rows)
                    size = kv_block_size(trace, self._replica)
                    clients = Clients(self._env, trace, size, self._engine)
                    gate.num_open += 1
                    waiting = None if trace.turn is None else self._waiting
                    ids = (window.first_row + rows).tolist()
                    clients.start(_OfWindow(gate, ids, clients, waiting))
        if last_s > self._env.now:
            yield self._env.timeout(last_s - self._env.now)
        for gate in self._gates:
            gate.last = True
            gate.close_if_last()


class _OfWindow:
    """A gate as a window's clients see it: their rows become those of the whole trace."""

    def __init__(
        self, gate: Gate, ids: list[int], clients: Clients, waiting: Waiting | None
    ) -> None:
        self._gate, self._ids, self._replica = gate, ids, gate.replica
        self._clients, self._waiting, self._submits = clients, waiting, gate.submits
        self.abandon, self.expect = gate.submits.abandon, gate.submits.expect

    def submit(self, request: Request) -> None:
        """Submit a request that arrives now, under its number in the whole trace."""
        row = request.request_id
        request.request_id = self._ids[row]
        if self._waiting is not None:
            self._waiting[request.request_id] = self._clients, row
        if self._replica is not None:
            request.replica = self._replica
        self._gate.num_sent += 1
        self._submits.submit(request)

    def close(self) -> None:
        """Note that the window has no request any more."""
        self._gate.close_window()


def every_row(window: Window) -> Integers:
    """Return all rows of a window."""
    return np.arange(len(window.trace))
