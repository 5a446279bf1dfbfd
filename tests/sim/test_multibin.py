"""Static batches from length bins: who waits together, what leaves first, closed form."""

from itertools import pairwise

import numpy as np
import pytest

from busdoor.core.request import Request
from busdoor.kv.config import KVConfig
from busdoor.kv.contiguous import ContiguousKV
from busdoor.policies import MultiBinPolicy, policy_config
from busdoor.simulator.simulate import simulate
from busdoor.step_time.linear import LinearStepTime
from busdoor.theory import expected_max, multi_bin_max
from busdoor_workloads import Trace

KV = KVConfig(num_blocks=10_000, max_model_len=1000)


def batches(lengths, batch_size, num_tokens=10**6, **options):
    """Let requests of (input, output) tokens arrive at once; return every batch's ids."""
    policy = MultiBinPolicy(ContiguousKV(num_tokens), batch_size, 10**4, **options)
    for i, (inputs, outputs) in enumerate(lengths):
        policy.add(Request(i, 0.0, inputs, outputs, max_output_tokens=outputs))
    policy.close()
    boarded = []
    while batch := policy.schedule(0.0):
        boarded.append([request.request_id for request in batch.admitted])
        while not policy.complete(batch, policy.stretch(batch)):
            batch = policy.schedule(0.0)
    return boarded


def served(arrival_s, outputs, **fields):
    """Serve answers of these lengths, an iteration a second; return first schedule times."""
    arriving = Trace(arrival_s=arrival_s, input_tokens=[1] * len(outputs), output_tokens=outputs)
    policy = policy_config("multi_bin", **fields).build(KV, arriving)
    return (
        simulate(arriving, policy, LinearStepTime(base_s=1.0))
        .requests["first_scheduled_s"]
        .round(9)
        .tolist()
    )


class TestBins:
    LENGTHS = ((500, 9), (10, 90), (20, 8), (510, 7), (30, 91), (520, 92))

    def test_likes_wait_together(self):
        assert batches(self.LENGTHS, 3, edges=[50]) == [[0, 2, 3], [1, 4, 5]]
        assert batches(self.LENGTHS, 3, edges=[50], by="input") == [[1, 2, 4], [0, 3, 5]]

    def test_without_edges_there_is_one_bin_and_it_is_static(self):
        assert batches(self.LENGTHS, 2, edges=[]) == [[0, 1], [2, 3], [4, 5]]

    def test_an_edge_belongs_to_the_bin_below(self):
        assert batches([(1, 10), (1, 11), (1, 10)], 2, edges=[10]) == [[0, 2], [1]]

    def test_full_bins_are_served_in_order_of_filling(self):
        # The long bin is full with the third request, the short one with the fourth, the middle one
        # with the last.
        lengths = [(1, n) for n in (2, 20, 80, 81, 3, 21)]
        assert batches(lengths, 2, edges=[10, 50]) == [[2, 3], [0, 4], [1, 5]]

    def test_what_is_left_goes_bin_by_bin_the_oldest_first(self):
        assert batches([(1, n) for n in (80, 2, 81, 3, 20)], 3, edges=[10, 50]) == [
            [0, 2],
            [1, 3],
            [4],
        ]

    def test_fewer_where_the_bin_would_not_fit(self):
        # 40 tokens hold three rows of 4 + 9 - 1; the fourth stays in its bin.
        assert batches([(4, 9)] * 4 + [(4, 1)], 4, num_tokens=40, edges=[5]) == [
            [0, 1, 2],
            [3],
            [4],
        ]

    def test_a_wrong_prediction_puts_a_request_into_a_wrong_bin(self):
        lengths = [(1, 40)] * 200 + [(1, 60)] * 200
        known, guessed = (
            {len(set(b)) for b in batches(lengths, 200, edges=[50], length_error=e)}
            for e in (0.0, 1.0)
        )
        assert known == {200}
        assert guessed != {200}


class TestLeaving:
    def test_a_batch_leaves_when_its_bin_is_full(self):
        # Two long ones are there at 1, two short ones at 3: these leave at 1 + 9, when the bus is
        # back.
        assert served([0, 0.5, 1, 3], [2, 9, 9, 2], batch_size=2, edges=[5]) == [10, 1, 1, 10]

    def test_the_oldest_waits_no_longer_than_the_window(self):
        assert served([0, 1, 9], [2, 9, 2], batch_size=2, edges=[5], max_wait_s=4) == [4, 6, 15]

    def test_a_bin_whose_time_is_up_goes_before_one_that_was_full_later(self):
        # While the first bus is out for 20 s, the window of the short one ends at 2 + 5, and the
        # long bin fills at 9. The last need not wait for anybody, for nobody comes any more.
        arrival_s, outputs = [0, 0, 2, 8, 9, 40], [20, 20, 2, 20, 20, 2]
        begun = served(arrival_s, outputs, batch_size=2, edges=[5], max_wait_s=5)
        assert begun == [0, 0, 20, 22, 22, 42]


