"""One run of a cluster: a trace, replicas and a router in; a result out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from busdoor.catalog import Engine
from busdoor.cluster.load import cluster_load
from busdoor.cluster.registry import as_router, router_name
from busdoor.cluster.router import Router
from busdoor.cluster.streamed import is_independent
from busdoor.results.result import Result
from busdoor.simulator.apart import sends_in_order, start_apart
from busdoor.simulator.clients import Clients
from busdoor.simulator.describe import describe_run
from busdoor.simulator.replica import Replica, check_replicas
from busdoor.simulator.system import Entry, Progress, System, run_system, settled_lookahead
from busdoor_workloads import Trace


def simulate_cluster(
    trace: Trace,
    replicas: Sequence[Replica],
    router: str | Mapping[str, Any] | Router = "least_outstanding",
    *,
    seed: int = 0,
    lookahead: int | None = None,
    engine: Engine | None = None,
    step_by_step: bool = False,
    iterations: bool = True,
    meta: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run a trace through replicas behind a router until every request has left.

    Parameters
    ----------
    trace : Trace
        Which requests arrive when.
    replicas : sequence of Replica
        The servers; they may differ in policy, memory, step time and weight.
    router : str, mapping or Router
        A name of `ROUTERS`, the import path of your own, a table with such a `name` and fields, or
        a fresh router.
    seed : int
        Of routers that draw.
    lookahead, engine, step_by_step, iterations, meta, progress
        As in `busdoor.simulator.simulate.simulate`.

    Returns
    -------
    Result
        Its tables say in `replica` which server it was, and slots are numbered on each server;
        `meta["replicas"]` says what each one was. A batch in the summary is one server's; use of
        slots and memory is that of the whole.

    Raises
    ------
    Interrupted
        A KeyboardInterrupt that carries what was done until then.
    ValueError
        If replicas share what each needs for itself, or the router is unknown.

    Examples
    --------
    Two servers, one slot each, an iteration per second: the third request follows the first, which
    is done sooner.

    >>> from busdoor.kv.paged import PagedKV
    >>> from busdoor.policies import VllmPolicy
    >>> from busdoor.step_time import LinearStepTime
    >>> trace = Trace(arrival_s=[0, 0, 5], input_tokens=[8, 8, 8], output_tokens=[4, 9, 4])
    >>> replicas = [Replica(VllmPolicy(PagedKV(100, 16), 1, 64, 512), LinearStepTime(base_s=1.0)) for _ in range(2)]
    >>> simulate_cluster(trace, replicas).requests[["replica", "finish_s"]].round(9).values.tolist()
    [[0.0, 4.0], [1.0, 9.0], [0.0, 9.0]]
    """
    check_replicas(replicas, trace)
    ahead = settled_lookahead(lookahead, [replica.policy for replica in replicas])
    chosen, weights = as_router(router), [replica.weight for replica in replicas]
    several = len(replicas) > 1
    apart = several and is_independent(chosen, len(replicas)) and sends_in_order(trace)

    def connect(system: System) -> Entry:
        chosen.connect(system.servers, weights=weights, seed=seed, on_leave=system.on_leave)
        return Entry(lambda clients: start(clients, system), system.recorders)

    def start(clients: Clients, system: System) -> None:
        if not apart:
            return clients.start(chosen)
        hints = chosen.next_server() is not None
        return start_apart(clients, system.servers, chosen.assign, system.on_leave, hints)

    return run_system(
        trace,
        replicas,
        connect,
        describe_cluster(trace, replicas, ahead)
        | {"router": router_name(router), "router_seed": seed},
        lambda sent: cluster_load(sent, replicas),
        meta,
        lookahead=ahead,
        engine=engine,
        step_by_step=step_by_step,
        iterations=iterations,
        progress=progress,
        apart=apart,
    )


def describe_cluster(
    trace: Trace, replicas: Sequence[Replica], lookahead: int, roles: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return what ran, as a result's meta.json keeps it.

    `num_slots` and `num_blocks` are sums over the replicas; `replicas` says what each one was. Of
    policy, step time, block size and the longest request it says the first replica's, but the names
    of all policies.
    """
    runs = [
        describe_run(trace, replica.policy, replica.step_time, lookahead) for replica in replicas
    ]
    own = (
        "policy",
        "streams",
        "whole_batch",
        "num_slots",
        "num_blocks",
        "block_size",
        "max_model_len",
        "step_time",
    )
    parts = [
        {key: run[key] for key in own} | {"weight": replica.weight, **replica.about}
        for run, replica in zip(runs, replicas, strict=True)
    ]
    for part, role in zip(parts, roles or [], strict=False):
        part["role"] = role
    return runs[0] | {
        "policy": " + ".join(dict.fromkeys(run["policy"] for run in runs)),
        "streams": all(run["streams"] for run in runs),
        "whole_batch": all(run["whole_batch"] for run in runs),
        "num_slots": sum(run["num_slots"] for run in runs),
        "num_blocks": sum(run["num_blocks"] for run in runs),
        "num_replicas": len(replicas),
        "replicas": parts,
    }
