"""KV memory that a run wastes: reserved, and holding nothing that is wanted."""

from pathlib import Path

import pytest

from busdoor.kv.config import KVConfig
from busdoor.policies import policy_config
from busdoor.simulator.simulate import simulate
from busdoor.step_time import LinearStepTime, make_step_time
from busdoor_workloads import Trace
from busdoor_workloads.formats import read_trace

CASES = Path(__file__).parents[1] / "cases"


def test_prompt_tokens_that_are_being_written_are_not_wasted():
    """Shared case 11: long prompts with short answers fill their blocks but for the last."""
    trace = read_trace(CASES / "11-prefill-heavy.csv")
    policy = policy_config("vllm").build(KVConfig(num_blocks=20_000, max_model_len=16_384), trace)
    step_time = make_step_time("roofline", gpu="h100", model="llama-3.1-8b")
    assert simulate(trace, policy, step_time).summary["kv_wasted_share"] == pytest.approx(
        0.001, abs=5e-4
    )


@pytest.mark.parametrize(
    "name", ["static", "orca", "tgi", "transformers", "trtllm", "vllm", "prefill_first"]
)
def test_a_running_prefill_counts_as_used_under_every_policy(name):
    trace = Trace(arrival_s=[0, 0], input_tokens=[64, 32], output_tokens=[8, 8])
    policy = policy_config(name).build(KVConfig(num_blocks=2048, max_model_len=128), trace)
    first = simulate(trace, policy, LinearStepTime(base_s=0.01)).iterations.iloc[0]
    assert first["kv_used_tokens"] == first["num_prefill_tokens"] > 0
