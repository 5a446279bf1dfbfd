"""A calibration finds a log's terms and how sure it is; it refuses what no log tells."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busdoor.calibration import Calibration, calibrate, transfer
from busdoor.calibration.figures import plot_residuals
from busdoor.calibration.nnls import Sums
from busdoor.core.batch import Batch, Chunk
from busdoor.core.request import Request
from busdoor.kv.paged import PagedKV
from busdoor.policies.vllm import VllmPolicy
from busdoor.results.result import Result
from busdoor.simulator.simulate import simulate
from busdoor.step_time import CalibratedStepTime, make_step_time
from busdoor.validation.errors import step_errors
from busdoor_workloads import Trace

TRUE = CalibratedStepTime(
    base_s=5e-3,
    eager_s=1e-3,
    per_chunk_s=4e-4,
    per_request_s=2e-4,
    per_token_s=(1e-5, 2e-4),
    token_breaks=(32,),
    per_prefill_pair_s=2e-7,
    per_context_s=1e-6,
)
SINGLES = (
    "base_s",
    "eager_s",
    "per_chunk_s",
    "per_request_s",
    "per_prefill_pair_s",
    "per_context_s",
)


def run(step_time, *, rate=12.0, num_requests=250, seed=0):
    """A run of Poisson arrivals, iteration by iteration."""
    rng = np.random.default_rng(seed)
    trace = Trace(
        arrival_s=np.cumsum(rng.exponential(1 / rate, num_requests)),
        input_tokens=rng.integers(4, 250, num_requests),
        output_tokens=rng.integers(1, 60, num_requests),
    )
    policy = VllmPolicy(
        PagedKV(400, 16), max_num_seqs=24, max_num_batched_tokens=256, max_model_len=512
    )
    meta = {
        "policy_config": {"name": "vllm", "max_num_seqs": 24, "max_num_batched_tokens": 256},
        "model": "toy",
        "gpu": "toy",
    }
    return simulate(trace, policy, step_time, step_by_step=True, meta=meta)


def retimed(result, duration_s):
    """The same batches with other durations."""
    return Result(
        result.requests, result.iterations.assign(duration_s=duration_s), result.stays, result.meta
    )


def noisy(result, spread, seed=1):
    factors = np.random.default_rng(seed).lognormal(
        -(spread**2) / 2, spread, len(result.iterations)
    )
    return retimed(result, result.iterations["duration_s"] * factors)


@pytest.fixture(scope="module")
def clean():
    return run(TRUE)


@pytest.fixture(scope="module")
def noisy_fit(clean):
    return calibrate([noisy(clean, 0.1)])


def test_a_noiseless_log_gives_the_terms_back_and_no_error(clean):
    fitted = calibrate([clean], resamples=0)
    for term in SINGLES:
        assert getattr(fitted.step_time, term) == pytest.approx(getattr(TRUE, term), rel=1e-4), term
    assert fitted.step_time.token_breaks == (32,)
    assert fitted.step_time.per_token_s == pytest.approx(TRUE.per_token_s, rel=1e-4)
    assert max(map(abs, step_errors(clean, fitted.step_time))) < 1e-6
    assert abs(fitted.errors["held_out_mean_absolute"]) < 1e-6


def test_stretches_of_many_iterations_calibrate_as_single_ones_do(clean):
    jumps = simulate(
        Trace(
            arrival_s=clean.requests["arrival_s"],
            input_tokens=clean.requests["input_tokens"],
            output_tokens=clean.requests["output_tokens"],
        ),
        VllmPolicy(
            PagedKV(400, 16), max_num_seqs=24, max_num_batched_tokens=256, max_model_len=512
        ),
        TRUE,
    )
    assert len(jumps.iterations) < len(clean.iterations)
    assert calibrate([jumps], resamples=0).step_time.base_s == pytest.approx(TRUE.base_s, rel=1e-4)


def test_with_noise_the_terms_are_within_their_intervals(noisy_fit):
    # 95 % intervals: of seven terms none may be far outside, and most are inside.
    inside = 0
    for term in SINGLES:
        low, high = noisy_fit.intervals[term]
        width = high - low
        assert low - width / 2 <= getattr(TRUE, term) <= high + width / 2, term
        inside += low <= getattr(TRUE, term) <= high
    assert inside >= len(SINGLES) - 1
    assert noisy_fit.errors["mean_absolute"] == pytest.approx(0.08, abs=0.02)  # mean of |N(0, 0.1)|
    assert abs(noisy_fit.errors["total"]) < 2e-3
    assert noisy_fit.about["repeatability"] == pytest.approx(0.08, abs=0.02)


def test_a_compilation_is_left_out_and_counted(clean):
    seconds = clean.iterations["duration_s"].to_numpy(copy=True)
    seconds[[0, 100]] = 3.0
    fitted = calibrate([retimed(clean, seconds)], resamples=0)
    assert fitted.about["num_outliers"] == 2
    assert fitted.step_time.base_s == pytest.approx(TRUE.base_s, rel=1e-3)


def test_runs_are_held_out_one_by_one():
    runs = [run(TRUE, rate=rate, num_requests=120) for rate in (4.0, 20.0)]
    fitted = calibrate([noisy(result, 0.05) for result in runs], ["slow", "fast"], resamples=0)
    assert set(fitted.held_out) == {"slow", "fast"}
    assert fitted.held_out["fast"]["mean_absolute"] < 0.1


def test_padding_to_graphs_is_told_from_eager_iterations():
    true = CalibratedStepTime(
        base_s=2e-3,
        eager_s=3e-3,
        per_token_s=(1e-4,),
        per_context_s=1e-6,
        graph_sizes=(1, 2, 4, 8, 16, 24),
    )
    result = run(true, rate=30.0)
    fitted = calibrate([result], resamples=0, graph_sizes=true.graph_sizes).step_time
    assert fitted.base_s == pytest.approx(2e-3, rel=1e-3)
    assert fitted.eager_s == pytest.approx(3e-3, rel=1e-3)
    assert step_errors(result, fitted).mean_absolute < 1e-6
    assert step_errors(result, calibrate([result], resamples=0).step_time).mean_absolute > 1e-3


def test_what_a_log_cannot_tell_is_refused_by_name(clean):
    decodes = clean.iterations[clean.iterations["num_prefill_tokens"] == 0]
    only = Result(clean.requests, decodes, clean.stays, clean.meta)
    with pytest.raises(
        ValueError,
        match=r"cannot identify eager_s: it never occurs; .*per_chunk_s.*--without eager_s",
    ):
        calibrate([only])
    left = ["eager_s", "per_chunk_s", "per_prefill_pair_s"]
    with pytest.raises(ValueError, match="cannot identify per_request_s: it goes with per_token_s"):
        calibrate([only], without=left)
    fitted = calibrate([only], without=[*left, "per_token_s"], resamples=0).step_time
    assert fitted.per_token_s == (0.0,)
    assert fitted.per_context_s == pytest.approx(TRUE.per_context_s, rel=1e-2)


def test_a_short_log_is_refused(clean):
    with pytest.raises(
        ValueError, match=r"the log has 20 rows of iterations, too few for 7 terms .*35 or more"
    ):
        calibrate([Result(clean.requests, clean.iterations.head(20), clean.stays, clean.meta)])
    with pytest.raises(ValueError, match="nothing to calibrate on"):
        calibrate([])
    with pytest.raises(
        ValueError, match="'per_tokens_s' is not a term; did you mean 'per_token_s'"
    ):
        calibrate([clean], without=["per_tokens_s"])


def test_runs_of_different_devices_are_not_mixed(clean):
    other = Result(clean.requests, clean.iterations, clean.stays, {**clean.meta, "gpu": "h200"})
    with pytest.raises(ValueError, match=r"different gpus \(toy, h200\)"):
        calibrate([clean, other], resamples=0)


def test_the_file_holds_all_that_is_known(noisy_fit, tmp_path):
    path = noisy_fit.save(tmp_path / "mine.toml")
    loaded = Calibration.load(path)
    assert loaded.step_time == noisy_fit.step_time
    assert loaded.errors == pytest.approx(noisy_fit.errors)
    assert loaded.intervals == noisy_fit.intervals
    assert {"date", "gpu", "model", "runs", "versions", "num_iterations"} <= set(loaded.about)
    assert make_step_time("calibrated", path=str(path)) == noisy_fit.step_time
    described = noisy_fit.step_time.describe()
    assert make_step_time(described.pop("name"), **described) == noisy_fit.step_time


def test_a_file_holds_nested_tables_and_leaves_out_what_is_not_known(noisy_fit, tmp_path):
    device = {"name": "x", "clock_mhz": {"sm": 1980}, "versions": {"torch": "2.9", "cuda": None}}
    about = {**noisy_fit.about, "device": device, "shape": {"aliases": (), "odd key": 1.0}}
    path = Calibration(noisy_fit.step_time, {}, {}, {}, about).save(tmp_path / "mine.toml")
    loaded = Calibration.load(path).about
    assert loaded["device"] == {
        "name": "x",
        "clock_mhz": {"sm": 1980},
        "versions": {"torch": "2.9"},
    }
    assert loaded["shape"] == {"aliases": [], "odd key": 1.0}


def test_the_residuals_have_a_row_of_panels_for_each_run(clean, noisy_fit):
    assert len(plot_residuals([clean, clean], ["a", "b"], noisy_fit.step_time).axes) == 8


def test_a_wrong_file_is_one_sentence(tmp_path):
    (tmp_path / "no.toml").write_text("seed = 1\n")
    with pytest.raises(
        ValueError, match=r"no\.toml is no calibration: it has no table \[step_time\]"
    ):
        make_step_time("calibrated", path=str(tmp_path / "no.toml"))
    with pytest.raises(
        ValueError, match="'vlm-cpu' is not a calibration's file or name; did you mean 'vllm-cpu'"
    ):
        make_step_time("calibrated", path="vlm-cpu")
    with pytest.raises(ValueError, match="per_token_s has 1 segments, but 1 token_breaks make 2"):
        make_step_time("calibrated", base_s=1.0, per_token_s=(1.0,), token_breaks=(4,))


def test_a_transfer_scales_each_term_by_what_limits_it():
    step_time = CalibratedStepTime(
        base_s=6e-3,
        per_token_s=(1e-6, 2e-5),
        token_breaks=(64,),
        per_prefill_pair_s=1e-9,
        per_context_s=1e-8,
        per_mixed_context_s=2e-8,
        host_s=1e-3,
    )
    about = {
        "name": "mine",
        "gpu": "NVIDIA H100 80GB HBM3",
        "model": "llama-3.1-8b",
        "dtype": "bfloat16",
    }
    moved = transfer(Calibration(step_time, {}, {"total": 0.0}, {}, about), "h200")
    bandwidth, matrix = 3350 / 4800, 1.0  # datasheets
    assert moved.step_time.per_context_s == pytest.approx(1e-8 * bandwidth, rel=0.02)
    assert moved.step_time.per_mixed_context_s == pytest.approx(2e-8 * bandwidth, rel=0.02)
    assert moved.step_time.per_token_s == pytest.approx((1e-6 * matrix, 2e-5 * matrix), rel=0.02)
    assert moved.step_time.token_breaks == (round(64 * bandwidth / matrix),)
    assert moved.step_time.host_s == 1e-3
    assert 6e-3 * bandwidth < moved.step_time.base_s < 6e-3  # weights, but not launches
    assert (moved.about["transferred_from"], moved.about["gpu"]) == ("h100", "h200")
    assert not moved.errors  # nothing was measured there
    with pytest.raises(ValueError, match="'h10' is not a GPU of the catalogue; did you mean"):
        transfer(moved, "h10")


@pytest.mark.parametrize("target", ["a100", "h200", "b200"])
def test_a_transfer_moves_the_bend_of_a_roofline(target):
    """Weights are read in 5 ms, a position takes 20 µs of the matrix rate: the longer one counts."""
    step_time = CalibratedStepTime(base_s=5e-3, per_token_s=(0.0, 2e-5), token_breaks=(250,))
    about = {"name": "mine", "gpu": "h100", "dtype": "bfloat16"}
    moved = transfer(Calibration(step_time, {}, {}, {}, about), target)
    ratios = moved.about["ratios"]
    for tokens in (1, 50, 100, 200, 400, 800, 3200):
        longer_s = max(5e-3 * ratios["reading"], 2e-5 * ratios["matrix"] * tokens)
        assert moved.step_time.base_s + moved.step_time.tokens_s(tokens) == pytest.approx(
            longer_s, rel=0.01
        )


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 40),
    idle=st.integers(0, 5),
    prompts=st.lists(st.integers(1, 300), max_size=3),
    context=st.integers(0, 100_000),
    repeat=st.integers(1, 50),
    overlap=st.booleans(),
    host_s=st.floats(0, 0.1),
)
def test_the_closed_form_is_the_sum_of_the_iterations(
    rows, idle, prompts, context, repeat, overlap, host_s
):
    model = CalibratedStepTime(
        base_s=1e-3,
        eager_s=2e-3,
        per_chunk_s=1e-4,
        per_request_s=1e-5,
        per_token_s=(1e-5, 0.0, 1e-4),
        token_breaks=(8, 64),
        per_prefill_pair_s=1e-8,
        per_context_s=1e-6,
        host_s=host_s,
        overlap=overlap,
        graph_sizes=(1, 4, 8, 32),
    )
    batch = Batch(
        num_decode_tokens=rows,
        num_idle_rows=idle,
        num_padded_tokens=idle,
        decode_context_tokens=context,
    )
    for i, tokens in enumerate(prompts):
        batch.add_chunk(Request(i, 0.0, tokens, 1), tokens, 0)
    if not (rows or idle or prompts):
        return
    durations = model.durations_s(batch, repeat)
    assert (np.diff(durations) >= 0).all()
    if line := model.line(batch):
        np.testing.assert_allclose(durations, line[0] + line[1] * np.arange(repeat))
    assert model.duration_s(batch) == pytest.approx(durations[0])
    assert all(isinstance(chunk, Chunk) for chunk in batch.chunks)


@pytest.mark.parametrize("seed", range(40))
def test_no_coefficient_is_negative_not_even_by_rounding(seed):
    """A step time refuses them; without care seed 1 gives -4e-20."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 3, (rng.integers(3, 12), 7)).astype(float)
    rows[:, 0] = 1
    target = rows @ np.maximum(0, rng.normal(size=7)) * 1e-3
    assert (Sums(rows.T @ rows, rows.T @ target).solve() >= 0).all()
