"""Gain of continuous over static, measured and simulated; recorded errors as a gate."""

import json
from dataclasses import replace

import numpy as np
import pytest

from busdoor.kv.config import KVConfig
from busdoor.metrics.saturation import saturated_rates
from busdoor.policies import policy_config
from busdoor.results.result import Result
from busdoor.simulator.simulate import simulate
from busdoor.step_time import CalibratedStepTime
from busdoor.step_time.base import StepTime
from busdoor.validation.regression import drifted, recorded_errors
from busdoor.validation.validate import validate
from busdoor_workloads import Trace

TRUTH = CalibratedStepTime(base_s=4e-3, per_request_s=2e-4, per_token_s=(1e-4,), per_context_s=1e-6)
KV = KVConfig(num_blocks=400, block_size=16, max_model_len=512)
CONTINUOUS = {"name": "vllm", "max_num_seqs": 8, "max_num_batched_tokens": 256}
STATIC = {"name": "static", "batch_size": 8}


class Noisy(StepTime):
    """The truth as a machine shows it: each iteration is off by some per cent."""

    def __init__(self, spread=0.05, seed=0):
        self.spread, self.rng = spread, np.random.default_rng(seed)

    def durations_s(self, batch, repeat):
        return TRUTH.durations_s(batch, repeat) * self.rng.lognormal(0.0, self.spread, repeat)


def trace(rate=np.inf, num_requests=96, seed=5, name="a"):
    rng = np.random.default_rng(seed)
    arrival_s = (
        np.cumsum(rng.exponential(1 / rate, num_requests))
        if rate < np.inf
        else np.zeros(num_requests)
    )
    lengths = {
        "input_tokens": rng.integers(16, 120, num_requests),
        "output_tokens": rng.integers(2, 60, num_requests),
    }
    return Trace(arrival_s=arrival_s, **lengths, name=name)


def measured(policy, served, seed=0, **meta):
    built = policy_config(**policy).build(KV, served)
    said = {"policy_config": policy, "gpu": "toy", "model": "toy", **meta}
    return simulate(served, built, Noisy(seed=seed), step_by_step=True, meta=said)


@pytest.fixture(scope="module")
def burst():
    return [measured(policy, trace(), seed) for seed, policy in enumerate((STATIC, CONTINUOUS))]


@pytest.fixture(scope="module")
def validation(burst):
    return validate(burst, TRUTH, ["static", "vllm"])


# The gain


def test_the_gain_of_a_burst_is_a_ratio_of_saturated_tokens_per_second(burst, validation):
    static, continuous = (run.summary["saturated_output_throughput"] for run in burst)
    row = validation.gain.iloc[0]
    assert (row["continuous"], row["static"]) == ("vllm", "static") and validation.e2e_ratio.empty
    rates = [saturated_rates(run.requests, run.meta)["output_throughput"] for run in burst]
    assert (static, continuous) == tuple(rates)  # what compare calls saturated
    assert row["measured"] == continuous / static > 1.3
    assert row["error"] == row["simulated"] / row["measured"] - 1
    assert abs(row["error"]) < 0.03  # noise of 5 % an iteration is less over hundreds of them


@pytest.mark.parametrize(
    ("rate", "num_requests"), [(4.0, 96), (np.inf, 16)]
)  # 16 are two static batches only
def test_without_a_lasting_queue_there_is_no_gain_but_an_e2e_ratio(rate, num_requests):
    served = trace(rate, num_requests)
    runs = [measured(policy, served) for policy in (STATIC, CONTINUOUS)]
    validation = validate(runs, TRUTH, ["static", "vllm"])
    assert validation.gain.empty and np.isnan(runs[0].summary["saturated_output_throughput"])
    row = validation.e2e_ratio.iloc[0]
    static, continuous = (run.summary["mean_e2el_ms"] for run in runs)
    assert row["measured"] == pytest.approx(static / continuous)
    assert (0 < row["load"] < 0.8) == np.isfinite(rate)
    assert recorded_errors(validation)["e2e_ratio"] == {"vllm / static": row["error"]}


def test_a_wrong_step_time_shows_in_the_gain_where_it_weighs_on_the_policies_unlike(burst):
    as_long = replace(
        TRUTH, base_s=8e-3, per_request_s=4e-4, per_token_s=(2e-4,), per_context_s=2e-6
    )
    on_prefills = replace(
        TRUTH, eager_s=0.01
    )  # somebody enters in most iterations of one, in few of the other
    alike, unlike = (validate(burst, own).gain["error"].item() for own in (as_long, on_prefills))
    assert abs(alike) < 0.03
    assert unlike < -0.1


