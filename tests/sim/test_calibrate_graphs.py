"""A calibration with CUDA graphs, where the host submits ahead while an iteration runs."""

from dataclasses import replace

import numpy as np
import pytest

from busdoor.calibration import calibrate
from busdoor.calibration.host_launch import on_host_of
from busdoor.calibration.teacher_forcing import batches_of
from busdoor.kv.paged import PagedKV
from busdoor.policies.vllm import VllmPolicy
from busdoor.results.result import Result
from busdoor.simulator.simulate import simulate
from busdoor.step_time import CalibratedStepTime
from busdoor.validation.errors import step_errors
from busdoor.validation.validate import validate
from busdoor_workloads import Trace

GRAPHS = (1, 2, 4, 8, 16, 24)
DEVICE = CalibratedStepTime(
    base_s=4e-3,
    eager_s=2e-3,
    per_chunk_s=4e-4,
    per_request_s=5e-5,
    per_token_s=(2e-5,),
    per_prefill_pair_s=1e-7,
    per_context_s=1e-6,
    per_mixed_request_s=3e-4,
    per_mixed_context_s=2e-6,
    graph_sizes=GRAPHS,
)
MIXED_TERMS = ("per_mixed_request_s", "per_mixed_context_s")
EAGER_HOST_TERMS = ("host_eager_s",)
OF_DEVICE = (
    "base_s",
    "eager_s",
    "per_chunk_s",
    "per_request_s",
    "per_prefill_pair_s",
    "per_context_s",
    *MIXED_TERMS,
)
HOST = {"host_s": 1e-3, "host_eager_s": 3e-3, "host_per_chunk_s": 2e-4, "host_per_request_s": 5e-5}


def run(step_time, lookahead=0, graph_sizes=GRAPHS, rate=14.0, num_requests=320):
    """Bursts of Poisson arrivals with idleness between them, iteration by iteration."""
    rng = np.random.default_rng(2)
    burst = np.arange(num_requests) // 40
    trace = Trace(
        arrival_s=np.cumsum(rng.exponential(1 / rate, num_requests)) + 30.0 * burst,
        input_tokens=rng.integers(4, 250, num_requests),
        output_tokens=rng.integers(1, 60, num_requests),
    )
    policy = VllmPolicy(
        PagedKV(400, 16), max_num_seqs=24, max_num_batched_tokens=256, max_model_len=512
    )
    return simulate(
        trace,
        policy,
        step_time,
        step_by_step=True,
        lookahead=lookahead,
        meta={"graph_sizes": list(graph_sizes)},
    )


def with_columns(result, **columns):
    return Result(result.requests, result.iterations.assign(**columns), result.stays, result.meta)


def assert_terms(fitted, true, terms, rel=1e-3):
    for term in terms:
        assert getattr(fitted, term) == pytest.approx(getattr(true, term), rel=rel), term


def test_decodes_beside_a_prefill_have_terms_of_their_own():
    result = run(DEVICE)
    fitted = calibrate([result], resamples=0).step_time
    assert_terms(fitted, DEVICE, OF_DEVICE)
    assert fitted.per_token_s == pytest.approx(DEVICE.per_token_s, rel=1e-3)
    assert fitted.graph_sizes == GRAPHS
    assert step_errors(result, fitted).mean_absolute < 1e-6
    without = calibrate([result], without=MIXED_TERMS, resamples=0).step_time
    assert (without.per_mixed_request_s, without.per_mixed_context_s) == (0.0, 0.0)
    assert step_errors(result, without).mean_absolute > 1e-3


def test_a_log_without_graphs_has_none_of_these_terms():
    true = CalibratedStepTime(
        base_s=4e-3, per_token_s=(2e-5,), per_context_s=1e-6, host_s=1e-3, overlap=True
    )
    result = run(true, graph_sizes=())
    device_s = [true.device_line(batch)[0] for batch in batches_of(result)]
    fitted = calibrate([with_columns(result, device_s=device_s, host_s=1e-3)], resamples=20)
    for term in (*MIXED_TERMS, *EAGER_HOST_TERMS):
        assert getattr(fitted.step_time, term) == 0.0
        assert term not in fitted.intervals
    assert fitted.step_time.host_s == pytest.approx(1e-3)


