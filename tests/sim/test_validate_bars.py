"""The bars: which apply to a run, which are met, what is to blame; and what a page says of it."""

import json
from dataclasses import replace
from math import nan

import numpy as np
import pandas as pd
import pytest

from busdoor.calibration.host_launch import HostLaunch
from busdoor.calibration.import_logs import run_names
from busdoor.calibration.quality import StepErrors
from busdoor.cli.render import print_validation
from busdoor.cli.report_pages import page_of
from busdoor.comparison.demo import introductory_scenario
from busdoor.step_time.calibrated import CalibratedStepTime
from busdoor.validation.limits_text import host_lines, limit_lines
from busdoor.validation.page import validation_page
from busdoor.validation.table_text import (
    NAME_COLUMNS,
    brief_rows,
    run_rows,
    threshold_rows,
)
from busdoor.validation.thresholds import THRESHOLDS, blame, missed
from busdoor.validation.validate import validate
from busdoor.validation.validation import Validation


@pytest.fixture(scope="module")
def exact():
    """Measured and simulated alike: every error is 0."""
    return validate(introductory_scenario(), CalibratedStepTime(base_s=1.0), ["bus", "door"])


def one(exact, load=0.3, about=None, measured=None, **errors):
    """One run, with these errors instead of 0."""
    run = exact.runs[1]
    table = run.table.copy()
    for key in errors.keys() - {"step_mean_absolute", "step_total"}:
        table.loc[tuple(key.split("_")), "error"] = errors[key]
    steps = StepErrors(errors.get("step_mean_absolute", 0.0), 0.0, errors.get("step_total", 0.0))
    meta = measured or {}
    result = replace(run.measured, meta={**run.measured.meta, **meta})
    changed = replace(run, load=load, table=table, steps=steps, measured=result)
    return Validation([changed], exact.step_time, about or {})


@pytest.mark.parametrize(
    "quantity", [key for key in THRESHOLDS if key not in ("knee", "gain", "e2e_ratio")]
)
def test_a_bar_is_met_up_to_its_limit_on_either_side(exact, quantity):
    for sign in (1, -1):
        for share, met in ((0.99, True), (1.01, False)):
            validation = one(exact, **{quantity: sign * share * THRESHOLDS[quantity]})
            row = validation.bars.set_index("quantity").loc[quantity]
            assert row["met"] is met
            assert list(missed(validation)) == ([] if met else ["door"])


@pytest.mark.parametrize(
    ("load", "judged"), [(0.3, True), (0.79, True), (0.8, False), (1.2, False), (nan, False)]
)
def test_bars_bind_below_four_fifths_and_are_marked_at_any_load(exact, load, judged):
    validation = one(exact, load=load, e2e_mean=0.5)
    row = validation.bars.set_index("quantity").loc["e2e_mean"]
    assert (row["met"], row["within"], row["error"]) == (False if judged else None, False, 0.5)
    assert missed(validation) == {"door": ["E2E mean"]}
    cell = dict(threshold_rows(validation)[1])["E2E mean"][1]
    assert cell == ("+50.0 % ✗" if judged else "+50.0 % (✗)")


def test_bars_are_for_runs_that_the_calibration_has_not_seen(exact):
    validation = one(exact, about={"runs": ["door"]}, e2e_mean=0.5)
    assert validation.bars[["met", "within"]].isna().all(axis=None)
    assert missed(validation) == {}
    assert (
        limit_lines(validation)[0]
        == "The calibration was fitted to door: bars are for unseen runs."
    )
    assert "No bar applies" in validation.verdict


@pytest.mark.parametrize(
    "said",
    [
        {"device": {"threads": 1}},
        {"gpu": "cpu, 1 thread"},
        {"step_time": {"name": "measured", "clock": "cpu"}},
    ],
)
def test_on_a_processor_bars_are_double(exact, said):
    bars = one(exact, measured=said, e2e_mean=0.05).bars.set_index("quantity")
    assert (bars.loc["e2e_mean", "bar"], bars.loc["e2e_mean", "met"]) == (0.06, True)
    assert not one(exact, measured={"gpu": "NVIDIA H200"}, e2e_mean=0.05).bars["met"].dropna().all()


def test_the_calibration_says_the_device_where_the_run_does_not(exact):
    bars = one(exact, about={"gpu": "cpu, 1 thread"}, measured={"gpu": None}).bars.set_index(
        "quantity"
    )
    assert bars.loc["step_total", "bar"] == 0.03


def test_the_e2e_ratio_is_held_to_its_bar_when_both_runs_are_below_four_fifths(exact):
    table = exact.runs[1].table
    runs = [replace(run, load=0.5, table=table) for run in exact.runs]
    assert (
        Validation(runs, exact.step_time).bars.set_index("quantity").loc["e2e_ratio", "met"] is True
    )
    runs[0] = replace(runs[0], load=0.9)
    assert (
        Validation(runs, exact.step_time).bars.set_index("quantity").loc["e2e_ratio", "met"] is None
    )


