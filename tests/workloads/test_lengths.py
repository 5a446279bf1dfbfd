"""Lengths: every law samples what it says it samples, and says it exactly."""

import tomllib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busdoor_workloads.config import to_table
from busdoor_workloads.lengths import (
    MAX_TOKENS,
    Bimodal,
    Exponential,
    Fixed,
    Gamma,
    Geometric,
    Histogram,
    LogNormal,
    Mixture,
    Normal,
    Pareto,
    ParetoLogNormal,
    Quantiles,
    RangeRatio,
    RankTable,
    Resample,
    TruncatedExponential,
    Uniform,
    Weibull,
    WeightedPairs,
    Zipf,
    as_lengths,
    as_pairs,
)

LAWS = [
    Fixed(tokens=17),
    Uniform(low=32, high=512),
    RangeRatio(tokens=1000, range_ratio=0.8, range_ratio_mode="vllm"),
    RangeRatio(tokens=1000, range_ratio=0.8, range_ratio_mode="sglang"),
    Normal(mean=550, std=150, truncate="reject"),
    Normal(mean=5, std=10),
    LogNormal(mu=5.0, sigma=1.0),
    LogNormal(p50=200, p99=1500, min=100, max=1000, truncate="reject"),
    Exponential(mean=128),
    Exponential(mean=0.2),
    TruncatedExponential(mean=128, max=512, truncate="reject"),
    TruncatedExponential(mean=128, max=512, truncate="clip"),
    Geometric(mean=128),
    Gamma(mean=343, spread=0.73),
    Weibull(shape=0.58, scale=102),
    Pareto(alpha=1.5, scale=100, max=100_000),
    Zipf(theta=0.6, min=10, max=2000),
    Histogram(values=(500, 10, 20, 50), weights=(1, 4, 3, 2)),
    Quantiles(probabilities=(0, 0.3, 0.5, 1), values=(1, 40, 40, 1000)),
    Mixture(components=(Fixed(tokens=7), Exponential(mean=300)), weights=(1, 2)),
    Bimodal(short=Normal(mean=100, std=20), long=Normal(mean=400, std=30), long_share=0.4),
    ParetoLogNormal(mu=6, sigma=1, alpha=1.5, scale=2000, pareto_share=0.1, max=131_072),
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.type)
def test_samples_follow_the_law_they_state(law):
    sample = law.sample(200_000, np.random.default_rng(1))
    lengths, counts = np.unique(sample, return_counts=True)
    # Dvoretzky-Kiefer-Wolfowitz: a larger distance has a chance of 1e-6.
    assert np.abs(np.cumsum(counts) / sample.size - law.cdf(lengths)).max() < np.sqrt(
        np.log(2e6) / (2 * sample.size)
    )
    error = 5 * sample.std() / np.sqrt(sample.size)
    assert sample.mean() == pytest.approx(law.mean_tokens, abs=error + 1e-9)
    assert sample.dtype == np.int64 and sample.min() >= 1 and sample.max() <= law.longest


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.type)
def test_quantile_is_the_inverse_of_the_cdf(law):
    q = np.array([0.01, 0.25, 0.5, 0.9, 0.99])
    k = law.quantile(q)
    assert (law.cdf(k) >= q - 1e-12).all()
    assert ((k == 1) | (law.cdf(k - 1) < q)).all()


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.type)
def test_configuration_round_trip(law):
    assert as_lengths(to_table(law)) == law


# --- Closed forms (Anyscale's caps; order statistics) ---


@pytest.mark.parametrize(
    ("cap", "mean"), [(32, 15.33), (128, 53.51), (512, 118.45), (1536, 127.99)]
)
def test_anyscale_rejects_above_the_cap(cap, mean):
    law = TruncatedExponential(mean=128, max=cap, truncate="reject")
    assert 128 - cap / np.expm1(cap / 128) == pytest.approx(mean, abs=0.01)
    assert law.mean_tokens == pytest.approx(mean, rel=2e-3)


@pytest.mark.parametrize(("cap", "clipped"), [(512, 125.7), (128, 80.9)])
def test_clipping_is_not_rejecting(cap, clipped):
    law = TruncatedExponential(mean=128, max=cap, truncate="clip")
    assert law.mean_tokens == pytest.approx(clipped, abs=0.1)


@pytest.mark.parametrize(
    ("cap", "b", "longest"), [(32, 16, 29.9), (128, 12, 112.8), (512, 8, 300.7), (1536, 4, 266.6)]
)
def test_anyscale_longest_of_a_batch(cap, b, longest):
    law = TruncatedExponential(mean=128, max=cap, truncate="reject")
    assert law.expected_max(b) == pytest.approx(longest, rel=2e-3)


