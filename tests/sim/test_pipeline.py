"""Host and device as a pipeline: DESIGN's recurrence, the same however time is taken."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sim.test_lookahead import (
    HAND,
    MIXED,
    both_ways,
    decode,
    many,
    prefill,
    serve,
    terms,
    traces,
)

from busdoor.calibration.teacher_forcing import batches_of, predicted_s
from busdoor.core.batch import Batch
from busdoor.metrics.metrics import token_gaps
from busdoor.simulator.stretch import make_stretch
from busdoor.step_time import CalibratedStepTime, make_step_time
from busdoor.step_time.pipeline import PipelinedBatch
from busdoor_workloads import Trace

PIPELINE = replace(HAND, pipeline=True)


def literal(steps, idle):
    """Durations by DESIGN §5: steps (device, host, launched); `idle`: nothing ran before."""
    ends, now = [], 0.0
    for k, (device_s, host_s, launched) in enumerate(steps):
        if k == 0 or k in idle:
            s = before = device_before = now
            e = s + host_s
        device = (
            max(max(device_before, s) + device_s, e)
            if launched
            else max(device_before, e) + device_s
        )
        next_s = max(e, before)
        last = k + 1 == len(steps) or k + 1 in idle
        next_e = next_s if last else next_s + steps[k + 1][1]
        now = max(device, next_e)
        ends.append(now - before)
        s, e, before, device_before = next_s, next_e, now, device
    return ends


step = st.tuples(st.floats(0, 5), st.floats(0, 5), st.booleans())


@given(st.lists(step, min_size=1, max_size=12), st.sets(st.integers(1, 11), max_size=3))
def test_it_is_the_recurrence(steps, idle):
    batches = [Batch(num_decode_tokens=k) for k in range(len(steps))]
    lead_s, ends = 0.0, []
    for k, (device_s, _, launched) in enumerate(steps):
        from_idle = k == 0 or k in idle
        ahead = PipelinedBatch(
            batches[k],
            (device_s, 0.0),
            lambda batch: steps[batch.num_decode_tokens][1],
            launched=launched,
            lead_s=None if from_idle else lead_s,
        )
        following = None if k + 1 == len(steps) or k + 1 in idle else batches[k + 1]
        duration_s, lead_s = ahead.last(1, following)
        ends.append(duration_s)
    assert ends == pytest.approx(literal(steps, idle), abs=1e-9)


@given(
    first_s=st.floats(0.1, 5), growth_s=st.one_of(st.just(0.0), st.floats(1e-3, 0.5)), host_s=st.floats(0, 5),
    launched=st.booleans(), repeat=st.integers(1, 40), before_s=st.floats(0, 5),
)  # fmt: skip
def test_a_stretch_is_its_iterations(first_s, growth_s, host_s, launched, repeat, before_s):
    """After `before_s` on the device, `repeat` like iterations; all submitted in `host_s`."""
    steps = [
        (before_s, host_s, False),
        *((first_s + growth_s * i, host_s, launched) for i in range(repeat)),
    ]
    expected = literal([*steps, (1.0, host_s, False)], set())[1 : 1 + repeat]
    ahead = PipelinedBatch(
        Batch(),
        (first_s, growth_s),
        lambda batch: host_s,
        launched=launched,
        lead_s=max(0.0, host_s - before_s),
    )
    assert ahead.durations_s(Batch(), repeat) == pytest.approx(np.array(expected), abs=1e-9)
    assert ahead.last(repeat, Batch())[0] == pytest.approx(expected[-1], abs=1e-9)
    if repeat == 1 or not ahead.single:
        stretch = make_stretch(ahead, ahead.line(Batch()), Batch(), 3.0, repeat)
        ends_s = 3.0 + np.cumsum(expected)
        assert [stretch.end_s(i) for i in range(1, repeat + 1)] == pytest.approx(ends_s, rel=1e-9)


def last(batch, following, lead_s=0.0, from_idle=False):
    return PIPELINE.ahead(batch, None if from_idle else lead_s).last(1, following)


class TestByHand:
    """A decode takes the device 1 s, an eager step 1.5; submission takes 0.25 and 1.75."""

    def test_a_decode_hides_the_launch_and_the_launched_step_has_begun_meanwhile(self):
        assert last(decode(), prefill()) == (1.75, 0.75)
        assert last(prefill(), decode(), lead_s=0.75) == (0.75, 0.0)

    def test_a_graph_starts_when_the_one_before_has_ended(self):
        assert last(decode(), decode(), lead_s=0.75) == (1.0, 0.0)

    def test_after_idleness_the_host_is_alone_first(self):
        assert last(prefill(), decode(), from_idle=True) == (1.75 + 0.25, 0.25)
        assert last(decode(), decode(), from_idle=True) == (0.25 + 1.0, 0.0)

    def test_where_nothing_follows_the_device_is_alone(self):
        assert last(prefill(), None) == (1.5, None)
        assert last(prefill(), None, lead_s=0.75) == (0.75, None)


@pytest.mark.parametrize("step_by_step", [False, True])
def test_a_run_by_hand(step_by_step):
    """As in test_lookahead, but prefill 2 begins 0.75 s before the decode hiding it ends."""
    trace = Trace(arrival_s=[0, 2.5, 7], input_tokens=[4, 4, 4], output_tokens=[4, 1, 1])
    result = serve(trace, PIPELINE, step_by_step=step_by_step)
    assert result.requests["first_token_s"].tolist() == pytest.approx([2.0, 5.5, 8.75])
    assert result.requests["finish_s"].tolist() == pytest.approx([5.5, 5.5, 8.75])


pipelines = st.builds(
    lambda own, mixed: replace(MIXED, **own, mixed_graph_sizes=mixed, pipeline=True),
    terms,
    st.sampled_from([(), (8, 32)]),
)


@settings(max_examples=150, deadline=None)
@given(traces(), pipelines)
def test_jumps_and_steps_agree(trace, step_time):
    jumps, steps = both_ways(trace, step_time)
    pd.testing.assert_frame_equal(jumps.requests, steps.requests, check_exact=False, rtol=1e-9)
    assert jumps.iterations["repeat"].sum() == len(steps.iterations)
    assert jumps.iterations["duration_s"].sum() == pytest.approx(
        steps.iterations["duration_s"].sum(), rel=1e-9
    )


@settings(max_examples=60, deadline=None)
@given(traces(timeouts=False), pipelines)
def test_the_gaps_between_tokens_too(trace, step_time):
    step_time = replace(step_time, host_s=0.0, host_per_request_s=0.0)
    jumps_s, steps_s = (
        np.sort(np.repeat(*token_gaps(result.iterations))) for result in both_ways(trace, step_time)
    )
    np.testing.assert_allclose(jumps_s, steps_s, rtol=1e-9)


@pytest.mark.parametrize("step_by_step", [False, True])
def test_a_simulation_is_the_recurrence_of_its_batches(step_by_step):
    slow = replace(MIXED, host_eager_s=0.03, pipeline=True)
    bursts = replace(many(np.random.default_rng(6)), arrival_s=np.repeat(np.arange(10) * 20.0, 12))
    result = serve(bursts, slow, step_by_step=step_by_step)
    table = result.iterations
    np.testing.assert_allclose(
        predicted_s(result, slow), table["duration_s"], rtol=1e-9, atol=1e-12
    )
    if step_by_step:
        end_s = table["start_s"] + table["duration_s"]
        gaps_s = table["start_s"].to_numpy()[1:] - end_s.to_numpy()[:-1]
        idle = set((np.flatnonzero(gaps_s > 1e-6) + 1).tolist())
        steps = [
            (
                slow.device_line(batch)[0],
                slow.host_of(batch),
                bool(batch.chunks) or batch.num_decode_tokens > 4,
            )
            for batch in batches_of(result)
        ]
        np.testing.assert_allclose(table["duration_s"], literal(steps, idle), rtol=1e-9, atol=1e-12)
    shipped = predicted_s(result, replace(slow, pipeline=False))
    assert shipped != pytest.approx(table["duration_s"].to_numpy(), rel=0.1)


def test_without_overlap_there_is_no_pipeline():
    with pytest.raises(ValueError, match="pipeline is true, but overlap is false"):
        make_step_time("calibrated", base_s=1e-3, pipeline=True)


def test_a_mixed_batch_that_fits_a_graph_is_padded_to_it_and_submitted_at_once():
    step_time = CalibratedStepTime(
        base_s=1e-3,
        eager_s=5e-3,
        per_token_s=(1e-4,),
        host_s=1e-3,
        host_eager_s=9e-3,
        overlap=True,
        pipeline=True,
        graph_sizes=(1, 2),
        mixed_graph_sizes=(8, 16),
    )
    device_s = [step_time.device_line(prefill(tokens))[0] for tokens in (5, 8, 16, 17)]
    assert device_s == pytest.approx([1.8e-3, 1.8e-3, 2.6e-3, 7.7e-3])
    assert [step_time.host_of(prefill(tokens)) for tokens in (16, 17)] == pytest.approx(
        [1e-3, 10e-3]
    )
    three = Batch(num_decode_tokens=3)  # more rows than the graphs of decodes hold
    assert step_time.device_line(three)[0] == pytest.approx(1.8e-3)