def test_a_cell_has_the_error_and_whether_it_is_within(exact):
    columns, rows = threshold_rows(one(exact, e2e_mean=-0.025, ttft_mean=0.07))
    cells = dict(rows)
    assert columns == ["bar", "ρ < 0.5"]
    assert cells["E2E mean"] == ["≤ 3 %", "-2.5 % ✓"]
    assert cells["TTFT mean"] == ["≤ 6 %", "+7.0 % ✗"]
    assert cells["output tokens/s"][0] == "–"


def test_the_largest_part_is_to_blame_and_what_is_about_as_large(exact):
    budget = {"scheduling": 0.0, "step_model": 0.05, "host": nan, "feedback": -0.04, "total": 0.01}
    assert (
        blame(replace(exact.runs[1], budget=pd.Series(budget)))
        == "the step-time model (+5.0 %) and what queueing makes of the rest (-4.0 %)"
    )


def test_what_is_printed_says_what_the_step_time_cannot_know(exact, capsys):
    print_validation(exact)
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "contexts that differ within it, and the longest of them, have no term of their own" in said
    )
    assert "E2E ratio of bus over door: measured 2.41×, simulated 2.41×" in said


def test_two_runs_of_one_name_are_refused(exact):
    with pytest.raises(
        ValueError, match=r"two of the runs are called 'a'; give each a name of its own"
    ):
        validate(introductory_scenario(), exact.step_time, ["a", "a"])
    with pytest.raises(ValueError, match="there is nothing to validate"):
        validate([], exact.step_time)


def test_folders_of_one_name_are_told_apart_by_where_they_are(tmp_path):
    assert run_names([tmp_path / "low" / "vllm", tmp_path / "high" / "vllm"]) == [
        "low-vllm",
        "high-vllm",
    ]
    assert run_names([tmp_path / "rate_0.5", tmp_path / "rate_0.8"]) == ["rate_0.5", "rate_0.8"]


# Folder and page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    slower = CalibratedStepTime(base_s=1.0, per_request_s=0.1)
    validation = validate(
        introductory_scenario(), slower, ["bus", "door"], about={"name": "toy", "gpu": "<toy>"}
    )
    return validation.save(tmp_path_factory.mktemp("validation"))


def test_a_saved_validation_has_the_same_numbers_when_it_is_read_back(folder):
    loaded = Validation.load(folder)
    told = json.loads((folder / "validation.json").read_text(encoding="utf-8"))
    assert json.loads(json.dumps(loaded.to_dict(), allow_nan=False)) == told
    assert np.allclose(loaded.runs[1].predicted_s.sum(), 121.0)
    assert {"bars.csv", "regimes.csv", "e2e_ratio.csv", "e2e_ratio.svg", "bus.csv", "bus.svg"} <= {
        path.name for path in folder.iterdir()
    }


def test_a_folder_without_a_validation_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no validation: it has no validation\.json"):
        Validation.load(tmp_path)


def test_the_page_has_verdict_bars_gain_runs_budget_and_figures(folder):
    html = page_of(folder).html()
    for said in (
        "Answers take 2.41× as long under bus as under door (E2E ratio), and 2.59× when simulated "
        "(+7.5 %)",
        "Are the bars met?",
        "What continuous batching gains",
        '<th scope="row">of E2E mean: feedback</th>',
        "The bus: measured",
        "The bus: simulated",
        "&lt;toy&gt;",
        "<svg",
    ):
        assert said in html
    assert "The knee" not in html  # there is but one rate
    assert "http" not in html


def test_a_missed_bar_stands_out(folder):
    validation = Validation.load(folder)
    runs = [replace(run, load=0.5) for run in validation.runs]
    assert (
        "<strong>✗</strong></td>" in validation_page(Validation(runs, validation.step_time)).html()
    )


def test_errors_of_steps_stand_side_by_side_with_what_they_are_over(exact):
    run = replace(
        exact.runs[1], name="azure-conv-0.75-whole-prompts", steps=StepErrors(0.07, 0.1, -0.01)
    )
    [(name, cells)] = brief_rows([run])
    assert (
        name == f"azure-conv-0.75-\nwhole-prompts\n({run.num_iterations:,}; {run.num_requests:,})"
    )
    assert max(map(len, name.split("\n"))) <= NAME_COLUMNS
    assert cells[1:3] == ["7.0", "-1.0"]
    rows = dict(run_rows([run]))
    assert rows["iterations"] == [f"{run.num_iterations:,}"]
    assert rows["requests"] == [f"{run.num_requests:,}"]
    assert (rows["step time, each"], rows["step time, in all"]) == (["7.0 %"], ["-1.0 %"])
    said = run.to_dict()
    assert (said["num_iterations"], said["num_requests"]) == (run.num_iterations, run.num_requests)
    assert said["step_time"] == {"mean_absolute": 0.07, "p90": 0.1, "total": -0.01}


def test_whose_launches_a_run_was_simulated_with_is_said(exact):
    hosts = [HostLaunch(0.019, "run", 62), HostLaunch(0.0105, "calibration", 0)]
    runs = [replace(run, host_launch=host) for run, host in zip(exact.runs, hosts, strict=True)]
    [line] = host_lines(runs)
    assert "the mean of the run's own launches for bus" in line
    assert "the calibration's (too few launches in the run) for door" in line
    assert dict(run_rows(runs))["host, launching a step"] == ["19.0 ms", "10.5 ms"]
