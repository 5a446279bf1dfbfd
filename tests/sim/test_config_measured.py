"""A calibration brings the server that was measured along: its memory, its limits, its name."""

import pytest

from busdoor.calibration import Calibration, calibrate
from busdoor.comparison.demo import introductory_scenario
from busdoor.config import Config, load_config
from busdoor.config.limits import limits_for

STEP_TIME = {
    "name": "calibrated",
    "path": "vllm-cpu",
}  # 200 blocks of 32; 16 requests, 256 tokens an iteration


def limits(config):
    return [
        (policy.config.max_num_seqs, getattr(policy.config, "max_num_batched_tokens", None))
        for policy in config.policies
    ]


def test_memory_and_limits_are_the_measured_servers():
    config = Config.from_table({"step_time": STEP_TIME, "policy": ["static", "vllm"]})
    kv = limits_for(config, []).kv
    assert (kv.num_blocks, kv.block_size) == (200, 32)
    assert limits(config) == [(16, None), (16, 256)]


def test_what_is_said_wins():
    table = {
        "step_time": STEP_TIME,
        "kv": {"num_blocks": 7},
        "policy": {"name": "vllm", "max_num_seqs": 3},
    }
    config = Config.from_table(table)
    assert (config.kv.num_blocks, config.kv.block_size) == (7, 16)
    assert limits(config) == [(3, 256)]


def test_the_configuration_repeats_without_the_file():
    config = Config.from_table({"step_time": STEP_TIME, "policy": ["static", "vllm"]})
    assert Config.from_table(config.to_dict()) == config


def pools_of(config):
    """Memory and limits of the servers of each pool."""
    memory = [(pool.kv.num_blocks, pool.kv.block_size) for pool in config.pools]
    own = [pool.policy_of(config.policies[0]).config for pool in config.pools]
    return [
        (*kv, policy.max_num_seqs, policy.max_num_batched_tokens)
        for kv, policy in zip(memory, own, strict=True)
    ]


MEASURED, ROOFLINE = (200, 32, 16, 256), (None, 16, 1024, 8192)


@pytest.mark.parametrize(
    ("outside", "pools", "found"),
    [
        ({}, [{"step_time": STEP_TIME}, {}], [MEASURED, ROOFLINE]),
        ({"step_time": STEP_TIME}, [{}, {"step_time": {"name": "roofline"}}], [MEASURED, ROOFLINE]),
        ({"step_time": STEP_TIME}, [{"kv": {"num_blocks": 7}}, {"policy": {"max_num_seqs": 3}}],
         [(7, 16, 16, 256), (200, 32, 3, 256)]),
        ({"step_time": STEP_TIME, "policy": {"name": "vllm", "max_num_seqs": 4}}, [{}], [(200, 32, 4, 256)]),
    ],
    ids=["its own", "another beside it", "what is said wins", "what is said outside too"],
)  # fmt: skip
def test_a_pool_is_the_server_that_its_step_time_was_measured_on(outside, pools, found):
    config = Config.from_table({"policy": "vllm", **outside, "cluster": {"pool": pools}})
    again = Config.from_table(config.to_dict())
    assert pools_of(config) == pools_of(again) == found
    assert again == config


def test_it_is_named_in_place_of_a_gpu():
    assert (
        Config.from_table({"step_time": STEP_TIME, "policy": "vllm"}).where
        == "vllm-cpu (calibrated)"
    )
    assert Config.from_table({"policy": "vllm"}).where == "h100 with llama-3.1-8b"
    several = {"step_time": STEP_TIME, "policy": "vllm", "cluster": {"replicas": 3}}
    assert Config.from_table(several).where == "3 × vllm-cpu (calibrated)"


def test_a_file_lies_beside_the_configuration(tmp_path):
    runs = [run for run in introductory_scenario() for _ in range(8)]
    found = calibrate(
        runs,
        [f"run {i}" for i in range(len(runs))],
        without=[
            "eager_s",
            "per_chunk_s",
            "per_token_s",
            "per_prefill_pair_s",
            "per_context_s",
            "per_request_s",
        ],
        name="toy",
    )
    found.save(tmp_path / "toy.toml")
    assert Calibration.load(tmp_path / "toy.toml").about.get("server") == found.about["server"]
    (tmp_path / "run.toml").write_text(
        '[step_time]\nname = "calibrated"\npath = "toy.toml"\n[policy]\nname = "vllm"\n'
    )
    config = load_config(tmp_path / "run.toml")
    assert config.where == "toy (calibrated)"
    assert config.kv.num_blocks == found.about["server"].get("num_blocks")


def test_a_path_says_that_it_is_a_calibration():
    assert (
        Config.from_table({"step_time": {"path": "vllm-cpu"}, "policy": "vllm"}).where
        == "vllm-cpu (calibrated)"
    )


def test_a_file_that_is_not_there_is_blamed_on_the_step_time(tmp_path):
    with pytest.raises(ValueError, match=r"no-such\.toml"):
        Config.from_table(
            {"step_time": {"name": "calibrated", "path": "no-such.toml"}, "policy": "vllm"}
        )
