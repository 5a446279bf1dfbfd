"""Closed-form capacity is what saturated policies carry: the overload flag needs it."""

import numpy as np
import pytest

from busdoor.catalog import gpu, model
from busdoor.kv.config import KVConfig
from busdoor.policies import POLICIES, policy_config
from busdoor.policies.offered_load import offered_load
from busdoor.simulator.simulate import simulate
from busdoor.step_time import CalibratedStepTime, LinearStepTime, RooflineStepTime
from busdoor_workloads import Trace, profile
from busdoor_workloads.lengths import LogNormal

# A step time that weighs compute and reads against each other; its own shares, so that the
# catalogue may learn better.
SHARES = {
    "memory_efficiency": 0.9,
    "kv_efficiency": 0.9,
    "gemm_efficiency": 0.75,
    "layer_overhead_s": 32e-6,
}
ROOFLINE = RooflineStepTime(gpu("a100-80gb"), model("llama-3.1-8b"), **SHARES)
# Decodes run as CUDA graphs, for much less than whatever has a prompt in it.
GRAPHS = CalibratedStepTime(
    base_s=6e-3,
    eager_s=4e-3,
    per_chunk_s=1e-4,
    per_request_s=5e-6,
    per_token_s=(1e-6, 4e-5),
    token_breaks=(128,),
    per_prefill_pair_s=1e-9,
    per_context_s=1e-8,
    per_mixed_request_s=2e-5,
    per_mixed_context_s=2e-8,
    graph_sizes=(1, 2, 4, *range(8, 257, 8)),
    host_s=1e-3,
    host_eager_s=1.5e-2,
    overlap=True,
)
LINEAR = LinearStepTime(base_s=5e-3, per_token_s=5e-5, per_context_s=1e-7, per_request_s=1e-5)
AMPLE, SCARCE = (
    KVConfig(num_blocks=20_000, max_model_len=8192),
    KVConfig(num_blocks=2000, max_model_len=4096),
)


@pytest.fixture(scope="module")
def burst():
    rng = np.random.default_rng(3)
    inputs = LogNormal(p50=400, p99=2000, max=3000).sample(2000, rng)
    outputs = LogNormal(p50=100, p99=700, max=1000).sample(2000, rng)
    return Trace(
        arrival_s=np.zeros(2000),
        input_tokens=inputs,
        output_tokens=outputs,
        max_output_tokens=outputs,
    )


# Where memory decides, its mean stands for a batch that varies.
@pytest.mark.parametrize("step_time", [LINEAR, ROOFLINE], ids=["linear", "roofline"])
@pytest.mark.parametrize(
    ("name", "fields", "kv", "tolerance"),
    [
        ("static", {"batch_size": 16}, AMPLE, 0.05),
        ("static", {"batch_size": 16, "finished_rows": "skip"}, AMPLE, 0.05),
        ("static", {"batch_size": 16, "decode_reads": "padded"}, AMPLE, 0.05),
        ("static", {"batch_size": 16, "pad_to": "dataset"}, AMPLE, 0.03),
        ("dynamic", {"batch_size": 16}, AMPLE, 0.06),
        ("orca", {"max_num_seqs": 32, "reservation": "oracle"}, AMPLE, 0.05),
        ("orca", {"max_num_seqs": 256, "reservation": "max"}, SCARCE, 0.15),
        ("orca", {"max_num_seqs": 256, "reservation": "pow2"}, SCARCE, 0.15),
        ("vllm", {"max_num_seqs": 32}, AMPLE, 0.05),
        ("vllm", {"max_num_seqs": 256}, SCARCE, 0.15),
        ("vllm", {"max_num_seqs": 256, "max_num_batched_tokens": 256}, AMPLE, 0.10),
        ("prefill_first", {"max_num_seqs": 32}, AMPLE, 0.03),
        ("multi_bin", {"batch_size": 16}, AMPLE, 0.05),
        ("multi_bin", {"batch_size": 16, "decode_reads": "padded"}, AMPLE, 0.05),
        ("tgi", {"max_num_seqs": 32}, AMPLE, 0.05),
        ("tgi", {"max_num_seqs": 256}, SCARCE, 0.10),
        ("transformers", {"max_num_seqs": 32}, AMPLE, 0.05),
        ("trtllm", {"max_num_seqs": 32}, AMPLE, 0.05),
        ("trtllm", {"max_num_seqs": 256}, SCARCE, 0.15),
        ("trtllm", {"max_num_seqs": 256, "capacity": "max_utilization"}, SCARCE, 0.15),
    ],
)
def test_capacity_is_the_saturated_rate(burst, name, fields, kv, tolerance, step_time):
    build = policy_config(name, **fields).build
    found = simulate(burst, build(kv, burst), step_time, lookahead=0, iterations=False).summary[
        "saturated_request_throughput"
    ]
    expected = build(kv, burst).capacity_rps(burst, step_time)
    assert expected == pytest.approx(found, rel=tolerance)


@pytest.mark.parametrize(
    ("name", "fields", "tolerance"),
    [
        ("static", {"batch_size": 16}, 0.05),
        ("orca", {"max_num_seqs": 32, "reservation": "oracle"}, 0.03),
        ("vllm", {"max_num_seqs": 32}, 0.03),
        ("vllm", {"max_num_seqs": 128}, 0.05),
        ("trtllm", {"max_num_seqs": 32}, 0.03),
    ],
)
def test_so_it_is_where_prompts_cost_what_decodes_do_not(burst, name, fields, tolerance):
    test_capacity_is_the_saturated_rate(burst, name, fields, AMPLE, tolerance, GRAPHS)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("load", [0.7, 1.3])
def test_overload_is_flagged_and_nothing_else(name, load):
    """Over capacity the load says so at once, even if the trace is too short for a queue."""
    trace = profile("azure-conv").generate(seed=1, num_requests=1000)
    whole = name in ("static", "dynamic", "multi_bin")
    policy = policy_config(name, **({"batch_size": 16} if whole else {"max_num_seqs": 16}))
    rate = load * policy.build(AMPLE, trace).capacity_rps(trace, ROOFLINE)
    offered = trace.at_rate(rate)
    assert offered_load(offered, policy.build(AMPLE, trace), ROOFLINE) == pytest.approx(load)
    result = simulate(offered, policy.build(AMPLE, offered), ROOFLINE, lookahead=0)
    assert result.summary["saturated"] == (load > 1)


def test_a_burst_and_a_closed_loop_have_no_load_of_their_own(burst):
    policy = policy_config("vllm", max_num_seqs=4).build(AMPLE)
    assert np.isnan(offered_load(burst, policy, LINEAR))
    users = Trace(arrival_s=[0, 1], input_tokens=[1, 1], output_tokens=[1, 1], concurrency=1)
    assert np.isnan(offered_load(users, policy, LINEAR))
