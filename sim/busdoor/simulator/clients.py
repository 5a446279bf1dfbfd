"""Clients as SimPy processes: they send a trace's requests on time or after the answer."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from itertools import repeat
from math import inf, isfinite
from typing import Any, Protocol

import numpy as np
import simpy

from busdoor.catalog import Engine
from busdoor.core.arrays import Floats, Integers
from busdoor.core.compiled import mypyc_attr
from busdoor.core.request import Request
from busdoor.simulator.block_names import BlockNames, rows_of_sessions
from busdoor.simulator.server import Server
from busdoor_workloads import Trace

Process = Generator[simpy.Event, Any, None]
# An arrival so little (relatively) after an iteration's end counts as before it: rounding cannot
# change a batch.
EARLY = 1e-12
_CHUNK = 16384  # rows turned into Python numbers at a time: memory stays small for long traces


class Submits(Protocol):
    """What takes requests: a server, or a router before several."""

    def submit(self, request: Request) -> None:
        """Submit a request that arrives now."""

    def abandon(self, request: Request) -> None:
        """Abandon a request whose client has gone."""

    def expect(self, arrival_s: float) -> None:
        """Note when the next request may arrive, if known; a hint that may be ignored."""

    def close(self) -> None:
        """Close: no request will arrive any more."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Clients:
    """Send every request of a trace to a server.

    A plain request is sent at its `arrival_s`. In a closed loop (`trace.concurrency`) each of so
    many users sends the next one when its last has been answered and the think time has passed. A
    later turn of a session is sent so after the turn before it. A client with a timeout gives up.

    The trace's `hash_ids` are expressed in the server's KV blocks. Each request passes the front
    end of `engine` before it reaches the server; none, and no time, unless given. Call
    `start(server)`, and make the server call `left` for every request that leaves it.
    """

    def __init__(
        self,
        env: simpy.Environment,
        trace: Trace,
        kv_block_size: int = 16,
        engine: Engine | None = None,
        names: BlockNames | None = None,
    ) -> None:
        self.env = env
        self.trace = trace
        self._names = BlockNames(trace, kv_block_size) if names is None else names
        self._answered: dict[int, simpy.Event] = {}
        self._delay_s = front_end_s(trace, engine)
        self._to_send = len(trace)
        self._server: Submits | None = None

    def start(self, server: Submits) -> None:
        """Start to send."""
        self._server = server
        if self._to_send == 0:
            server.close()
        elif self.trace.concurrency:
            line = iter(range(len(self.trace)))
            for _ in range(self.trace.concurrency):
                self.env.process(self._converse(line))
        else:
            first_turns, later_turns = turns(self.trace)
            for rows in later_turns:
                self._answered[rows[0]] = self.env.event()
                self.env.process(self._converse(iter(rows[1:]), self._answered[rows[0]]))
            self.env.process(self._send_on_time(self.in_order(first_turns)))

    def apart(self, env: simpy.Environment) -> Clients:
        """Return clients of the same trace in another environment."""
        other = Clients(env, self.trace, names=self._names)
        other._delay_s = self._delay_s
        return other

    def start_apart(
        self, server: Server, number: int, rows: Integers, times_s: Sequence[Floats], close_s: float
    ) -> None:
        """Start to send some rows to a server, which closes at `close_s`.

        `times_s` are when each is sent, when it may arrive, and since when that is known.
        """
        self._server = server
        # the last does not close the server: others have still to send
        self._to_send = len(rows) + 1
        self.env.process(self._send_apart(server, number, rows, times_s, close_s))

    def left(self, request: Request) -> None:
        """Note that a request has left the server."""
        if self._answered:
            self.answered(request.request_id)

    def answered(self, row: int) -> None:
        """Note that a row's request has left, after which another may be sent."""
        event = self._answered.pop(row, None)
        if event is not None:
            event.succeed()

    def in_order(self, rows: np.ndarray) -> np.ndarray:
        """Return rows in the order in which the front end passes them on."""
        if self._delay_s is None:
            return rows
        return rows[np.argsort(self.trace.arrival_s[rows] + self._delay_s[rows], kind="stable")]

    def reach_s(self, rows: np.ndarray) -> Iterator[float]:
        """Return when rows have passed the front end, a rounding error early, never late."""
        sent_s = self.trace.arrival_s[rows]
        passed_s = sent_s if self._delay_s is None else sent_s + self._delay_s[rows]
        return iter((passed_s * (1 - EARLY)).tolist())

    def _front_end_s(self, row: int) -> float:
        return 0.0 if self._delay_s is None else float(self._delay_s[row])

    def _send_on_time(self, rows: np.ndarray) -> Process:
        env, server = self.env, self._server
        assert server is not None
        for start in range(0, len(rows), _CHUNK):
            some = rows[start : start + _CHUNK]
            for reaches_s, request in zip(self.reach_s(some), self._requests(some), strict=True):
                if reaches_s > (now := env.now):
                    server.expect(reaches_s)
                    yield env.timeout(reaches_s - now)
                self._send(request)
        server.expect(inf)

    def _send_apart(
        self, server: Server, number: int, rows: Integers, times_s: Sequence[Floats], close_s: float
    ) -> Process:
        env = self.env
        for start in range(0, len(rows), _CHUNK):
            some = slice(start, start + _CHUNK)
            times = (column[some].tolist() for column in times_s)
            for at_s, reaches_s, since_s, request in zip(
                *times, self._requests(rows[some]), strict=True
            ):
                if at_s > env.now:
                    server.expect(reaches_s, since_s)
                    yield from _until(env, at_s)
                request.replica = number
                self._send(request)
        server.expect(inf)
        if close_s > env.now:
            yield from _until(env, close_s)
        server.close()

    def _converse(self, rows: Iterator[int], answer: simpy.Event | None = None) -> Process:
        """Send requests one after another, each after the answer to the one before."""
        env = self.env
        while True:
            if answer is not None:
                yield answer
            row = next(rows, None)  # not before the answer: users of a closed loop share the line
            if row is None:
                return
            (request,) = self._requests(np.array([row]))
            think_s = (
                0.0
                if self.trace.think_time_s is None
                else float(np.nan_to_num(self.trace.think_time_s[row]))
            )
            request.arrival_s = max(
                env.now + (think_s if answer is not None else 0.0), request.arrival_s
            )
            reaches_s = (request.arrival_s + self._front_end_s(row)) * (1 - EARLY)
            wait_s = reaches_s - env.now
            if wait_s > 0:
                yield env.timeout(wait_s)
            answer = self._answered[row] = env.event()
            self._send(request)

    def _send(self, request: Request) -> None:
        """Send a request that arrives now; its client may give up."""
        assert self._server is not None
        if self.trace.timeout_s is not None:
            patience_s = float(self.trace.timeout_s[request.request_id])
            if isfinite(patience_s):
                left_s = max(0.0, patience_s - self._front_end_s(request.request_id))
                self.env.process(self._give_up(request, left_s))
        self._to_send -= 1
        self._server.submit(request)
        if not self._to_send:
            self._server.close()

    def _give_up(self, request: Request, patience_s: float) -> Process:
        assert self._server is not None
        yield self.env.timeout(patience_s)
        if request.status in ("waiting", "running"):
            self._server.abandon(request)

    def _requests(self, rows: np.ndarray) -> Iterator[Request]:
        """Make the requests of some rows; their numbers leave numpy a column at a time."""
        trace, names, ids = self.trace, self._names, rows.tolist()
        requests = map(
            Request,
            ids,
            trace.arrival_s[rows].tolist(),
            trace.input_tokens[rows].tolist(),
            trace.output_tokens[rows].tolist(),
            _column(trace.max_output_tokens, rows, 0),
            _column(trace.priority, rows, 0),
            repeat(()) if trace.hash_ids is None else map(names.hash_ids, ids),
            _column(trace.session_id, rows, -1),
        )
        return requests if trace.hash_ids is None else map(self._with_context, requests)

    def _with_context(self, request: Request) -> Request:
        request.context_ids = self._names.context_ids(request.request_id)
        return request


def _until(env: simpy.Environment, time_s: float) -> Process:
    """Wait until a time, to the last digit: a difference is exact between a number and its half."""
    if time_s > 2 * env.now:
        yield env.timeout(0.75 * time_s - env.now)
    yield env.timeout(time_s - env.now)


def _column(values: np.ndarray | None, rows: np.ndarray, default: int) -> list[int]:
    """Return a column of the trace, or a default where the trace has none."""
    return [default] * len(rows) if values is None else values[rows].tolist()


def front_end_s(trace: Trace, engine: Engine | None) -> np.ndarray | None:
    """Return the seconds that each request spends in the front end; None where that is no time."""
    if engine is None or not (engine.frontend_per_request_s or engine.frontend_per_token_s):
        return None
    return engine.frontend_per_request_s + engine.frontend_per_token_s * trace.input_tokens


def turns(trace: Trace) -> tuple[np.ndarray, list[list[int]]]:
    """Return rows that are sent on time, and the rows of each session that has later turns, in order."""
    sessions = rows_of_sessions(trace)
    if not sessions:
        return np.arange(len(trace)), []
    firsts = np.array(sorted(turns[0] for turns in sessions), dtype=np.int64)
    return firsts, [turns for turns in sessions if len(turns) > 1]
