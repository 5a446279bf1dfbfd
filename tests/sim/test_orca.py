"""Iteration-level scheduling with reservations, by hand: an iteration lasts a second."""

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


def run(lengths, arrival_s=None, num_tokens=1000, max_model_len=100, columns=None, **fields):
    inputs, outputs = zip(*lengths, strict=True)
    arriving = Trace(
        arrival_s=arrival_s or [0.0] * len(lengths),
        input_tokens=inputs,
        output_tokens=outputs,
        **(columns or {}),
    )
    kv = KVConfig(block_size=1, num_blocks=num_tokens, max_model_len=max_model_len)
    return simulate(
        arriving, policy_config("orca", **fields).build(kv, arriving), LinearStepTime(base_s=1.0)
    )


def log(result):
    return [tuple(row) for row in result.iterations[list(LOG)].round(9).itertuples(index=False)]


def test_prompts_are_computed_whole_beside_the_decodes():
    result = run([(10, 4), (20, 2), (30, 3)], [0, 0, 0.5])
    assert log(result) == [
        (0, 1, 30, 0, 0, 0),
        (1, 1, 30, 2, 30, 0),  # the third's prompt beside two decodes, of which the second finishes
        (2, 2, 0, 2, 41, 0),
    ]
    assert result.requests["finish_s"].tolist() == [4, 2, 4]


@pytest.mark.parametrize(
    ("reservation", "reserved"),
    [
        ("max", 100 + 100),
        ("pow2", (10 + 32) + (20 + 16)),  # 25 rounds up to 32; 16 is a power of two
        ("oracle", (10 + 25 - 1) + (20 + 16 - 1)),  # the last token is never fed back
    ],
)
def test_what_a_request_reserves(reservation, reserved):
    row = run([(10, 25), (20, 16)], reservation=reservation).iterations.iloc[1]
    assert row["kv_reserved_tokens"] == reserved
    assert row["kv_used_tokens"] == 30
    assert row["kv_unused_tokens"] == reserved - (34 + 35)
    assert row["kv_hole_tokens"] == 0


def test_a_power_of_two_stops_at_the_longest_that_there_can_be():
    assert run([(60, 40)], reservation="pow2").iterations["kv_reserved_tokens"].tolist() == [
        100,
        100,
    ]


def test_nobody_enters_without_a_reservation():
    # Each takes 50 of 120 tokens though it needs no more than 13: the third waits for the first.
    result = run([(10, 4), (10, 8), (10, 4)], num_tokens=120, max_model_len=50)
    assert log(result) == [
        (0, 1, 20, 0, 0, 1),
        (1, 3, 0, 2, 20, 1),
        (4, 1, 10, 1, 13, 0),
        (5, 3, 0, 2, 24, 0),
    ]
    assert result.requests["num_preemptions"].tolist() == [0, 0, 0]


def test_free_memory_in_pieces_helps_nobody():
    # Three take 30, 31 and 30 of 100 tokens. When the second has gone 40 are free, but no more than
    # 31 in one piece.
    result = run([(25, 6), (29, 3), (25, 6), (30, 6)], num_tokens=100, reservation="oracle")
    assert result.requests["first_scheduled_s"].tolist() == [0, 0, 0, 6]
    after = result.iterations[result.iterations["start_s"] == 3].iloc[0]
    assert (after["kv_reserved_tokens"], after["kv_hole_tokens"], after["num_waiting"]) == (
        60,
        9,
        1,
    )


def test_whoever_comes_later_does_not_pass_by():
    result = run([(40, 5), (80, 5), (5, 5)], num_tokens=100, reservation="oracle")
    assert result.requests["first_scheduled_s"].tolist() == [0, 5, 5]


def test_budget_holds_back_prompts():
    result = run(
        [(10, 3), (10, 3), (15, 3)], reservation="oracle", max_num_seqs=4, max_num_batched_tokens=20
    )
    assert log(result) == [
        (0, 1, 20, 0, 0, 1),
        (1, 1, 15, 2, 20, 0),
        (2, 1, 0, 3, 37, 0),
        (3, 1, 0, 1, 16, 0),
    ]


def test_priorities_enter_first():
    result = run(
        [(10, 3)] * 3,
        columns={"priority": [2, 1, 0]},
        reservation="oracle",
        max_num_seqs=1,
        queue="priority",
    )
    assert result.requests["first_scheduled_s"].tolist() == [6, 3, 0]


def test_what_can_never_fit_is_refused_and_the_run_goes_on():
    result = run([(90, 11), (60, 30), (10, 5)], num_tokens=80, reservation="pow2")
    assert result.requests["status"].tolist() == [
        "refused: 101 tokens exceed max_model_len 100",
        "refused: its reservation of 92 tokens exceeds the cache's 80",
        "finished",
    ]
    result = run([(30, 11), (10, 5)], max_num_seqs=8, max_num_batched_tokens=20)
    assert (
        result.requests["status"][0]
        == "refused: its prompt of 30 tokens exceeds max_num_batched_tokens 20"
    )


def test_settings_are_checked():
    with pytest.raises(ValueError, match="max_num_batched_tokens 4 is less than max_num_seqs 8"):
        policy_config("orca", max_num_seqs=8, max_num_batched_tokens=4)
    with pytest.raises(ValueError, match="reservation = 'pow3'"):
        policy_config("orca", reservation="pow3")
