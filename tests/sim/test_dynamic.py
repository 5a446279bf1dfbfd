"""Dynamic batching by hand: who goes along, and when; what a batch then does is test_static's."""

import pytest

from busdoor.core.request import Request
from busdoor.kv.config import KVConfig
from busdoor.kv.contiguous import ContiguousKV
from busdoor.policies import DynamicPolicy, policy_config
from busdoor.simulator.simulate import simulate
from busdoor.step_time.linear import LinearStepTime
from busdoor_workloads import Trace


def batches(lengths, batch_size, num_tokens=10**6, **options):
    """Let requests of (input, output) tokens arrive at once; return every batch's ids."""
    policy = DynamicPolicy(ContiguousKV(num_tokens), batch_size, 10**4, **options)
    for i, (inputs, outputs) in enumerate(lengths):
        policy.add(Request(i, 0.0, inputs, outputs, max_output_tokens=outputs))
    policy.close()
    boarded = []
    while batch := policy.schedule(0.0):
        boarded.append([request.request_id for request in batch.admitted])
        while not (policy.complete(batch, policy.stretch(batch))):
            batch = policy.schedule(0.0)
    return boarded


SHORT_AND_LONG = [(10, 9), (500, 9), (20, 9), (520, 9), (30, 9), (510, 9)]


def test_likes_sit_together_and_the_oldest_always_goes():
    assert batches(SHORT_AND_LONG, 3) == [[0, 2, 4], [1, 5, 3]]
    assert batches([(500, 9), *[(i + 1, 9) for i in range(5)]], 3) == [[0, 5, 4], [1, 2, 3]]


def test_only_the_window_is_looked_at():
    assert batches(SHORT_AND_LONG, 2, sort_window=4) == [[0, 2], [1, 5], [3, 4]]
    assert batches(SHORT_AND_LONG, 2, sort_window=3) == [[0, 2], [1, 3], [4, 5]]
    assert batches(SHORT_AND_LONG, 2, sort_window=0) == [[0, 1], [2, 3], [4, 5]]


def test_an_oracle_sorts_by_output():
    lengths = [(10, 90), (10, 5), (500, 91), (500, 6)]
    assert batches(lengths, 2, sort_by="output") == [[0, 2], [1, 3]]
    assert batches(lengths, 2, sort_by="input") == [[0, 1], [2, 3]]


def test_among_equals_who_came_first():
    assert batches([(10, 9)] * 5, 2) == [[0, 1], [2, 3], [4]]


def test_fewer_where_the_likes_would_not_fit():
    # 100 tokens hold three rows of up to 25 + 9 - 1, but not four of up to 30 + 9 - 1.
    assert batches([(10, 9), (30, 9), (20, 9), (25, 9)], 4, num_tokens=100) == [[0, 2, 3], [1]]


def seconds(arrival_s, **fields):
    arriving = Trace(
        arrival_s=arrival_s, input_tokens=[1] * len(arrival_s), output_tokens=[4] * len(arrival_s)
    )
    policy = policy_config("dynamic", **fields).build(
        KVConfig(num_blocks=1000, max_model_len=100), arriving
    )
    table = simulate(arriving, policy, LinearStepTime(base_s=1.0)).requests
    return table["first_scheduled_s"].round(9).tolist()


def test_leaves_when_the_window_ends():
    assert seconds([0, 0.05, 0.2], batch_size=8) == [0.1, 0.1, 4.1]
    assert seconds([0, 0.05, 9], batch_size=2) == [0.05, 0.05, 9.0]


def test_without_a_window_takes_whoever_is_there():
    assert seconds([0, 1, 2, 3, 4.5], batch_size=8, max_wait_s=0) == [0, 4, 4, 4, 8]


def test_settings_are_checked():
    with pytest.raises(ValueError, match="sort_by = 'oracle': input should be 'input' or 'output'"):
        policy_config("dynamic", sort_by="oracle")
