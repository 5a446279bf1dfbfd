"""Two efficiencies from requests alone: what was put in comes back, and predicts the rest."""

import json
from dataclasses import replace

import numpy as np
import pytest

from busdoor.calibration import Calibration, calibrate_scaled, transfer
from busdoor.calibration.import_logs import from_requests_table, load_measured
from busdoor.calibration.request_load import Sent
from busdoor.cli import main
from busdoor.config import Config
from busdoor.core.batch import Batch
from busdoor.kv.config import KVConfig
from busdoor.policies import policy_config
from busdoor.simulator.simulate import simulate
from busdoor.step_time import ScaledRooflineStepTime, make_step_time
from busdoor_workloads import Trace, profile

SERVER = {"gpu": "h100", "model": "llama-3.1-8b"}
TRUTH = ScaledRooflineStepTime(**SERVER, gemm_scale=0.7, memory_scale=0.8, request_overhead_s=35e-6)
POLICY = {
    "name": "vllm", "max_num_seqs": 256, "max_num_batched_tokens": 8192,
    "num_blocks": 28_000, "block_size": 16, "max_model_len": 16_384,
}  # fmt: skip


def load(rate, num_requests=300, seed=0, name="azure-conv"):
    trace = profile(name).generate(seed=seed, num_requests=num_requests)
    if np.isfinite(rate):
        return trace.at_rate(rate)
    zeros = np.zeros(num_requests)
    return Trace(
        arrival_s=zeros, input_tokens=trace.input_tokens, output_tokens=trace.output_tokens
    )


def served(trace, step_time=TRUTH, **policy):
    kv = KVConfig(num_blocks=28_000, max_model_len=16_384)
    config = policy_config("vllm", max_num_seqs=256, max_num_batched_tokens=8192, **policy)
    return simulate(trace, config.build(kv, trace), step_time, lookahead=1, engine="vllm")


def timed(result, name, **about):
    """Keep of a run what a client sees."""
    return from_requests_table(result.requests, name, about)


@pytest.fixture(scope="module")
def fitted():
    runs = [
        timed(served(load(rate, seed=seed)), f"{rate}/s") for seed, rate in enumerate((2.0, 8.0))
    ]
    return calibrate_scaled(runs, ["light", "busy"], **SERVER, name="mine", policy=POLICY)


def test_two_rates_give_both_efficiencies_back(fitted):
    found = fitted.step_time
    assert found.gemm_scale == pytest.approx(TRUTH.gemm_scale, rel=0.02)
    assert found.memory_scale == pytest.approx(TRUTH.memory_scale, rel=0.02)
    for name in ("gemm_scale", "memory_scale", "request_overhead_s"):
        low, high = fitted.intervals[name]
        assert low < getattr(TRUTH, name) < high
    assert fitted.about["lookahead"] == 1
    assert "doubts" not in fitted.about
    assert max(map(abs, fitted.errors.values())) < 0.01


@pytest.mark.parametrize(
    ("rate", "name"),
    [(4.0, "azure-conv"), (np.inf, "azure-conv"), (6.0, "azure-code"), (1.0, "azure-code")],
)
def test_so_other_rates_a_burst_and_another_mix_are_predicted(fitted, rate, name):
    trace = load(rate, seed=9, name=name)
    measured, predicted = (served(trace, model).summary for model in (TRUTH, fitted.step_time))
    for key in ("mean_ttft_ms", "mean_tpot_ms", "mean_e2el_ms", "output_throughput"):
        assert predicted[key] == pytest.approx(measured[key], rel=0.01), key


def test_a_client_that_caps_its_requests_is_simulated_with_the_cap():
    """An open loop would queue for minutes what the client held back."""
    trace = load(20.0, 300)
    capped = served(replace(trace, concurrency=16))
    table = capped.requests.assign(sent_s=capped.requests["arrival_s"], arrival_s=trace.arrival_s)
    observed = replace(capped, requests=table, meta={"max_in_flight": 16, "trace": "capped"})
    light = timed(served(load(2.0)), "light")
    found = calibrate_scaled([light, observed], **SERVER, policy=POLICY)
    assert found.step_time.gemm_scale == pytest.approx(TRUTH.gemm_scale, rel=0.03)
    assert found.step_time.memory_scale == pytest.approx(TRUTH.memory_scale, rel=0.03)
    assert "doubts" not in found.about


