"""The nine points of the gain: predictions are written before anything is measured."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks.gpu import gain
from benchmarks.gpu.gain import points, run

from busdoor.results.result import Result
from busdoor.step_time.linear import LinearStepTime
from busdoor_gpu.twin.grid import GridLimits
from busdoor_gpu.twin.held_out_runs import Machine

LIMITS = GridLimits(16, 256, 512, 1024)
STEP_TIME = LinearStepTime(base_s=0.01, per_token_s=1e-4)


def test_every_law_has_static_batches_of_three_sizes_on_the_requests_of_the_continuous_run():
    drawn = list(points(GridLimits(256, 2048, 8192, 10000)))
    assert len(drawn) == 12 and len({point.name for point in drawn}) == 12
    for law in ("fixed", "uniform", "lognormal"):
        continuous, *static = [point for point in drawn if point.law == law]
        for point in static:
            count = len(point.trace)
            assert count == 4 * point.fields["max_num_seqs"]
            assert (
                point.trace.output_tokens.tolist()
                == continuous.trace.output_tokens[:count].tolist()
            )
    assert max(point.trace.output_tokens.max() for point in drawn) <= 256


def test_predictions_come_first_and_equal_lengths_gain_least(
    models, torch_backend, tmp_path, monkeypatch
):
    machine = Machine(models["tiny-llama"], torch_backend, LIMITS, "paced")
    monkeypatch.setattr(gain, "_SIZES", (2, 4))
    measured, replay = [], gain.replay

    def counting(*args, **options):
        assert (tmp_path / "prediction.json").exists(), "before the first run"
        measured.append(1)
        return replay(*args, **options)

    monkeypatch.setattr(gain, "replay", counting)
    found = run(machine, STEP_TIME, tmp_path, shrink=16)
    assert len(measured) == 9
    assert found["predicted"] == json.loads((tmp_path / "prediction.json").read_text())["gain"]
    assert set(found["error"]) == set(found["measured"]) == set(found["predicted"])
    assert all(np.isfinite(value) for value in found["predicted"].values())
    assert found["predicted"]["fixed-static-4"] < found["predicted"]["lognormal-static-4"]
    first = Result.load(tmp_path / "runs" / "fixed-static-4").meta["started_at"]
    assert json.loads((tmp_path / "prediction.json").read_text())["written_at"] <= first
