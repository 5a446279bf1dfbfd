"""Statistics of the gaps between tokens, taken from runs of them, against the list of all."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from busdoor.metrics.itl import GapsInParts, gap_statistics, token_gaps, weighted_percentile

PERCENTS = (0, 1, 50, 90, 99, 99.9, 100)


def table(rows, seed, tied=False):
    """Stretches of decodes, some after a prefill that decodes waited for, some resumed."""
    draw = np.random.default_rng(seed)
    repeat = np.where(draw.random(rows) < 0.3, 1, draw.geometric(0.1, rows))
    first = draw.choice([5e-3, 6e-3], rows) if tied else draw.lognormal(-5, 0.4, rows)
    last = np.where(repeat > 1, draw.lognormal(-5, 0.4, rows), first)
    slope = 0.0 if tied else draw.normal(0, 1e-5, rows)
    before = repeat - 1
    decodes = draw.choice([0, 1, 7, 250], rows)
    duration = np.where(before, before * first + slope * before * (before - 1) / 2, 0) + last
    resumed = draw.choice([0, 0, 0, 2], rows)
    return pd.DataFrame(
        {
            "start_s": np.cumsum(duration) - duration,
            "duration_s": duration,
            "repeat": repeat,
            "first_duration_s": first,
            "last_duration_s": last,
            "num_decode_tokens": decodes,
            "num_joined": draw.integers(0, 4, rows) * (decodes == 0),
            "num_resumed": resumed,
            "resumed_gap_s": resumed * draw.random(rows),
            "replica": 0,
        }
    )


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 30, 40_000])
def test_statistics_are_those_of_every_gap(rows, tied):
    iterations = table(rows, seed=rows, tied=tied)
    gaps, counts = token_gaps(iterations)
    every = np.repeat(gaps * 1e3, counts) if rows < 1000 else None
    found = gap_statistics(iterations, PERCENTS, scale=1e3)
    if not counts.sum():
        assert found is None
        return
    mean, std, percentiles = found
    expected = np.average(gaps, weights=counts)
    variance = np.average((gaps - expected) ** 2, weights=counts)
    assert mean == pytest.approx(1e3 * expected, rel=1e-12)
    assert std == pytest.approx(1e3 * np.sqrt(variance), rel=1e-9, abs=1e-9)
    assert percentiles == [weighted_percentile(gaps * 1e3, counts, each) for each in PERCENTS]
    if every is not None:
        np.testing.assert_allclose(percentiles, np.percentile(every, PERCENTS), rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_gaps_in_parts_are_those_of_the_whole(seed):
    whole = table(60, seed)
    gaps, counts = token_gaps(whole)
    for cuts in ([1, 2, 3, 50], range(0, 60, 7), range(60)):
        parts, bounds = GapsInParts(), [0, *cuts, 60]
        given = [parts.add(whole[a:b]) for a, b in pairwise(bounds)]
        own, weights = map(np.concatenate, zip(*given, parts.finish(), strict=True))
        assert sorted(np.repeat(own, weights)) == sorted(np.repeat(gaps, counts))
