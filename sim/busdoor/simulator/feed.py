"""Clients of a trace that comes window by window, before one server or several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import simpy

from busdoor.catalog import Engine
from busdoor.core.arrays import Integers
from busdoor.core.request import Request
from busdoor.simulator.clients import EARLY, Clients, Submits, front_end_s
from busdoor.simulator.replica import Replica
from busdoor.simulator.system import kv_block_size
from busdoor_workloads.windows import Window

Rows = Callable[[Window], Integers]


@dataclass
class Gate:
    """Where requests enter: a server or a router, in its environment.

    `rows` picks the requests of a window that enter here, as rows of its trace; `replica` is one of
    the servers, all of which have its KV block size; `number` is the server's, unless a router
    notes it.
    """

    env: simpy.Environment
    submits: Submits
    rows: Rows
    replica: Replica
    engine: Engine | None = None
    number: int | None = None
    num_sent: int = 0
    _num_open: int = 0  # windows that still send
    _last: bool = False
    # By number of a request of a session: the clients that sent it, and its row with them.
    _waiting: dict[int, tuple[Clients, int]] = field(default_factory=dict)

    def open(self, window: Window) -> None:
        """Start to send a window, at its beginning."""
        rows = self.rows(window)
        if len(rows):
            trace = window.trace.select(rows)
            size = kv_block_size(trace, self.replica)
            clients = Clients(self.env, trace, size, self.engine)
            self._num_open += 1
            ids = (window.first_row + rows).tolist()
            waiting = None if trace.turn is None else self._waiting
            clients.start(_OfWindow(self, ids, clients, waiting))

    def left(self, request: Request) -> None:
        """Note that a request has left its server: the next turn of its session may be sent."""
        if self._waiting and request.request_id in self._waiting:
            clients, row = self._waiting.pop(request.request_id)
            clients.answered(row)

    def finish(self, last_s: float) -> None:
        """Run to the end; no request but later turns comes after `last_s`."""
        if last_s > self.env.now:
            self.env.run(until=last_s)
        self._last = True
        self._close_if_last()
        self.env.run()

    def close_window(self) -> None:
        """Close behind a window's last request; behind the last window's, the server too."""
        self._num_open -= 1
        self._close_if_last()

    def _close_if_last(self) -> None:
        if self._last and not self._num_open:
            self.submits.close()


class _OfWindow:
    """A gate as a window's clients see it: their rows become those of the whole trace."""

    def __init__(
        self,
        gate: Gate,
        ids: list[int],
        clients: Clients,
        waiting: dict[int, tuple[Clients, int]] | None,
    ) -> None:
        self._gate, self._ids, self._number = gate, ids, gate.number
        self._clients, self._waiting, self._submits = clients, waiting, gate.submits
        self.abandon, self.expect = gate.submits.abandon, gate.submits.expect

    def submit(self, request: Request) -> None:
        """Submit a request that arrives now, under its number in the whole trace."""
        row = request.request_id
        request.request_id = self._ids[row]
        if self._waiting is not None:
            self._waiting[request.request_id] = self._clients, row
        if self._number is not None:
            request.replica = self._number
        self._gate.num_sent += 1
        self._submits.submit(request)

    def close(self) -> None:
        """Note that the window has no request any more."""
        self._gate.close_window()


def reach_s(window: Window, engine: Engine | None) -> float:
    """Return when the last request of a window reaches its server, by the clients' clock."""
    if not len(window.trace):
        return 0.0
    delay_s = front_end_s(window.trace, engine)
    reached_s = window.trace.arrival_s + (0.0 if delay_s is None else delay_s)
    return float(reached_s.max()) * (1 - EARLY)


def every_row(window: Window) -> Integers:
    """Return all rows of a window."""
    return np.arange(len(window.trace))


def with_last(windows: Iterable[Window]) -> Iterator[tuple[Window, bool]]:
    """Yield each window, and whether it is the last one that has a request.

    >>> from busdoor_workloads import Trace
    >>> from busdoor_workloads.windows import windows_of
    >>> trace = Trace(arrival_s=[0, 25], input_tokens=[1, 1], output_tokens=[1, 1])
    >>> [(window.start_s, last) for window, last in with_last(windows_of(trace, window_s=10))]
    [(0.0, False), (10.0, False), (20.0, True)]
    """
    held: list[Window] = []
    for window in windows:
        if len(window.trace):
            yield from ((one, False) for one in held)
            held = []
        held.append(window)
    yield from ((one, True) for one in held[:1])
