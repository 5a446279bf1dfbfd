"""A run of one server or several whose trace comes in windows, and whose tables go as they come."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import simpy

from busdoor.catalog import Engine
from busdoor.cluster.registry import as_router
from busdoor.cluster.router import Router
from busdoor.core.arrays import Integers
from busdoor.core.interrupt import held_back
from busdoor.simulator.feed import Gate, every_row, reach_s, with_last
from busdoor.simulator.recorder import TableRecorder
from busdoor.simulator.replica import Replica
from busdoor.simulator.server import Server
from busdoor.simulator.system import settled_lookahead
from busdoor_workloads.collector import seldom_collected
from busdoor_workloads.windows import Window

# What takes the tables of requests, iterations and stays of one server, part after part.
Sink = Callable[[pd.DataFrame, pd.DataFrame, pd.DataFrame], None]


def simulate_windows(
    windows: Iterable[Window],
    replicas: Sequence[Replica],
    sinks: Mapping[int, Sink],
    router: str | Mapping[str, Any] | Router = "round_robin",
    *,
    seed: int = 0,
    lookahead: int | None = None,
    engine: Engine | None = None,
    progress: Callable[[int], None] | None = None,
    at_window: Callable[[float], None] | None = None,
) -> float:
    """Run a trace through replicas window by window; memory holds a window and what waits.

    Where the router assigns requests without a look at the servers (round_robin, random,
    session_hash), each replica runs alone, and those without a sink are left out: they may run in
    another process.

    Parameters
    ----------
    windows : iterable of Window
        The trace.
    replicas : sequence of Replica
        All servers of the cluster.
    sinks : mapping
        By number of a replica, what takes its tables when a window ends, and after the last.
    router, seed, lookahead, engine
        As in `busdoor.cluster.simulate.simulate_cluster`.
    progress : callable, optional
        Called with the number of requests that have left, when tables have been taken.
    at_window : callable, optional
        Called with the beginning of a window; a KeyboardInterrupt that it raises stops the run.

    Returns
    -------
    float
        Infinity; or the time in the trace at which a KeyboardInterrupt stopped the run.

    Raises
    ------
    ValueError
        A policy strands requests, or the router needs all replicas and some have no sink.

    Examples
    --------
    >>> from busdoor.kv.paged import PagedKV
    >>> from busdoor.policies import VllmPolicy
    >>> from busdoor.step_time import LinearStepTime
    >>> from busdoor_workloads import Trace
    >>> from busdoor_workloads.windows import windows_of
    >>> trace = Trace(arrival_s=[0, 0, 5], input_tokens=[8, 8, 8], output_tokens=[4, 9, 4])
    >>> replicas = [Replica(VllmPolicy(PagedKV(100, 16), 1, 64, 512), LinearStepTime(base_s=1.0)) for _ in range(2)]
    >>> def show(requests, iterations, stays):
    ...     print(requests[["request_id", "finish_s"]].round(9).values.tolist())
    >>> simulate_windows(windows_of(trace, window_s=5), replicas, {0: show})
    [[0.0, 4.0]]
    [[2.0, 9.0]]
    inf
    """
    ahead = settled_lookahead(lookahead, [replica.policy for replica in replicas])
    chosen, recorders = as_router(router), {}
    apart = is_independent(chosen, len(replicas))
    env, servers = simpy.Environment(), {}
    for number in sinks:
        policy, step_time = replicas[number].policy, replicas[number].step_time
        recorders[number] = TableRecorder(policy, True, number)
        # Servers that take turns in one environment displace each other from the processor's caches.
        servers[number] = Server(
            simpy.Environment() if apart else env,
            policy,
            step_time,
            lookahead=ahead,
            recorder=recorders[number],
        )
    gates = _gates(chosen, replicas, servers, seed, engine)
    num_left, last_s = 0, 0.0

    def drain(numbers: Iterable[int]) -> None:
        nonlocal num_left
        with held_back():
            for number in numbers:
                requests, iterations, stays = recorders[number].take()
                num_left += len(requests)
                sinks[number](requests, iterations, stays)
        if progress is not None:
            progress(num_left)

    try:
        with seldom_collected():
            for window, last in with_last(windows):
                if at_window is not None:
                    at_window(window.start_s)
                last_s = max(last_s, reach_s(window, engine))
                for gate in gates:
                    gate.open(window)
                    if last:
                        gate.finish(last_s)
                    else:
                        gate.env.run(until=window.end_s)
                    drain(sinks if gate.number is None else [gate.number])
                gc.collect()  # a window's clients and processes refer to each other: 67 B a request
    except KeyboardInterrupt:
        drain(sinks)
        return float(min(gate.env.now for gate in gates))
    _check_all_left(sum(gate.num_sent for gate in gates), num_left, replicas)
    return float("inf")


def is_independent(router: str | Mapping[str, Any] | Router, num_replicas: int) -> bool:
    """Return whether a router assigns requests without a look at its servers.

    >>> is_independent("round_robin", 8), is_independent("least_outstanding", 8)
    (True, False)
    """
    chosen = as_router(router)
    return num_replicas == 1 or type(chosen).assign is not Router.assign


def _gates(
    router: Router,
    replicas: Sequence[Replica],
    servers: Mapping[int, Server],
    seed: int,
    engine: Engine | None,
) -> list[Gate]:
    """Return one gate per server where requests have their servers beforehand, else a router's."""
    weights = [replica.weight for replica in replicas]
    if is_independent(router, len(replicas)):
        router.connect([], weights=weights, seed=seed)
        shares, gates = _Shares(router), []
        for number, server in servers.items():
            rows = shares.of(number) if len(replicas) > 1 else every_row
            gates.append(Gate(server.env, server, rows, replicas[number], engine, number))
            server.on_leave = gates[-1].left
        return gates
    if len(servers) < len(replicas):
        raise ValueError(
            f"{type(router).__name__} looks at all {len(replicas)} servers, so that they run in one "
            f"process"
        )
    gate = Gate(servers[0].env, router, every_row, replicas[0], engine)
    ordered = [servers[number] for number in range(len(replicas))]
    router.connect(ordered, weights=weights, seed=seed, on_leave=gate.left)
    return [gate]


class _Shares:
    """Each server's rows of a window, of which a router assigns all at once."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._window: Window | None = None
        self._servers: Integers | None = None

    def of(self, number: int) -> Callable[[Window], Integers]:
        """Return what picks a server's rows."""

        def rows(window: Window) -> Integers:
            if window is not self._window:
                self._window, self._servers = window, self._router.assign(window.trace)
            return np.flatnonzero(self._servers == number)

        return rows


def _check_all_left(num_sent: int, num_left: int, replicas: Sequence[Replica]) -> None:
    """Raise ValueError if requests were sent that have not left."""
    if num_left != num_sent:
        names = " + ".join(dict.fromkeys(type(replica.policy).__name__ for replica in replicas))
        raise ValueError(
            f"{names} schedules nothing more, but {num_sent - num_left} of {num_sent} requests have "
            f"not left; a policy has to run or refuse every request"
        )
