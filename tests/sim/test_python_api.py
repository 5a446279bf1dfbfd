"""The Python API for a newcomer: the command's words work, misuse ends in a sentence."""

import subprocess
import sys

import pytest

import busdoor
from busdoor.catalog import gpu, model
from busdoor.cli import main
from busdoor.config import Config, load_config
from busdoor.kv.config import KVConfig
from busdoor.step_time import CalibratedStepTime, LinearStepTime

KV = KVConfig(num_blocks=400, max_model_len=2048)
SMALL = {"num_requests": 5, "replications": 1}


@pytest.mark.parametrize("policies", ["vllm", ["vllm"], {"name": "vllm"}, ("vllm",)])
def test_one_policy_may_stand_for_a_list(policies):
    assert busdoor.compare("azure-conv", policies, rate=2, **SMALL).policies == ["vllm"]


def test_policies_may_have_fields_as_in_a_flag():
    comparison = busdoor.compare("azure-conv", ["static,batch_size=4", "vllm"], rate=2, **SMALL)
    assert comparison.policies == ["static", "vllm"]
    assert comparison.config.policies[0].config.batch_size == 4


def test_rate_and_request_rate_are_one(tmp_path, monkeypatch, capsys):
    both = [
        busdoor.compare("azure-conv", "vllm", **{key: 2}, **SMALL)
        for key in ("rate", "request_rate")
    ]
    assert both[0].summaries.equals(both[1].summaries)
    monkeypatch.chdir(tmp_path)
    for number, flag in enumerate(("--rate", "--request-rate")):
        assert (
            main(
                ["simulate", "azure-conv", "--num-requests", "5", flag, "2", "--out", f"o{number}"]
            )
            == 0
        )
    first, second = (busdoor.Result.load(tmp_path / name).requests for name in ("o0", "o1"))
    assert first.equals(second)
    with pytest.raises(
        ValueError, match="request_rate = 3 and rate = 2 both set the rate; give one of them"
    ):
        busdoor.compare("azure-conv", request_rate=3, rate=2)


def test_a_calibrations_name_is_a_step_time_wherever_one_is_taken(tmp_path):
    name = "h100-llama-3.1-8b"
    config = Config.from_table({"step_time": name})
    assert isinstance(config.step_time, CalibratedStepTime) and config.step_time.calibration == name
    assert (
        busdoor.compare("azure-conv", "vllm", step_time=name, **SMALL).config.step_time
        == config.step_time
    )
    found = busdoor.find_capacity(
        "azure-conv",
        "vllm",
        "e2e_p99=60s",
        step_time=name,
        num_requests=50,
        replications=2,
        tolerance=0.5,
    )
    assert found.config.step_time == config.step_time
    trace = busdoor.Trace(arrival_s=[0], input_tokens=[8], output_tokens=[2])
    policy = config.policies[-1].build(KV, trace)
    assert busdoor.simulate(trace, policy, name).meta["step_time"]["calibration"] == name
    (tmp_path / "a.toml").write_text(f'step_time = "{name}"')
    assert load_config(tmp_path / "a.toml").step_time == config.step_time
    assert Config.from_table({"step_time": LinearStepTime(base_s=0.1)}).step_time == LinearStepTime(
        base_s=0.1
    )
    assert Config.from_table({"step_time": "roofline"}).step_time == Config.from_table({}).step_time


def test_all_missing_keys_of_an_own_gpu_or_model_are_named_at_once():
    with pytest.raises(ValueError) as error:
        gpu({"name": "mine", "memory_gib": 3})
    assert str(error.value) == "[gpu]: bandwidth_bytes_per_s and flop_per_s are missing"
    with pytest.raises(
        ValueError,
        match=r"num_hidden_layers, hidden_size, .* and max_position_embeddings are missing",
    ):
        model({"name": "mine"})
    with pytest.raises(ValueError, match=r"poisson needs 'request_rate'$"):
        busdoor.Workload(input_tokens=3, output_tokens=3, arrival={"process": "poisson"})
    assert (
        gpu({"name": "NVIDIA H100 SXM", "memory_gib": 93.0}).link_bytes_per_s
        == gpu("h100").link_bytes_per_s
    )


