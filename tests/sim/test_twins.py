"""Every machine's twin in the repository: the simulator of today is no worse than the one that was recorded."""

from pathlib import Path

import pytest

from busdoor.calibration import calibrate, drifted
from busdoor.calibration.twins import find_twins

TWINS = find_twins(Path(__file__).parents[2] / "gpu" / "results")
each_twin = pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)


def test_there_are_some():
    assert TWINS


@each_twin
def test_errors_have_not_grown_by_half_a_point(twin):
    validation = twin.validate()
    assert drifted(validation, twin.recorded) == []
    assert {run.agreement["played"] for run in validation.runs} == {1.0}, "given the durations, the same batches"


@each_twin
def test_the_calibration_is_what_its_profile_says(twin):
    again = calibrate([twin.profile], ["profile"], resamples=0)
    told, kept = (own.step_time.describe() for own in (again, twin.calibration))
    assert told["token_breaks"] == kept["token_breaks"]
    for term in (key for key in kept if key.endswith("_s")):
        assert told[term] == pytest.approx(kept[term], rel=1e-6, abs=1e-12), term


@each_twin
def test_nothing_was_fitted_to_what_it_is_judged_by(twin):
    assert twin.calibration.about["runs"] == ["profile"]
    assert {"vllm", "static"} == {result.meta["policy_config"]["name"] for result in twin.runs.values()}
