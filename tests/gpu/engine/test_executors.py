"""The engine and the simulator are two executors of one scheduler: same step times and arrivals, same batches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")

from busdoor.simulate import simulate  # noqa: E402
from busdoor.step_time.base import LineStepTime  # noqa: E402
from busdoor_gpu.replay import replay  # noqa: E402


class Recorded(LineStepTime):
    """Durations that were measured, one after another."""

    def __init__(self, durations_s):
        self._durations_s = iter(durations_s)

    def line(self, batch):
        return next(self._durations_s), 0.0


def assert_same_run(trace, new_policy, model, backend, lookahead, clock):
    measured = replay(trace, new_policy(), model, backend, lookahead=lookahead, clock=clock)
    durations_s = measured.iterations["first_duration_s"]
    simulated = simulate(trace, new_policy(), Recorded(durations_s), lookahead=lookahead, step_by_step=True)
    assert len(simulated.iterations) == len(durations_s)
    own = list(simulated.iterations.columns)
    pd.testing.assert_frame_equal(measured.iterations[own], simulated.iterations, check_exact=True)
    pd.testing.assert_frame_equal(measured.requests, simulated.requests, check_exact=True)
    pd.testing.assert_frame_equal(measured.stays, simulated.stays, check_exact=True)


@pytest.mark.parametrize("lookahead", [0, 1])
def test_the_simulator_fed_with_measured_step_times_runs_the_same_batches(
    new_policy, lookahead, models, torch_backend, new_trace
):
    assert_same_run(new_trace(), new_policy, models["tiny-llama"], torch_backend, lookahead, "cpu")


def closed_loop(trace):
    think_s = np.full(len(trace), 0.002)
    return replace(trace, arrival_s=np.zeros(len(trace)), concurrency=3, think_time_s=think_s)


def sessions(trace):
    rows = np.arange(len(trace))
    return replace(trace, session_id=rows % 3, turn=rows // 3)


def impatient(trace):
    return replace(trace, timeout_s=np.linspace(0.002, 0.05, len(trace)))


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("clients", [closed_loop, sessions, impatient])
@pytest.mark.parametrize("name", ["vllm preempting", "dynamic"])
def test_also_with_clients_that_wait_for_answers_or_give_up(
    name, clients, lookahead, policies, models, torch_backend, new_trace
):
    trace = clients(new_trace(seed=2))
    assert_same_run(trace, policies[name], models["tiny-llama"], torch_backend, lookahead, "cpu")


@pytest.mark.parametrize("lookahead", [0, 1])
def test_also_by_the_wall_clock(lookahead, policies, models, torch_backend, new_trace):
    trace = new_trace(num_requests=6, spread_s=0.2)
    assert_same_run(trace, policies["vllm"], models["tiny-llama"], torch_backend, lookahead, "wall")


def test_the_wall_clock_counts_real_seconds(policies, models, torch_backend, new_trace):
    import time

    trace = new_trace(num_requests=2).with_arrivals([0.0, 0.5])
    started_s = time.perf_counter()
    result = replay(trace, policies["vllm"](), models["tiny-llama"], torch_backend)
    assert time.perf_counter() - started_s > 0.5
    assert result.requests["first_scheduled_s"].iloc[1] >= 0.5


def test_device_time_is_part_of_an_iteration_and_meta_says_what_ran(policies, models, torch_backend, new_trace, tmp_path):
    result = replay(new_trace(), policies["vllm"](), models["tiny-llama"], torch_backend, clock="cpu", meta={"seed": 3})
    assert (result.iterations[["device_s", "host_s"]] >= 0).all(axis=None)
    for key in ("device", "model_shape", "git_commit", "num_blocks", "versions", "lookahead"):
        assert key in result.meta
    assert result.meta["step_time"] == {"name": "measured", "clock": "cpu", "backend": "torch"}
    loaded = type(result).load(result.save(tmp_path))
    assert loaded.summary.equals(result.summary)
