"""Sketches: as exact as they say, whole or in parts, of any order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busdoor.metrics.itl import weighted_percentile
from busdoor.metrics.sketch import RELATIVE_ERROR, QuantileSketch

values_s = st.lists(st.floats(0.0, 1e6), min_size=1, max_size=60)
PERCENTS = (0, 1, 50, 90, 99, 99.9, 100)


def filled(parts, exact):
    sketches = [QuantileSketch(exact) for _ in parts]
    for sketch, part in zip(sketches, parts, strict=True):
        sketch.add(np.array(part, float))
    for other in sketches[1:]:
        sketches[0].merge(other)
    return sketches[0]


@given(st.lists(values_s, min_size=1, max_size=4), st.sampled_from([0, 1, 30, 1000]))
@settings(max_examples=200, deadline=None)
def test_percentiles_are_within_the_stated_error(parts, exact):
    sketch, every = filled(parts, exact), np.concatenate(parts)
    assert sketch.count == len(every)
    assert sketch.mean == pytest.approx(every.mean(), rel=1e-9, abs=1e-12)
    assert sketch.std == pytest.approx(every.std(), rel=1e-6, abs=1e-6 * (1 + every.mean()))
    for percent in PERCENTS:
        true = np.percentile(every, percent)
        assert sketch.percentile(percent) == pytest.approx(
            true, rel=sketch.error * 1.0001, abs=1e-6
        )
    assert sketch.error == (0.0 if len(every) <= exact else RELATIVE_ERROR)


@given(st.permutations(range(3)))
def test_the_order_of_parts_does_not_matter(order):
    parts = [np.random.default_rng(number).lognormal(size=400) for number in range(3)]
    one, other = filled(parts, 500), filled([parts[place] for place in order], 500)
    assert [one.percentile(p) for p in PERCENTS] == [other.percentile(p) for p in PERCENTS]


def test_weights_count_as_repetitions():
    values, weights = np.array([0.5, 0.1, 2.0, 9.0]), np.array([3, 5, 2, 0])
    for exact in (0, 100):
        sketch = QuantileSketch(exact)
        sketch.add(values, weights)
        assert (sketch.count, sketch.highest) == (10, 2.0)
        assert sketch.mean == pytest.approx(np.repeat(values, weights).mean())
        for percent in PERCENTS:
            true = weighted_percentile(values, weights, percent)
            assert sketch.percentile(percent) == pytest.approx(true, rel=RELATIVE_ERROR)


def test_an_empty_sketch_has_no_percentile():
    sketch = QuantileSketch()
    sketch.add(np.zeros(0))
    sketch.merge(QuantileSketch(exact=0))
    assert sketch.count == 0 and np.isnan(sketch.percentile(50)) and np.isnan(sketch.std)
    assert sketch.error == 0.0


def test_more_than_a_million_values_are_sketched():
    values = np.random.default_rng(3).exponential(size=1_000_001)
    sketch = QuantileSketch()
    sketch.add(values[:-1])
    assert sketch.percentile(99) == np.percentile(values[:-1], 99)
    sketch.add(values[-1:])
    assert sketch.error == RELATIVE_ERROR
    assert sketch.percentile(99) == pytest.approx(np.percentile(values, 99), rel=RELATIVE_ERROR)
