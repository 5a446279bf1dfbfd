"""Engine presets: whose host it is, which limits it sets, and when it decides an iteration."""

import json

import numpy as np
import pytest

import busdoor
from busdoor.catalog import engine, engine_names
from busdoor.cli import main
from busdoor.config import Config
from busdoor.config.limits import limits_for
from busdoor.config.run import run
from busdoor.core.batch import Batch
from busdoor.kv.config import KVConfig
from busdoor.policies import policy_config
from busdoor.simulator.simulate import simulate
from busdoor.step_time import LinearStepTime, make_step_time
from busdoor_workloads import Trace

LINEAR = {"name": "linear", "base_s": 0.01}


def config(**tables):
    return Config.from_table({"policy": ["static", "vllm"], **tables})


@pytest.mark.parametrize("name", engine_names())
def test_every_value_of_a_preset_has_its_source(name):
    preset = engine(name)
    numbers = {
        "host_per_step_s",
        "host_per_request_s",
        "frontend_per_request_s",
        "frontend_per_token_s",
    }
    numbers |= {"max_num_batched_tokens", "max_num_seqs", "gpu_memory_utilization", "lookahead"}
    given = {key for key in numbers if getattr(preset, key)}
    assert given <= preset.sources.keys()
    assert preset.versions


def test_the_host_of_a_step_is_the_engines():
    fields = {"gpu": "h100", "model": "llama-3.1-8b"}
    host = {"name": "mine", "host_per_step_s": 2e-3, "host_per_request_s": 1e-5}
    none, mine = (
        make_step_time("roofline", **fields, engine=one) for one in ({"name": "none"}, host)
    )
    batch = Batch(num_decode_tokens=50, decode_context_tokens=5000)
    assert mine.duration_s(batch) - none.duration_s(batch) == pytest.approx(2e-3 + 50 * 1e-5)


@pytest.mark.parametrize(
    ("name", "host_s"), [("vllm-0.12", 1.3e-3 + 50 * 48e-6), ("vllm", 0.5e-3 + 50 * 20e-6)]
)
def test_tensor_parallel_had_host_terms_of_its_own_in_older_versions(name, host_s):
    decode = Batch(num_decode_tokens=50, decode_context_tokens=5000)
    fields = {"gpu": "h100", "model": "qwen3-32b", "tp": 2}
    none, vllm = (
        make_step_time("roofline", **fields, engine=one) for one in ({"name": "none"}, name)
    )
    assert vllm.duration_s(decode) - none.duration_s(decode) == pytest.approx(host_s)


def test_a_preset_of_a_version_has_its_engines_kernels():
    assert [engine(name).family for name in ("vllm", "vllm-0.12", "trtllm-1.1")] == [
        "vllm",
        "vllm",
        "trtllm",
    ]


def test_trtllm_holds_twice_the_tokens_beside_weights_in_fp8():
    """What made it 48 % too fast at 128 in flight: 16-bit keys, so half as many at once."""
    fp8 = {"gpu": {"name": "h100", "model": "qwen3-32b", "weight_dtype": "fp8"}}
    trtllm, vllm = (config(engine=name, **fp8).gpu for name in ("trtllm", "vllm"))
    assert trtllm.kv_dtype == "fp8"
    assert trtllm.num_blocks(16) > 2 * vllm.num_blocks(16)
    wide = config(
        engine="trtllm", gpu={**fp8["gpu"], "kv_dtype": "bf16", "gpu_memory_utilization": 0.92}
    ).gpu
    assert wide.num_blocks(16) == vllm.num_blocks(16)


def test_a_share_of_free_memory_leaves_more_beside_large_weights():
    gpu = {"name": "h200", "model": "llama-3.1-70b", "weight_dtype": "fp8"}
    card = config(engine="trtllm", gpu=gpu).gpu
    free_bytes = card.name.memory_bytes - card.model.weight_bytes("fp8")
    kept_bytes = (1 - card.gpu_memory_utilization) * card.name.memory_bytes
    assert kept_bytes == pytest.approx(0.1 * free_bytes)


@pytest.mark.parametrize("name", engine_names())
def test_how_far_off_is_said_for_every_kind_of_server(name):
    preset = engine(name)
    for tp in (1, 2):
        for dtype in ("bf16", "fp8", "int4"):
            said = preset.accuracy(tp, dtype)
            records = [
                c
                for c in preset.checked
                if (c.bits, c.tensor_parallel) == ({"bf16": 16, "fp8": 8, "int4": 4}[dtype], tp > 1)
                and c.step_time == "roofline"
            ]
            assert said.startswith("TPOT was" if records else "not checked")


