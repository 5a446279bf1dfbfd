"""No request is lost: each ends finished, refused or abandoned, else an error names it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busdoor.cli import main
from busdoor.cluster import Replica, simulate_cluster, simulate_disaggregated
from busdoor.core.batch import Batch
from busdoor.kv.config import KVConfig
from busdoor.kv.paged import PagedKV
from busdoor.policies import VllmPolicy, policy_config
from busdoor.results.result import Result
from busdoor.simulator.simulate import simulate
from busdoor.step_time import LinearStepTime
from busdoor_workloads import Trace

CASES = Path(__file__).parents[1] / "cases"
SECOND = LinearStepTime(base_s=1.0)
MILLISECONDS = LinearStepTime(base_s=5e-3, per_token_s=5e-5)
MODES = [(lookahead, step_by_step) for lookahead in (0, 1) for step_by_step in (False, True)]

queue = st.sampled_from(["fcfs", "priority"])
slots = st.sampled_from([1, 2, 4, 16])
paged = {"max_num_seqs": slots, "max_num_batched_tokens": st.sampled_from([16, 64]), "queue": queue}
caches = {"watermark": st.sampled_from([0.0, 0.1, 0.25]), "prefix_caching": st.booleans()}
POLICIES = {
    "vllm": paged | caches | {"long_prefill_token_threshold": st.sampled_from([0, 8])},
    "prefill_first": paged | caches,
    "trtllm": {
        "capacity": st.sampled_from(["guaranteed_no_evict", "max_utilization"]),
        "queue": queue,
        "max_num_seqs": slots,
        "max_num_tokens": st.sampled_from([16, 64]),
        "chunked_prefill": st.booleans(),
    },
    "transformers": {
        "max_num_seqs": slots,
        "max_num_batched_tokens": st.sampled_from([16, 64]),
        "safety_margin": st.sampled_from([0.0, 0.15, 0.5]),
    },
    "tgi": {"max_num_seqs": slots, "max_batch_prefill_tokens": st.sampled_from([None, 40])},
    "orca": {
        "max_num_seqs": slots,
        "queue": queue,
        "reservation": st.sampled_from(["max", "pow2", "oracle"]),
    },
    "static": {"batch_size": st.sampled_from([None, 1, 4])},
    "dynamic": {
        "batch_size": st.sampled_from([None, 1, 4]),
        "max_wait_s": st.sampled_from([0.0, 0.05]),
    },
    "multi_bin": {"batch_size": st.sampled_from([None, 1, 4]), "num_bins": st.integers(1, 3)},
}


@st.composite
def bursts(draw):
    """Many requests almost at once, of few priorities, some with equal arrivals."""
    number = draw(st.integers(2, 25))

    def column(values):
        return draw(st.lists(values, min_size=number, max_size=number))

    return Trace(
        arrival_s=np.cumsum(column(st.sampled_from([0.0, 0.0, 0.003]))),
        input_tokens=column(st.integers(1, 30)),
        output_tokens=column(st.integers(1, 30)),
        priority=column(st.integers(0, 2)),
        hash_ids=[(1, 2, 10 + i, 100 + i) for i in range(number)],
        block_size=8,
    )


@st.composite
def servers(draw, names=tuple(POLICIES)):
    """A policy, and memory for the longest request or a little more."""
    name = draw(st.sampled_from(names))
    kv = KVConfig(num_blocks=draw(st.integers(15, 22)), block_size=4, max_model_len=60)
    return policy_config(name, **draw(st.fixed_dictionaries(POLICIES[name]))), kv


def statuses(result):
    return {status.split(":")[0] for status in result.requests["status"]}


@settings(max_examples=300, deadline=None)
@given(bursts(), servers(), st.sampled_from(MODES))
def test_no_policy_strands_a_request(trace, server, mode):
    config, kv = server
    policy = config.build(kv, trace)
    result = simulate(trace, policy, MILLISECONDS, lookahead=mode[0], step_by_step=mode[1])
    assert result.requests["request_id"].tolist() == list(range(len(trace)))
    assert statuses(result) <= {"finished", "refused"}
    assert (policy.num_waiting, policy.num_running) == (0, 0)


@settings(max_examples=60, deadline=None)
@given(bursts(), st.lists(servers(), min_size=2, max_size=2), st.sampled_from(MODES))
def test_no_cluster_strands_a_request(trace, pair, mode):
    replicas = [Replica(config.build(kv, trace), MILLISECONDS) for config, kv in pair]
    result = simulate_cluster(trace, replicas, lookahead=mode[0], step_by_step=mode[1])
    assert result.requests["request_id"].tolist() == list(range(len(trace)))
    assert statuses(result) <= {"finished", "refused"}


@settings(max_examples=60, deadline=None)
@given(bursts(), st.lists(servers(names=("vllm",)), min_size=2, max_size=2), st.sampled_from(MODES))
def test_no_pools_strand_a_request(trace, pair, mode):
    prefill, decode = ([Replica(config.build(kv, trace), MILLISECONDS)] for config, kv in pair)
    result = simulate_disaggregated(
        trace, prefill, decode, 1e9, kv_bytes_per_token=1e3, lookahead=mode[0], step_by_step=mode[1]
    )
    assert result.requests["request_id"].tolist() == list(range(len(trace)))
    assert statuses(result) <= {"finished", "refused"}


def test_a_request_that_preempts_itself_is_served_as_vllm_serves_it(tmp_path):
    """vLLM 0.32 itself gives these times: the second enters at 0.01 s, for 9 iterations."""
    case = CASES / "priority_hang"
    main(
        [
            "simulate",
            str(case / "two.csv"),
            "--config",
            str(case / "run.toml"),
            "--out",
            str(tmp_path / "out"),
        ]
    )
    requests = Result.load(tmp_path / "out").requests
    np.testing.assert_allclose(requests["finish_s"], [0.14, 0.10], rtol=1e-9)
    assert requests["num_preemptions"].tolist() == [1, 0]


def test_of_equally_bad_victims_the_first_admitted_is_preempted():
    """vLLM takes the first maximum of (priority, arrival) in its list of running requests."""
    trace = Trace(arrival_s=[0, 0], input_tokens=[4, 4], output_tokens=[9, 9], priority=[1, 1])
    policy = VllmPolicy(PagedKV(4, 4), 4, 64, 16, queue="priority")
    assert simulate(trace, policy, SECOND).requests["num_preemptions"].tolist() == [1, 0]


def test_the_watermark_counts_vllms_null_block():
    assert VllmPolicy(PagedKV(9, 4), 4, 64, 16, watermark=0.2).watermark_blocks == 2


class Idle(VllmPolicy):
    """Somebody's policy that forgets what it has."""

    def schedule(self, now_s) -> Batch | None:
        return None