def test_a_declared_prefix_is_not_computed_again():
    shared = 256
    trace = load(4.0, 200)
    whole = replace(trace, input_tokens=np.maximum(trace.input_tokens, shared + 1))
    ids = [tuple(range(shared // 16)) for _ in range(len(whole))]
    run = served(replace(whole, hash_ids=ids, block_size=16), prefix_caching=True)
    assert run.requests["cached_tokens"].max() == shared
    policy = {**POLICY, "prefix_caching": True}
    declared = Sent(shared_prefix_tokens=shared)
    found = calibrate_scaled([timed(run, "prefix")], **SERVER, policy=policy, sent=declared)
    assert found.step_time.gemm_scale == pytest.approx(TRUTH.gemm_scale, rel=0.05)
    ignored = calibrate_scaled([timed(run, "prefix")], **SERVER, policy=POLICY)
    assert ignored.step_time.gemm_scale > 1.05 * found.step_time.gemm_scale


def test_what_cannot_be_identified_is_refused_and_leaves_no_file(tmp_path, capsys):
    """Answers of two tokens to prompts of one: nothing of the matrix rate shows."""
    trace = Trace(
        arrival_s=np.arange(40) * 0.5, input_tokens=np.ones(40), output_tokens=np.full(40, 2)
    )
    run = served(trace)
    file = tmp_path / "short.csv"
    run.requests[
        ["arrival_s", "input_tokens", "output_tokens", "first_token_s", "finish_s"]
    ].to_csv(file, index=False)
    out = tmp_path / "mine.toml"
    flags = [
        "calibrate",
        str(file),
        "--from-requests",
        "--gpu",
        "h100",
        "--model",
        "llama-3.1-8b",
        "--out",
        str(out),
    ]
    assert main(flags) == 2
    assert "the fit is not written, because" in capsys.readouterr().err
    assert not out.exists()
    assert main([*flags, "--force"]) == 0
    assert Calibration.load(out).about["doubts"]


def test_another_gpus_times_are_refused(tmp_path):
    run = timed(
        served(load(2.0), make_step_time("roofline", gpu="h200", model="llama-3.1-8b")), "h200"
    )
    found = calibrate_scaled(
        [run], gpu="l4", model="llama-3.1-8b", gpu_options={"weight_dtype": "fp8"}, policy=POLICY
    )
    assert any(
        "ended at its bound" in doubt or "off in sample" in doubt for doubt in found.about["doubts"]
    )


@pytest.fixture(scope="module")
def file(fitted, tmp_path_factory):
    return str(fitted.save(tmp_path_factory.mktemp("fit") / "mine.toml"))


def test_the_file_holds_it_all(fitted, file):
    again = Calibration.load(file)
    assert again.step_time == fitted.step_time
    assert again.intervals == fitted.intervals
    assert again.errors == fitted.errors
    assert again.about["server"]["num_blocks"] == 28_000
    assert make_step_time("calibrated", path=file) == fitted.step_time


def test_a_configuration_takes_the_server_from_the_file(fitted, file):
    settled = Config.from_table({"step_time": file, "policy": "vllm"})
    assert (settled.gpu.name.name, settled.gpu.model.name, settled.engine.name) == (
        "h100",
        "llama-3.1-8b",
        "vllm",
    )
    assert settled.step_time.costs == fitted.step_time.costs
    assert (settled.kv.num_blocks, settled.lookahead) == (28_000, 1)
    assert "roofline scaled by mine" in settled.prediction
    assert Config.from_table(settled.to_dict()) == settled


def test_another_model_and_another_gpu_keep_the_scales(fitted, file):
    batch = Batch(num_decode_tokens=8, decode_context_tokens=8000)
    for gpu in ({"model": "qwen3-14b"}, {"name": "h200"}, {"tp": 2}):
        settled = Config.from_table({"step_time": file, "policy": "vllm", "gpu": gpu})
        card = {
            "gpu": "h100",
            "model": "llama-3.1-8b",
            "tp": 1,
            **{{"name": "gpu"}.get(k, k): v for k, v in gpu.items()},
        }
        scales = {
            key: getattr(fitted.step_time, key)
            for key in ("gemm_scale", "memory_scale", "request_overhead_s")
        }
        expected = ScaledRooflineStepTime(**card, **scales)
        assert settled.step_time.duration_s(batch) == pytest.approx(
            expected.duration_s(batch), rel=1e-12
        )
        assert settled.kv.num_blocks is None  # the other server's memory is its own
    moved = transfer(fitted, "h200")
    assert (moved.step_time.gpu.name, moved.about["transferred_from"]) == ("h200", "h100")
    assert moved.step_time.gemm_scale == fitted.step_time.gemm_scale


def test_the_commands_take_it(file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert (
        main(
            [
                "simulate",
                "azure-conv",
                "--num-requests",
                "5",
                "--step-time",
                file,
                "--model",
                "qwen3-14b",
                "--out",
                "s",
            ]
        )
        == 0
    )
    meta = json.loads((tmp_path / "s/meta.json").read_text())
    assert (meta["step_time"]["name"], meta["model"], meta["gpu"]) == (
        "scaled_roofline",
        "qwen3-14b",
        "h100",
    )
    assert main(["calibrate", file, "--transfer", "h200", "--out", "h200.toml"]) == 0
    assert Config.from_table({"step_time": "h200.toml"}).gpu.name.name == "h200"
    capsys.readouterr()


@pytest.mark.parametrize("kind", ["roofline", "file"])
def test_validate_takes_a_prediction(kind, file, tmp_path, capsys):
    run = served(load(4.0, 60))
    measured = tmp_path / "run.csv"
    columns = ["arrival_s", "input_tokens", "output_tokens", "first_token_s", "finish_s"]
    run.requests[columns].to_csv(measured, index=False)
    server = ["--gpu", "h100", "--model", "llama-3.1-8b"] if kind == "roofline" else []
    flags = [
        "--step-time",
        file if kind == "file" else "roofline",
        *server,
        "--out",
        str(tmp_path / "v"),
        "--json",
    ]
    assert main(["validate", str(measured), *flags]) == 0
    errors = json.loads(capsys.readouterr().out)["runs"]["run"]["errors"]
    tpot = errors["tpot"]["mean"]
    assert (
        abs(tpot) < 0.01 if kind == "file" else tpot < -0.1
    )  # the roofline is faster than this server


def test_validate_says_what_a_prediction_needs(tmp_path, capsys):
    run = served(load(4.0, 20))
    measured = tmp_path / "run.csv"
    columns = ["arrival_s", "input_tokens", "output_tokens", "first_token_s", "finish_s"]
    run.requests[columns].to_csv(measured, index=False)
    assert (
        main(["validate", str(measured), "--step-time", "roofline", "--out", str(tmp_path / "v")])
        == 2
    )
    assert (
        "the runs do not name their gpu, which a roofline needs; give it with --gpu"
        in capsys.readouterr().err
    )
    assert (
        main(
            [
                "validate",
                str(measured),
                "--step-time",
                "vllm-cpu",
                "--gpu",
                "h100",
                "--out",
                str(tmp_path / "v"),
            ]
        )
        == 2
    )
    assert "--gpu applies to --step-time roofline and operators" in capsys.readouterr().err


def test_a_bench_result_says_how_many_were_open(tmp_path):
    document = {
        "start_times": [0.0, 0.0, 1.0], "input_lens": [5, 5, 5], "output_lens": [2, 2, 2], "ttfts": [0.5] * 3,
        "itls": [[0.1]] * 3, "max_concurrency": 2, "request_rate": "inf",
    }  # fmt: skip
    (tmp_path / "bench.json").write_text(json.dumps(document))
    measured = load_measured(tmp_path / "bench.json")
    sent = Sent().load("bench", measured, POLICY)
    assert (sent.trace.concurrency, sent.trace.arrival_s.tolist(), sent.lookahead) == (
        2,
        [0.0, 0.0, 0.0],
        1,
    )
