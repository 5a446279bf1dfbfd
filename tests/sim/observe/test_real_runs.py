"""The real vLLM on a CPU, measured three times each: today's simulator is no worse than then."""

import json
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="the extra observe is not installed")

from benchmarks.real_vllm import drawn
from lessons.real_server import (
    FOLDER,
    STEP_BAR,
    batches_that_repeat,
    gains,
    kinds,
    real_run,
    repeated,
    runs_of,
    step_totals,
)

from busdoor.calibration import Calibration, calibrate
from busdoor.observe.twin.make import model_of
from busdoor.observe.twin.prediction import prediction_rows

MEASURED = Path(__file__).parents[2] / "measured"
CALIBRATION = Calibration.load(FOLDER / "calibration.toml")
FITTED = ["load-0.3-1", "load-0.8-1"]
RUNS = [run for kind in kinds() for run in runs_of(kind)]


def drawn_for(kind, capacity):
    """Draw what was sent, as benchmarks/real_vllm.py drew it."""
    if kind.startswith("load"):
        load = float(kind.partition("-")[2])
        return drawn(10 + [0.3, 0.55, 0.8, 1.1].index(load), 300, round(capacity * load, 1))
    return drawn(30, 150) if kind.startswith("preempting") else drawn(20, 300)


@pytest.mark.parametrize("name", RUNS)
def test_every_batch_repeats_given_the_durations(name):
    """Preempted requests find their own blocks where vLLM's prefix cache is on, and only there."""
    share, preemptions = batches_that_repeat(name)
    assert share == "100%"
    assert (preemptions > 20) == name.startswith("preempting")


@pytest.mark.parametrize("kind", ["load-1.1", "burst", "static", "preempting"])
def test_predictions_are_those_that_were_written_before_the_runs(kind):
    capacity = json.loads((FOLDER / "found_capacity.json").read_text())["capacity_rps"]
    meta = real_run(f"{kind}-1").engine.meta
    model = model_of(CALIBRATION, [real_run(name) for name in FITTED], None)
    model = type(model)(
        model.step_time, {**model.meta, "num_blocks": meta["num_blocks"]}, model.front_end_s
    )
    static = 16 if kind == "static" else None
    now = prediction_rows(model, drawn_for(kind, capacity), kind, static)["predicted"]
    written = json.loads((FOLDER / "predictions" / f"{kind}-1.json").read_text())
    kept = [row["predicted"] for row in written["rows"]]
    assert now.tolist() == pytest.approx(
        [float("nan") if value is None else value for value in kept], rel=1e-6, nan_ok=True
    )
    assert written["written_at"] < real_run(f"{kind}-1").client.meta["started_at"]


def test_the_calibration_is_what_its_two_runs_say():
    assert CALIBRATION.about["runs"] == FITTED
    again = calibrate([real_run(name).engine for name in FITTED], FITTED, resamples=0)
    fitted, kept = (own.step_time.describe() for own in (again, CALIBRATION))
    for term in ("base_s", "eager_s", "per_request_s", "per_chunk_s"):
        assert fitted[term] == pytest.approx(kept[term], rel=0.01), term


@pytest.mark.parametrize("quantity", ["e2e_mean", "ttft_mean"])
def test_below_a_load_of_0_8_mean_latencies_keep_their_bars(quantity):
    """E2E 5 %, TTFT 10 %, or twice the spread of the repetitions."""
    table = repeated(quantity)
    below = table[table["load"] < 0.8]
    assert below.index.tolist() == ["load-0.3", "load-0.55", "load-0.8"]
    assert below["met"].all()
    assert (below["error_%"].abs() < 13).all()


def test_step_times_in_all_are_within_two_per_cent_and_drift():
    totals = step_totals()
    drift = totals.max(axis=1) - totals.min(axis=1)
    assert (totals.mean(axis=1).abs() <= STEP_BAR + drift).all()
    assert totals.mean(axis=1).abs().max() < 0.07
    assert abs(totals.mean().mean()) < 0.03


def test_the_gain_over_static_batches_of_the_same_server():
    table = gains()
    assert table["predicted_gain"].mean() == pytest.approx(table["measured_gain"].mean(), rel=0.05)
    assert table["measured_gain"].min() > 2.5


def test_a_third_partys_gain_was_predicted():
    """transformers' continuous batching over its generate: benchmarks/third_party.py."""
    kept = json.loads((MEASURED / "third_party.json").read_text())
    gains_measured = kept["measured_gains"]
    assert len(gains_measured) == 7
    mean = sum(gains_measured) / len(gains_measured)
    assert kept["predicted_gain"] == pytest.approx(mean, rel=0.05)
    assert kept["same_batches"] == 1.0
