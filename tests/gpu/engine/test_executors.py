"""Engine and simulator execute one scheduler: same step times, arrivals and batches."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import simpy

pytest.importorskip("torch")

from busdoor.kv.contiguous import ContiguousKV
from busdoor.policies.static import StaticPolicy
from busdoor.simulator.clients import Clients
from busdoor.simulator.recorder import TableRecorder
from busdoor.simulator.server import Server
from busdoor.step_time.base import LineStepTime
from busdoor_gpu.engine.model import Model
from busdoor_gpu.engine.slots import Slots
from busdoor_gpu.replay.replay import replay


class Recorded(LineStepTime):
    """Durations that were measured, one after another."""

    def __init__(self, durations_s):
        self._durations_s = iter(durations_s)

    def line(self, batch):
        return next(self._durations_s), 0.0


def assert_same_run(measured, trace, policy, lookahead):
    """Let the simulator run with the measured step times; all tables are the same to a bit."""
    env, recorder = simpy.Environment(), TableRecorder(policy)
    clients = Clients(env, trace, policy.kv.block_size)
    step_time = Recorded(measured.iterations["first_duration_s"])
    options = {
        "lookahead": lookahead,
        "step_by_step": True,
        "recorder": recorder,
        "on_leave": clients.left,
    }
    clients.start(Server(env, policy, step_time, **options))
    env.run()
    simulated = recorder.iterations()
    pd.testing.assert_frame_equal(
        measured.iterations[list(simulated.columns)], simulated, check_exact=True
    )
    pd.testing.assert_frame_equal(measured.requests, recorder.requests(), check_exact=True)
    pd.testing.assert_frame_equal(measured.stays, recorder.stays(), check_exact=True)


def test_the_simulator_fed_with_measured_step_times_runs_the_same_batches(run):
    trace, new_policy, lookahead, result = run
    assert_same_run(result, trace, new_policy(), lookahead)


def test_the_policy_counts_the_keys_that_the_engine_reads(run, models, torch_backend, monkeypatch):
    trace, new_policy, lookahead, _ = run
    read, pack = [], Slots.pack

    def counting(self, batch):
        step = pack(self, batch)
        if not batch.chunks:
            read.append((sum(step.contexts), batch.decode_context_tokens))
        return step

    monkeypatch.setattr(Slots, "pack", counting)
    replay(
        trace, new_policy(), models["tiny-llama"], torch_backend, lookahead=lookahead, clock="cpu"
    )
    assert read
    assert all(engine == policy for engine, policy in read)


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize(
    "options", [{}, {"finished_rows": "skip"}, {"pad_input_tokens": 60, "pad_output_tokens": 40}]
)
def test_a_static_batch_may_read_the_keys_of_its_padding(
    options, lookahead, models, torch_backend, new_trace, alone, monkeypatch
):
    """What every attention reads is what the policy counts; only the first token knows no padding."""
    trace, read, counted = new_trace(), [], []
    pack, forward = Slots.pack, Model.forward

    def packing(self, batch):
        if not batch.chunks:
            counted.append(
                batch.decode_context_tokens + batch.num_decode_tokens + batch.num_idle_rows
            )
        return pack(self, batch)

    def reading(self, backend, inputs, caches, attend, last=None):
        if last is None:
            read.append(int(inputs.seq_lens.sum()))
        return forward(self, backend, inputs, caches, attend, last)

    monkeypatch.setattr(Slots, "pack", packing)
    monkeypatch.setattr(Model, "forward", reading)
    policy = StaticPolicy(
        ContiguousKV(800, 4), batch_size=4, max_model_len=96, decode_reads="padded", **options
    )
    measured = replay(
        trace,
        policy,
        models["tiny-llama"],
        torch_backend,
        lookahead=lookahead,
        clock="cpu",
        keep_outputs=True,
    )
    assert (measured.requests["status"] == "finished").all()
    assert read == counted and len(read) > 20
    answers = measured.meta["outputs"]
    for row, inputs in enumerate(trace.input_tokens.tolist()):
        assert answers[row][: inputs + 1] == alone("tiny-llama", trace, row)[: inputs + 1], (
            f"request {row}"
        )


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
    measured = replay(
        trace,
        policies[name](),
        models["tiny-llama"],
        torch_backend,
        lookahead=lookahead,
        clock="cpu",
    )
    assert_same_run(measured, trace, policies[name](), lookahead)


@pytest.mark.parametrize("clock", ["wall", "paced"])
@pytest.mark.parametrize("lookahead", [0, 1])
def test_also_by_the_other_clocks(lookahead, clock, policies, models, torch_backend, new_trace):
    trace = new_trace(num_requests=6, spread_s=0.2)
    measured = replay(
        trace,
        policies["vllm"](),
        models["tiny-llama"],
        torch_backend,
        lookahead=lookahead,
        clock=clock,
    )
    assert_same_run(measured, trace, policies["vllm"](), lookahead)


def test_the_wall_clock_counts_real_seconds(policies, models, torch_backend, new_trace):
    trace = new_trace(num_requests=2).with_arrivals([0.0, 0.5])
    started_s = time.perf_counter()
    result = replay(trace, policies["vllm"](), models["tiny-llama"], torch_backend)
    assert time.perf_counter() - started_s > 0.5
    assert result.requests["first_scheduled_s"].iloc[1] >= 0.5


def test_device_time_is_part_of_an_iteration_and_meta_says_what_ran(
    policies, models, torch_backend, new_trace, tmp_path
):
    result = replay(
        new_trace(),
        policies["vllm"](),
        models["tiny-llama"],
        torch_backend,
        clock="cpu",
        meta={"seed": 3},
    )
    assert (result.iterations[["device_s", "host_s"]] >= 0).all(axis=None)
    for key in ("device", "model_shape", "git_commit", "num_blocks", "versions", "lookahead"):
        assert key in result.meta
    assert 0 <= time.time() - result.meta["started_at"] < 600
    assert result.meta["host_launch_s"] is None and result.meta["num_alloc_retries"] == 0
    assert result.meta["step_time"] == {"name": "measured", "clock": "cpu", "backend": "torch"}
    assert (result.save(tmp_path) / "summary.json").exists()
