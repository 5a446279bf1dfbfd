"""The closed forms give the workload survey's numbers, theory and simulation (its §5)."""

import numpy as np
import pytest

from busdoor import theory
from busdoor.theory import StepLine
from busdoor_workloads.lengths import (
    Exponential,
    Geometric,
    LogNormal,
    TruncatedExponential,
    Uniform,
)

LINE = StepLine(base_s=0.020, per_request_s=0.0005)
approx = pytest.approx


def test_1_to_4_classical_waits():
    assert theory.md1_wait_s(0.8, 1.0) == approx(2.000, abs=5e-4)
    assert theory.mm1_wait_s(0.8, 1.0) == approx(4.00, abs=5e-3)
    lengths = TruncatedExponential(mean=128, max=512, truncate="reject")
    mean_s = 0.06 + 0.02 * lengths.mean_tokens
    cv = 0.02 * lengths.mean_tokens * lengths.cv / mean_s
    assert theory.mg1_wait_s(0.8 / mean_s, mean_s, cv) == approx(8.61, rel=0.01)
    assert theory.erlang_c(8, 6.4) == approx(0.4576, abs=5e-5)
    assert theory.mmc_wait_s(6.4, 1.0, 8) == approx(0.286, abs=5e-4)


@pytest.mark.parametrize(
    ("cv", "kingman_s", "simulated_s"),
    [(0.5, 2.5, 2.28), (1, 4, 4.01), (2, 10, 10.8), (4, 34, 39.6)],
)
def test_5_and_8_gamma_arrivals_are_exact_where_kingman_only_comes_near(cv, kingman_s, simulated_s):
    assert theory.kingman_wait_s(0.8, 1.0, cv, 1.0) == approx(kingman_s)
    assert theory.gm1_wait_s(0.8, 1.0, 1 / cv**2) == approx(simulated_s, rel=0.03)


def test_9_exponential_efficiencies():
    found = [1 / theory.exponential_max(1.0, b) for b in (2, 4, 8, 16, 32, 64)]
    assert found == approx([0.667, 0.480, 0.368, 0.296, 0.246, 0.211], abs=5e-4)
    assert Exponential(mean=128).static_efficiency(8) == approx(0.368, rel=0.01)


def test_10_geometric_maxima():
    found = [Geometric(mean=128).expected_max(b) for b in (4, 8, 16, 32, 64)]
    assert found == approx([266.1, 347.0, 431.5, 518.0, 605.3], abs=0.06)


def test_11_uniform_efficiencies():
    found = [Uniform(low=1, high=128).static_efficiency(b) for b in (2, 4, 8, 16, 32)]
    assert found == approx([0.751, 0.627, 0.564, 0.533, 0.518], abs=6e-4)


@pytest.mark.parametrize(
    ("sigma", "efficiencies"),
    [
        (0.5, [0.636, 0.530, 0.451, 0.390]),
        (1.0, [0.453, 0.323, 0.240, 0.182]),
        (1.5, [0.356, 0.226, 0.149, 0.101]),
    ],
)
def test_12_lognormal_efficiencies(sigma, efficiencies):
    law = LogNormal(mu=12.0, sigma=sigma)  # so long that rounding to tokens does not matter
    assert [law.static_efficiency(b) for b in (4, 8, 16, 32)] == approx(efficiencies, rel=0.01)


@pytest.mark.parametrize(("batch_size", "fill_s", "queue_s"), [(4, 2.906, 2.83), (8, 4.42, 1.70)])
def test_13_full_batches(batch_size, fill_s, queue_s):
    """The survey states no law; 0.06 s + 0.02 s a token, mean 129, has its rates, Kingman."""
    tokens, lengths = np.arange(1, 8000), Geometric(mean=129)
    share = np.diff(lengths.cdf(np.arange(8000)) ** batch_size)
    batch_s = 0.06 + 0.02 * tokens
    rate = 0.7 * batch_size / (share @ batch_s)
    assert theory.fill_wait_s(rate, batch_size) == approx(fill_s, rel=0.005)
    assert theory.fixed_batch_wait_s(rate, batch_size, batch_s, share) == approx(
        queue_s, rel=0.03
    )  # simulated
    batches_rps, mean_s = rate / batch_size, share @ batch_s
    cv = (share @ batch_s**2 / mean_s**2 - 1) ** 0.5
    if batch_size == 4:
        assert theory.kingman_wait_s(batches_rps, mean_s, batch_size**-0.5, cv) == approx(
            3.60, rel=0.005
        )


@pytest.mark.parametrize("load", [0.01, 0.5, 0.9, 0.999])
def test_13_a_batch_of_one_is_pollaczek_khinchine(load):
    service_s, share = np.array([0.2, 0.9, 3.0]), np.array([0.5, 0.4, 0.1])
    mean_s = share @ service_s
    cv = (share @ service_s**2 / mean_s**2 - 1) ** 0.5
    found = theory.fixed_batch_wait_s(load / mean_s, 1, service_s, share)
    assert found == approx(theory.mg1_wait_s(load / mean_s, mean_s, cv), rel=1e-7)


