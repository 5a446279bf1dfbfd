"""Waiting lines: who is next, whatever joins and leaves, and what the order is worth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busdoor.core.request import Request
from busdoor.kv.config import KVConfig
from busdoor.policies import policy_config
from busdoor.policies.queues import QUEUES, ShortestJobQueue, as_queue
from busdoor.simulator.simulate import simulate
from busdoor.step_time import LinearStepTime
from busdoor_workloads import Trace
from busdoor_workloads.streams import stream

SECOND = LinearStepTime(base_s=1.0)
ORDERS = {
    "fcfs": lambda request: request.request_id,
    "priority": lambda request: (request.priority, request.arrival_s, request.request_id),
    "sjf": lambda request: (request.output_tokens, request.arrival_s, request.request_id),
}


def requests(output_tokens, arrival_s=None, priority=None):
    count = len(output_tokens)
    columns = (arrival_s or [0.0] * count, output_tokens, priority or [0] * count)
    return [
        Request(i, at, 8, out, priority=rank)
        for i, (at, out, rank) in enumerate(zip(*columns, strict=True))
    ]


def served(queue):
    return [queue.pop_head().request_id for _ in range(len(queue))]


def run(arriving, name="vllm", **fields):
    kv = KVConfig(block_size=16, num_blocks=1000, max_model_len=5000)
    return simulate(arriving, policy_config(name, **fields).build(kv, arriving), SECOND).requests


class TestOrder:
    def test_shortest_answer_first_then_the_earlier(self):
        queue = ShortestJobQueue()
        for request in requests([50, 10, 30, 10], arrival_s=[0.0, 2.0, 0.0, 1.0]):
            queue.push(request)
        assert served(queue) == [3, 1, 2, 0]

    def test_whoever_was_thrown_out_comes_back_to_its_place(self):
        for name, expected in (("fcfs", [2, 0, 1]), ("sjf", [0, 2, 1])):
            queue, (*two, third) = as_queue(name), requests([10, 50, 30])
            for request in two:
                queue.push(request)
            queue.push_back(third)
            assert served(queue) == expected

    @pytest.mark.parametrize("name", QUEUES)
    @settings(max_examples=50, deadline=None)
    @given(data=st.data())
    def test_head_is_always_the_first_by_the_rule(self, name, data):
        queue, line, fresh = as_queue(name), [], 0
        for _ in range(data.draw(st.integers(1, 30))):
            action = data.draw(st.sampled_from(["push", "push", "pop", "remove"]))
            if action == "push":
                request = Request(
                    fresh,
                    float(fresh // 3),
                    8,
                    data.draw(st.integers(1, 5)),
                    priority=data.draw(st.integers(0, 2)),
                )
                fresh += 1
                first = not line or ORDERS[name](request) < min(map(ORDERS[name], line))
                assert queue.precedes(request) == first
                queue.push(request)
                line.append(request)
            elif line:
                gone = (
                    min(line, key=ORDERS[name])
                    if action == "pop"
                    else data.draw(st.sampled_from(line))
                )
                if action == "pop":
                    assert queue.pop_head() is gone
                else:
                    queue.remove(gone)
                line.remove(gone)
            assert len(queue) == len(line)
            if line:
                assert queue.head() is min(line, key=ORDERS[name])


class TestPrediction:
    def test_errors_are_lognormal_and_of_the_stream(self):
        queue = ShortestJobQueue(error=0.5, seed=7)
        ranks = [queue.rank(request) for request in requests([100] * 5000)]
        logs = np.log(np.array(ranks) / 100)
        assert logs.mean() == pytest.approx(0, abs=0.02)
        assert logs.std() == pytest.approx(0.5, rel=0.03)
        np.testing.assert_allclose(
            logs[:10], 0.5 * stream(7, "length prediction").standard_normal(10)
        )

    def test_a_request_is_predicted_the_same_whenever_it_is_asked(self):
        one, other = ShortestJobQueue(0.5, seed=1), ShortestJobQueue(0.5, seed=1)
        many = requests([100] * 3000)
        assert [one.rank(request) for request in many] == [
            other.rank(request) for request in reversed(many)
        ][::-1]
        assert ShortestJobQueue(0.5, seed=2).rank(many[0]) != one.rank(many[0])


class TestInAPolicy:
    @pytest.mark.parametrize("name", ["vllm", "orca", "prefill_first"])
    def test_the_short_overtake_the_long(self, name):
        # One slot. The first runs from 0 to 5; then the shortest of those that wait: 2, 3 and 4
        # iterations.
        arriving = Trace(arrival_s=[0, 1, 2, 3], input_tokens=[8] * 4, output_tokens=[5, 4, 2, 3])
        fields = {"reservation": "oracle"} if name == "orca" else {}
        assert run(arriving, name, queue="sjf", max_num_seqs=1, **fields)["finish_s"].round(
            9
        ).tolist() == [
            5,
            14,
            7,
            10,
        ]

    def test_knowing_lengths_shortens_the_mean_wait_and_guessing_them_less(self):
        draws = stream(0, "test")
        count = 3000
        arriving = Trace(
            arrival_s=np.cumsum(draws.exponential(50 / 0.8, count)),
            input_tokens=np.ones(count, dtype=int),
            output_tokens=draws.geometric(1 / 50, count),
        )

        def mean_wait_s(**fields):
            table = run(arriving, max_num_seqs=1, **fields)
            return (table["first_scheduled_s"] - table["arrival_s"]).mean()

        fcfs = mean_wait_s()
        waits = [mean_wait_s(queue="sjf", length_error=error) for error in (0.0, 0.7, 3.0)]
        assert waits == sorted(waits)
        assert waits[-1] < 1.1 * fcfs
        # M/G/1 without preemption, shortest first (Conway, Maxwell and Miller): for exponential
        # services of mean 1, E[W] = load E[S^2] / 2 times the integral of f(x) / (1 - load F(x))^2,
        # where load F(x) is the work up to x.
        x = np.linspace(0, 40, 200_001)
        below = 0.8 * (1 - np.exp(-x) * (1 + x))
        assert waits[0] == pytest.approx(
            50 * 0.8 * np.trapezoid(np.exp(-x) / (1 - below) ** 2, x), rel=0.15
        )
        assert fcfs == pytest.approx(50 * 0.8 / 0.2, rel=0.2)


def test_wrong_settings_are_one_sentence():
    for fields, sentence in (
        (
            {"queue": "lifo"},
            r"\[policy\] queue = 'lifo': input should be 'fcfs', 'priority' or 'sjf'",
        ),
        ({"length_error": 0.5}, "length_error = 0.5 applies only to queue = 'sjf', not 'fcfs'"),
        (
            {"queue": "priority", "length_seed": 3},
            "length_seed = 3 applies only to queue = 'sjf', not 'priority'",
        ),
        (
            {"queue": "sjf", "length_error": -1},
            r"\[policy\] length_error = -1: input should be greater than",
        ),
    ):
        with pytest.raises(ValueError, match=sentence) as error:
            policy_config("vllm", **fields)
        assert "\n" not in str(error.value)
