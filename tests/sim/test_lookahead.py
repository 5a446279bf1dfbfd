"""A host one batch ahead: what an iteration hides, by hand, however time is taken."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busdoor.calibration.teacher_forcing import predicted_s
from busdoor.cluster import Replica, simulate_cluster, simulate_disaggregated
from busdoor.core.batch import Batch
from busdoor.core.request import Request
from busdoor.kv.paged import PagedKV
from busdoor.metrics.metrics import token_gaps
from busdoor.policies.vllm import VllmPolicy
from busdoor.simulator.simulate import simulate
from busdoor.simulator.stretch import EndedStretch, Stretch, make_stretch
from busdoor.step_time import CalibratedStepTime, StepTime
from busdoor_workloads import Trace

# On the device a decode takes 1 s and an eager step 1.5; to submit them the host takes 0.25 and
# 1.75.
HAND = CalibratedStepTime(
    base_s=1.0, eager_s=0.5, host_s=0.25, host_eager_s=1.5, overlap=True, graph_sizes=(1, 2, 4)
)  # fmt: skip
MIXED = CalibratedStepTime(
    base_s=5e-3,
    eager_s=1e-3,
    per_token_s=(1e-5, 1e-4),
    token_breaks=(4,),
    per_context_s=2e-5,
    per_chunk_s=3e-4,
    per_mixed_request_s=4e-4,
    per_mixed_context_s=1e-5,
    host_s=4e-3,
    host_eager_s=6e-3,
    host_per_request_s=1e-4,
    overlap=True,
    graph_sizes=(1, 2, 4),
)


def policy(num_blocks=30, slots=6):
    return VllmPolicy(PagedKV(num_blocks, 16), slots, max_num_batched_tokens=64, max_model_len=480)


def serve(trace, step_time, *, step_by_step=False, lookahead=1):
    return simulate(trace, policy(), step_time, lookahead=lookahead, step_by_step=step_by_step)


def both_ways(trace, step_time):
    return [serve(trace, step_time, step_by_step=step_by_step) for step_by_step in (False, True)]


def prefill(tokens=4):
    batch = Batch()
    batch.add_chunk(Request(0, 0.0, tokens, 2), tokens, 0)
    return batch


def decode(context=0):
    return Batch(num_decode_tokens=1, decode_context_tokens=context)


def last_s(model, batch, repeat, following, from_idle):
    return model.ahead(batch, None if from_idle else 0.0).last(repeat, following)[0]


class TestLast:
    """What the last iteration takes, by hand, in calibrations from before the pipeline."""

    def test_a_decode_hides_what_the_host_does_for_the_step_that_follows(self):
        assert last_s(HAND, decode(), 1, decode(), from_idle=False) == 1.0
        assert last_s(HAND, decode(), 1, prefill(), from_idle=False) == 1.75
        assert last_s(HAND, prefill(), 1, decode(), from_idle=False) == 1.5

    def test_after_idleness_a_prefill_is_submitted_first(self):
        assert last_s(HAND, prefill(), 1, decode(), from_idle=True) == 1.75 + 0.25
        assert last_s(HAND, prefill(), 1, prefill(), from_idle=True) == 1.75 + 1.75

    def test_where_nothing_follows_the_device_is_alone(self):
        assert last_s(HAND, decode(), 1, None, from_idle=False) == 1.0
        assert last_s(HAND, prefill(), 1, None, from_idle=False) == 1.5
        assert last_s(HAND, prefill(), 1, None, from_idle=True) == 1.75

    def test_it_is_the_last_of_the_repetitions_that_counts(self):
        growing = replace(HAND, per_context_s=0.5)
        assert last_s(growing, decode(), 1, prefill(), from_idle=False) == 1.75
        assert last_s(growing, decode(), 3, prefill(), from_idle=False) == 1 + 3 * 0.5

    def test_without_overlap_it_makes_no_difference(self):
        assert replace(HAND, overlap=False).ahead(decode(), None) is None


@pytest.mark.parametrize("step_by_step", [False, True])
def test_a_run_by_hand(step_by_step):
    """The first is prefilled until 2, decodes; the second comes at 2.5, the next is decided.

    That decode, from 3, hides the submission of the step with both, which begins at 4.75; nobody is
    left at 6.25. The third finds the server idle.
    """
    trace = Trace(arrival_s=[0, 2.5, 7], input_tokens=[4, 4, 4], output_tokens=[4, 1, 1])
    result = serve(trace, HAND, step_by_step=step_by_step)
    assert result.requests["first_token_s"].tolist() == pytest.approx([2.0, 6.25, 8.75])
    assert result.requests["finish_s"].tolist() == pytest.approx([6.25, 6.25, 8.75])
    rows = (
        result.iterations[["repeat", "duration_s", "first_duration_s", "last_duration_s"]]
        .to_numpy()
        .tolist()
    )
    decodes = (
        [[1, 1.0, 1.0, 1.0], [1, 1.75, 1.75, 1.75]] if step_by_step else [[2, 2.75, 1.0, 1.75]]
    )
    expected = [[1, 2.0, 2.0, 2.0], *decodes, [1, 1.5, 1.5, 1.5], [1, 1.75, 1.75, 1.75]]
    np.testing.assert_allclose(rows, expected)


def test_decided_at_the_end_of_the_one_before_every_iteration_hides_its_own():
    trace = Trace(arrival_s=[0], input_tokens=[4], output_tokens=[4])
    assert serve(trace, HAND, lookahead=0).requests.loc[0, "finish_s"] == 1.75 + 3 * 1.0


class Given(StepTime):
    """Durations as they come."""

    def __init__(self, durations_s):
        self._durations_s = np.array(durations_s)

    def durations_s(self, batch, repeat):
        return self._durations_s[:repeat]


@given(
    durations_s=st.lists(st.floats(1e-3, 10), min_size=1, max_size=20), last_s=st.floats(1e-3, 10)
)
def test_any_stretch_can_end_otherwise(durations_s, last_s):
    repeat = len(durations_s)
    stretch = EndedStretch(
        make_stretch(Given(durations_s), None, decode(), 5.0, repeat), repeat, last_s
    )
    seconds = [*durations_s[:-1], last_s]
    assert_is(stretch, seconds)


@given(
    first_s=st.floats(1e-3, 10),
    growth_s=st.floats(0, 1),
    repeat=st.integers(1, 50),
    last_s=st.floats(1e-3, 10),
)
def test_also_one_on_a_line(first_s, growth_s, repeat, last_s):
    stretch = EndedStretch(Stretch(5.0, first_s, growth_s), repeat, last_s)
    assert_is(stretch, [*(first_s + growth_s * np.arange(repeat - 1)), last_s])


def assert_is(stretch, seconds):
    ends_s = 5.0 + np.cumsum(seconds)
    numbers = range(1, len(seconds) + 1)
    assert stretch.first_s == pytest.approx(seconds[0])
    assert [stretch.last_s(i) for i in numbers] == pytest.approx(seconds)
    assert [stretch.end_s(i) for i in numbers] == pytest.approx(ends_s)
    middles_s = ends_s - np.array(seconds) / 2
    assert [stretch.repeats_until(now_s, len(seconds)) for now_s in middles_s] == list(numbers)


terms = st.fixed_dictionaries(
    {
        "host_s": st.sampled_from([0.0, 4e-3, 7e-3]),
        "host_eager_s": st.sampled_from([0.0, 5e-3, 2e-2]),
        "host_per_chunk_s": st.sampled_from([0.0, 1e-3]),
        "per_context_s": st.sampled_from([0.0, 2e-5]),
        "per_mixed_request_s": st.sampled_from([0.0, 1e-3]),
        "per_mixed_context_s": st.sampled_from([0.0, 3e-5]),
        "graph_sizes": st.sampled_from([(), (1, 2), (1, 2, 4, 8)]),
    }
)


@st.composite
def traces(draw, timeouts=True):
    number = draw(st.integers(1, 12))

    def column(values):
        return draw(st.lists(values, min_size=number, max_size=number))

    # Iterations last whole hundredths of a ms: nobody gives up just when one ends, where the last
    # bit would decide.
    patience = st.one_of(st.just(np.nan), st.integers(1, 40).map(lambda k: k * 0.0137 + 0.000317))
    return Trace(
        arrival_s=np.cumsum(column(st.sampled_from([0.0, 0.0, 0.01013, 0.0517, 0.4019]))),
        input_tokens=column(st.integers(1, 150)),
        output_tokens=column(st.integers(1, 60)),
        timeout_s=column(patience) if timeouts else None,
    )


@settings(max_examples=120, deadline=None)
@given(traces(), terms)
def test_jumps_and_steps_agree(trace, terms):
    jumps, steps = both_ways(trace, replace(MIXED, **terms))
    pd.testing.assert_frame_equal(jumps.requests, steps.requests, check_exact=False, rtol=1e-9)
    assert jumps.iterations["repeat"].sum() == len(steps.iterations)
    assert jumps.iterations["duration_s"].sum() == pytest.approx(
        steps.iterations["duration_s"].sum(), rel=1e-9
    )


@settings(max_examples=60, deadline=None)
@given(traces(timeouts=False), terms)
def test_the_gaps_between_tokens_too(trace, terms):
    """While the host is faster in decodes, durations lie on a line, except the last."""
    jumps, steps = both_ways(
        trace, replace(MIXED, **terms | {"host_s": 0.0, "host_per_request_s": 0.0})
    )
    jumps_s, steps_s = (
        np.sort(np.repeat(*token_gaps(result.iterations))) for result in (jumps, steps)
    )
    np.testing.assert_allclose(jumps_s, steps_s, rtol=1e-9)


def many(rng, number=120, rate=40.0):
    return Trace(
        arrival_s=np.cumsum(rng.exponential(1 / rate, number)),
        input_tokens=rng.integers(1, 200, number),
        output_tokens=rng.geometric(1 / 30, number).clip(1, 200),
    )


def replicas():
    return [Replica(policy(), MIXED) for _ in range(2)]


@pytest.mark.parametrize(
    "run",
    [
        lambda trace, **how: simulate_cluster(trace, replicas(), "least_kv", **how),
        lambda trace, **how: simulate_disaggregated(
            trace, replicas(), replicas(), 1e5, kv_bytes_per_token=10.0, **how
        ),
    ],
    ids=["cluster", "pools"],
)
def test_jumps_and_steps_agree_of_several_servers(run):
    trace = many(np.random.default_rng(5))
    tables = [
        run(trace, lookahead=1, step_by_step=step_by_step).requests
        for step_by_step in (False, True)
    ]
    assert tables[0]["num_preemptions"].sum() > 0
    pd.testing.assert_frame_equal(*tables, check_exact=False, rtol=1e-9)


@pytest.mark.parametrize("step_by_step", [False, True])
def test_a_model_that_is_right_predicts_every_row(step_by_step):
    """Of bursts with idleness between: else no table says who came at the last moment."""
    bursts = replace(many(np.random.default_rng(6)), arrival_s=np.repeat(np.arange(10) * 20.0, 12))
    slow = replace(MIXED, host_eager_s=0.03)
    result = serve(bursts, slow, step_by_step=step_by_step)
    table = result.iterations
    assert (table["last_duration_s"] > 1.5 * table["first_duration_s"]).any() != step_by_step
    np.testing.assert_allclose(predicted_s(result, slow), table["duration_s"], rtol=1e-9)
    each_its_own = predicted_s(
        type(result)(result.requests, table, result.stays, {"lookahead": 0}), slow
    )
    assert each_its_own != pytest.approx(table["duration_s"].to_numpy(), rel=0.1)


def test_in_the_cells_of_a_grid_like_follows_like():
    """Between them stand iterations that are not in the table, so that it is no idleness."""
    result = serve(many(np.random.default_rng(6)), MIXED, step_by_step=True)
    cells = result.iterations.iloc[::3].assign(cell=0)
    grid = type(result)(result.requests, cells, result.stays, result.meta)
    own = predicted_s(
        type(result)(grid.requests, grid.iterations, grid.stays, {**grid.meta, "lookahead": 0}),
        MIXED,
    )
    np.testing.assert_array_equal(predicted_s(grid, MIXED), own)
