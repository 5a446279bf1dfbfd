"""One run of a cluster: a trace, replicas and a router in; a result out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import simpy

from busdoor.cluster.assemble import describe_cluster, join_tables, mean_utilisation, policy_names, start_servers
from busdoor.cluster.load import cluster_load
from busdoor.cluster.registry import as_router, router_name
from busdoor.cluster.replica import Replica, check_replicas
from busdoor.cluster.router import Router
from busdoor.policies.offered_load import accepted
from busdoor.results.result import Result
from busdoor.simulator.clients import Clients
from busdoor.simulator.simulate import Progress, reporting, run_to_end
from busdoor_workloads import Trace


def simulate_cluster(
    trace: Trace,
    replicas: Sequence[Replica],
    router: str | Mapping[str, Any] | Router = "least_outstanding",
    *,
    seed: int = 0,
    lookahead: int = 0,
    step_by_step: bool = False,
    iterations: bool = True,
    meta: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run a trace through replicas behind a router until every request has left.

    Parameters
    ----------
    trace : Trace
        Who arrives when.
    replicas : sequence of Replica
        The servers; they may differ in policy, memory, step time and weight.
    router : str, mapping or Router
        A name of `ROUTERS`, the import path of your own, a table with such a `name` and fields, or a fresh router.
    seed : int
        Of routers that draw.
    lookahead, step_by_step, iterations, meta, progress
        As in `busdoor.simulator.simulate.simulate`.

    Returns
    -------
    Result
        Its tables say in `replica` which server it was, and slots are numbered on each server; `meta["replicas"]` says
        what each one was. A batch in the summary is one server's; use of slots and memory is that of the whole.

    Raises
    ------
    Interrupted
        A KeyboardInterrupt that carries what was done until then.
    ValueError
        If replicas share what each needs for itself, or the router is unknown.

    Examples
    --------
    Two servers, one slot each, an iteration a second: the third request follows the first, who is done sooner.

    >>> from busdoor.kv.paged import PagedKV
    >>> from busdoor.policies import VllmPolicy
    >>> from busdoor.step_time import LinearStepTime
    >>> trace = Trace(arrival_s=[0, 0, 5], input_tokens=[8, 8, 8], output_tokens=[4, 9, 4])
    >>> replicas = [Replica(VllmPolicy(PagedKV(100, 16), 1, 64, 512), LinearStepTime(base_s=1.0)) for _ in range(2)]
    >>> simulate_cluster(trace, replicas).requests[["replica", "finish_s"]].round(9).values.tolist()
    [[0.0, 4.0], [1.0, 9.0], [0.0, 9.0]]
    """
    check_replicas(replicas, trace)
    chosen, name = as_router(router), router_name(router)
    env = simpy.Environment()
    clients = Clients(env, trace, replicas[0].block_size)
    servers, recorders = start_servers(env, replicas, lookahead, step_by_step, iterations)
    weights = [replica.weight for replica in replicas]
    chosen.connect(servers, weights=weights, seed=seed, on_leave=reporting(clients.left, len(trace), progress))
    clients.start(chosen)
    noted = {"router": name, "router_seed": seed}

    def result() -> Result:
        tables = [recorder.iterations() for recorder in recorders]
        described = describe_cluster(trace, replicas, lookahead) | mean_utilisation(replicas, tables)
        requests = join_tables([recorder.requests() for recorder in recorders], ["request_id"])
        described["offered_load"] = cluster_load(accepted(trace, requests), replicas)
        return Result(
            requests=requests,
            iterations=join_tables(tables, ["start_s"]),
            stays=join_tables([recorder.stays() for recorder in recorders], ["enter_s", "request_id"]),
            meta=described | noted | dict(meta or {}),
        )

    return run_to_end(env, trace, recorders, result, policy_names(replicas))
