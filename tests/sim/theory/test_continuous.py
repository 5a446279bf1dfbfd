"""Checks 18-24: processor sharing, the renewal rate at saturation, KV memory of both."""

import numpy as np
import pytest

from busdoor.kv.paged import PagedKV
from busdoor.policies.vllm import VllmPolicy
from busdoor.step_time import LinearStepTime
from busdoor.theory import (
    StepLine,
    capped_sharing,
    kv_occupancy_tokens,
    kv_token_steps,
    saturated_continuous_rps,
    saturated_static_rps,
    sharing_in_flight,
    sharing_latency_s,
    sharing_tpot_s,
)
from busdoor_workloads.lengths import Bimodal, Fixed, Geometric, Uniform

BASE_S, PER_REQUEST_S = 0.020, 0.0005
LINE = StepLine(BASE_S, PER_REQUEST_S)
LAWS = {
    "fixed": Fixed(tokens=128),
    "geometric": Geometric(mean=128),
    "uniform": Uniform(low=1, high=255),
    "bimodal": Bimodal(short=Fixed(tokens=16), long=Fixed(tokens=576), long_share=0.2),
}


def poisson(rng, rate, n):
    return np.cumsum(rng.exponential(1 / rate, n))


def steady(values):
    """Without the tenth in which the batch fills, and the twentieth in which it drains."""
    return values[len(values) // 10 : -(len(values) // 20)]


# The closed forms are taken at the load that the draws came to: at load 0.8 its own error counts
# five times over.


@pytest.mark.parametrize(
    ("law", "load"), [*((law, 0.6) for law in LAWS), ("geometric", 0.3), ("uniform", 0.8)]
)
def test_18_an_uncapped_batch_shares_its_processor_whatever_the_law(
    continuous, serve, rng, assert_agrees, law, load
):
    """Mean TPOT is (base + per_request) / (1 - load): only the lengths' mean matters."""
    n = 12_000
    arrival_s, lengths = poisson(rng, load / (128 * PER_REQUEST_S), n), LAWS[law].sample(n, rng)
    rate = lengths.sum() / arrival_s[-1] / 128
    served = serve(
        continuous(), LinearStepTime(base_s=BASE_S, per_token_s=PER_REQUEST_S), arrival_s, lengths
    )
    assert_agrees(steady(served.tpot_s), sharing_tpot_s(rate, LINE, 128), 0.02, "TPOT")
    in_batch_s = steady((served.finish_s - served.first_scheduled_s) * 128) / steady(lengths).mean()
    assert_agrees(in_batch_s, sharing_latency_s(rate, LINE, 128), 0.02, "time in the batch")
    step_s = LINE.step_s(sharing_in_flight(rate, LINE, 128)[0])
    assert_agrees(steady(served.wait_s), step_s / 2, 0.1, "rest of the running iteration")


def test_18_the_number_in_the_batch_is_negative_binomial(continuous, serve, rng):
    n, rate = 12_000, 0.6 / (128 * PER_REQUEST_S)
    arrival_s, lengths = poisson(rng, rate, n), Geometric(mean=128).sample(n, rng)
    step_time = LinearStepTime(base_s=BASE_S, per_token_s=PER_REQUEST_S)
    steps = serve(continuous(), step_time, arrival_s, lengths, iterations=True).result.iterations
    number, weight = steps["num_requests"].to_numpy(), steps["duration_s"].to_numpy()
    mean, spread = sharing_in_flight(lengths.sum() / arrival_s[-1] / 128, LINE, 128)
    measured = np.average(number, weights=weight)
    assert measured == pytest.approx(mean, rel=0.03)
    assert np.sqrt(np.average((number - measured) ** 2, weights=weight)) == pytest.approx(
        spread, rel=0.08
    )


@pytest.mark.parametrize("per_prefill_token_s", [0.02e-3, 0.1e-3])
@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_19_prefill_takes_its_share_of_the_processor(
    continuous, serve, rng, assert_agrees, per_prefill_token_s, load
):
    """TPOT is (base + per_request) / (1 - decode load - prefill load), a fluid argument: 4 %."""
    n, prefill = 10_000, 512
    line = StepLine(BASE_S, PER_REQUEST_S, per_prefill_token_s)
    step_time = LinearStepTime(
        base_s=BASE_S,
        per_request_s=PER_REQUEST_S - per_prefill_token_s,
        per_token_s=per_prefill_token_s,
    )
    arrival_s = poisson(rng, load / (128 * PER_REQUEST_S + prefill * per_prefill_token_s), n)
    lengths = Geometric(mean=128).sample(n, rng)
    served = serve(continuous(), step_time, arrival_s, lengths, prefill + 1)
    expected = sharing_tpot_s(n / arrival_s[-1], line, lengths.mean(), prefill)
    assert_agrees(steady(served.tpot_s), expected, 0.04, "TPOT")


# At load 0.9 chance moves the mean of 20,000 latencies by 1.5 %.
@pytest.mark.parametrize(("load", "tolerance"), [(0.5, 0.01), (0.8, 0.01), (0.9, 0.03)])
def test_20_a_capped_batch_of_geometric_lengths_is_a_birth_death_chain(
    continuous, serve, rng, assert_agrees, load, tolerance
):
    n, slots = 20_000, 32
    rate = load * saturated_continuous_rps(LINE, slots, 128)
    arrival_s, lengths = poisson(rng, rate, n), Geometric(mean=128).sample(n, rng)
    served = serve(
        continuous(slots),
        LinearStepTime(base_s=BASE_S, per_token_s=PER_REQUEST_S),
        arrival_s,
        lengths,
    )
    expected = capped_sharing(lengths.sum() / arrival_s[-1] / 128, LINE, 128, slots)
    # A slot changes hands, and an arrival is seen, at the end of an iteration only: half of one
    # more.
    late_s = LINE.step_s(min(slots, expected.mean_in_system)) / 2
    latency_s = steady(served.latency_s * 128) / steady(lengths).mean()
    assert_agrees(latency_s, expected.latency_s + late_s, tolerance, "latency")
    # Waits come in few long stretches: half of a mean is its 95 % interval.
    assert_agrees(steady(served.wait_s), expected.wait_s + late_s, 0.5, "wait")


def test_21_a_capped_batch_is_sensitive_to_the_law(continuous, serve, rng):
    """No closed form: fixed lengths wait less than geometric, those than hyperexponential."""
    n, slots = 8_000, 32
    arrival_s = poisson(rng, 0.9 * saturated_continuous_rps(LINE, slots, 128), n)
    short, long = Geometric(mean=16), Geometric(mean=576)
    laws = {**LAWS, "hyperexponential": Bimodal(short=short, long=long, long_share=0.2)}
    step_time = LinearStepTime(base_s=BASE_S, per_token_s=PER_REQUEST_S)
    fixed, geometric, hyper = (
        serve(continuous(slots), step_time, arrival_s, laws[law].sample(n, rng)).wait_s.mean()
        for law in ("fixed", "geometric", "hyperexponential")
    )
    assert fixed < geometric < hyper, (fixed, geometric, hyper)


@pytest.mark.parametrize("slots", [8, 32])
@pytest.mark.parametrize("per_token_s", [0.0, 5e-5])
@pytest.mark.parametrize("law", LAWS)
def test_22_a_full_batch_renews_at_x_c(continuous, serve, rng, law, slots, per_token_s):
    n, prefill = 6000, 512
    step_time = LinearStepTime(
        base_s=BASE_S, per_request_s=PER_REQUEST_S - per_token_s, per_token_s=per_token_s
    )
    lengths = LAWS[law].sample(n, rng)
    served = serve(continuous(slots), step_time, np.zeros(n), lengths, prefill + 1)
    until_s = served.first_scheduled_s.max()
    rate = (served.finish_s <= until_s).sum() / until_s
    # At the mean of those drawn: the error of the mean is no error of the server.
    expected = saturated_continuous_rps(StepLine.of(step_time), slots, lengths.mean(), prefill)
    assert rate == pytest.approx(expected, rel=0.01), rate / expected - 1


GAINS = [
    ("geometric", 8, 0.0),
    ("geometric", 32, 0.0),
    ("geometric", 8, 5e-5),
    ("uniform", 32, 0.0),
    ("fixed", 32, 5e-5),
]


@pytest.mark.parametrize(("law", "slots", "per_token_s"), GAINS)
def test_23_the_gain_at_saturation_is_x_c_over_x_s(
    continuous, static, serve, rng, law, slots, per_token_s
):
    """Without prefill it is E[max N] / E[N], the inverse of static batching's efficiency."""
    n, prefill, lengths = 32 * 300, 512, LAWS[law]
    drawn = lengths.sample(n, rng)
    step_time = LinearStepTime(
        base_s=BASE_S, per_request_s=PER_REQUEST_S - per_token_s, per_token_s=per_token_s
    )
    whole = serve(static(slots), step_time, np.zeros(n), drawn, prefill + 1)
    joined = serve(continuous(slots), step_time, np.zeros(n), drawn, prefill + 1)
    until_s = joined.first_scheduled_s.max()
    gain = (joined.finish_s <= until_s).sum() / until_s / (n / whole.finish_s.max())
    line = StepLine.of(step_time)
    longest = drawn.reshape(-1, slots).max(axis=1).mean()
    expected = saturated_continuous_rps(line, slots, drawn.mean(), prefill) / saturated_static_rps(
        line, slots, drawn.mean(), longest, prefill
    )
    assert gain == pytest.approx(expected, rel=0.01)
    assert longest == pytest.approx(lengths.expected_max(slots), rel=0.03)


def test_23_a_burst_of_identical_requests_gains_exactly_nothing(continuous, static, serve):
    slots, prompt, n = 8, 64, 8 * 20
    step_time = LinearStepTime(base_s=BASE_S, per_token_s=1e-5, per_context_s=1e-8)
    alone = VllmPolicy(
        PagedKV(10_000, 16), slots, max_num_batched_tokens=slots * prompt, max_model_len=512
    )
    door = serve(alone, step_time, np.zeros(n), np.full(n, 100), prompt)
    bus = serve(static(slots), step_time, np.zeros(n), np.full(n, 100), prompt)
    assert door.finish_s == pytest.approx(bus.finish_s, rel=1e-12)


def test_24_kv_occupancy_is_littles_law(continuous, serve, rng):
    n, rate, step_s = 12_000, 4.0, 0.02
    arrival_s = poisson(rng, rate, n)
    inputs, outputs = (
        Uniform(low=32, high=512).sample(n, rng),
        Uniform(low=1, high=128).sample(n, rng),
    )
    served = serve(
        continuous(), LinearStepTime(base_s=step_s), arrival_s, outputs, inputs, iterations=True
    )
    steps = served.result.iterations
    # Tokens in the cache at the end of an iteration, prompts among them as they are computed.
    held = (steps["context_tokens"] + steps["context_tokens_last"]) / 2 + steps["num_decode_tokens"]
    area = ((held + steps["num_prefill_tokens"]) * steps["duration_s"]).sum()
    token_steps = kv_token_steps(inputs, outputs)
    assert area == pytest.approx(n * step_s * token_steps, rel=1e-9)  # on the path, exactly
    law = (272 * 64.5) + (128 * 129 * 257 / 6 / 128 - 64.5) / 2
    assert area / arrival_s[-1] == pytest.approx(kv_occupancy_tokens(rate, step_s, law), rel=0.02)
