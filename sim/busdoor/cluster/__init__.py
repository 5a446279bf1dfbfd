"""Several servers: replicas behind a router, and prefill and decode in pools of their own."""

from busdoor.cluster.disaggregation import Disaggregation
from busdoor.cluster.network import Links
from busdoor.cluster.registry import ROUTERS, as_router, make_router
from busdoor.cluster.router import Router
from busdoor.cluster.routers import (
    LeastKV,
    LeastOutstanding,
    PowerOfTwo,
    PrefixAffinity,
    Random,
    RoundRobin,
    SessionAffinity,
    ShortestQueue,
)
from busdoor.cluster.simulate import simulate_cluster
from busdoor.cluster.simulate_disaggregated import simulate_disaggregated
from busdoor.simulator.replica import Replica

__all__ = [
    "ROUTERS",
    "Disaggregation",
    "LeastKV",
    "LeastOutstanding",
    "Links",
    "PowerOfTwo",
    "PrefixAffinity",
    "Random",
    "Replica",
    "RoundRobin",
    "Router",
    "SessionAffinity",
    "ShortestQueue",
    "as_router",
    "make_router",
    "simulate_cluster",
    "simulate_disaggregated",
]