def test_a_server_that_never_mixes_has_no_terms_for_it():
    """Where prompts and decodes share no iteration, the log says nothing of a joint cost."""
    result = run(DEVICE)
    table = result.iterations
    apart = table[(table["num_prefill_tokens"] == 0) | (table["num_decode_tokens"] == 0)]
    log = Result(result.requests, apart, result.stays, result.meta)
    fitted = calibrate([log], without=["eager_s"], resamples=20)
    for term in MIXED_TERMS:
        assert getattr(fitted.step_time, term) == 0.0 and term not in fitted.intervals


@pytest.mark.parametrize("overlap", [False, True])
def test_host_time_is_fitted_apart_where_the_log_has_it(overlap):
    device = CalibratedStepTime(base_s=3e-3, per_token_s=(1e-4,), per_context_s=1e-6)
    host = {"host_s": 4e-3, "host_per_chunk_s": 1e-3, "host_per_request_s": 1e-4}
    true = CalibratedStepTime(
        base_s=3e-3, per_token_s=(1e-4,), per_context_s=1e-6, **host, overlap=overlap
    )
    result = run(true, graph_sizes=())
    device_s = np.array([device.duration_s(batch) for batch in batches_of(result)])
    host_s = np.array([true.host_of(batch) for batch in batches_of(result)])
    measured = with_columns(result, device_s=device_s, host_s=host_s)
    fitted = calibrate([measured], resamples=0).step_time
    assert fitted.overlap is overlap
    for term, value in host.items():
        assert getattr(fitted, term) == pytest.approx(value, rel=1e-3), term
    assert step_errors(measured, fitted).mean_absolute < 1e-6


def measured_ahead(true):
    """A log of an engine that works ahead: an iteration's host seconds are for the next."""
    result = run(true, lookahead=1)
    table = result.iterations
    batches = batches_of(result)
    touches = (
        table["start_s"].to_numpy()[1:] - (table["start_s"] + table["duration_s"]).to_numpy()[:-1]
        < 1e-6
    )
    own_s = np.array([true.host_of(batch) for batch in batches])
    first = np.append(True, ~touches)
    host_s = np.append(touches * own_s[1:], 0.0) + first * own_s
    device_s = np.array([true.device_line(batch)[0] for batch in batches])
    return with_columns(result, device_s=device_s, host_s=host_s)


def test_the_hosts_time_is_for_what_follows():
    true = replace(DEVICE, **HOST, overlap=True)
    log = measured_ahead(true)
    fitted = calibrate([log], resamples=0).step_time
    assert fitted.overlap
    assert_terms(fitted, true, HOST)
    assert step_errors(log, fitted).p90 < 1e-6


SLOW = replace(DEVICE, **HOST | {"host_eager_s": 3e-2}, overlap=True, pipeline=True)


@pytest.mark.parametrize("mixed_graph_sizes", [(), (32, 64, 128)])
def test_a_pipeline_is_fitted_to_runs_and_judged_by_its_recurrence(mixed_graph_sizes):
    true = replace(SLOW, mixed_graph_sizes=mixed_graph_sizes)
    log = measured_ahead(true)
    calibration = calibrate([log], mixed_graph_sizes=mixed_graph_sizes, resamples=0)
    fitted = calibration.step_time
    assert fitted.pipeline
    assert fitted.mixed_graph_sizes == mixed_graph_sizes
    assert_terms(fitted, true, (*OF_DEVICE, *HOST))
    assert calibration.errors["p90"] < 1e-6
    assert calibration.errors["held_out_p90"] < 1e-6
    assert (
        calibration.errors["mean_absolute"] < 0.01
    )  # the table does not show arrivals at the last moment
    assert step_errors(log, replace(fitted, pipeline=False)).mean_absolute > 0.02


def test_where_every_batch_fits_a_graph_nothing_is_launched():
    true = replace(SLOW, mixed_graph_sizes=(64, 512), eager_s=0.0, host_eager_s=0.0)
    fitted = calibrate([measured_ahead(true)], mixed_graph_sizes=(64, 512), resamples=20)
    assert (fitted.step_time.eager_s, fitted.step_time.host_eager_s) == (0.0, 0.0)
    assert "eager_s" not in fitted.intervals


