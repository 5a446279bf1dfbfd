"""What cannot fit into memory is refused in a sentence, before any allocation."""

import pytest

from busdoor.cli import main
from busdoor.kv.config import KVConfig
from busdoor.policies import policy_config

HUGE = str(10**12)


@pytest.mark.parametrize(
    ("job", "what"),
    [
        (
            ["simulate", "azure-conv", "--num-requests", HUGE],
            "a trace of 1,000,000,000,000 requests",
        ),
        (["simulate", "azure-conv", "--replicas", HUGE], "a cluster of 1,000,000,000,000 replicas"),
        (
            ["compare", "--workload", "azure-conv", "--replications", HUGE, "--policy", "vllm"],
            "a study with 1,000,000,000,000 replications of 1 policy",
        ),
        (
            ["capacity", "--workload", "azure-conv", "--replications", HUGE, "--policy", "vllm"],
            "a study with 1,000,000,000,000 replications of 1 policy",
        ),
    ],
)
def test_a_flag_that_asks_for_too_much_is_one_sentence(job, what, tmp_path, capsys):
    assert main([*job, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert f"{what} needs" in said
    assert "GiB, the machine has" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("prefix_caching", [False, True])
def test_blocks_cost_no_memory_before_they_are_named(prefix_caching):
    kv = KVConfig(num_blocks=10**12, max_model_len=2048)
    policy = policy_config("vllm", prefix_caching=prefix_caching, max_num_seqs=8192).build(kv)
    assert policy.kv.num_free_blocks == 10**12
    assert policy.num_slots == 8192


def test_a_block_of_absurd_size_is_refused():
    kv = KVConfig(num_blocks=10, max_model_len=2048, block_size=10**12)
    with pytest.raises(ValueError, match=r"^a block_size of 1,000,000,000,000 needs"):
        policy_config("vllm").build(kv)
