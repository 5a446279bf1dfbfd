"""How sure an error is, and whether its run shows a load: intervals, n, milliseconds, transients."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from busdoor.calibration.teacher_forcing import policy_of
from busdoor.kv.paged import PagedKV
from busdoor.policies.vllm import VllmPolicy
from busdoor.results.result import Result
from busdoor.simulator.simulate import simulate
from busdoor.step_time.linear import LinearStepTime
from busdoor.validation.intervals import ratio_interval
from busdoor.validation.limits_text import limit_lines
from busdoor.validation.page import validation_page
from busdoor.validation.table_text import brief_rows, gain_lines, run_rows, threshold_rows
from busdoor.validation.transient import transient
from busdoor.validation.validate import validate
from busdoor.validation.validation import Validation
from busdoor_workloads import Trace

REAL, MODEL = LinearStepTime(0.010, 1e-3), LinearStepTime(0.011, 1e-3)


def measured(rate, seconds=60.0, seed=0):
    """A run of the simulator's, as if it had been measured."""
    rng = np.random.default_rng(seed)
    count = int(rate * seconds)
    trace = Trace(
        arrival_s=np.sort(rng.uniform(0, seconds, count)),
        input_tokens=rng.integers(8, 40, count),
        output_tokens=rng.integers(8, 60, count),
    )
    meta = {
        "policy_config": {"name": "vllm", "max_num_seqs": 16, "max_num_batched_tokens": 64},
        "num_blocks": 4000,
        "block_size": 16,
        "max_model_len": 256,
    }
    policy = VllmPolicy(PagedKV(4000, 16), 16, 64, max_model_len=256)
    return simulate(trace, policy, REAL, step_by_step=True, meta=meta)


@pytest.fixture(scope="module")
def calm():
    return validate([measured(5.0)], MODEL, ["calm"])


def test_an_interval_covers_the_true_error_of_correlated_requests():
    """Latencies in a queue are alike: AR(1) of 0.8, whose means spread three times as much."""
    noise = np.random.default_rng(1).normal(size=(60, 2, 600))
    for step in range(1, 600):
        noise[..., step] += 0.8 * noise[..., step - 1]

    def covered(measured, simulated):
        low, high = ratio_interval(lambda a, b: b.mean(-1) / a.mean(-1) - 1, measured, simulated)
        return low <= 0.05 <= high

    hits = [covered(10 + ours, 10.5 + theirs) for ours, theirs in noise]
    assert 0.8 <= np.mean(hits) < 1.0
    shuffled = [
        covered(10 + ours[order], 10.5 + theirs[order])
        for (ours, theirs) in noise
        for order in [np.random.default_rng(2).permutation(600)]
    ]
    assert np.mean(shuffled) < 0.6  # what blocks are for


def test_errors_have_intervals_that_hold_them_and_a_count(calm):
    [run] = calm.runs
    assert (run.table.loc[["ttft", "tpot", "e2e"], "n"] == 300).all()
    for quantity in ("e2e_mean", "ttft_p50", "tpot_mean", "step_total", "step_mean_absolute"):
        low, high = run.interval(quantity)
        assert low <= run.errors[quantity] <= high, quantity
    assert np.isnan(run.interval("itl_mean")).all()
    assert np.isnan(run.interval("output_rate")).all()
    said = run.to_dict()
    assert said["intervals"]["e2e_mean"] == list(run.interval("e2e_mean"))
    assert said["intervals"]["itl_mean"] == [None, None]


def test_an_error_in_milliseconds_is_simulated_less_measured(calm):
    [run] = calm.runs
    row = run.table.loc[("e2e", "mean")]
    assert run.difference_s("e2e_mean") == pytest.approx(row["simulated"] - row["measured"])
    assert run.difference_s("step_total") == pytest.approx(1e-3)  # 11 ms for 10
    assert run.difference_s("step_mean_absolute") == pytest.approx(1e-3)


def test_few_requests_have_no_interval():
    assert np.isnan(ratio_interval(lambda a, b: b.mean(-1) / a.mean(-1), *np.ones((2, 15)))).all()