def test_requests_that_a_policy_strands_are_named():
    trace = Trace(arrival_s=[0, 0, 1], input_tokens=[4, 400, 4], output_tokens=[2, 2, 2])
    message = (
        r"Idle schedules nothing more, but 2 of 3 requests have not left: 0, 2; a policy "
        r"has to run or refuse"
    )
    with pytest.raises(ValueError, match=message):
        simulate(trace, Idle(PagedKV(64, 16), 4, 64, 128), SECOND)
    replicas = [Replica(Idle(PagedKV(64, 16), 4, 64, 128), SECOND)]
    with pytest.raises(ValueError, match=message):
        simulate_cluster(trace, replicas)


@pytest.mark.parametrize(("lookahead", "step_by_step"), MODES)
def test_preemption_without_end_is_an_error(lookahead, step_by_step):
    """Two equal requests, admitted by first pieces, outgrow memory: vLLM never ends either."""
    trace = Trace(arrival_s=[0, 0], input_tokens=[15, 15], output_tokens=[1, 1])
    whims = {"queue": "priority", "long_prefill_token_threshold": 4, "reserve_full_prompt": False}
    policy = VllmPolicy(PagedKV(4, 4), 2, 16, 16, **whims)
    with pytest.raises(
        ValueError, match="VllmPolicy preempts without end: requests 0, 1 take the KV memory"
    ):
        simulate(trace, policy, SECOND, lookahead=lookahead, step_by_step=step_by_step)


def test_a_policy_serves_one_run():
    trace = Trace(arrival_s=[0], input_tokens=[4], output_tokens=[2])
    policy = VllmPolicy(PagedKV(64, 16), 4, 64, 128)
    simulate(trace, policy, SECOND)
    with pytest.raises(
        ValueError,
        match="this VllmPolicy has served a run already; make a new policy for every run",
    ):
        simulate(trace, policy, SECOND)
