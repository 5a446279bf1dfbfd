"""From a [cluster] table and its servers to a run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from busdoor.cluster.simulate import simulate_cluster
from busdoor.cluster.simulate_disaggregated import simulate_disaggregated
from busdoor.config.cluster import ClusterTable
from busdoor.results.result import Result
from busdoor.simulator.replica import Replica
from busdoor_workloads import Trace


def run_cluster(cluster: ClusterTable, pools: Sequence[Sequence[Replica]], trace: Trace, **settings: Any) -> Result:
    """Run a trace through a cluster as its table describes it.

    Parameters
    ----------
    cluster : ClusterTable
        Router and links.
    pools : sequence of sequence of Replica
        Fresh servers of each of its pools.
    trace : Trace
        Who arrives.
    **settings
        As in `simulate_cluster`.
    """
    if not cluster.disaggregated:
        return simulate_cluster(trace, list(chain(*pools)), cluster.router, **settings)
    assert cluster.link_bytes_per_s is not None  # the table was checked
    prefill, decode = (
        [replica for table, pool in zip(cluster.pools, pools, strict=True) if table.role == role for replica in pool]
        for role in ("prefill", "decode")
    )
    kv_bytes = cluster.kv_bytes_per_token
    return simulate_disaggregated(
        trace,
        prefill,
        decode,
        cluster.link_bytes_per_s,
        link_latency_s=cluster.link_latency_s,
        kv_bytes_per_token=cluster.pools[0].gpu.kv_bytes_per_token() if kv_bytes is None else kv_bytes,
        prefill_router=cluster.router,
        decode_router=cluster.decode_router or cluster.router,
        **settings,
    )