def test_a_step_time_that_is_predicted_has_the_default_engine_and_others_have_none():
    assert config().engine == engine("vllm")
    assert config(step_time=LINEAR).engine is None
    assert config(step_time="h100-llama-3.1-8b").engine is None
    assert config(step_time=LINEAR, engine={"name": "busdoor"}).engine == engine("busdoor")
    measured = {"step_time": "h100-llama-3.1-8b"}
    assert config(cluster={"pool": [measured, measured]}).engine is None
    assert config(cluster={"pool": [measured, {}]}).engine == engine("vllm")


def test_one_engine_for_every_policy_and_every_pool():
    pools = [{"gpu": {"name": "h100"}}, {"gpu": {"name": "l40s"}}]
    mine = {"name": "vllm", "host_per_request_s": 48e-6}
    settled = config(engine=mine, cluster={"pool": pools})
    assert {pool.step_time.engine.host_per_request_s for pool in settled.pools} == {48e-6}
    assert settled.engine.host_per_step_s == engine("vllm").host_per_step_s


def test_an_engine_sets_limits_and_memory_where_the_user_is_silent():
    mine = {"name": "mine", "max_num_seqs": 96, "gpu_memory_utilization": 0.8}
    settled = config(engine=mine)
    assert settled.policies[1].config.max_num_seqs == 96
    assert settled.gpu.gpu_memory_utilization == 0.8
    given = config(
        engine=mine, policy={"name": "vllm", "max_num_seqs": 8}, gpu={"gpu_memory_utilization": 0.5}
    )
    assert (given.policies[0].config.max_num_seqs, given.gpu.gpu_memory_utilization) == (8, 0.5)


def test_an_engine_of_ones_own_survives_the_way_through_a_file():
    settled = config(
        engine={"name": "vllm", "host_per_step_s": 1e-3, "sources": {"host_per_step_s": "measured"}}
    )
    again = Config.from_table(settled.to_dict())
    assert again == settled
    assert again.step_time.host_s == (1e-3, engine("vllm").host_per_request_s)
    assert settled.prediction.endswith("; not checked")  # the preset was, not this host
    none = config(engine={"name": "vllm", "host_per_step_s": 0.0, "frontend_per_request_s": 0.0})
    assert Config.from_table(json.loads(json.dumps(none.to_dict()))) == none


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ({"lookahead": 0}, 0),
        ({}, 1),  # the default engine's
        ({"engine": {"name": "mine", "lookahead": 0}}, 0),
        ({"engine": {"name": "mine"}}, 1),  # vllm is among the policies
        ({"engine": {"name": "mine"}, "policy": ["static", "orca"]}, 0),
        ({"step_time": LINEAR}, 1),
        ({"step_time": LINEAR, "policy": "static"}, 0),
        ({"step_time": "vllm-cpu"}, 0),  # what it was measured with
        ({"step_time": "h100-llama-3.1-8b", "policy": "static"}, 1),
        ({"step_time": "vllm-cpu", "engine": {"name": "vllm"}}, 1),
    ],
)
def test_lookahead_is_given_or_the_engines_or_the_policies(tables, expected):
    assert config(**tables).lookahead == expected


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ({"engine": {"name": "vlm", "host_per_steps_s": 1}}, "did you mean 'host_per_step_s'"),
        ({"engine": "vlm"}, "'vlm' is not an engine of the catalogue; did you mean 'vllm'?"),
        ({"engine": {"host_per_step_s": 1e-3}}, "[engine] has no name"),
        ({"engine": {"name": "mine", "host_per_step_s": 1.5}}, "host_per_step_s = 1.5"),
        (
            {"step_time": {"name": "roofline", "engine": "vllm"}},
            "[step_time] engine = 'vllm': it belongs into [engine]",
        ),
    ],
)
def test_a_wrong_engine_is_one_sentence(tables, says):
    with pytest.raises(ValueError) as error:
        config(**tables)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


FRONT_END = {"name": "mine", "frontend_per_request_s": 0.25, "frontend_per_token_s": 0.01}