def test_the_host_of_a_run_is_its_own():
    """Twice as slow as the calibration's: read off its launches, or from its meta; of too few, the calibration's."""
    log = measured_ahead(SLOW)
    model = replace(SLOW, host_eager_s=1e-2)
    own, host = on_host_of(model, log)
    assert (host.source, host.launches > 50) == ("run", True)
    assert host.seconds == pytest.approx(SLOW.host_eager_s, rel=1e-9)
    assert own.host_eager_s == pytest.approx(SLOW.host_eager_s, rel=1e-9)
    assert own.base_s == model.base_s
    given = Result(log.requests, log.iterations, log.stays, {**log.meta, "host_launch_s": 0.021})
    own, host = on_host_of(model, given)
    assert (host.source, host.seconds, own.host_eager_s) == ("meta", 0.021, 0.021)
    few = Result(log.requests, log.iterations[:12], log.stays, log.meta)
    own, host = on_host_of(model, few)
    assert (host.source, host.seconds) == ("calibration", 0.01)
    assert own == model


def test_a_calibration_from_before_the_pipeline_keeps_its_host():
    model = replace(SLOW, pipeline=False)
    assert on_host_of(model, measured_ahead(SLOW)) == (model, None)


def test_a_run_is_validated_on_its_own_host():
    log = measured_ahead(SLOW)
    policy = {"name": "vllm", "max_num_seqs": 24, "max_num_batched_tokens": 256}
    log.meta.update(num_blocks=400, block_size=16, max_model_len=512, policy_config=policy)
    run = validate([log], replace(SLOW, host_eager_s=1e-2), ["run"]).runs[0]
    assert run.steps.p90 < 1e-9
    assert run.table["error"].abs().max() < 1e-9
    said = run.to_dict()
    assert said["num_iterations"] == len(log.iterations)
    assert said["host_launch"] == {
        "seconds": pytest.approx(0.03), "from": "run", "launches": run.host_launch.launches
    }  # fmt: skip


def like_follows_like(true):
    """What a grid's profile has: like follows like, so the host's seconds are its own."""
    table = run(DEVICE).iterations
    batches = batches_of(Result(table[:0], table, table[:0], {}))
    device_s = np.array([true.device_line(batch)[0] for batch in batches])
    host_s = np.array([true.host_of(batch) for batch in batches])
    duration_s = np.maximum(device_s, host_s)
    eager = table["num_requests"] > table["num_decode_tokens"] + table["num_idle_rows"]
    device_s[eager] = duration_s[
        eager
    ]  # kernels launched one by one: the device's clock runs while it waits
    meta = {"graph_sizes": list(GRAPHS), "lookahead": 1}
    columns = {
        "duration_s": duration_s,
        "device_s": device_s,
        "host_s": host_s,
        "cell": np.arange(len(table)),
    }
    return Result(table[:0], table.assign(**columns), table[:0], meta), (
        eager & (host_s >= duration_s)
    ).to_numpy()


def test_waiting_for_launches_is_not_taken_for_work_of_the_device():
    true = replace(DEVICE, **HOST | {"host_eager_s": 8e-3}, overlap=True)
    log, starved = like_follows_like(true)
    assert 0.2 < starved.sum() / (log.iterations["num_prefill_tokens"] > 0).sum() < 0.8
    fitted = calibrate([log], resamples=0).step_time
    assert_terms(fitted, true, OF_DEVICE)
    assert_terms(fitted, true, HOST)
    assert step_errors(log, fitted).mean_absolute < 1e-6


def test_where_the_device_always_waits_that_is_all_that_is_known():
    """A small model, a fast device: without those iterations prefill would cost it nothing."""
    true = replace(DEVICE, **HOST | {"host_eager_s": 1.0}, overlap=True)
    log, starved = like_follows_like(true)
    assert starved.sum() == (log.iterations["num_prefill_tokens"] > 0).sum()
    fitted = calibrate([log], resamples=0).step_time
    assert fitted.host_eager_s == pytest.approx(1.0, rel=1e-3)
    assert fitted.eager_s > 0.9
    assert step_errors(log, fitted).mean_absolute < 0.02
