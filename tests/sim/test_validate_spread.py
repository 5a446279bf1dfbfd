"""What a machine's own iterations and clocks tell of it, beside the errors of a simulation."""

import numpy as np
import pytest

from busdoor.kv.paged import PagedKV
from busdoor.policies.vllm import VllmPolicy
from busdoor.results.result import Result
from busdoor.simulator.simulate import simulate
from busdoor.step_time import CalibratedStepTime
from busdoor.validation.limits_text import limit_lines, spread_lines
from busdoor.validation.validate import validate
from busdoor_workloads import Trace

TRUTH = CalibratedStepTime(base_s=4e-3, per_token_s=(1e-4,), per_context_s=1e-6)
CONFIG = {"name": "vllm", "max_num_seqs": 8, "max_num_batched_tokens": 256}


@pytest.fixture(scope="module")
def quiet():
    rng = np.random.default_rng(0)
    trace = Trace(
        arrival_s=np.sort(rng.uniform(0, 30, 100)),
        input_tokens=rng.integers(10, 60, 100),
        output_tokens=rng.integers(20, 60, 100),
    )
    policy = VllmPolicy(
        PagedKV(400, 16), max_num_seqs=8, max_num_batched_tokens=256, max_model_len=512
    )
    return simulate(trace, policy, TRUTH, step_by_step=True, meta={"policy_config": CONFIG})


def measured(run, factor, **meta):
    """Return a run whose iterations took so much longer."""
    table = run.iterations.assign(duration_s=run.iterations["duration_s"] * factor)
    return validate([Result(run.requests, table, run.stays, {**run.meta, **meta})], TRUTH)


def test_a_machine_that_repeats_itself_has_no_spread(quiet):
    spread = measured(quiet, 1.0).spread
    assert spread.each < 0.005  # contexts grow by a token a request
    assert spread.parts == pytest.approx(0.0, abs=1e-9)
    assert np.isnan(spread.cpu_s) and np.isnan(spread.core_share)


def test_a_step_time_that_is_off_is_no_spread_of_the_machine(quiet):
    slow = CalibratedStepTime(base_s=8e-3, per_token_s=(1e-4,), per_context_s=1e-6)
    assert validate([quiet], slow).spread.parts < 0.01


def test_noise_of_single_iterations_is_not_that_of_parts(quiet):
    noise = np.random.default_rng(1).normal(1, 0.1, len(quiet.iterations))
    spread = measured(quiet, noise).spread
    assert spread.each == pytest.approx(
        0.1 * np.sqrt(2 / np.pi), rel=0.1
    )  # the mean deviation of a normal law
    assert spread.parts < 0.03


def test_a_machine_that_slows_down_for_a_while_is_too_noisy(quiet):
    factor = np.where(np.arange(len(quiet.iterations)) < len(quiet.iterations) / 2, 1.0, 1.5)
    validation = measured(quiet, factor)
    assert validation.spread.parts > 0.1
    assert any("too noisy to judge a simulator by" in line for line in limit_lines(validation))
    assert not any("too noisy" in line for line in limit_lines(measured(quiet, 1.0)))


def test_a_busy_machine_is_called_busy(quiet):
    paced = {"step_time": {"name": "measured", "clock": "paced"}}
    lines = list(spread_lines(measured(quiet, 1.0, cpu_s=30.0, wall_s=90.0, **paced)))
    assert "The runs took 30 s of processor time and 90 s of the wall clock." in lines
    assert (
        "The machine was busy: the runs had 33.3 % of a core; repeat them when it is quiet."
        in lines
    )
    assert not any(
        "busy" in line
        for line in spread_lines(measured(quiet, 1.0, cpu_s=29.0, wall_s=30.0, **paced))
    )
    waits = {"step_time": {"name": "measured", "clock": "wall"}}
    assert not any(
        "busy" in line
        for line in spread_lines(measured(quiet, 1.0, cpu_s=1.0, wall_s=30.0, **waits))
    )


def test_the_numbers_are_kept(quiet):
    told = measured(quiet, 1.0).to_dict()["spread"]
    assert set(told) == {"each", "parts", "cpu_s", "wall_s", "core_share"}
    assert told["cpu_s"] is None
