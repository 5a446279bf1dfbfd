"""Naming a policy: the table [policy], and one's own by import path."""

import pytest

from busdoor.kv.config import KVConfig
from busdoor.kv.prefix_cache import PrefixCachedKV
from busdoor.policies import POLICIES, VllmPolicy, policy_config
from busdoor.simulator.simulate import simulate
from busdoor.step_time.linear import LinearStepTime
from busdoor_workloads import Trace

KV = KVConfig(num_blocks=400, max_model_len=2048)


class OneByOne(VllmPolicy):
    """Somebody's own policy."""

    def __init__(self, kv, patience="none"):
        super().__init__(kv.paged(), 1, 256, kv.max_model_len)
        self.patience = patience


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_runs_by_its_name_alone(name):
    trace = Trace(arrival_s=[0.0, 1.0], input_tokens=[10, 20], output_tokens=[3, 5])
    config = policy_config(name)
    assert config.name == name
    result = simulate(trace, config.build(KV, trace), LinearStepTime(base_s=0.1))
    assert result.requests["status"].tolist() == ["finished", "finished"]


def test_a_policy_of_ones_own_is_continuous_unless_it_says_otherwise():
    assert OneByOne(KV).whole_batch is False


def test_the_table_of_the_issue_is_understood():
    policy = policy_config(
        "vllm",
        max_num_seqs=16,
        max_num_batched_tokens=256,
        chunked_prefill=True,
        long_prefill_token_threshold=0,
        queue="priority",
        watermark=0.1,
        reserve_full_prompt=False,
        prefix_caching=True,
    ).build(KV)
    assert (policy.num_slots, policy.max_num_batched_tokens, policy.max_model_len) == (
        16,
        256,
        2048,
    )
    assert (policy.by_priority, policy.watermark_blocks, policy.reserve_full_prompt) == (
        True,
        40,
        False,
    )
    assert isinstance(policy.kv, PrefixCachedKV)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "statik"}, "'statik' is not a policy; did you mean 'static'"),
        ({"name": "vllm", "max_num_seq": 4}, "did you mean 'max_num_seqs'"),
        (
            {"name": "vllm", "max_num_seqs": 64, "max_num_batched_tokens": 32},
            "is less than max_num_seqs 64",
        ),
        ({"name": "vllm", "watermark": 1.5}, r"watermark = 1\.5: input should be less than 1"),
        ({"name": "vllm", "queue": "lifo"}, "queue = 'lifo'"),
    ],
)
def test_mistakes_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        policy_config(**fields)


def test_what_does_not_go_with_the_memory_is_named():
    with pytest.raises(
        ValueError, match="max_num_batched_tokens of at least max_model_len 2048, not 512"
    ):
        policy_config(
            "vllm", max_num_seqs=8, chunked_prefill=False, max_num_batched_tokens=512
        ).build(KV)
    with pytest.raises(
        ValueError, match="long_prefill_token_threshold 4096 exceeds max_model_len 2048"
    ):
        policy_config("vllm", long_prefill_token_threshold=4096).build(KV)


def test_a_policy_of_ones_own(monkeypatch):
    import sys
    import types

    module = types.ModuleType("mypkg_policies")
    module.Mine, module.Nothing = OneByOne, dict
    monkeypatch.setitem(sys.modules, "mypkg_policies", module)
    policy = policy_config("mypkg_policies:Mine", patience="much").build(KV)
    assert (policy.num_slots, policy.patience) == (1, "much")
    with pytest.raises(ValueError, match="'Mein' is not a name in mypkg_policies; did you mean"):
        policy_config("mypkg_policies:Mein").build(KV)
    with pytest.raises(ValueError, match="unexpected keyword argument 'virtue'"):
        policy_config("mypkg_policies:Mine", virtue=1).build(KV)
    with pytest.raises(
        ValueError, match=r"is not a policy; subclass busdoor\.policies\.base\.Policy"
    ):
        policy_config("mypkg_policies:Nothing").build(KV)
    with pytest.raises(ValueError, match="'nowhere:Mine' cannot be imported"):
        policy_config("nowhere:Mine").build(KV)
