"""Intervals over replications: what they cover, what pairing brings, and what is left out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from busdoor.metrics.statistics import mean_interval, paired_difference, paired_ratio, student_t

positive = st.floats(1e-3, 1e6)
pairs = st.lists(st.tuples(positive, positive), min_size=2, max_size=20)


def test_the_textbook_example():
    # Law, Simulation Modeling and Analysis, example 4.26: 1.34 ± 0.24 at 90 %.
    sample = [1.20, 1.50, 1.68, 1.89, 0.95, 1.49, 1.58, 1.55, 0.50, 1.09]
    interval = mean_interval(sample, confidence=0.9)
    assert round(interval.mean, 2) == 1.34
    assert round(interval.half_width, 2) == 0.24


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.706), (4, 2.776), (9, 2.262), (1000, 1.962)]
)
def test_student_t_is_that_of_the_tables(degrees, quantile):
    assert student_t(0.95, degrees) == pytest.approx(quantile, abs=1e-3)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [mean_interval(rng.normal(3.0, 2.0, size=5)) for _ in range(2000)]
    share = np.mean([interval.low <= 3.0 <= interval.high for interval in intervals])
    assert share == pytest.approx(
        0.95, abs=0.015
    )  # three standard deviations of a binomial of 2,000


def test_pairing_takes_out_what_the_draws_have_in_common():
    rng = np.random.default_rng(1)
    draws = rng.normal(100, 30, size=10)
    ours, theirs = draws + 2 + rng.normal(0, 0.1, 10), draws
    paired = paired_difference(ours, theirs)
    assert paired.low < 2 < paired.high
    assert paired.half_width < 0.02 * mean_interval(ours).half_width


@given(pairs)
def test_the_reciprocal_ratio_has_the_reciprocal_interval(values):
    ours, theirs = np.array(values).T
    forth, back = paired_ratio(ours, theirs), paired_ratio(theirs, ours)
    assert forth.mean == pytest.approx(1 / back.mean)
    assert (forth.low, forth.high) == pytest.approx((1 / back.high, 1 / back.low))


@given(pairs)
def test_ratios_and_differences_lie_inside_their_intervals(values):
    for combine in (paired_ratio, paired_difference):
        interval = combine(*np.array(values).T)
        assert interval.low <= interval.mean <= interval.high


@given(positive, positive)
def test_one_replication_has_a_mean_and_no_interval(ours, theirs):
    ratio = paired_ratio([ours], [theirs])
    assert ratio.mean == pytest.approx(ours / theirs)
    assert np.isnan(ratio.low) and np.isnan(ratio.high)


def test_what_is_missing_is_left_out():
    assert mean_interval([1.0, np.nan, 3.0]) == mean_interval([1.0, 3.0])
    assert np.isnan(mean_interval([np.nan])).all()
    assert paired_ratio([2.0, 0.0, 8.0], [1.0, 1.0, 2.0]).mean == pytest.approx(np.sqrt(2 * 4))


def test_mistakes_are_answered_in_one_sentence():
    with pytest.raises(ValueError) as error:
        mean_interval([1.0], confidence=95)
    assert str(error.value) == "confidence is 95; it must be between 0 and 1, as in 0.95"
    with pytest.raises(ValueError) as error:
        paired_ratio([1.0, 2.0], [1.0])
    assert str(error.value) == "2 values cannot be paired with 1; both need one per replication"
