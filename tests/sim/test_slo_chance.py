"""How sure a comparison's GPUs meet an SLO, and a validation that says how far the model is off."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from busdoor import compare
from busdoor.cli import main
from busdoor.comparison.comparison import Comparison
from busdoor.comparison.rescaled import Rescaled, log_ratios
from busdoor.comparison.sources import model_error
from busdoor.config import Config
from busdoor.config.limits import limits_for
from busdoor.config.run import run
from busdoor.results.slo_shares import slo_ratios
from busdoor.step_time.linear import LinearStepTime
from busdoor.validation.validation import Validation

MEASURED = Path(__file__).parents[2] / "gpu" / "results" / "cpu-tiny-llama"
LAWS = {
    "input_tokens": {"type": "uniform", "low": 10, "high": 100},
    "output_tokens": {"type": "exponential", "mean": 20, "max": 100},
    "arrival": 5.0,
    "num_requests": 300,
}
VLLM = {"name": "vllm", "max_num_seqs": 16, "max_num_batched_tokens": 512}
BATCH = {"name": "static", "batch_size": 8}


def comparison(slo, policies=(BATCH, VLLM)):
    step_time = {"name": "linear", "base_s": 0.01, "per_token_s": 1e-5}
    tables = {"slo": slo, "replications": 3, "step_time": step_time}
    return compare(LAWS, policies, **tables)


@pytest.fixture(scope="module")
def compared():
    return comparison({"e2e_p99": "1.5s"})


def test_an_exact_model_leaves_sampling_alone(compared, tmp_path):
    row = compared.chances.loc["vllm"]
    assert (
        row["half_width_model"] == row["half_width_calibration"] == 0 < row["half_width_sampling"]
    )
    assert row["source_model"] == "a linear step time is taken as exact"
    assert row["chance"] > 0.9 and row["missed_stability"] == 0
    assert compared.chances.loc["static", "chance"] < 0.1
    saved = Comparison.load(compared.save(tmp_path / "saved"))
    assert saved.chances.loc["vllm"].to_dict() == row.to_dict()
    compared.to_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "P(these meet the SLO)" in page and "1 GPU with vllm: over 99 %, P(E2E p99" in page


def test_the_chance_rises_with_the_limit(compared):
    used = compared.results["vllm"].latencies["e2e"].quantile(0.99)
    chances = [
        comparison({"e2e_p99": float(factor * used)}, [VLLM]).chances.loc["vllm", "chance"]
        for factor in (0.8, 1.3)
    ]
    assert chances[0] < 0.2 and chances[1] > 0.8


def test_longer_steps_are_the_same_server_at_a_higher_rate_with_tighter_limits():
    """What is read off runs at other rates, against a run with a slower step time."""
    no_front_end = {"name": "vllm", "frontend_per_request_s": 0.0, "frontend_per_token_s": 0.0}
    tables = {"workload": LAWS, "policy": VLLM, "slo": {"e2e_mean": "1s"}, "engine": no_front_end}
    config = Config.from_table(tables)
    own, slower = (LinearStepTime(base_s=0.01 * times) for times in (1.0, 1.2))
    trace = config.workload.trace(0, 0)

    def used(step_time, factor):
        made = replace(config, step_time=step_time)
        limits = limits_for(made, [trace])
        done = run(made, made.policies[0], trace.scale_time(1 / factor), limits)
        return log_ratios(slo_ratios(done, made.slo))

    curve = Rescaled.of([1.0, 1.2], [used(own, 1.0), used(own, 1.2)])
    expected = used(slower, 1.0)["e2e_mean"]
    assert curve.effect("e2e_mean", np.log(1.2)) == pytest.approx(expected)


def test_answers_released_whole_use_infinitely_much_of_a_limit_on_tokens(compared):
    slo = Config.from_table({"slo": {"tpot_p99": "1s", "e2e_mean": "9s"}}).slo
    used = slo_ratios(compared.results["static"], slo)
    assert used["tpot_p99"] == np.inf
    mean = compared.results["static"].latencies["e2e"].mean()
    assert used["e2e_mean"] == pytest.approx(mean / 9)


# A validation


@pytest.fixture(scope="module")
def validated(tmp_path_factory):
    """The folder that `busdoor validate` makes of runs that were measured."""
    folder = tmp_path_factory.mktemp("measured") / "checked"
    runs = [str(MEASURED / "runs" / f"rate_{rate}-vllm") for rate in (3.49, 24.7)]
    step_time = ["--step-time", str(MEASURED / "calibration.toml")]
    assert main(["validate", *runs, *step_time, "--out", str(folder)]) == 0
    return folder


def test_the_error_at_a_load_is_that_of_its_runs_and_wider_for_few(validated):
    config = Config.from_table({"workload": LAWS, "step_time": "cpu-tiny-llama", "policy": "vllm"})
    checked = Validation.load(validated)
    runs = {run.regime: abs(run.errors["tpot_mean"]) for run in checked.runs}
    assert set(runs) == {"ρ < 0.5", "0.5–0.8"}
    known = model_error(config, 0.6, checked)
    assert known.source == "1 validated run at 0.5–0.8"
    assert known.sd == pytest.approx(runs["0.5–0.8"] * 12.706 / 1.96, rel=1e-3)  # t of one run
    assert model_error(config, 0.9, checked).sd == max(runs.values())


def test_the_commands_take_the_folder(validated, tmp_path, capsys):
    laws = tmp_path / "study.toml"
    laws.write_text(
        "[workload]\nnum_requests = 80\narrival = 1.0\n"
        'input_tokens = {type = "uniform", low = 10, high = 100}\n'
        'output_tokens = {type = "uniform", low = 5, high = 30}\n'
        '[slo]\ne2e_p99 = "20s"\n'
    )
    shared = ["--config", str(laws), "--validation", str(validated), "--json"]
    step_time = ["--step-time", "cpu-tiny-llama", "--replications", "2"]
    vllm = ["--policy", "vllm,max_num_seqs=16"]
    capsys.readouterr()
    out = ["--out", str(tmp_path / "compare"), "--rate", "1"]
    assert main(["compare", *shared, *step_time, *vllm, *out]) == 0
    told = json.loads(capsys.readouterr().out)["slo_chances"]["vllm"]
    assert "validated run" in told["source_model"] and told["chance"] > 0.5
    out = ["--out", str(tmp_path / "cap"), "--rate", "1", "--tolerance", "0.4", "--jobs", "1"]
    assert main(["capacity", *shared, *step_time, *vllm, *out, "--num-requests", "80"]) == 0
    rows = json.loads(capsys.readouterr().out)["uncertainty"]["rows"]
    assert "validated" in rows["vllm"]["sources"]["model"]
    assert main(["compare", "--curve", "--validation", str(validated)]) == 2
    assert main(["recommend", "--validation", str(tmp_path), "--rate", "1"]) == 2
    assert "--validation does not apply to --curve" in capsys.readouterr().err