def served(trace, front_end=None, **options):
    policy = policy_config("vllm", max_num_seqs=4).build(
        KVConfig(num_blocks=1000, max_model_len=512)
    )
    return simulate(trace, policy, LinearStepTime(base_s=1.0), engine=front_end, **options).requests


@pytest.mark.parametrize("step_by_step", [False, True])
@pytest.mark.parametrize("lookahead", [0, 1])
def test_a_request_passes_the_front_end_before_it_is_scheduled(lookahead, step_by_step):
    trace = Trace(arrival_s=[0.0, 10.0], input_tokens=[75, 25], output_tokens=[3, 3])
    found = served(trace, FRONT_END, lookahead=lookahead, step_by_step=step_by_step)
    np.testing.assert_allclose(found["first_scheduled_s"], [1.0, 10.5], rtol=1e-9)
    np.testing.assert_allclose(found["finish_s"] - found["arrival_s"], [4.0, 3.5], rtol=1e-9)


def test_a_long_prompt_is_overtaken_in_the_front_end():
    trace = Trace(arrival_s=[0.0, 0.1], input_tokens=[100, 1], output_tokens=[2, 2])
    found = served(trace, FRONT_END, lookahead=0)
    np.testing.assert_allclose(found["first_scheduled_s"], [1.36, 0.36], rtol=1e-9)


def test_a_closed_loop_pays_the_front_end_with_every_request():
    trace = Trace(arrival_s=[0.0] * 3, input_tokens=[75] * 3, output_tokens=[2] * 3, concurrency=1)
    found = served(trace, FRONT_END, lookahead=0)
    np.testing.assert_allclose(found["finish_s"], [3.0, 6.0, 9.0], rtol=1e-9)


def test_a_client_counts_the_front_end_in_its_patience():
    trace = Trace(arrival_s=[0.0], input_tokens=[75], output_tokens=[6], timeout_s=[5.5])
    assert served(trace, FRONT_END, lookahead=0)["status"].tolist() == [
        "abandoned"
    ]  # at 5.5 s of 7
    assert served(trace, lookahead=0)["status"].tolist() == ["finished"]


def test_no_front_end_is_no_delay():
    trace = Trace(arrival_s=[0.0, 0.5], input_tokens=[75, 3], output_tokens=[5, 9])
    times = ["first_scheduled_s", "first_token_s", "finish_s"]
    np.testing.assert_array_equal(served(trace)[times], served(trace, {"name": "none"})[times])


@pytest.mark.parametrize("cluster", [None, {"replicas": 2, "router": "round_robin"}])
def test_a_configuration_runs_with_its_engines_front_end(cluster):
    tables = {} if cluster is None else {"cluster": cluster}
    trace = Trace(arrival_s=[0.0, 5.0], input_tokens=[100, 100], output_tokens=[3, 3])
    results = []
    for delay_s in (0.0, 0.1):
        settled = config(
            engine={"name": "mine", "frontend_per_request_s": delay_s}, policy="vllm", **tables
        )
        results.append(run(settled, settled.policies[0], trace, limits_for(settled, [trace])))
    fast, slow = (result.requests["first_token_s"] for result in results)
    np.testing.assert_allclose(slow - fast, 0.1, rtol=1e-6)
    assert results[1].meta["engine"] == "mine"


def test_every_answer_names_its_engine_and_what_was_checked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    checked = engine("trtllm").accuracy()
    said = f"engine trtllm (1.0), lookahead 1; {checked}"
    flags = ["--engine", "trtllm", "--num-requests", "30", "--policy", "vllm"]
    assert main(["compare", *flags, "--replications", "1", "--out", "compared"]) == 0
    assert said in " ".join(capsys.readouterr().out.split())
    assert json.loads((tmp_path / "compared/comparison.json").read_text())["prediction"] == said
    assert main(["report", "compared"]) == 0
    assert said in (tmp_path / "compared/report.html").read_text()
    capsys.readouterr()
    assert main(["simulate", "azure-conv", *flags, "--out", "run"]) == 0
    assert checked in " ".join(capsys.readouterr().out.split())
    assert json.loads((tmp_path / "run/meta.json").read_text())["prediction"] == said
    result = busdoor.compare(
        "azure-conv", ["vllm"], num_requests=20, replications=1, gpu_options={"tp": 2}
    )
    assert "lookahead 1" in result.config.prediction


def test_a_calibration_is_no_prediction_of_an_engine():
    assert config(step_time="vllm-cpu").prediction == "lookahead 0"
