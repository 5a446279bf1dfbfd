"""Windows of a workload: together they are its law, and each stands alone."""

import numpy as np
import pytest

from busdoor_workloads import Trace, Workload, resolve
from busdoor_workloads.arrivals import MMPP2, Diurnal, Poisson, Ramp, Spike, Weekly
from busdoor_workloads.fit import dispersion
from busdoor_workloads.windows import expected_requests, windows, windows_of

CHANGING = [
    Poisson(request_rate=20),
    Diurnal(request_rate=20, peak_to_trough=4, period_s=1000),
    Weekly(request_rate=20, burst_factor=3, burst_s=50, burst_gap_s=200),
    MMPP2(rates=(5, 60), mean_sojourn_s=(60, 20)),
    Ramp(ramp_up_start_rps=5, ramp_up_end_rps=40),
    Spike(request_rate=20, spike_rate=200, start_s=500, duration_s=100),
]


def chat(arrival, **laws):
    return Workload(
        input_tokens={"type": "exponential", "mean": 100}, output_tokens=10, arrival=arrival, **laws
    )


def arrivals(workload, **options):
    return np.concatenate([window.trace.arrival_s for window in windows(workload, **options)])


@pytest.mark.parametrize("process", CHANGING, ids=lambda process: process.process)
def test_windows_have_the_arrivals_that_the_process_expects_in_each(process):
    drawn = list(windows(chat(process), seed=2, duration_s=2000, window_s=100))
    starts = [window.start_s for window in drawn] + [2000.0]
    seconds, expected = process.expected(2000, np.random.default_rng(0))
    if process.process in ("weekly", "mmpp2"):  # a path of its own for every seed
        assert len(drawn) == 20
    else:
        mean = np.diff(np.interp(starts, seconds, expected))
        count = np.array([len(window.trace) for window in drawn])
        assert np.sum((count - mean) ** 2 / mean) < 42  # chi-squared of 20, p = 0.003
    arrival_s = np.concatenate([window.trace.arrival_s for window in drawn])
    assert (np.diff(arrival_s) >= 0).all() and arrival_s[-1] < 2000
    assert [window.first_row for window in drawn] == [
        int(np.searchsorted(arrival_s, start)) for start in starts[:-1]
    ]


def test_counts_of_poisson_windows_are_as_dispersed_as_poisson():
    arrival_s = arrivals(chat(5.0), duration_s=20_000, window_s=700)
    assert dispersion(arrival_s, 10.0) == pytest.approx(1.0, abs=0.1)
    assert len(arrival_s) == pytest.approx(100_000, abs=5 * 100_000**0.5)


def test_a_window_does_not_depend_on_the_others():
    workload = chat(
        Weekly(request_rate=3, burst_factor=4), timeout_s={"type": "exponential", "mean": 5}
    )
    short, long = (list(windows(workload, 7, duration_s=h * 3600)) for h in (3, 9))
    for one, other in zip(short, long, strict=False):
        assert one.trace.to_frame().equals(other.trace.to_frame())
    assert not np.allclose(*(window.trace.input_tokens[:50] for window in long[:2]))


def test_a_number_of_requests_ends_the_windows():
    for wanted in (0, 1, 5000):
        drawn = list(windows(chat(2.0), num_requests=wanted, window_s=60))
        assert sum(len(window.trace) for window in drawn) == wanted
    assert expected_requests(chat(2.0), num_requests=5000).sum() == 5000
    assert expected_requests(chat(2.0, duration_s=100)).tolist() == [200]


def test_lengths_are_those_of_the_workload():
    conv = resolve("azure-conv").at_rate(30)
    drawn = np.concatenate([one.trace.output_tokens for one in windows(conv, num_requests=100_000)])
    assert np.percentile(drawn, [50, 99]) == pytest.approx([129, 601], rel=0.03)


def test_windows_of_a_trace_are_the_trace():
    trace = resolve("azure-conv").generate(num_requests=500, request_rate=1)
    cut = list(windows_of(trace, window_s=50))
    joined = np.concatenate([window.trace.input_tokens for window in cut])
    assert (joined == trace.input_tokens).all()
    assert all(one.start_s <= s < one.end_s for one in cut for s in one.trace.arrival_s)


@pytest.mark.parametrize(
    ("workload", "word"),
    [
        (chat({"process": "gamma", "request_rate": 2, "cv": 2}), "gamma arrivals"),
        (chat({"process": "closed_loop", "concurrency": 2}), "closed_loop arrivals"),
    ],
)
def test_what_depends_on_other_windows_is_refused(workload, word):
    with pytest.raises(ValueError, match=f"{word}.* cannot be drawn in windows"):
        next(windows(workload, num_requests=10))


def test_a_trace_whose_requests_wait_is_not_cut():
    loop = Trace(arrival_s=[0], input_tokens=[1], output_tokens=[1], concurrency=1)
    with pytest.raises(ValueError, match="closed loop"):
        next(windows_of(loop))


def test_sessions_are_whole_and_their_own_prefixes_everybodys():
    prefix = {"num_groups": 2, "prefix_tokens": {"type": "uniform", "low": 64, "high": 128}}
    workload = chat(2.0, multi_turn={"turns": 3, "think_time_s": 50.0}, shared_prefix=prefix)
    drawn = list(windows(workload, seed=1, duration_s=400, window_s=100))
    first_ids, sessions = set(), []
    for window in drawn:
        trace = window.trace
        sessions += np.unique(trace.session_id).tolist()
        first_ids |= {ids[0] for ids in trace.hash_ids}
        counts = np.bincount(trace.session_id - trace.session_id.min())
        assert set(counts[counts > 0]) <= {1, 2, 3} and (counts == 3).sum() > 0.9 * len(counts)
        starts = trace.arrival_s[trace.turn == 0]
        assert starts.min() >= window.start_s and starts.max() < window.end_s
    assert len(sessions) == len(set(sessions)) and len(first_ids) == 2


@pytest.mark.parametrize("process", ["weekly", "mmpp2"])
def test_a_span_whose_rate_changes_too_often_for_the_memory_is_refused(process):
    more = (
        {"rates": (1, 9), "mean_sojourn_s": (3, 1)} if process == "mmpp2" else {"request_rate": 3}
    )
    laws = Workload(input_tokens=1, output_tokens=1, arrival={"process": process, **more})
    with pytest.raises(
        ValueError, match=r"^a trace of 1,000,000,000,000,000 requests needs .* GiB"
    ):
        expected_requests(laws, num_requests=10**15)
    with pytest.raises(ValueError, match=r"^a trace of 1,000,000,000,000,000 s needs .* GiB"):
        expected_requests(laws, duration_s=1e15)
