"""The one way to run a trace: clients, servers, recorders, from first arrival to end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from time import monotonic
from typing import Any

import pandas as pd
import simpy

from busdoor.catalog import Engine
from busdoor.core.request import Request
from busdoor.policies.base import Policy
from busdoor.policies.offered_load import accepted
from busdoor.results.result import Result
from busdoor.simulator.clients import Clients
from busdoor.simulator.describe import mean_utilisation
from busdoor.simulator.recorder import TableRecorder
from busdoor.simulator.replica import Replica
from busdoor.simulator.server import Server
from busdoor.simulator.standstill import check_all_left
from busdoor_workloads import Trace, given
from busdoor_workloads.collector import seldom_collected
from busdoor_workloads.memory_check import check_memory

Progress = Callable[[int, int], None]
OnLeave = Callable[[Request], None]
REQUEST_BYTES = 300  # of a run without iterations, tables included: measured 306
# Requests between two reports, or seconds where these are slow: seldom enough to cost no time.
_PROGRESS_EVERY, _PROGRESS_EVERY_S = 1000, 0.5


class Interrupted(KeyboardInterrupt):
    """A stopped run; `result` has what was done, and the rest with status "unfinished"."""

    def __init__(self, result: Result) -> None:
        super().__init__(
            f"stopped after {(result.requests['status'] != 'unfinished').sum()} requests"
        )
        self.result = replace(result, meta={**result.meta, "complete": False})


@dataclass(frozen=True)
class System:
    """Servers that are not connected yet, each with its recorder.

    `on_leave` is to be called for every request that leaves the system; `env` is the servers', or
    the first one's of those that run apart.
    """

    env: simpy.Environment
    servers: Sequence[Server]
    recorders: Sequence[TableRecorder]
    on_leave: OnLeave


@dataclass(frozen=True)
class Entry:
    """How clients start to send to a system of servers, and the recorders of their ends, each once.

    `extended` adds the columns that only this system has to the table of requests.
    """

    start: Callable[[Clients], None]
    recorders: Sequence[TableRecorder]
    extended: Callable[[pd.DataFrame], pd.DataFrame] | None = None


def run_system(
    trace: Trace,
    replicas: Sequence[Replica],
    connect: Callable[[System], Entry],
    described: Mapping[str, Any],
    offered_load: Callable[[Trace], float],
    meta: Mapping[str, Any] | None,
    *,
    lookahead: int = 0,
    engine: Engine | None = None,
    step_by_step: bool = False,
    iterations: bool = True,
    progress: Progress | None = None,
    apart: bool = False,
) -> Result:
    """Run a trace through servers until every request has left.

    `connect` connects the servers and returns how requests enter; servers that run `apart` have an
    environment each, and run one after another: their memory stays in the processor's caches, where
    that of servers that take turns displaces each other's. `described` is what is known
    before the run; `offered_load` computes the load from the trace without its refused requests;
    `meta` replaces keys of the same name. The rest is as in `busdoor.simulator.simulate.simulate`.

    Raises Interrupted, a KeyboardInterrupt that carries what was done until then; and ValueError if
    requests of the trace have not left when nothing happens any more, or meta or progress is of a
    wrong kind.
    """
    own = given.table("meta", {} if meta is None else meta)
    progress = given.function("progress", progress)
    envs = [simpy.Environment() for _ in (replicas if apart else [0])]
    clients = Clients(envs[0], trace, kv_block_size(trace, replicas[0]), engine)
    recorders = [
        TableRecorder(replica.policy, iterations, number) for number, replica in enumerate(replicas)
    ]
    servers = [
        Server(
            env,
            one.policy,
            one.step_time,
            lookahead=lookahead,
            step_by_step=step_by_step,
            recorder=recorder,
        )
        for env, one, recorder in zip(cycle(envs), replicas, recorders, strict=False)
    ]
    on_leave = _reporting(clients.left, len(trace), progress)
    entry = connect(System(envs[0], servers, recorders, on_leave))
    entry.start(clients)

    def result() -> Result:
        tables = [recorder.iterations() for recorder in recorders]
        requests = _joined([recorder.requests() for recorder in entry.recorders], ["request_id"])
        host = {} if engine is None else {"engine": engine.title}
        noted = {**described, **host, "offered_load": offered_load(accepted(trace, requests))}
        return Result(
            requests=entry.extended(requests) if entry.extended else requests,
            iterations=_joined(tables, ["start_s"]),
            stays=_joined([recorder.stays() for recorder in recorders], ["enter_s", "request_id"]),
            meta=noted | mean_utilisation(replicas, tables) | own,
        )

    names = dict.fromkeys(type(replica.policy).__name__ for replica in replicas)
    return run_to_end(envs, trace, entry.recorders, result, " + ".join(names))


def settled_lookahead(given: int | None, policies: Iterable[Policy]) -> int:
    """Return the lookahead that was given, else 1 if any of the policies has it, else 0.

    Raises ValueError if what was given is neither 0 nor 1.

    >>> from busdoor.kv.config import KVConfig
    >>> from busdoor.policies import policy_config
    >>> memory = KVConfig(num_blocks=100, max_model_len=512)
    >>> static, vllm = (policy_config(name).build(memory) for name in ("static", "vllm"))
    >>> settled_lookahead(None, [static]), settled_lookahead(None, [static, vllm]), settled_lookahead(0, [vllm])
    (0, 1, 0)
    """
    if given is None:
        return max(policy.lookahead for policy in policies)
    if given not in (0, 1) or isinstance(given, bool):
        raise ValueError(f"lookahead is {given!r}; it must be 0 or 1")
    return given


def run_to_end(
    envs: Sequence[simpy.Environment],
    trace: Trace,
    recorders: Sequence[TableRecorder],
    result: Callable[[], Result],
    policy_name: str,
) -> Result:
    """Run until nothing happens any more, and return the result; raises as `run_system`.

    The recorders record every request once; one that none has when a run is stopped is recorded by
    the first. `policy_name` is what an error names.
    """
    check_memory(len(trace) * REQUEST_BYTES, f"a run of {len(trace):,} requests")
    try:
        with seldom_collected():
            for env in envs:
                env.run()
    except KeyboardInterrupt:
        for recorder in recorders:
            others = (other.known() for other in recorders if other is not recorder)
            recorder.stop(trace, env.now, set().union(*others))
        raise Interrupted(result()) from None
    check_all_left(trace, recorders, policy_name)
    return result()


def kv_block_size(trace: Trace, replica: Replica) -> int:
    """Return the server's KV block size; without KV blocks, the trace's, to keep names."""
    kv = getattr(replica.policy, "kv", None)
    return int(getattr(kv, "block_size", None) or trace.block_size or 1)


def _joined(tables: Sequence[pd.DataFrame], order: Sequence[str]) -> pd.DataFrame:
    """Join tables of the same columns, sorted; a single one is in its order already."""
    if len(tables) == 1:
        return tables[0]
    filled = [table for table in tables if len(table)] or tables[:1]
    return pd.concat(filled).sort_values(list(order), kind="stable", ignore_index=True)


def _reporting(left: OnLeave, total: int, progress: Progress | None) -> OnLeave:
    """Report to `progress`, if there is one, a few times per second how many requests have left."""
    if progress is None:
        return left
    done, next_s = 0, monotonic() + _PROGRESS_EVERY_S

    def leave(request: Request) -> None:
        nonlocal done, next_s
        done += 1
        if done % _PROGRESS_EVERY == 0 or done == total or monotonic() >= next_s:
            next_s = monotonic() + _PROGRESS_EVERY_S
            progress(done, total)
        left(request)

    return leave
