"""Checks 9-14: a batch's longest, its wait to fill, taking all who wait, the top rate."""

import numpy as np
import pytest

from busdoor.step_time import LinearStepTime
from busdoor.theory import (
    StepLine,
    expected_max,
    fill_wait_s,
    fixed_batch_wait_s,
    inoue_bound_s,
    saturated_static_rps,
    take_all_latency_s,
)
from busdoor_workloads.lengths import Exponential, Fixed, Geometric, LogNormal, Uniform

LAWS = {
    "exponential": Exponential(mean=128),
    "geometric": Geometric(mean=128),
    "uniform": Uniform(low=1, high=128),
    "lognormal 0.5": LogNormal(mu=np.log(128) - 0.125, sigma=0.5),
    "lognormal 1": LogNormal(mu=np.log(128) - 0.5, sigma=1.0),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("batch_size", [4, 16])
def test_9_to_12_a_static_batch_lasts_as_long_as_its_longest_answer(
    static, serve, rng, law, batch_size
):
    """The share of useful slot-iterations is E[N] / E[max N]; the steps of a batch are E[max N]."""
    num_batches = 2500
    lengths = LAWS[law].sample(num_batches * batch_size, rng)
    served = serve(static(batch_size), LinearStepTime(base_s=1.0), np.zeros(len(lengths)), lengths)
    leave_s, start_s = served.released_s[::batch_size], served.first_scheduled_s[::batch_size]
    steps = leave_s - start_s
    assert steps == pytest.approx(lengths.reshape(-1, batch_size).max(axis=1))
    mean, error = steps.mean(), 1.96 * steps.std() / np.sqrt(num_batches)
    expected = LAWS[law].expected_max(batch_size)
    assert mean == pytest.approx(expected, abs=max(0.01 * expected, 1.6 * error)), (
        mean,
        error,
        expected,
    )


def test_expected_max_of_a_sample_is_that_of_its_law(rng):
    lengths = Geometric(mean=128).sample(200_000, rng)
    for batch_size in (1, 4, 16, 64):
        assert expected_max(lengths, batch_size) == pytest.approx(
            Geometric(mean=128).expected_max(batch_size), rel=0.01
        )


@pytest.mark.parametrize("batch_size", [4, 8])
def test_13_a_batch_that_leaves_full_waits_to_fill_and_then_for_the_server(
    static, serve, rng, batch_size
):
    """Requests wait (b - 1) / (2 rate) for each other on average, then as in E_b/G/1."""
    lengths, load, n = Geometric(mean=128), 0.7, 40_000
    tokens = np.arange(1, 4000)
    share = np.diff(lengths.cdf(np.arange(4000)) ** batch_size)
    batch_s = 0.02 * tokens
    rate = load * batch_size / (share @ batch_s)
    arrival_s = np.cumsum(rng.exponential(1 / rate, n))
    served = serve(
        static(batch_size), LinearStepTime(base_s=0.02), arrival_s, lengths.sample(n, rng)
    )
    full_s = arrival_s.reshape(-1, batch_size)[:, -1].repeat(batch_size)
    fill, queue = full_s - arrival_s, served.wait_s - (full_s - arrival_s)
    expected = fixed_batch_wait_s(rate, batch_size, batch_s, share)
    assert fill.mean() == pytest.approx(fill_wait_s(rate, batch_size), rel=0.01)
    assert (
        queue.min() > -1e-11 * arrival_s[-1]
    )  # arrivals count as 1e-12 early, see busdoor.simulator.clients.EARLY
    assert queue.mean() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("rate", [2, 10, 20, 40])
def test_14_a_server_that_takes_all_who_wait_keeps_inoues_bound(
    static, serve, rng, assert_agrees, rate
):
    n = 15_000 if rate < 20 else 40_000
    arrival_s = np.cumsum(rng.exponential(1 / rate, n))
    step_time = LinearStepTime(base_s=0.1, per_request_s=0.02)
    served = serve(static(10_000, max_wait_s=0.0), step_time, arrival_s, np.ones(n))
    exact, bound = take_all_latency_s(rate, 0.02, 0.1), inoue_bound_s(rate, 0.02, 0.1)
    assert_agrees(served.latency_s, exact, 0.02, f"latency of take-all at {rate} requests/s")
    assert exact <= bound * (1 + 1e-9)


@pytest.mark.parametrize("finished_rows", ["compute", "skip"])
@pytest.mark.parametrize("per_token_s", [0.0, 5e-5])
def test_a_saturated_static_server_serves_x_s(static, serve, rng, finished_rows, per_token_s):
    rows, num_batches, outputs, prompts = (
        8,
        2000,
        Uniform(low=1, high=255),
        Uniform(low=1, high=1023),
    )
    lengths, inputs = (
        outputs.sample(rows * num_batches, rng),
        prompts.sample(rows * num_batches, rng),
    )
    step_time = LinearStepTime(base_s=0.020, per_request_s=0.0005, per_token_s=per_token_s)
    policy = static(rows, finished_rows=finished_rows)
    served = serve(policy, step_time, np.zeros(len(lengths)), lengths, inputs)
    rate = len(lengths) / served.finish_s.max()

    def closed_form(mean, longest, padded):
        return saturated_static_rps(
            StepLine.of(step_time), rows, mean, longest, padded - 1, finished_rows
        )

    law = closed_form(outputs.mean_tokens, outputs.expected_max(rows), prompts.expected_max(rows))
    path = closed_form(
        lengths.mean(), *(drawn.reshape(-1, rows).max(axis=1).mean() for drawn in (lengths, inputs))
    )
    assert rate == pytest.approx(law, rel=0.01)
    assert rate == pytest.approx(path, rel=1e-9)


def test_equal_lengths_leave_no_bubble(static, serve):
    served = serve(
        static(8), LinearStepTime(base_s=1.0), np.zeros(80), Fixed(tokens=7).sample(80, None)
    )
    assert served.finish_s.max() == 10 * 7
