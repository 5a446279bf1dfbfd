"""Servers whose requests are known beforehand run one after another, to the last digit alike."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import simpy

import busdoor.simulator.system as system
from busdoor.cluster import Random, Replica, RoundRobin, Router, simulate_cluster
from busdoor.kv.config import KVConfig
from busdoor.policies import policy_config
from busdoor.simulator.system import Interrupted
from busdoor.step_time import LinearStepTime
from busdoor_workloads import profile

STEP_TIME = LinearStepTime(base_s=0.006, per_token_s=2e-5, per_context_s=5e-8)
KV = KVConfig(block_size=16, num_blocks=4000, max_model_len=20_000)
TRACE = profile("azure-conv").generate(seed=1, num_requests=300, request_rate=30.0)


class TogetherInTurn(RoundRobin):
    assign = Router.assign


class TogetherAtRandom(Random):
    assign = Router.assign


def run(router, trace=TRACE, policy="vllm", count=7, **options):
    weights = [1.0 + (number % 2) for number in range(count)]
    replicas = [
        Replica(policy_config(policy).build(KV), STEP_TIME, weight=weight) for weight in weights
    ]
    return simulate_cluster(trace, replicas, router, seed=2, **options)


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("policy", ["vllm", "static", "orca"])
@pytest.mark.parametrize(
    ("apart", "together"), [(RoundRobin, TogetherInTurn), (Random, TogetherAtRandom)]
)
def test_apart_and_together_write_the_same_tables(apart, together, policy, lookahead):
    patience_s = np.random.default_rng(0).exponential(20.0, len(TRACE))
    for trace in (TRACE, replace(TRACE, timeout_s=patience_s)):
        one, other = (
            run(router(), trace, policy, lookahead=lookahead) for router in (apart, together)
        )
        for name in ("requests", "iterations", "stays"):
            pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name), rtol=0, atol=0)


def test_apart_makes_as_many_environments_as_servers(monkeypatch):
    made = []

    def environment():
        made.append(simpy.Environment())
        return made[-1]

    monkeypatch.setattr(system, "simpy", SimpleNamespace(Environment=environment))
    run("round_robin")
    assert len(made) == 7
    run("round_robin", replace(TRACE, concurrency=20))
    run("least_outstanding")
    assert len(made) == 9


def test_a_run_stopped_between_servers_has_every_request_once():
    def stop(done, total):
        raise KeyboardInterrupt

    trace = profile("azure-conv").generate(seed=1, num_requests=2_000, request_rate=60.0)
    with pytest.raises(Interrupted) as stopped:
        run("round_robin", trace, progress=stop)
    requests = stopped.value.result.requests
    assert requests["request_id"].tolist() == list(range(2_000))
    finished = requests[requests["status"] == "finished"]
    assert 990 < len(finished) <= 1_000
    assert finished["finish_s"].notna().all()
