"""How sure an answer is: its three sources, draws in files, and what to measure next."""

import json

import numpy as np
import pytest

from busdoor.calibration import Calibration
from busdoor.capacity.api import capacity_of, make_study
from busdoor.capacity.confidence.rates import _Curve, belief
from busdoor.capacity.confidence.report import uncertainty
from busdoor.cli import main
from busdoor.comparison.sources import ModelError, model_error, step_time_draws
from busdoor.config import Config
from busdoor.step_time.calibration_files import read_draws

LAWS = {
    "input_tokens": {"type": "uniform", "low": 10, "high": 100},
    "output_tokens": {"type": "exponential", "mean": 20, "max": 100},
    "arrival": 5.0,
    "num_requests": 200,
}


def config_of(path, **tables):
    step_time = {"name": "calibrated", "path": path}
    policy = {"name": "vllm", "max_num_seqs": 16, "max_num_batched_tokens": 512}
    given = {"workload": LAWS, "policy": [policy], "step_time": step_time, "replications": 4}
    return Config.from_table({**given, "slo": {"e2e_mean": "0.4s"}, **tables})


@pytest.fixture(scope="module")
def study():
    one = make_study(
        config_of("h100-llama-3.1-8b"), num_requests=100, tolerance=0.2, max_doublings=1
    )
    one.run()
    return one


def known(study, sd):
    answer = study.answers[0]
    error = ModelError(sd, "given")
    return belief(study.runs, study.slo, answer.table, answer, 100, error=error)


def test_each_source_widens_the_answer_and_is_named(study):
    sure, unsure = known(study, 0.0), known(study, 0.1)
    assert sure.half_widths()["model"] == 0.0 < unsure.half_widths()["model"]
    assert 0 < sure.half_widths()["calibration"] < 0.2
    low, high = unsure.interval
    assert low < sure.interval[0] < study.answers[0].rate < sure.interval[1] < high
    assert unsure.said["calibration"] == "40 draws of the fit"
    assert unsure.said["model"] == "given"


def test_the_chance_falls_with_the_rate_and_targets_share_it(study):
    own = known(study, 0.05)
    chances = [own.chance(factor * study.answers[0].rate) for factor in (0.5, 1.0, 2.0)]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] > 0.9 > 0.1 > chances[2]
    missed = own.missed(study.answers[0].rate)
    assert set(missed) == {"e2e_mean", "stability"}
    assert 1 - own.chance(study.answers[0].rate) <= sum(missed.values()) + 1e-9


def test_more_confidence_takes_more_servers(study):
    own = known(study, 0.05)
    rate = 10 * study.answers[0].rate
    few, many = own.replicas(rate, 0.5, 1), own.replicas(rate, 0.99, 1)
    assert few < many
    assert own.chance(rate / many) >= 0.985


def test_a_scale_of_all_step_times_shifts_the_rate_as_a_slower_server_does(study):
    """The time-rescaling argument, held against a search on the slower server."""
    own = known(study, 0.0)
    slower = study.runs.config.step_time.describe()
    seconds = [key for key, value in slower.items() if key.endswith("_s") and value]
    times = {key: 1.1 * np.array(slower[key]) for key in seconds}
    times = {key: value.tolist() for key, value in times.items()}
    tables = {"step_time": {**slower, **times}}
    other = make_study(
        config_of("h100-llama-3.1-8b", **tables), num_requests=100, tolerance=0.2, max_doublings=1
    )
    other.run()
    answer = study.answers[0]
    curve = _Curve.around(study.runs, study.slo, answer.table, answer, 100)
    none = dict.fromkeys(own.scales, np.zeros(1))
    predicted = min(float(rates[0]) for rates in curve.rates(none, np.log([1.1])).values())
    assert predicted == pytest.approx(other.answers[0].rate, rel=0.25)
    assert predicted < answer.rate


def test_the_model_error_is_of_the_record_else_the_worst_so_far():
    roofline = Config.from_table({"workload": LAWS, "policy": [{"name": "vllm"}]})
    recorded = model_error(roofline, 0.5, None)
    assert "measured loads of vllm" in recorded.source
    worst = model_error(config_of("h100-llama-3.1-8b"), 0.5, None)
    assert worst.sd >= recorded.sd and "worst error measured so far" in worst.source
    linear = Config.from_table({"workload": LAWS, "step_time": {"name": "linear", "base_s": 0.01}})
    assert model_error(linear, 0.5, None).sd == 0.0


def test_draws_keep_what_goes_together(tmp_path):
    fit = Calibration.load("h100-llama-3.1-8b")
    assert len(fit.draws) == 40 and "format" not in fit.about
    file = fit.save(tmp_path / "fit.toml")
    assert "format = 2" in file.read_text()
    assert read_draws(file) == [dict(draw) for draw in fit.draws]
    models, said = step_time_draws(config_of(str(file)), 10)
    assert [model.base_s for model in models] == [draw["base_s"] for draw in fit.draws[:10]]
    assert said == "40 draws of the fit"


def test_files_of_format_1_have_intervals_alone_and_newer_ones_are_refused(tmp_path):
    models, said = step_time_draws(config_of("vllm-cpu"), 5)
    assert len(models) == 5 and "as if independent" in said
    assert len({model.base_s for model in models}) == 5
    text = Calibration.load("vllm-cpu").save(tmp_path / "new.toml").read_text()
    (tmp_path / "new.toml").write_text(
        text.replace("[calibration]\n", "[calibration]\nformat = 9\n")
    )
    with pytest.raises(ValueError, match="format = 9 is newer than 2"):
        Calibration.load(tmp_path / "new.toml")


def test_sentences_and_json_of_a_study(study):
    found = capacity_of(study)
    rate = 2.5 * study.answers[0].rate
    told = uncertainty(study, found, rate, confidence=0.9, next_too=True)
    assert "servers with vllm: " in told["lines"][0] and "P(mean E2E > 400 ms)" in told["lines"][0]
    assert "for a confidence of 90 %" in told["lines"][1]
    assert "measure next" in told["lines"][2] and "narrows from" in told["lines"][2]
    assert told["rows"]["vllm"]["low"] < told["rows"]["vllm"]["high"]
    with pytest.raises(ValueError, match="give the rate"):
        uncertainty(study, found, confidence=0.9)
    with pytest.raises(ValueError, match="between 0 and 1"):
        uncertainty(study, found, rate, confidence=95.0)


def test_the_command_says_how_sure_it_is(tmp_path, capsys):
    flags = ["--policy", "vllm", "--slo", "e2e_mean=3s", "--rate", "30", "--num-requests", "100"]
    fast = ["--replications", "3", "--tolerance", "0.3", "--jobs", "1", "--json"]
    step_time = ["--step-time", "h100-llama-3.1-8b", "--out", str(tmp_path / "cap")]
    assert main(["capacity", *flags, *fast, *step_time]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["uncertainty"]["rows"]["vllm"]["sources"]["calibration"] == "40 draws of the fit"
    assert main(["report", str(tmp_path / "cap")]) == 0
    assert "How sure this is" in (tmp_path / "cap" / "report.html").read_text()