@pytest.mark.parametrize("b", [1, 2, 4, 8, 16, 32, 64])
def test_exponential_longest_is_a_harmonic_number(b):
    harmonic = sum(1 / k for k in range(1, b + 1))
    assert Exponential(mean=128).expected_max(b) == pytest.approx(128 * harmonic, rel=1e-4)
    assert Exponential(mean=128).static_efficiency(b) == pytest.approx(1 / harmonic, rel=1e-4)


@pytest.mark.parametrize(
    ("b", "longest"), [(4, 266.1), (8, 347.0), (16, 431.5), (32, 518.0), (64, 605.3)]
)
def test_geometric_longest_of_a_batch(b, longest):
    assert Geometric(mean=128).expected_max(b) == pytest.approx(longest, abs=0.06)


@pytest.mark.parametrize(
    ("b", "efficiency"), [(2, 0.751), (4, 0.627), (8, 0.564), (16, 0.533), (32, 0.518)]
)
def test_uniform_static_efficiency(b, efficiency):
    assert Uniform(low=1, high=128).static_efficiency(b) == pytest.approx(efficiency, abs=6e-4)


@pytest.mark.parametrize(
    ("sigma", "efficiencies"),
    [
        (0.5, (0.636, 0.530, 0.451, 0.390)),
        (1.0, (0.453, 0.323, 0.240, 0.182)),
        (1.5, (0.356, 0.226, 0.149, 0.101)),
    ],
)
def test_lognormal_static_efficiency(sigma, efficiencies):
    law = LogNormal(mu=np.log(1000), sigma=sigma)
    for b, efficiency in zip((4, 8, 16, 32), efficiencies, strict=True):
        assert law.static_efficiency(b) == pytest.approx(efficiency, abs=2e-3)


def test_one_request_is_its_own_longest():
    for law in LAWS:
        assert law.expected_max(1) == pytest.approx(law.mean_tokens, rel=1e-12)
        assert law.expected_max(10**9) <= law.longest * (1 + 1e-6)


def test_sums_over_very_long_lengths_stay_exact():
    long = LogNormal(mean=300_000, median=100_000)
    assert long.mean_tokens == pytest.approx(300_000, rel=1e-5)
    assert long.cv == pytest.approx(np.sqrt(9 - 1), rel=1e-3)
    assert Pareto(alpha=1, scale=10).mean_tokens == pytest.approx(
        10 * (1 + np.log(MAX_TOKENS / 10)), rel=1e-4
    )


def test_lognormal_by_each_pair():
    assert LogNormal(mean=300, median=200).parameters == pytest.approx(
        (np.log(200), np.sqrt(2 * np.log(1.5)))
    )
    assert LogNormal(p50=200, p99=1500).quantile([0.5, 0.99]).tolist() == [200, 1500]


@given(
    low=st.integers(1, 500),
    width=st.integers(0, 500),
    mean=st.floats(50, 2000),
    truncate=st.sampled_from(["clip", "reject"]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_bounds_hold_whatever_the_law(low, width, mean, truncate, seed):
    high = low + width
    try:
        law = Exponential(mean=mean, min=low, max=high, truncate=truncate)
    except ValueError as error:
        assert "widen it or clip" in str(error)
        return
    sample = law.sample(200, np.random.default_rng(seed))
    assert sample.min() >= low and sample.max() <= high
    assert low - 1e-9 <= law.mean_tokens <= high + 1e-9
    assert law.expected_max(4) <= law.expected_max(8) <= high + 1e-9


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=50), st.integers(1, 64))
@settings(max_examples=60, deadline=None)
def test_histogram_of_rows_is_the_rows(rows, b):
    law = Histogram(values=tuple(rows))
    assert law.mean_tokens == pytest.approx(np.mean(rows))
    assert law.cv == pytest.approx(np.std(rows) / np.mean(rows), abs=1e-6)
    assert set(law.sample(100, np.random.default_rng(b)).tolist()) <= set(rows)
    assert np.mean(rows) - 1e-9 <= law.expected_max(b) <= max(rows) + 1e-9


def test_range_ratio_modes_are_opposite():
    vllm = RangeRatio(tokens=1024, range_ratio=0, range_ratio_mode="vllm")
    sglang = RangeRatio(tokens=1024, range_ratio=1, range_ratio_mode="sglang")
    assert vllm.bounds == sglang.bounds == (1024, 1024)
    assert RangeRatio(tokens=1024, range_ratio=0, range_ratio_mode="sglang").bounds == (1, 1024)
    with pytest.raises(ValueError, match="vLLM takes 0 up to, not including, 1"):
        RangeRatio(tokens=1024, range_ratio=1, range_ratio_mode="vllm")


# --- Configuration files ---


