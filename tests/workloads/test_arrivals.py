"""Arrivals: rates, spread of gaps, and dispersion of counts are those of the process named."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busdoor_workloads.arrivals import (
    MMPP2,
    Burst,
    ClosedLoop,
    Constant,
    Diurnal,
    GammaArrivals,
    GapTable,
    Measured,
    Poisson,
    Ramp,
    Replay,
    Spike,
    Weekly,
    WeibullArrivals,
    as_arrivals,
)
from busdoor_workloads.config import to_table
from busdoor_workloads.fit import dispersion

PROCESSES = [
    Burst(),
    Constant(request_rate=5),
    Poisson(request_rate=5),
    GammaArrivals(request_rate=5, burstiness=0.25),
    WeibullArrivals(request_rate=5, cv=2),
    GapTable(request_rate=5, probabilities=(0, 0.9, 1), gaps_s=(0, 0.1, 4)),
    MMPP2(rates=(0, 20), mean_sojourn_s=(3, 1)),
    Ramp(ramp_up_start_rps=1, ramp_up_end_rps=9),
    Ramp(ramp_up_strategy="exponential", ramp_up_start_rps=9, ramp_up_end_rps=1, ramp_up_s=20),
    Diurnal(request_rate=5, peak_to_trough=10, period_s=100),
    Spike(request_rate=5, spike_rate=50, start_s=10, duration_s=5),
    Weekly(request_rate=5, burst_factor=3),
    Replay(arrival_s=(0.0, 0.0, 1.5, 2.0)),
    ClosedLoop(concurrency=4, think_time_s=1.0),
    Measured(fit=Poisson(request_rate=5)),
]


def gaps(process, n=400_000, seed=0):
    return np.diff(process.times(n, np.random.default_rng(seed)), prepend=0.0)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.process)
def test_times_are_in_order_and_as_many_as_asked_for(process):
    for n in (0, 1, 1000):
        arrival_s = process.times(n, np.random.default_rng(3))
        assert arrival_s.shape == (n,) and arrival_s.dtype == np.float64
        assert (
            (arrival_s >= 0).all()
            and (np.diff(arrival_s) >= 0).all()
            and np.isfinite(arrival_s).all()
        )


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.process)
def test_configuration_round_trip(process):
    assert as_arrivals(to_table(process)) == process


@pytest.mark.parametrize(
    ("process", "cv"),
    [
        (Constant(request_rate=8), 0),
        (Poisson(request_rate=8), 1),
        *(
            (GammaArrivals(request_rate=8, burstiness=k), k**-0.5)
            for k in (0.1, 0.25, 0.5, 1, 2, 4)
        ),
        *((GammaArrivals(request_rate=8, cv=cv), cv) for cv in (0.5, 2, 3.5)),
        *((WeibullArrivals(request_rate=8, cv=cv), cv) for cv in (0.5, 1, 2, 4)),
        (GapTable(request_rate=8, probabilities=(0, 0.5, 1), gaps_s=(0, 0, 4)), (5 / 3) ** 0.5),
    ],
    ids=lambda value: getattr(value, "process", None),
)
def test_gaps_have_the_mean_and_spread_asked_for(process, cv):
    drawn = gaps(process)
    assert process.gap_cv == pytest.approx(cv, rel=1e-12)
    assert drawn.mean() == pytest.approx(1 / 8, rel=5 * max(cv, 1e-9) / np.sqrt(drawn.size))
    assert drawn.std() / drawn.mean() == pytest.approx(cv, rel=0.05, abs=1e-8)


def test_weibull_shapes_of_the_reference():
    shapes = [WeibullArrivals(request_rate=1, cv=cv).shape for cv in (0.5, 1, 2, 4, 8)]
    assert shapes == pytest.approx([2.101, 1, 0.543, 0.349, 0.254], abs=6e-4)


def test_poisson_gaps_are_not_truncated():
    # Three mean gaps and more: e^-3 of them, which a truncating generator has none of.
    assert (gaps(Poisson(request_rate=1)) > 3).mean() == pytest.approx(np.exp(-3), rel=0.03)


def test_a_count_varies_unless_the_duration_is_normalized():
    free = [Poisson(request_rate=10).times(100, np.random.default_rng(s))[-1] for s in range(400)]
    held = [
        Poisson(request_rate=10, normalize_duration=True).times(100, np.random.default_rng(s))[-1]
        for s in range(9)
    ]
    assert np.std(free) == pytest.approx(1.0, rel=0.15)
    assert held == pytest.approx([10.0] * 9)


@pytest.mark.parametrize("process", [Poisson, Constant])
def test_an_infinite_rate_is_a_burst(process):
    assert (process(request_rate=np.inf).times(5, np.random.default_rng(0)) == 0).all()


def test_mmpp2_rate_and_dispersion():
    process = MMPP2(rates=(2, 14), mean_sojourn_s=(5, 5))
    arrival_s = process.times(400_000, np.random.default_rng(0))
    assert process.request_rate == 8
    assert arrival_s.size / arrival_s[-1] == pytest.approx(8, rel=0.02)
    # Variance over mean of counts in t seconds: 1 + 2 d^2 / (r c) (1 - (1 - e^(-c t)) / (c t)), c =
    # 2 / sojourn, d = 6.
    c, t = 2 / 5, 20.0
    theory = 1 + 2 * 36 / (8 * c) * (1 - (1 - np.exp(-c * t)) / (c * t))
    assert dispersion(arrival_s, t) == pytest.approx(theory, rel=0.06)


def test_mmpp2_may_start_in_either_state():
    first = [
        MMPP2(rates=(0, 10), mean_sojourn_s=(1, 3)).times(1, np.random.default_rng(s))[0]
        for s in range(2000)
    ]
    assert np.mean(np.array(first) > 0.5) == pytest.approx(0.25 * np.exp(-0.5) + 0.02, abs=0.04)


@pytest.mark.parametrize("strategy", ["linear", "exponential"])
def test_ramp_takes_as_long_as_its_requests(strategy):
    ramp = Ramp(ramp_up_strategy=strategy, ramp_up_start_rps=2, ramp_up_end_rps=18)
    arrival_s = ramp.times(200_000, np.random.default_rng(0))
    mean = 10 if strategy == "linear" else 16 / np.log(9)
    assert arrival_s[-1] == pytest.approx(200_000 / mean, rel=0.01)
    early, late = (np.diff(part).mean() for part in (arrival_s[:2000], arrival_s[-2000:]))
    assert 1 / early == pytest.approx(2, rel=0.2) and 1 / late == pytest.approx(18, rel=0.1)


def test_ramp_stays_at_its_end_rate():
    arrival_s = Ramp(ramp_up_start_rps=1, ramp_up_end_rps=20, ramp_up_s=10).times(
        100_000, np.random.default_rng(0)
    )
    assert np.searchsorted(arrival_s, 10.0) == pytest.approx(105, abs=40)
    assert np.diff(arrival_s[arrival_s > 10]).mean() == pytest.approx(1 / 20, rel=0.02)


def test_diurnal_peak_to_trough():
    arrival_s = Diurnal(request_rate=50, peak_to_trough=4, period_s=200).times(
        400_000, np.random.default_rng(0)
    )
    phase = np.histogram(arrival_s[arrival_s < 200 * 39] % 200, 40)[0]
    assert arrival_s.size / arrival_s[-1] == pytest.approx(50, rel=0.01)
    assert phase.max() / phase.min() == pytest.approx(4, rel=0.08)
    assert np.argmax(phase) in range(8, 12)  # a quarter of the way


def test_spike_rates():
    arrival_s = Spike(request_rate=20, spike_rate=400, start_s=100, duration_s=50).times(
        50_000, np.random.default_rng(0)
    )
    count = np.histogram(arrival_s, [0, 100, 150, 1000])[0]
    assert count / [100, 50, 850] == pytest.approx([20, 400, 20], rel=0.1)


def test_replay_scales_time_and_starts_over():
    replay = Replay(arrival_s=(1.0, 2.0, 4.0))
    assert replay.times(3, np.random.default_rng(0)).tolist() == [1, 2, 4]
    assert Replay(arrival_s=(1.0, 2.0, 4.0), time_scale=2).times(
        3, np.random.default_rng(0)
    ).tolist() == [2, 4, 8]
    assert np.diff(replay.at_rate(4).times(3000, np.random.default_rng(0))).mean() == pytest.approx(
        1 / 4, rel=1e-3
    )


def test_replay_reads_a_trace_file(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n0,5,50\n1.5,6,60\n")
    assert as_arrivals({"process": "trace", "path": str(path), "time_scale": 2}) == Replay(
        arrival_s=(0, 1.5), time_scale=2
    )


@given(rate=st.floats(0.01, 1e4), seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize(
    "process",
    [
        Poisson(request_rate=3),
        GammaArrivals(request_rate=3, cv=2),
        WeibullArrivals(request_rate=3, cv=2),
    ],
)
def test_another_rate_only_stretches_time(process, rate, seed):
    own, other = (
        p.times(50, np.random.default_rng(seed)) for p in (process, process.at_rate(rate))
    )
    assert other * rate == pytest.approx(own * 3, rel=1e-9)


@pytest.mark.parametrize(
    "process", [Burst(), ClosedLoop(concurrency=3), Measured(fit=Constant(request_rate=2))]
)
def test_what_has_no_rate_to_scale_becomes_poisson(process):
    assert process.at_rate(7) == Poisson(request_rate=7)


@pytest.mark.parametrize(
    "process",
    [
        MMPP2(rates=(1, 9), mean_sojourn_s=(1, 2)),
        Ramp(ramp_up_start_rps=1, ramp_up_end_rps=5),
        Ramp(ramp_up_strategy="exponential", ramp_up_start_rps=1, ramp_up_end_rps=5),
        Diurnal(request_rate=2, peak_to_trough=3, period_s=50),
    ],
)
def test_modulated_processes_keep_their_shape_at_another_rate(process):
    arrival_s = process.at_rate(12).times(200_000, np.random.default_rng(0))
    assert arrival_s.size / arrival_s[-1] == pytest.approx(12, rel=0.02)
    assert type(process.at_rate(12)) is type(process)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"process": "poison", "request_rate": 1}, "did you mean 'poisson'?"),
        ({"request_rate": 1}, "has no 'process'; "),
        ({"process": "poisson", "rate": 1}, "poisson has no 'rate'; did you mean 'request_rate'?"),
        (
            {"process": "poisson", "request_rate": 0},
            "poisson: request_rate is 0; input should be greater than 0",
        ),
        ({"process": "gamma", "request_rate": 1}, "either burstiness (the shape k) or cv"),
        (
            {"process": "gamma", "request_rate": 1, "cv": 1, "burstiness": 1},
            "either burstiness (the shape k) or cv",
        ),
        ({"process": "mmpp2", "rates": [0, 0], "mean_sojourn_s": [1, 1]}, "rates are both 0"),
        (
            {
                "process": "ramp",
                "ramp_up_strategy": "lin",
                "ramp_up_start_rps": 1,
                "ramp_up_end_rps": 2,
            },
            "'linear'",
        ),
        (
            {"process": "closed_loop", "concurrency": 1, "think_time_s": -1},
            "it is -1 seconds; it must be 0 or more",
        ),
        ({"process": "trace", "arrival_s": [2, 1]}, "in order of arrival"),
        ("poisson", "'poisson' is neither a request rate nor a table"),
    ],
)
def test_a_mistake_is_one_sentence(table, sentence):
    with pytest.raises(ValueError) as caught:
        as_arrivals(table)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_million_arrivals_are_quick():
    for process in PROCESSES:
        start = time.perf_counter()
        process.times(1_000_000, np.random.default_rng(0))
        assert time.perf_counter() - start < 2  # 1 s on an idle core; most take a tenth
