"""TGI's router by hand: an iteration lasts a second."""

import pytest

from busdoor.kv.config import KVConfig
from busdoor.policies import policy_config
from busdoor.simulator.simulate import simulate
from busdoor.step_time.linear import LinearStepTime
from busdoor_workloads import Trace

LOG = (
    "start_s",
    "repeat",
    "num_prefill_tokens",
    "num_decode_tokens",
    "context_tokens",
    "num_waiting",
)


def run(lengths, arrival_s=None, num_blocks=1000, columns=None, **fields):
    inputs, outputs = zip(*lengths, strict=True)
    arriving = Trace(
        arrival_s=arrival_s or [0.0] * len(lengths),
        input_tokens=inputs,
        output_tokens=outputs,
        **(columns or {}),
    )
    kv = KVConfig(block_size=4, num_blocks=num_blocks, max_model_len=200)
    policy = policy_config("tgi", **fields).build(kv, arriving)
    return simulate(arriving, policy, LinearStepTime(base_s=1.0))


def log(result):
    return [tuple(row) for row in result.iterations[list(LOG)].round(9).itertuples(index=False)]


def test_newcomers_are_prefilled_apart_and_join():
    # One that comes is enough for one that runs: floor(1 × 0.3) = 0.
    result = run([(10, 6), (20, 2)], [0, 1.5])
    assert log(result) == [
        (0, 1, 10, 0, 0, 0),
        (1, 1, 0, 1, 10, 0),
        (2, 1, 20, 0, 0, 0),  # the first stands still
        (3, 1, 0, 2, 31, 0),
        (4, 3, 0, 1, 12, 0),
    ]
    assert result.requests["first_token_s"].tolist() == [1, 3]
    assert result.requests["finish_s"].tolist() == [7, 4]


def test_a_new_batch_has_to_be_worth_the_pause():
    # Four run: floor(4 × 0.5) = 2 must wait. The fifth comes at 2.5 and the sixth at 4.5; then both
    # enter.
    result = run([(10, 9)] * 4 + [(10, 2)] * 2, [0] * 4 + [2.5, 4.5], waiting_served_ratio=0.5)
    assert log(result) == [
        (0, 1, 40, 0, 0, 0),
        (1, 2, 0, 4, 40, 0),
        (3, 2, 0, 4, 48, 1),
        (5, 1, 20, 0, 0, 0),
        (6, 1, 0, 6, 76, 0),
        (7, 3, 0, 4, 60, 0),
    ]


def test_whoever_finishes_makes_the_new_batch_smaller():
    # Three run and floor(3 × 0.7) = 2 must wait; when one has finished, floor(2 × 0.7) = 1
    # suffices.
    result = run([(10, 3), (10, 9), (10, 9), (10, 2)], [0, 0, 0, 0.5], waiting_served_ratio=0.7)
    assert log(result)[:4] == [
        (0, 1, 30, 0, 0, 0),
        (1, 2, 0, 3, 30, 1),
        (3, 1, 10, 0, 0, 0),
        (4, 1, 0, 3, 34, 0),
    ]


def test_after_enough_decodes_a_batch_of_any_size_may_enter():
    # Four run, so that two would have to wait; one alone waits for five decodes to pass since the
    # prefill.
    result = run(
        [(10, 9)] * 4 + [(10, 3)], [0] * 4 + [2.5], waiting_served_ratio=0.5, max_waiting_tokens=5
    )
    assert log(result) == [
        (0, 1, 40, 0, 0, 0),
        (1, 2, 0, 4, 40, 0),
        (3, 3, 0, 4, 48, 1),  # the fifth of these decodes ends at 6
        (6, 1, 10, 0, 0, 0),
        (7, 2, 0, 5, 70, 0),
        (9, 1, 0, 4, 68, 0),
    ]


def test_decodes_that_passed_before_anybody_came_count():
    lengths, ratio = (
        [(10, 30)] * 4 + [(10, 3)],
        {"waiting_served_ratio": 0.5, "max_waiting_tokens": 5},
    )
    assert run(lengths, [0] * 4 + [12.5], **ratio).requests["first_scheduled_s"].tolist()[4] == 13


def test_a_decode_follows_before_another_batch_is_sought():
    # A prefill takes 20 tokens. The first batch is joined by a second at once, for nothing had
    # joined it; then a decode is due, although the third would be large enough.
    result = run([(20, 5), (20, 5), (20, 5), (20, 5)], max_batch_prefill_tokens=20)
    assert log(result) == [
        (0, 1, 20, 0, 0, 3),
        (1, 1, 20, 0, 0, 2),
        (2, 1, 0, 2, 40, 2),
        (3, 1, 20, 0, 0, 1),
        (4, 1, 0, 3, 62, 1),
        (5, 1, 20, 0, 0, 0),
        (6, 2, 0, 4, 85, 0),
        (8, 1, 0, 2, 45, 0),
        (9, 1, 0, 1, 23, 0),
    ]


