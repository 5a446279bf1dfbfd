"""When requests of a trace are sent: when due, after an answer, or when a user is free."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from math import isfinite

import numpy as np

from busdoor.simulator.block_names import rows_of_sessions
from busdoor_workloads import Trace

Send = Callable[[int], Awaitable[None]]
"""Sends a row of the trace, and returns when its answer has ended."""
# epoll's timeouts are whole milliseconds: sleep until so long before, then look at the clock.
_FINE_S = 0.0015
_HEARTBEAT_S = 0.05  # often enough to see a stall of the event loop that would delay a request


@dataclass
class Load:
    """What a client did, apart from the answers.

    `due_s`: when each request should have been sent, in seconds of the event loop's clock (NaN:
    never); `stalls_s`: how much later than asked the event loop woke, every 50 ms;
    `most_in_flight`: largest number of requests that were open at once.
    """

    due_s: np.ndarray
    stalls_s: list[float] = field(default_factory=list)
    most_in_flight: int = 0


async def send_all(
    trace: Trace,
    send: Send,
    *,
    start_s: float,
    load: Load,
    max_in_flight: int | None = None,
    prepare: Callable[[int], object] = int,
) -> None:
    """Send every request of a trace and wait for all the answers.

    An open loop by the trace's times; with `concurrency` a closed one; later turns of a session
    wait for the answer before and the think time. `start_s` is the trace's time 0 on the event
    loop's clock; `load` is filled, so that it is there after an interruption. With `max_in_flight`,
    a request that is due waits at the client until fewer are open. `prepare` is called with a row
    before it is due, so that what takes time is done by then.
    """
    gate = _Gate(send, load, max_in_flight)
    beat = asyncio.create_task(_heartbeat(load))
    try:
        async with asyncio.TaskGroup() as tasks:
            if trace.concurrency:
                rows = iter(range(len(trace)))
                for _ in range(min(trace.concurrency, len(trace))):
                    tasks.create_task(_converse(trace, rows, gate, start_s))
            else:
                await _send_on_time(trace, gate, start_s, tasks, prepare)
    finally:
        beat.cancel()


class _Gate:
    """Lets at most so many requests be open at once, and notes when each was due."""

    def __init__(self, send: Send, load: Load, max_in_flight: int | None) -> None:
        self._send = send
        self._load = load
        self._open = 0
        self._places = asyncio.Semaphore(max_in_flight) if max_in_flight else None

    async def send(self, row: int, due_s: float) -> None:
        self._load.due_s[row] = due_s
        if self._places:
            await self._places.acquire()
        self._open += 1
        self._load.most_in_flight = max(self._load.most_in_flight, self._open)
        try:
            await self._send(row)
        finally:
            self._open -= 1
            if self._places:
                self._places.release()


async def _send_on_time(
    trace: Trace,
    gate: _Gate,
    start_s: float,
    tasks: asyncio.TaskGroup,
    prepare: Callable[[int], object],
) -> None:
    sessions = {turns[0]: turns for turns in rows_of_sessions(trace)}
    later = {row for turns in sessions.values() for row in turns[1:]}
    for row in range(len(trace)):
        if row in later:
            continue
        due_s = start_s + float(trace.arrival_s[row])
        prepare(row)
        await sleep_until(due_s)
        turns = sessions.get(row, [row])
        first = gate.send(row, due_s)
        tasks.create_task(_converse(trace, iter(turns[1:]), gate, start_s, first))


async def _converse(
    trace: Trace,
    rows: Iterator[int],
    gate: _Gate,
    start_s: float,
    before: Awaitable[None] | None = None,
) -> None:
    """Send requests one after another, each after the answer before and its think time."""
    if before is not None:
        await before
    answered = before is not None
    for row in rows:
        think_s = 0.0 if trace.think_time_s is None else float(trace.think_time_s[row])
        now_s = asyncio.get_running_loop().time()
        due_s = now_s + (think_s if answered and isfinite(think_s) else 0.0)
        due_s = max(due_s, start_s + float(trace.arrival_s[row]))
        await sleep_until(due_s)
        await gate.send(row, due_s)
        answered = True


async def sleep_until(due_s: float) -> None:
    """Sleep until a time of the event loop's clock, within some 50 µs."""
    loop = asyncio.get_running_loop()
    coarse_s = due_s - loop.time() - _FINE_S
    if coarse_s > 0:
        await asyncio.sleep(coarse_s)
    while loop.time() < due_s:
        await asyncio.sleep(0)


async def _heartbeat(load: Load) -> None:
    """Measure how late the event loop wakes."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + _HEARTBEAT_S
        await asyncio.sleep(_HEARTBEAT_S)
        load.stalls_s.append(loop.time() - due_s)
