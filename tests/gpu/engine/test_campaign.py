"""The campaign's cases become fitting traces and policies, its replays a twin's folder."""

from __future__ import annotations

import doctest
import sys
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks.gpu.campaign import run
from benchmarks.gpu.campaign_cases import CASES, Plan, plan, plans
from benchmarks.gpu.steady_start import steady_start

from busdoor.kv.config import KVConfig
from busdoor.results.result import Result
from busdoor.simulator.simulate import simulate
from busdoor.step_time.linear import LinearStepTime
from busdoor.validation.twin_folder import CALIBRATION, PROFILE, RUNS
from busdoor_gpu.twin.grid import GridLimits
from busdoor_gpu.twin.held_out_runs import Machine
from busdoor_workloads import Trace

LIMITS = GridLimits(16, 256, 512, 1024)
STEP_TIME = LinearStepTime(base_s=0.01, per_token_s=1e-4)


@pytest.fixture(scope="module")
def drawn():
    return {made.name: made for made in plans(LIMITS, STEP_TIME, seconds=5, shrink=16)}


def test_every_case_is_drawn_once(drawn):
    assert list(drawn) == [case.name for case in CASES]


def test_no_request_is_longer_than_the_machine_takes(drawn):
    for made in drawn.values():
        assert (made.trace.input_tokens + made.trace.output_tokens).max() <= LIMITS.max_model_len, (
            made.name
        )
        assert made.kv.num_blocks <= LIMITS.num_blocks, made.name


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("anyscale-0.60-static", "anyscale-0.60-vllm"),
        ("azure-conv-0.75", "azure-conv-0.75-prefill-first"),
    ],
)
def test_policies_are_compared_on_the_same_requests(drawn, one, other):
    assert drawn[one].trace.input_tokens.tolist() == drawn[other].trace.input_tokens.tolist()
    assert drawn[one].trace.arrival_s.tolist() == drawn[other].trace.arrival_s.tolist()


def test_a_higher_load_of_the_same_chats_brings_more_requests_in_the_same_time(drawn):
    rates = [
        drawn[f"azure-conv-{load}"].trace.request_rate for load in ("0.50", "0.75", "0.90", "1.15")
    ]
    assert rates == sorted(rates)


def test_a_run_leaves_a_twins_folder_and_stops_at_its_deadline(
    models, torch_backend, tmp_path, capsys
):
    machine = Machine(models["tiny-llama"], torch_backend, LIMITS, "cpu")
    run(machine, tmp_path, profile_s=1.5, each_s=0.2, deadline_s=0.0, shrink=16)
    assert (tmp_path / CALIBRATION).exists() and len(Result.load(tmp_path / PROFILE).iterations)
    assert not (tmp_path / RUNS).exists()
    assert capsys.readouterr().out.count("no time left") == len(CASES)


@pytest.mark.parametrize("load", [0.75, 0.9])
def test_a_steady_run_begins_with_the_batch_that_a_long_run_has(load):
    """From an empty server the same seconds measure a smaller batch."""
    limits, step_time = (
        GridLimits(64, 256, 512, 4096),
        LinearStepTime(0.01, 1e-4, per_request_s=2e-4),
    )
    case = next(case for case in CASES if case.name == f"azure-conv-{load:.2f}-steady")
    steady = plan(case, limits, step_time, 10, seed=1, shrink=16)
    held = steady.trace.metadata["num_present"]
    longer = plan(replace(case, steady=False), limits, step_time, 200, seed=1, shrink=16)

    def mean_batch(made, from_s, to_s):
        table = simulate(made.trace, made.policy(), step_time).iterations
        table = table[(table["start_s"] >= from_s) & (table["start_s"] < to_s)]
        return np.average(table["num_requests"], weights=table["duration_s"])

    usual = mean_batch(longer, 50, 200)
    begin_s = steady.trace.arrival_s[held]
    begun = mean_batch(steady, begin_s, begin_s + 10)
    empty = mean_batch(
        plan(replace(case, steady=False), limits, step_time, 10, seed=1, shrink=16), 0, 1
    )
    assert 0.6 * usual < begun < 1.5 * usual
    assert abs(begun - usual) < abs(empty - usual)
    assert 0 < held <= 64 and steady.trace.arrival_s[-1] > 5
    assert (steady.trace.input_tokens + steady.trace.output_tokens).max() <= limits.max_model_len


def test_no_request_is_lost_or_answered_twice_where_a_steady_run_begins():
    draw = np.random.default_rng(0)
    trace = Trace(
        arrival_s=np.sort(draw.uniform(0, 60, 400)),
        input_tokens=draw.integers(1, 30, 400),
        output_tokens=draw.integers(1, 60, 400),
    )
    new_policy = Plan(
        trace, {"name": "vllm", "max_num_seqs": 16}, KVConfig(num_blocks=512, max_model_len=128)
    ).policy
    served = simulate(trace, new_policy(), STEP_TIME).requests
    begun = steady_start(trace, lambda own: new_policy(), STEP_TIME, warm_s=30.0)
    left = (served["finish_s"] > 30.0).sum()
    assert len(begun) == left
    rows = served.index[served["finish_s"] > 30.0]
    assert (begun.input_tokens + begun.output_tokens).tolist() == (
        trace.input_tokens[rows] + trace.output_tokens[rows]
    ).tolist()
    assert begun.output_tokens.min() >= 1
    with pytest.raises(ValueError, match=r"warm_s is 60 of a trace of 59.*that is longer"):
        steady_start(trace, lambda own: new_policy(), STEP_TIME, warm_s=60.0)


def test_the_example_of_a_steady_start_holds():
    done = doctest.testmod(sys.modules[steady_start.__module__])
    assert (done.failed, done.attempted) == (0, 9)