def uniform(low, high, number, seed=3):
    rng = np.random.default_rng(seed)
    outputs = rng.permutation(
        np.resize(np.arange(low, high + 1), number)
    )  # the law, without its noise
    return Trace(
        arrival_s=np.zeros(number), input_tokens=np.ones(number, dtype=int), output_tokens=outputs
    )


class TestClosedForm:
    """Uniform, k bins (workloads.md §5.2 #16): E[max] low_i + (high_i - low_i) B / (B + 1)."""

    LOW, HIGH, BATCH, STEP_S = 1, 128, 8, 0.02
    BURST = uniform(LOW, HIGH, 40 * 128)

    def saturated(self, **fields):
        policy = policy_config("multi_bin", batch_size=self.BATCH, **fields).build(KV, self.BURST)
        return simulate(self.BURST, policy, LinearStepTime(base_s=self.STEP_S))

    @pytest.mark.parametrize("num_bins", [1, 2, 4, 32])
    @pytest.mark.parametrize("spacing", ["probability", "width"])
    def test_mean_of_the_longest_in_a_batch(self, num_bins, spacing):
        result = self.saturated(num_bins=num_bins, spacing=spacing)
        table = result.requests.sort_values("first_scheduled_s")
        longest = table.groupby("first_scheduled_s")["output_tokens"].max().mean()
        assert longest == pytest.approx(
            multi_bin_max(self.LOW - 0.5, self.HIGH + 0.5, num_bins, self.BATCH), rel=0.01
        )

    @pytest.mark.parametrize("num_bins", [1, 4, 32])
    def test_throughput_is_a_batch_in_the_time_of_its_longest(self, num_bins):
        rate = self.saturated(num_bins=num_bins).summary["request_throughput"]
        edges = np.linspace(0, self.HIGH, num_bins + 1).astype(int)
        longest = np.mean(
            [
                expected_max(np.arange(low + 1, high + 1), self.BATCH)
                for low, high in pairwise(edges)
            ]
        )
        assert rate == pytest.approx(self.BATCH / (longest * self.STEP_S), rel=0.01)

    def test_with_a_bin_for_every_length_nothing_is_wasted(self):
        result = self.saturated(num_bins=128)
        bound = self.BATCH / (self.BURST.output_tokens.mean() * self.STEP_S)
        assert result.summary["request_throughput"] == pytest.approx(bound, rel=1e-9)
        assert result.summary["bubble_share"] == 0

    def test_more_bins_never_serve_a_burst_slower(self):
        rates = [
            self.saturated(num_bins=bins).summary["request_throughput"] for bins in (1, 2, 4, 8)
        ]
        assert rates == sorted(rates)


class TestSettings:
    TRACE = Trace(
        arrival_s=[0] * 5, input_tokens=[10, 20, 30, 40, 90], output_tokens=[1, 1, 1, 2, 9]
    )

    def edges(self, **fields):
        return policy_config("multi_bin", batch_size=1, **fields).build(KV, self.TRACE).edges

    def test_bins_are_put_to_the_lengths_of_the_trace(self):
        assert self.edges(num_bins=2) == [1]
        assert self.edges(num_bins=2, by="input") == [30]
        assert self.edges(num_bins=4, by="input", spacing="width") == [30, 50, 70]
        assert self.edges(edges=(5, 7), num_bins=9) == [5, 7]

    def test_users_who_wait_for_answers_have_to_fill_some_bin(self):
        users = Trace(
            arrival_s=[0] * 9, input_tokens=[1] * 9, output_tokens=range(1, 10), concurrency=7
        )
        assert (
            policy_config("multi_bin", num_bins=3).build(KV, users).num_slots == 3
        )  # seven in three bins
        with pytest.raises(
            ValueError, match=r"7 users may all wait in bins that are not full; .* at most 3"
        ):
            policy_config("multi_bin", num_bins=3, batch_size=4).build(KV, users)
        result = simulate(
            users,
            policy_config("multi_bin", num_bins=3).build(KV, users),
            LinearStepTime(base_s=1.0),
        )
        assert result.requests["status"].eq("finished").all()

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({}, "needs a trace to put its bins to the lengths of, or edges"),
            ({"edges": (5, 5)}, r"edges \(5\.0, 5\.0\) do not ascend"),
            (
                {"by": "input", "length_error": 0.5},
                'length_error = 0.5 applies only to by = "output"',
            ),
        ],
    )
    def test_mistakes_are_named(self, fields, message):
        with pytest.raises(ValueError, match=message):
            policy_config("multi_bin", **fields).build(KV)