def test_a_page_shows_milliseconds_intervals_and_counts(calm):
    [cell] = dict(run_rows(calm.runs, detailed=True))["step time, in all"]
    first, off, interval = cell.split("\n")
    assert (first[0], off, interval.endswith(" %")) == ("+", "+1 ms", True)
    cell = dict(threshold_rows(calm, detailed=True)[1])["E2E mean"][1]
    assert cell.endswith("\nn 300")
    assert "+1 ms<br>" in validation_page(calm).html()


def test_a_load_is_no_transient_and_too_short_a_run_is(calm):
    assert calm.runs[0].transient == ""
    short = validate([measured(10.0, seconds=1.5)], MODEL, ["short"])
    [run] = short.runs
    assert run.load < 1
    assert run.transient.startswith("it lasted 1.4")
    assert limit_lines(short)[0] == f"t: a transient, which shows no load: short ({run.transient})."
    assert brief_rows([run])[0][1][0].endswith(" t")
    assert dict(threshold_rows(short)[1])["E2E mean"][1].endswith(" t")
    present = Result(
        run.measured.requests,
        run.measured.iterations,
        run.measured.stays,
        {**run.measured.meta, "num_present": 12},
    )
    assert replace(run, measured=present).transient == ""


def test_the_error_of_an_e2e_ratio_has_an_interval_that_holds_it():
    trace = Trace(
        arrival_s=np.arange(60) / 2.0,
        input_tokens=np.full(60, 20),
        output_tokens=np.random.default_rng(0).integers(5, 60, 60),
    )
    memory = {"num_blocks": 4000, "block_size": 16, "max_model_len": 256}
    runs = []
    for fields in (
        {"name": "vllm", "max_num_seqs": 16, "max_num_batched_tokens": 64},
        {"name": "static", "batch_size": 4},
    ):
        meta = {"policy_config": fields, **memory}
        policy = policy_of(meta, trace)
        runs.append(simulate(trace, policy, REAL, step_by_step=True, meta=meta))
    validation = validate(runs, MODEL, ["door", "bus"])
    [line] = gain_lines(validation)
    low, high = (float(end) for end in re.search(r"\((.*) to (.*) %; n 60\)", line).groups())
    assert low <= 100 * validation.e2e_ratio["error"][0] <= high
    assert low < high


def test_a_knee_of_a_transient_is_marked(calm):
    runs = [calm.runs[0], *validate([measured(rate) for rate in (12.0, 16.0)], MODEL).runs]
    over = validate([measured(60.0, seconds=5.0)], MODEL, ["over"]).runs
    validation = Validation([*runs, *over], MODEL)
    row = validation.bars.set_index("quantity").loc["knee"]
    assert row["run"] == "calm / run 1 / run 2 / over"
    assert dict(threshold_rows(validation)[1])["knee"][-1].endswith("✓ t")


def test_requests_that_failed_do_not_pile_up_in_the_queue():
    times = np.arange(100.0)
    trace = Trace(arrival_s=times, input_tokens=[9] * 100, output_tokens=[9] * 100)
    requests = pd.DataFrame({"arrival_s": times, "finish_s": times + 4.0})
    assert transient(requests.assign(finish_s=np.nan), trace, 0.5) == ""
    requests.loc[::2, "finish_s"] = np.nan
    assert transient(requests, trace, 0.5) == ""


def test_an_overload_is_a_transient_and_a_burst_is_not(calm):
    [run] = validate([measured(60.0, seconds=5.0)], MODEL, ["over"]).runs
    assert run.load > 1
    assert run.transient.endswith("its queue grows as long as it lasts")
    assert replace(run, load=float("nan")).transient == ""


def test_a_saved_validation_keeps_intervals_and_one_without_them_is_read(calm, tmp_path):
    folder = calm.save(tmp_path / "kept")
    [run] = Validation.load(folder).runs
    assert run.interval("e2e_mean") == pytest.approx(calm.runs[0].interval("e2e_mean"))
    file = folder / "calm.csv"
    table = pd.read_csv(file, index_col=[0, 1])[["measured", "simulated", "error"]]
    table.to_csv(file)
    [old] = Validation.load(folder).runs
    assert np.isnan(old.interval("e2e_mean")).all()
    assert old.difference_s("e2e_mean") == pytest.approx(run.difference_s("e2e_mean"))