def test_simulate_says_what_ran(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert (
        main(["simulate", "azure-conv", "--num-requests", "3", "--policy", "static,batch_size=2"])
        == 0
    )
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith(
        "Policy static; GPU h100; model llama-3.1-8b; step time roofline; engine vllm (0.15 to 0.23"
    )
    assert main(["simulate", "azure-conv", "--num-requests", "3", "--step-time", "vllm-cpu"]) == 0
    assert "Policy vllm; step time vllm-cpu (calibrated); lookahead" in " ".join(
        capsys.readouterr().out.split()
    )


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "busdoor", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == busdoor.__version__


def test_the_shells_completion_knows_commands_and_flags():
    from busdoor.cli import app

    script = app.generate_completion(shell="bash")
    assert all(word in script for word in ("capacity", "--num-requests", "--step-time"))


@pytest.mark.parametrize(
    ("command", "guess"), [("compare --rte 3", " Did you mean --rate?"), ("demo --tp 2", "")]
)
def test_an_option_is_guessed_only_where_one_is_near(command, guess, capsys):
    assert main(command.split()) == 2
    assert capsys.readouterr().err == f"busdoor: Unknown option: {command.split()[-2]}.{guess}\n"


POOLS = """
[cluster]
[[cluster.pool]]
gpu = {name = "h200", model = "qwen3-8b"}
policy = {name = "vllm"}
[[cluster.pool]]
gpu = {name = "l40s", model = "qwen3-8b"}
step_time = {name = "roofline"}
policy = {name = "vllm"}
"""
IDLE = {
    "simulate azure-conv --step-time h100-llama-3.1-8b --gpu h200": "--gpu h200 does not apply: "
    "the step time was "
    "measured with NVIDIA H100 80GB HBM3; leave one of them out",
    "compare --step-time h100-llama-3.1-8b --model qwen3-8b": "--model qwen3-8b does not apply: "
    "the step time was "
    "measured with llama-3.1-8b; leave one of them out",
    "simulate azure-conv --config pools.toml --gpu h100": "--gpu would change nothing: every "
    "[[cluster.pool]] has its "
    "own; leave it out",
    "simulate azure-conv --config pools.toml --model llama-3.1-8b": "--model would change nothing",
    "simulate azure-conv --config pools.toml --policy static": "--policy would change nothing",
    "capacity --gpu-price 3": "--gpu-price does not apply without --rate or --diurnal; leave it "
    "out",
    "capacity --workload two.csv --num-requests 3": "--num-requests does not apply to a trace "
    "file, which is run whole",
}


@pytest.mark.parametrize("command", IDLE)
def test_a_flag_that_would_change_nothing_is_refused(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pools.toml").write_text(POOLS)
    (tmp_path / "two.csv").write_text(
        "arrival_s,input_tokens,output_tokens\n0,100,10\n0.5,200,20\n"
    )
    assert main(command.split()) == 2
    assert capsys.readouterr().err.startswith(f"busdoor: {IDLE[command]}")


def test_the_gpu_that_was_measured_may_be_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = ["--num-requests", "3", "--step-time", "h100-llama-3.1-8b"]
    assert (
        main(
            [
                "simulate",
                "azure-conv",
                *few,
                "--gpu",
                "H100",
                "--model",
                "meta-llama/Llama-3.1-8B-Instruct",
            ]
        )
        == 0
    )
    with pytest.raises(
        ValueError, match=r"^gpu h200 does not apply: the step time was measured with NVIDIA H100"
    ):
        busdoor.compare("azure-conv", "vllm", gpu="h200", step_time="h100-llama-3.1-8b", **SMALL)
    with pytest.raises(ValueError, match=r"^model qwen3-8b does not apply"):
        busdoor.find_capacity("azure-conv", "vllm", model="qwen3-8b", step_time="h100-llama-3.1-8b")
