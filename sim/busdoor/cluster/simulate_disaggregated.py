"""One run of a prefill pool and a decode pool: a trace in, a result out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from busdoor.catalog import Engine
from busdoor.cluster.disaggregation import Disaggregation
from busdoor.cluster.load import pools_load
from busdoor.cluster.network import Links
from busdoor.cluster.registry import as_router, router_name
from busdoor.cluster.router import Router
from busdoor.cluster.simulate import describe_cluster
from busdoor.policies.preempting import PagedPolicy
from busdoor.results.result import Result
from busdoor.simulator.recorder import TableRecorder
from busdoor.simulator.replica import Replica, check_replicas
from busdoor.simulator.system import Entry, Progress, System, run_system, settled_lookahead
from busdoor.step_time.roofline import RooflineStepTime
from busdoor_workloads import Trace

AnyRouter = str | Mapping[str, Any] | Router


def simulate_disaggregated(
    trace: Trace,
    prefill_replicas: Sequence[Replica],
    decode_replicas: Sequence[Replica],
    link_bytes_per_s: float,
    *,
    link_latency_s: float = 0.0,
    kv_bytes_per_token: float | None = None,
    prefill_router: AnyRouter = "least_outstanding",
    decode_router: AnyRouter = "least_outstanding",
    seed: int = 0,
    lookahead: int | None = None,
    engine: Engine | None = None,
    step_by_step: bool = False,
    iterations: bool = True,
    meta: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run a trace through a prefill pool and a decode pool until every request has left.

    Parameters
    ----------
    trace : Trace
        Which requests arrive when.
    prefill_replicas, decode_replicas : sequence of Replica
        The two pools. The decode pool's policies must be of the `PagedPolicy` kind (`vllm`), which
        can take in a request whose prompt is computed.
    link_bytes_per_s : float
        Bytes per second of each server's link; one transfer at a time goes over it.
    link_latency_s : float
        Seconds that a transfer takes beside its bytes; the link is free meanwhile.
    kv_bytes_per_token : float, optional
        Bytes of a token's keys and values; the model's where the first prefill replica has a
        roofline.
    prefill_router, decode_router : str, mapping or Router
        As in `simulate_cluster`. The decode server is chosen when the prompt is done.
    seed, lookahead, engine, step_by_step, iterations, meta, progress
        As in `simulate_cluster`.

    Returns
    -------
    Result
        Prefill servers are numbered first. In `requests`, `replica` is the server that ended the
        request, and there are three columns more: prefill_replica, transfer_start_s and
        transfer_end_s (NaN where no KV was sent).

    Raises
    ------
    ValueError
        For a pool, link, router or policy that cannot be used, in one sentence.

    Examples
    --------
    An iteration a second; the KV of 100 tokens takes another: tokens at 1 s, then (after its
    arrival at 2 s) at 3 s.

    >>> from busdoor.kv.paged import PagedKV
    >>> from busdoor.policies import VllmPolicy
    >>> from busdoor.step_time import LinearStepTime
    >>> def server():
    ...     return Replica(VllmPolicy(PagedKV(100, 16), 4, 512, 512), LinearStepTime(base_s=1.0))
    >>> trace = Trace(arrival_s=[0], input_tokens=[100], output_tokens=[3])
    >>> result = simulate_disaggregated(trace, [server()], [server()], 1e6, kv_bytes_per_token=1e4)
    >>> result.requests.loc[0, ["first_token_s", "transfer_end_s", "finish_s"]].astype(float).round(9).tolist()
    [1.0, 2.0, 4.0]
    """
    _check_pools(trace, prefill_replicas, decode_replicas)
    replicas, num_prefill = [*prefill_replicas, *decode_replicas], len(prefill_replicas)
    ahead = settled_lookahead(lookahead, [replica.policy for replica in replicas])
    kv_bytes = _kv_bytes_per_token(kv_bytes_per_token, prefill_replicas[0])
    routers = as_router(prefill_router), as_router(decode_router)

    def connect(system: System) -> Entry:
        links = Links(
            system.env, num_prefill, len(decode_replicas), link_bytes_per_s, link_latency_s
        )
        aside = TableRecorder(replicas[0].policy, iterations=False)
        path = Disaggregation(system.env, *routers, links, kv_bytes, aside, system.on_leave)
        path.connect(system.servers, [replica.weight for replica in replicas], num_prefill, seed)
        recorders = [aside, *system.recorders[num_prefill:]]
        return Entry(lambda clients: clients.start(path), recorders, path.with_transfers)

    described = describe_cluster(
        trace, replicas, ahead, ["prefill"] * num_prefill + ["decode"] * len(decode_replicas)
    ) | {
        "router": [router_name(prefill_router), router_name(decode_router)],
        "router_seed": seed,
        "link_bytes_per_s": link_bytes_per_s,
        "link_latency_s": link_latency_s,
        "kv_bytes_per_token": kv_bytes,
    }
    return run_system(
        trace,
        replicas,
        connect,
        described,
        lambda sent: pools_load(sent, prefill_replicas, decode_replicas),
        meta,
        lookahead=ahead,
        engine=engine,
        step_by_step=step_by_step,
        iterations=iterations,
        progress=progress,
    )


def _check_pools(trace: Trace, prefill: Sequence[Replica], decode: Sequence[Replica]) -> None:
    for pool, name in ((prefill, "prefill"), (decode, "decode")):
        if not pool:
            raise ValueError(f"the {name} pool has 0 replicas; it needs one or more")
    check_replicas([*prefill, *decode], trace)
    for number, replica in enumerate(decode):
        if not isinstance(replica.policy, PagedPolicy):
            raise ValueError(
                f"decode replica {number} runs {type(replica.policy).__name__}, which cannot take "
                "in KV that was computed elsewhere; use a policy with paged KV on demand, such as "
                "vllm"
            )


def _kv_bytes_per_token(given: float | None, replica: Replica) -> float:
    if given is not None:
        if not given >= 0:
            raise ValueError(f"kv_bytes_per_token is {given}; it must be 0 or more")
        return given
    step_time = replica.step_time
    if isinstance(step_time, RooflineStepTime):
        kv_dtype = step_time.kv_dtype or step_time.model.kv_dtype_with(step_time.weights)
        return step_time.model.kv_bytes_per_token(kv_dtype)
    raise ValueError(f"a {type(step_time).__name__} knows no model; say kv_bytes_per_token")