def test_runs_are_paired_by_arrivals_lengths_and_device_not_by_name(burst):
    runs = {
        "bus": burst[0],
        "door": burst[1],
        "dynamic": measured({"name": "dynamic", "batch_size": 8}, trace(name="renamed")),
        "other lengths": measured(CONTINUOUS, trace(seed=6)),
        "other arrivals": measured(CONTINUOUS, trace(rate=50.0)),
        "other gpu": measured(CONTINUOUS, trace(), gpu="another"),
        "other model": measured(CONTINUOUS, trace(), model="another"),
    }
    gain = validate(list(runs.values()), TRUTH, list(runs)).gain
    assert list(zip(gain["continuous"], gain["static"], strict=True)) == [
        ("door", "bus"),
        ("door", "dynamic"),
    ]


def test_runs_of_one_policy_have_no_gain(burst):
    validation = validate(burst[1:], TRUTH)
    assert validation.gain.empty and validation.e2e_ratio.empty
    assert validation.to_dict()["gain"] == validation.to_dict()["e2e_ratio"] == []


def test_the_figure_shows_both_gains_of_each_pair(validation):
    widths = [bar.get_width() for bar in validation.plot_gain().axes[0].patches]
    assert widths == [validation.gain[side].item() for side in ("measured", "simulated")]


# The gate


@pytest.fixture
def recorded(validation):
    """As it comes back from a file."""
    return json.loads(json.dumps(recorded_errors(validation), allow_nan=False))


def test_what_was_recorded_has_not_drifted(validation, recorded):
    assert drifted(validation, recorded) == []
    assert (
        recorded["runs"]["vllm"]["e2e_mean"]
        == validation.runs[1].table.loc[("e2e", "mean"), "error"]
    )
    assert recorded["runs"]["static"]["tpot_mean"] is None  # answers came with their batch
    assert recorded["gain"] == {"vllm / static": validation.gain["error"].item()}


def test_a_result_read_back_from_its_folder_validates_as_it_did(burst, recorded, tmp_path):
    runs = [Result.load(run.save(tmp_path / str(number))) for number, run in enumerate(burst)]
    assert drifted(validate(runs, TRUTH, ["static", "vllm"]), recorded, tolerance=1e-9) == []


def test_only_an_error_that_grew_beyond_the_tolerance_is_named(validation, recorded):
    now = abs(recorded["runs"]["vllm"]["e2e_mean"])
    for then in (now - 0.004, -now - 1.0):  # within half a point; much better than it was
        recorded["runs"]["vllm"]["e2e_mean"] = then
        assert drifted(validation, recorded) == []
    recorded["runs"]["vllm"]["e2e_mean"] = 0.0
    assert drifted(validation, recorded, tolerance=now / 2) == [
        f"vllm: the error of e2e_mean is {100 * validation.runs[1].errors['e2e_mean']:+.2f} %; "
        f"recorded was +0.00 %, "
        f"and {100 * now / 2:g} points more are allowed"
    ]


def test_a_worse_simulator_is_named_with_run_and_quantity(burst, recorded):
    worse = validate(burst, replace(TRUTH, base_s=4.4e-3), ["static", "vllm"])
    said = drifted(worse, recorded)
    assert any(sentence.startswith("static: the error of step_total is +") for sentence in said)
    assert any(sentence.startswith("vllm: the error of output_rate is -") for sentence in said)


def test_a_number_on_one_side_only_is_named(validation, recorded):
    recorded["runs"]["static"]["tpot_mean"] = 0.01
    recorded["runs"]["vllm"]["tpot_mean"] = None
    del recorded["gain"]["vllm / static"]
    lost, new, pair = drifted(validation, recorded)
    assert lost == "static: the error of tpot_mean is no longer known; recorded was +1.00 %"
    assert new.startswith("vllm: the error of tpot_mean is ") and new.endswith(
        ", and was not recorded"
    )
    assert pair.startswith("gain: the error of vllm / static is ")


def test_a_run_on_one_side_only_is_named(burst, validation, recorded):
    alone = validate(burst[1:], TRUTH, ["vllm"])
    assert "static is recorded, but was not validated now" in drifted(alone, recorded)
    assert "static was validated, but has no recorded errors" in drifted(
        validation, recorded_errors(alone)
    )