def test_requests_are_taken_in_order_while_the_prompts_fit():
    # 12 + 10 exceed 20 tokens; the 5 behind them do not overtake.
    result = run([(12, 3), (10, 3), (5, 3)], max_batch_prefill_tokens=20)
    assert log(result)[:3] == [(0, 1, 12, 0, 0, 2), (1, 1, 15, 0, 0, 0), (2, 2, 0, 3, 27, 0)]


def test_prompts_and_max_outputs_of_all_stay_within_the_total():
    # Each may come to 10 + 30 tokens: two are 80, three would be 120. The third enters when one has
    # finished.
    caps = {"max_output_tokens": [30, 30, 30]}
    result = run([(10, 4), (10, 8), (10, 2)], max_batch_total_tokens=100, columns=caps)
    assert log(result) == [
        (0, 1, 20, 0, 0, 1),
        (1, 3, 0, 2, 20, 1),
        (4, 1, 10, 0, 0, 0),
        (5, 1, 0, 2, 23, 0),
        (6, 3, 0, 1, 14, 0),
    ]


def test_blocks_for_prompt_and_max_output_less_one_are_taken_at_once():
    # 10 + 7 - 1 = 16 tokens are 4 blocks of 4; ten blocks hold two such requests, though they use
    # but 3 each.
    result = run([(10, 2)] * 3, num_blocks=10, max_output_tokens=7)
    assert log(result) == [
        (0, 1, 20, 0, 0, 1),
        (1, 1, 0, 2, 20, 1),
        (2, 1, 10, 0, 0, 0),
        (3, 1, 0, 1, 10, 0),
    ]
    first = result.iterations.iloc[0]
    assert (first["kv_blocks_used"], first["kv_reserved_tokens"], first["kv_unused_tokens"]) == (
        8,
        32,
        32 - 22,
    )
    assert (result.iterations["kv_blocks_used"] == result.iterations["kv_blocks_used_last"]).all()
    assert result.requests["num_preemptions"].sum() == 0


def test_too_few_go_back_in_their_order():
    # Six run and floor(6 × 0.5) = 3 must enter together. Three wait, but only two fit; so nobody
    # enters before one has left, and then all enter as they came.
    lengths = [(4, 3), *[(4, 9)] * 5, (8, 2), (8, 3), (8, 4)]
    fields = {"num_blocks": 24, "max_batch_total_tokens": 200, "waiting_served_ratio": 0.5}
    caps = {"max_output_tokens": [9] * 6 + [5] * 3}  # 3 blocks each, so that 6 are left
    result = run(lengths, [0] * 6 + [1.1, 1.2, 1.3], columns=caps, **fields)
    assert log(result)[:3] == [(0, 1, 24, 0, 0, 0), (1, 1, 0, 6, 24, 0), (2, 1, 0, 6, 30, 3)]
    assert result.requests["first_scheduled_s"].tolist()[6:] == [3, 3, 3]


def test_slots_are_counted():
    result = run([(5, 3)] * 3, max_num_seqs=2)
    assert log(result) == [
        (0, 1, 10, 0, 0, 1),
        (1, 2, 0, 2, 10, 1),
        (3, 1, 5, 0, 0, 0),
        (4, 2, 0, 1, 5, 0),
    ]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            {"max_batch_prefill_tokens": 40},
            "its prompt of 50 tokens exceeds max_batch_prefill_tokens 40",
        ),
        (
            {"max_batch_total_tokens": 80},
            "its prompt and max output of 90 tokens exceed max_batch_total_tokens 80",
        ),
        ({"num_blocks": 20}, "its reservation of 23 blocks exceeds the cache's 20"),
        ({"columns": {"max_output_tokens": [30]}}, ""),
    ],
)
def test_what_can_never_enter_is_refused(fields, reason):
    columns = {"max_output_tokens": [40]} | fields.pop("columns", {})
    (status,) = run([(50, 20)], columns=columns, **fields).requests["status"]
    assert status == (f"refused: {reason}" if reason else "finished")


def test_the_launchers_defaults():
    policy = policy_config("tgi").build(KVConfig(num_blocks=100, max_model_len=9000))
    assert (policy.waiting_served_ratio, policy.max_waiting_tokens) == (0.3, 20)
    assert (policy.max_batch_prefill_tokens, policy.max_batch_total_tokens) == (4096, 1600)
    long = Trace(arrival_s=[0, 0], input_tokens=[20, 6000], output_tokens=[1, 1])
    policy = policy_config("tgi").build(KVConfig(num_blocks=1000, max_model_len=9000), long)
    assert policy.max_batch_prefill_tokens == 6050


def test_a_long_stretch_costs_one_event():
    result = run(
        [(10, 150)] * 4 + [(10, 3)],
        [0] * 4 + [2.5],
        waiting_served_ratio=0.5,
        max_waiting_tokens=100,
    )
    assert result.iterations["repeat"].tolist() == [1, 2, 98, 1, 2, 47]