def test_13_large_batches_hardly_queue():
    service_s, share = np.array([1.0]), np.array([1.0])
    waits = [theory.fixed_batch_wait_s(0.9 * b, b, service_s, share) for b in (1, 4, 16, 64, 256)]
    assert waits[0] == approx(4.5)
    assert (np.diff(waits) < 0).all() and 0 < waits[-1] < 0.01


@pytest.mark.parametrize(
    ("rate", "simulated_s", "bound_s"),
    [(2, 0.1352, 0.1356), (10, 0.1978, 0.2104), (20, 0.2764, 0.2786), (40, 0.827, 0.8278)],
)
def test_14_taking_all_who_wait(rate, simulated_s, bound_s):
    assert theory.inoue_bound_s(rate, 0.02, 0.1) == approx(bound_s, abs=6e-5)
    assert theory.take_all_latency_s(rate, 0.02, 0.1) == approx(simulated_s, rel=0.005)


@pytest.mark.parametrize(("load", "latency_s"), [(0.3, 3.749), (0.6, 6.56), (0.8, 13.12)])
def test_18_shared_processor(load, latency_s):
    rate = load / (128 * LINE.per_request_s)
    assert theory.sharing_latency_s(rate, LINE, 128) == approx(latency_s, abs=5e-3)
    mean, _ = theory.sharing_in_flight(rate, LINE, 128)
    assert mean == approx(rate * latency_s, rel=1e-3)  # Little


@pytest.mark.parametrize(("rate", "tpot_ms"), [(5, 7.257), (8, 8.187), (10, 8.888), (20, 16.558)])
def test_19_published_vllm_on_an_h100(rate, tpot_ms):
    """Llama-2-7B (inference-sim/training): a / (1 - c rate) with a = 6.104 ms and c = 31.57 ms."""
    line = StepLine(base_s=6.104e-3 - 31.57e-3 / 248, per_request_s=31.57e-3 / 248)
    assert 1e3 * theory.sharing_tpot_s(rate, line, 248) == approx(tpot_ms, rel=0.005)


@pytest.mark.parametrize(
    ("load", "latency_s", "wait_s"), [(0.5, 3.374, 0.0), (0.8, 4.127, 0.065), (0.9, 4.856, 0.521)]
)
def test_20_capped_batch(load, latency_s, wait_s):
    rate = load * theory.saturated_continuous_rps(LINE, 32, 128)
    found = theory.capped_sharing(rate, LINE, 128, 32)
    assert (found.latency_s, found.wait_s) == approx((latency_s, wait_s), abs=6e-4)


def gain(lengths, slots, per_prefill_token_s=0.0):
    line = StepLine(LINE.base_s, LINE.per_request_s, per_prefill_token_s)
    mean = lengths.mean_tokens
    joined = theory.saturated_continuous_rps(line, slots, mean, 512)
    return joined / theory.saturated_static_rps(line, slots, mean, lengths.expected_max(slots), 512)


@pytest.mark.parametrize(
    ("lengths", "slots", "per_prefill_token_s", "expected"),
    [
        (Geometric(mean=128), 8, 0.0, 2.709),
        (Geometric(mean=128), 32, 0.0, 4.042),
        (Geometric(mean=128), 8, 5e-5, 2.605),
        (Geometric(mean=128), 32, 5e-5, 3.594),
        (Uniform(low=1, high=255), 32, 0.0, 1.922),
    ],
)
def test_23_gains(lengths, slots, per_prefill_token_s, expected):
    assert gain(lengths, slots, per_prefill_token_s) == approx(expected, rel=0.01)


def test_23_constant_lengths_gain_exactly_nothing():
    assert gain(Uniform(low=128, high=128), 32, 5e-5) == approx(1.0, abs=1e-12)


def test_24_kv_occupancy():
    inputs, outputs = np.meshgrid(np.arange(32, 513), np.arange(1, 129))
    found = theory.kv_occupancy_tokens(4.0, 0.02, theory.kv_token_steps(inputs, outputs))
    assert found == approx(1623, rel=0.002)  # 1,596 simulated


def test_27_reserving_the_maximum_lets_fewer_in():
    """vLLM's figure 13: 7.00 of OPT-13B on ShareGPT, each reserving 2,048 of 15.7K slots."""
    assert (
        int(theory.kv_limited_batch(15_700, theory.reserved_token_steps([2048], [338]), 338)) == 7
    )


def test_unstable_queues_wait_for_ever():
    assert (
        theory.mg1_wait_s(1.0, 1.0, 1.0)
        == theory.mmc_wait_s(8.0, 1.0, 8)
        == theory.gm1_wait_s(1.0, 1.0, 0.5)
        == np.inf
    )
    assert theory.sharing_tpot_s(1 / (128 * LINE.per_request_s), LINE, 128) == np.inf
    assert theory.inoue_bound_s(50, 0.02, 0.1) == theory.take_all_latency_s(50, 0.02, 0.1) == np.inf
    assert not theory.static_is_stable(1.0, 8, 8.0)
    with pytest.raises(ValueError, match="stay below it"):
        theory.capped_sharing(10.0, LINE, 128, 32)
