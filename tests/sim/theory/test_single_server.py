"""Checks 1-4 and 8: one slot is a single server, c slots are c servers with one queue."""

from heapq import heapreplace

import numpy as np
import pytest

from busdoor.step_time import LinearStepTime
from busdoor.theory import erlang_c, gm1_wait_s, md1_wait_s, mg1_wait_s, mm1_wait_s, mmc_wait_s
from busdoor_workloads.lengths import Fixed, Geometric, TruncatedExponential

NUM_REQUESTS = 30_000


def steady_waits(served, step_s, mean_gap_s, mean_service_s):
    """Values whose mean is the mean wait, at a sixteenth of the waits' own variance.

    A request's own service less the gap after it, X, does not depend on its wait W, so E[W X] /
    E[X] = E[W]. Long waits, which come by chance in long stretches, are so weighed against the
    chance that made them.
    """
    service_s = served.finish_s - served.first_scheduled_s
    drift = service_s[:-1] - np.diff(served.arrival_s)
    return served.wait_s[:-1] * drift / (mean_service_s - mean_gap_s)


@pytest.fixture
def one_slot(continuous, serve, rng):
    """Serve lengths one at a time, gaps being gamma, and return the waits of `steady_waits`."""

    def run(lengths, step_time, mean_service_s, load, burstiness=1.0):
        mean_gap_s = mean_service_s / load
        gaps = rng.gamma(burstiness, mean_gap_s / burstiness, NUM_REQUESTS)
        inputs = 601 if step_time.per_token_s else 1
        served = serve(
            continuous(1), step_time, np.cumsum(gaps), lengths.sample(NUM_REQUESTS, rng), inputs
        )
        return steady_waits(served, step_time.base_s, mean_gap_s, mean_service_s)

    return run


def test_1_fixed_lengths_are_m_d_1(one_slot, assert_agrees):
    waits = one_slot(Fixed(tokens=50), LinearStepTime(base_s=1 / 50), 1.0, load=0.8)
    assert_agrees(waits, md1_wait_s(0.8, 1.0), 0.03, "M/D/1 wait")


def test_2_geometric_lengths_are_m_m_1(one_slot, assert_agrees):
    waits = one_slot(Geometric(mean=256), LinearStepTime(base_s=1 / 256), 1.0, load=0.8)
    assert_agrees(waits, mm1_wait_s(0.8, 1.0), 0.05, "M/M/1 wait")


def test_3_any_lengths_are_pollaczek_khinchine(one_slot, assert_agrees):
    lengths = TruncatedExponential(mean=128, max=512, truncate="reject")
    # A prompt of 601 tokens takes 0.06 s more than the decode of 0.02 s: S = 0.06 + 0.02 N.
    step_time = LinearStepTime(base_s=0.0199, per_token_s=1e-4)
    mean_s = 0.06 + 0.02 * lengths.mean_tokens
    cv = 0.02 * lengths.mean_tokens * lengths.cv / mean_s
    waits = one_slot(lengths, step_time, mean_s, load=0.8)
    assert_agrees(waits, mg1_wait_s(0.8 / mean_s, mean_s, cv), 0.05, "M/G/1 wait")


@pytest.mark.parametrize("cv", [0.5, 2.0])
def test_8_gamma_arrivals_are_g_m_1(one_slot, assert_agrees, cv):
    waits = one_slot(
        Geometric(mean=256), LinearStepTime(base_s=1 / 256), 1.0, load=0.8, burstiness=1 / cv**2
    )
    assert_agrees(waits, gm1_wait_s(0.8, 1.0, 1 / cv**2), 0.03, f"G/M/1 wait at gap CV {cv}")


SLOTS, LOAD, TOKENS = 8, 6.4, 1000


def waits_of_servers(arrival_s, service_s, num_servers):
    """Waits before so many servers with one queue, first come first served."""
    free_s = [0.0] * num_servers
    waits = []
    for arrival, service in zip(arrival_s.tolist(), service_s.tolist(), strict=True):
        start = max(arrival, free_s[0])
        heapreplace(free_s, start + service)
        waits.append(start - arrival)
    return np.array(waits)


def test_4_slots_of_a_constant_step_time_are_servers_with_one_queue(continuous, serve, rng):
    """Continuous batching of geometric lengths, whose iterations all take as long, is M/M/c."""
    n = 15_000
    arrival_s = np.cumsum(rng.exponential(1 / LOAD, n))
    lengths = Geometric(mean=TOKENS).sample(n, rng)
    served = serve(continuous(SLOTS), LinearStepTime(base_s=1 / TOKENS), arrival_s, lengths)
    classical = waits_of_servers(arrival_s, lengths / TOKENS, SLOTS)
    # A request enters when the running iteration ends; whoever is before it in line has lost as
    # much.
    late_s = served.wait_s - classical
    assert late_s.min() > -2 * SLOTS / TOKENS and late_s.max() < 30 / TOKENS, (
        late_s.min(),
        late_s.max(),
    )
    share, expected = (
        (served.wait_s > 1 / TOKENS).mean(),
        erlang_c(SLOTS, n / arrival_s[-1] * lengths.mean() / TOKENS),
    )
    assert share == pytest.approx(expected, rel=0.05)


def test_4_the_queue_of_those_servers_is_erlang_c(rng, assert_agrees):
    n = 400_000
    arrival_s, service_s = np.cumsum(rng.exponential(1 / LOAD, n)), rng.exponential(1.0, n)
    waits = waits_of_servers(arrival_s, service_s, SLOTS)
    realised = mmc_wait_s(n / arrival_s[-1], service_s.mean(), SLOTS)
    assert_agrees(waits, realised, 0.05, "M/M/c wait")
    assert_agrees(waits > 0, erlang_c(SLOTS, LOAD), 0.05, "M/M/c share that waits")
