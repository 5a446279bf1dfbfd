"""Every twin in the repository: today's simulator is no worse than the one recorded."""

import json
from pathlib import Path

import pytest

from busdoor.calibration import Calibration, calibrate, transfer
from busdoor.results.result import Result
from busdoor.validation.regression import drifted
from busdoor.validation.twin_folder import find_twins
from busdoor.validation.validate import validate

RESULTS = Path(__file__).parents[2] / "gpu" / "results"
H200 = RESULTS / "h200-from-h100"
TWINS = find_twins(RESULTS)
each_twin = pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)


def test_there_are_some():
    assert TWINS


@each_twin
def test_errors_have_not_grown_by_half_a_point(twin):
    validation = twin.validate()
    assert drifted(validation, twin.recorded) == []
    assert {run.agreement["played"] for run in validation.runs} == {1.0}, (
        "given the durations, the same batches"
    )


@each_twin
def test_the_calibration_is_what_its_profile_says(twin):
    again = calibrate([twin.profile], ["profile"], resamples=0)
    fitted, kept = (own.step_time.describe() for own in (again, twin.calibration))
    for field in ("token_breaks", "overlap", "pipeline", "graph_sizes", "mixed_graph_sizes"):
        assert fitted[field] == kept[field]
    for term in (key for key in kept if key.endswith("_s")):
        assert fitted[term] == pytest.approx(kept[term], rel=1e-6, abs=1e-12), term


@each_twin
def test_nothing_was_fitted_to_what_it_is_judged_by(twin):
    assert twin.calibration.about["runs"] == ["profile"]
    assert {"vllm", "static"} <= {
        result.meta["policy_config"]["name"] for result in twin.runs.values()
    }


def test_an_h100s_twin_keeps_its_bars_on_chats_below_saturation():
    """The E2E latency's bars, 3 % of mean, 6 % of p99, on open arrivals the fit never saw."""
    validation = next(twin for twin in TWINS if twin.name == "h100-llama-3.1-8b").validate()
    below = [run for run in validation.runs if run.load < 1]
    assert len(below) == 8
    for run in below:
        assert abs(run.table["error"]["e2e", "mean"]) < 0.026, run.name
        assert abs(run.table["error"]["e2e", "p99"]) < 0.013, run.name
    for run in validation.runs:
        assert run.steps.mean_absolute < 0.08, run.name
        assert abs(run.steps.total) < 0.017, run.name


def h200(calibration):
    """Validate the H200's runs with a calibration of its folder."""
    predicted = Calibration.load(H200 / calibration)
    assert predicted.about["transferred_from"] == "h100"
    names = sorted(path.name for path in (H200 / "runs").iterdir())
    results = [Result.load(H200 / "runs" / name) for name in names]
    validation = validate(results, predicted.step_time, names, about=predicted.about)
    assert {run.measured.meta["gpu"] for run in validation.runs} == {"NVIDIA H200"}
    assert len(validation.runs) == 5
    return validation


def test_an_h200_was_predicted_from_the_h100s_profile_alone():
    """Re-scaled by bandwidth and matrix rate, then measured: others miss 8 % (13 to 16 %)."""
    for run in h200("calibration.toml").runs:
        assert max(abs(run.table["error"]["e2e", own]) for own in ("mean", "p99")) < 0.08, run.name


def test_a_calibration_from_before_the_pipeline_means_what_it_meant():
    """Every number that was predicted for the H200 before it was measured is the simulator's today."""
    predicted = json.loads((H200 / "prediction.json").read_text(encoding="utf-8"))["runs"]
    for run in h200("calibration.toml").runs:
        now = {" ".join(key): value for key, value in run.table["simulated"].items()}
        kept = {key: value for key, value in predicted[run.name].items() if value is not None}
        assert len(kept) > 5
        assert {key: now[key] for key in kept} == pytest.approx(kept, rel=1e-9), run.name


def test_an_h200_by_the_pipeline_keeps_its_errors():
    """By the rules of today, chosen with these runs at hand, on each run's own host."""
    validation = h200("calibration-pipeline.toml")
    recorded = json.loads((H200 / "errors-pipeline.json").read_text(encoding="utf-8"))
    assert drifted(validation, recorded) == []
    for run in validation.runs:
        assert run.steps.mean_absolute < 0.056, run.name
        assert abs(run.steps.total) < 0.01, run.name
        assert abs(run.table["error"]["e2e", "mean"]) < 0.024, run.name


def test_the_h200s_calibration_is_the_h100s_transferred():
    kept = Calibration.load(H200 / "calibration-pipeline.toml").step_time.describe()
    again = transfer(Calibration.load("h100-llama-3.1-8b"), "h200").step_time.describe()
    assert again | {"calibration": ""} == kept | {"calibration": ""}