def test_toml_table_becomes_a_law():
    text = """
    output_tokens = { type = "mixture", components = [
        { weight = 0.7, type = "lognormal", p50 = 129, p99 = 601 },
        { weight = 0.3, type = "normal", mean = 400, std = 20 } ] }
    """
    law = as_lengths(tomllib.loads(text)["output_tokens"])
    assert law == Mixture(
        components=(LogNormal(p50=129, p99=601), Normal(mean=400, std=20)), weights=(0.7, 0.3)
    )


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (
            {"type": "log-normal", "mu": 1, "sigma": 1},
            "unknown type 'log-normal'; did you mean 'lognormal'?",
        ),
        ({"mean": 1}, "has no 'type'; "),
        (
            {"type": "lognormal", "p50": 200, "p90": 1500},
            "lognormal has no 'p90'; did you mean 'p99'?",
        ),
        (
            {"type": "lognormal", "p50": 200, "sigma": 1},
            "give mu and sigma, or mean and median, or p50 and p99",
        ),
        ({"type": "lognormal", "p50": 200, "p99": 100}, "p99 must be the larger one"),
        ({"type": "lognormal", "mean": 200, "median": 300}, "mean is the larger one"),
        (
            {"type": "exponential", "mean": -3},
            "exponential: mean is -3; input should be greater than 0",
        ),
        ({"type": "exponential"}, "exponential needs 'mean'"),
        (
            {"type": "truncated_exponential", "mean": 128, "max": 512},
            "truncated_exponential needs 'truncate'",
        ),
        ({"type": "uniform", "low": 9, "high": 3}, "low is 9, which is more than high, 3"),
        (
            {"type": "normal", "mean": 1e6, "std": 1, "max": 10, "truncate": "reject"},
            "widen it or clip",
        ),
        (
            {"type": "quantiles", "probabilities": [0, 1], "values": [5, 1]},
            "values must not decrease",
        ),
        (
            {"type": "quantiles", "probabilities": [0.1, 1], "values": [1, 5]},
            "increase from 0 to 1",
        ),
        (
            {"type": "mixture", "components": [{"weight": 1, "type": "fixed", "tokens": 1}, 5]},
            "every component its weight",
        ),
        ({"type": "mixture", "components": [{"type": "fixd"}]}, "did you mean 'fixed'?"),
        (0, "fixed: tokens is 0"),
        (True, "True is neither a number of tokens nor a table"),
        ("lognormal", "'lognormal' is neither a number of tokens nor a table"),
    ],
)
def test_a_mistake_is_one_sentence(table, sentence):
    with pytest.raises(ValueError) as caught:
        as_lengths(table)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_law_of_ones_own_is_found_by_its_name():
    class Countdown(Fixed):
        type = "countdown"

    assert isinstance(as_lengths({"type": "countdown", "tokens": 3}), Countdown)


# --- Input and output together ---


def test_resampling_keeps_rows_together():
    pairs = Resample(input_tokens=(1, 2, 3), output_tokens=(10, 20, 30))
    inputs, outputs = pairs.sample(1000, np.random.default_rng(0), np.random.default_rng(1))
    assert (outputs == 10 * inputs).all()
    assert set(inputs.tolist()) == {1, 2, 3}


def test_resampling_reads_a_trace_file(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n0,5,50\n1,6,60\n")
    assert as_pairs({"type": "resample", "path": str(path)}) == Resample(
        input_tokens=(5, 6), output_tokens=(50, 60)
    )


def test_weighted_pairs_keep_kinds_apart():
    kinds = [
        {"input_tokens": 1000, "output_tokens": 10},
        {"input_tokens": 10, "output_tokens": 1000},
    ]
    pairs = WeightedPairs(pairs=kinds, weights=(3, 1))
    inputs, outputs = pairs.sample(40_000, np.random.default_rng(0), np.random.default_rng(1))
    assert (inputs * outputs == 10_000).all()
    assert (inputs == 1000).mean() == pytest.approx(0.75, abs=0.01)
    assert pairs.inputs.mean_tokens == pytest.approx(0.75 * 1000 + 0.25 * 10)


def test_rank_table_states_the_law_it_samples():
    ranks = [(0.3, 0.6, 1.0), (0.0, 0.2, 0.7)]
    pairs = RankTable(
        probabilities=(0, 0.5, 1),
        input_values=(1, 50, 5000),
        output_values=(1, 100, 1000),
        output_ranks=ranks,
    )
    inputs, outputs = pairs.sample(200_000, np.random.default_rng(0), np.random.default_rng(1))
    assert np.corrcoef(inputs, outputs)[0, 1] < -0.2
    for law, sample in ((pairs.inputs, inputs), (pairs.outputs, outputs)):
        lengths, counts = np.unique(sample, return_counts=True)
        assert np.abs(np.cumsum(counts) / sample.size - law.cdf(lengths)).max() < 0.006
