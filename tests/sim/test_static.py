"""Static batching by hand: an iteration lasts a second, so that times count iterations."""

from math import inf, nan

import numpy as np
import pytest

from busdoor.kv.config import KVConfig
from busdoor.policies import policy_config
from busdoor.simulator.simulate import simulate
from busdoor.step_time.linear import LinearStepTime
from busdoor_workloads import Trace

SECOND = LinearStepTime(base_s=1.0)
LOG = (
    "start_s",
    "repeat",
    "num_prefill_tokens",
    "num_decode_tokens",
    "num_idle_rows",
    "num_padded_tokens",
    "context_tokens",
)


def trace(lengths, arrival_s=None, **columns):
    """Build requests of (input, output) tokens, all at time 0 unless arrivals are given."""
    inputs, outputs = zip(*lengths, strict=True)
    return Trace(
        arrival_s=arrival_s or [0.0] * len(lengths),
        input_tokens=inputs,
        output_tokens=outputs,
        **columns,
    )


def run(arriving, name="static", num_blocks=100, max_model_len=101, **fields):
    kv = KVConfig(block_size=10, num_blocks=num_blocks, max_model_len=max_model_len)
    return simulate(arriving, policy_config(name, **fields).build(kv, arriving), SECOND)


def log(result):
    return [tuple(row) for row in result.iterations[list(LOG)].itertuples(index=False)]


def times(result, column):
    return (
        result.requests[column].round(9).tolist()
    )  # arrivals count as 1e-12 earlier than they are


class TestIntroductoryScenario:
    """Four requests of 10, 20, 50 and 100 tokens in four slots."""

    FOUR = trace([(1, 10), (1, 20), (1, 50), (1, 100)])

    def test_400_slot_iterations_of_which_180_are_useful(self):
        table = run(self.FOUR, batch_size=4).iterations
        assert table["repeat"].sum() == 100
        assert (table["repeat"] * table["num_requests"]).sum() == 400
        assert (table["repeat"] * table["num_decode_tokens"]).sum() + table[
            "num_first_tokens"
        ].sum() == 180
        assert (table["repeat"] * table["num_idle_rows"]).sum() == 220

    def test_slot_of_the_first_is_idle_for_90(self):
        result = run(self.FOUR, batch_size=4, release="request")
        assert times(result, "finish_s") == [10, 20, 50, 100]
        assert times(result, "released_s") == [100] * 4
        assert result.stays["leave_s"].tolist() == [100] * 4

    def test_answers_appear_when_the_batch_ends(self):
        result = run(self.FOUR, batch_size=4)
        assert times(result, "first_token_s") == times(result, "finish_s") == [100] * 4

    def test_a_fifth_waits_for_the_next_bus(self):
        five = trace([(1, 10), (1, 20), (1, 50), (1, 100), (1, 30)])
        result = run(five, batch_size=4)
        assert times(result, "first_scheduled_s") == [0, 0, 0, 0, 100]
        assert times(result, "finish_s") == [100, 100, 100, 100, 130]

    def test_the_door_lets_it_in_at_iteration_11(self):
        five = trace([(1, 10), (1, 20), (1, 50), (1, 100), (1, 30)])
        result = run(five, "vllm", max_num_seqs=4)
        assert times(result, "finish_s") == [10, 20, 50, 100, 40]
        assert times(result, "first_scheduled_s")[4] == 10
        assert times(result, "first_token_s")[4] == 11


class TestRunningABatch:
    THREE = trace([(4, 3), (6, 1), (2, 2)])

    def test_prompts_are_padded_and_finished_rows_compute_on(self):
        result = run(self.THREE, batch_size=3, decode_reads="padded")
        assert log(result) == [
            (
                0,
                1,
                12,
                0,
                0,
                6,
                0,
            ),  # prompts of 4 + 6 + 2, padded to 6 each; everybody's first token
            (1, 1, 0, 2, 1, 1, 18),  # the second has finished; all three rows have 6 in the cache
            (2, 1, 0, 1, 2, 2, 21),
        ]
        prefill = result.iterations.iloc[0]
        assert prefill["prefill_attention"] == 3 * (1 + 2 + 3 + 4 + 5 + 6)
        assert prefill["prefill_context_tokens"] == 18
        assert result.iterations["num_requests"].tolist() == [3, 3, 3]

    def test_finished_rows_may_cost_nothing(self):
        result = run(self.THREE, batch_size=3, decode_reads="padded", finished_rows="skip")
        assert log(result) == [
            (0, 1, 12, 0, 0, 6, 0),
            (1, 1, 0, 2, 0, 0, 12),
            (2, 1, 0, 1, 0, 0, 7),
        ]
        assert result.iterations["num_running"].tolist() == [3, 3, 3]  # but they keep their slots
        assert result.iterations["kv_reserved_tokens"].nunique() == 1  # and their memory

    @pytest.mark.parametrize(
        ("finished_rows", "contexts"),
        [
            ("compute", [4 + 6 + 2, 5 + 7 + 3]),
            ("skip", [4 + 2, 5]),
        ],  # the second leaves after the prefill
    )
    def test_decodes_read_each_rows_own_keys_unless_told_otherwise(self, finished_rows, contexts):
        result = run(self.THREE, batch_size=3, finished_rows=finished_rows)
        assert result.iterations["context_tokens"].tolist() == [0, *contexts]
        assert result.iterations["prefill_attention"].tolist() == [
            63,
            0,
            0,
        ]  # prompts are computed with their padding

    def test_a_stretch_ends_with_every_distinct_length(self):
        result = run(trace([(2, 5), (2, 9), (2, 5), (2, 20)]), batch_size=4)
        assert result.iterations["repeat"].tolist() == [1, 4, 4, 11]

    def test_answers_are_streamed_if_asked(self):
        result = run(self.THREE, batch_size=3, release="request")
        assert times(result, "first_token_s") == [1, 1, 1]
        assert times(result, "finish_s") == [3, 1, 2]
        assert times(result, "released_s") == [3, 3, 3]

    def test_whole_dataset_sets_the_lengths(self):
        arriving = trace([(4, 3), (6, 1), (2, 2), (8, 5)])
        result = run(arriving, batch_size=3, pad_to="dataset", decode_reads="padded")
        assert log(result)[:4] == [
            (0, 1, 12, 0, 0, 12, 0),  # padded to 8 each
            (1, 1, 0, 2, 1, 1, 24),
            (2, 1, 0, 1, 2, 2, 27),
            (3, 2, 0, 0, 3, 3, 30),  # on to the 5 that only the fourth wants
        ]
        assert times(result, "finish_s") == [5, 5, 5, 10]

    def test_a_lone_request_for_one_token_is_done_by_the_prefill(self):
        assert log(run(trace([(7, 1)]), batch_size=8)) == [(0, 1, 7, 0, 0, 0, 0)]


class TestLeaving:
    def test_full(self):
        result = run(trace([(1, 4)] * 3, [0, 2, 3]), batch_size=2)
        assert times(result, "first_scheduled_s") == [
            2,
            2,
            6,
        ]  # the third is the last: nobody is left to wait for

    def test_window_ends(self):
        result = run(trace([(1, 4)] * 3, [0, 2, 20]), batch_size=3, max_wait_s=5)
        assert times(result, "first_scheduled_s") == [5, 5, 20]

    def test_whoever_has_waited_through_a_batch_leaves_at_its_end(self):
        result = run(
            trace([(1, 9), (1, 9), (1, 4), (1, 4)], [0, 0, 3, 50]), batch_size=2, max_wait_s=5
        )
        assert times(result, "first_scheduled_s") == [0, 0, 9, 50]

    def test_no_arrival_is_left(self):
        assert times(run(trace([(1, 4)] * 2, [0, 7]), batch_size=50), "first_scheduled_s") == [7, 7]

    def test_clients_give_up_while_they_wait_for_others(self):
        arriving = trace([(1, 4)] * 3, [0, 8, 9], timeout_s=[5, nan, inf])
        result = run(arriving, batch_size=2)
        assert result.requests["status"].tolist() == ["abandoned", "finished", "finished"]
        assert times(result, "first_scheduled_s")[1:] == [9, 9]

    def test_clients_give_up_on_the_way(self):
        arriving = trace([(3, 9), (3, 4), (3, 2)], timeout_s=[4.5, nan, nan])
        result = run(arriving, batch_size=3)
        assert result.requests["status"].tolist() == ["abandoned", "finished", "finished"]
        assert log(result) == [
            (0, 1, 9, 0, 0, 0, 0),
            (1, 1, 0, 3, 0, 0, 9),
            (2, 2, 0, 2, 1, 1, 12),
            (4, 1, 0, 1, 2, 2, 18),  # it leaves at the end of the iteration in which it gave up,
            (5, 4, 0, 0, 3, 3, 21),  # and its row rides on to its end
        ]
        assert times(result, "finish_s")[1:] == [9, 9]


class TestMemory:
    def test_region_is_rows_times_longest_prompt_and_longest_cap(self):
        arriving = trace([(4, 3), (6, 1), (2, 2)], max_output_tokens=[3, 1, 20])
        row = run(arriving, batch_size=3).iterations.iloc[1]
        assert row["kv_reserved_tokens"] == 3 * (6 + 20 - 1)
        assert row["kv_blocks_used"] == 8
        assert row["kv_used_tokens"] == 4 + 6 + 2
        # What somebody wants is written by the end: 4 + 2, 6 and 2 + 1; the rest is padding and
        # over-reservation.
        assert row["kv_unused_tokens"] == 75 - (6 + 6 + 3)

    def test_without_a_cap_all_that_the_model_leaves_is_reserved(self):
        assert run(trace([(4, 3)]), batch_size=3).iterations["kv_reserved_tokens"].tolist() == [
            100,
            100,
        ]

    def test_cap_of_the_policy_stands_in(self):
        result = run(trace([(4, 3), (4, 11)]), batch_size=2, max_output_tokens=10)
        assert result.iterations["kv_reserved_tokens"].tolist() == [13, 13]
        assert result.requests["status"].tolist() == [
            "finished",
            "refused: 11 output tokens exceed max_output_tokens 10",
        ]

    def test_fewer_rows_where_the_batch_would_not_fit(self):
        arriving = trace([(10, 5)] * 3 + [(90, 5)], max_output_tokens=[5, 5, 5, 5])
        result = run(
            arriving, num_blocks=10, batch_size=4
        )  # 100 tokens: three rows of 14, but not four of 94
        assert times(result, "first_scheduled_s") == [0, 0, 0, 5]

    def test_what_can_never_fit_is_refused_and_the_run_goes_on(self):
        arriving = trace([(90, 12), (60, 5), (10, 5)], max_output_tokens=[12, 30, 5])
        result = run(arriving, num_blocks=8, batch_size=1)
        assert result.requests["status"].tolist() == [
            "refused: 102 tokens exceed max_model_len 101",
            "refused: its KV of 89 tokens exceeds the cache's 80",
            "finished",
        ]

    def test_default_batch_is_the_largest_that_always_fits(self):
        arriving = trace([(40, 5), (10, 5)], max_output_tokens=[5, 21])
        kv = KVConfig(block_size=10, num_blocks=13, max_model_len=100)
        assert policy_config("static").build(kv, arriving).num_slots == 2  # 130 // (40 + 21 - 1)
        assert policy_config("static", max_num_seqs=1).build(kv, arriving).num_slots == 1
        assert policy_config("static").build(kv).num_slots == 1  # 130 // 100
        dataset = policy_config("static", pad_to="dataset").build(kv, arriving)
        assert (dataset.num_slots, dataset.padding) == (2, (40, 5))  # 130 // 44


class TestSettings:
    USERS = trace([(1, 1)] * 8, concurrency=3)

    def test_a_closed_loop_must_be_able_to_fill_the_batch(self):
        with pytest.raises(ValueError, match="batch_size is 4 but only 3 users ask at a time"):
            run(self.USERS, batch_size=4)
        assert run(self.USERS, batch_size=4, max_wait_s=1).requests["status"].eq("finished").all()
        assert (
            run(self.USERS).requests["status"].eq("finished").all()
        )  # the default goes by the users

    def test_turns_may_leave_it_waiting(self):
        chats = trace([(1, 1)] * 2, session_id=[0, 0], turn=[0, 1])
        with pytest.raises(ValueError, match=r"later turns wait for answers.*set max_wait_s"):
            run(chats, batch_size=2)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"batch_size": 0}, "batch_size = 0: input should be greater than 0"),
            (
                {"finished_rows": "drop"},
                "finished_rows = 'drop': input should be 'compute' or 'skip'",
            ),
            ({"pad_to": "dataset", "finished_rows": "skip"}, 'finished_rows must be "compute"'),
            ({"pad_input_tokens": 5}, "are the lengths for pad_to"),
            ({"batchsize": 5}, "did you mean 'batch_size'"),
        ],
    )
    def test_mistakes_are_named(self, fields, message):
        with pytest.raises(ValueError, match=message):
            policy_config("static", **fields)

    def test_dataset_lengths_have_to_come_from_somewhere(self):
        kv = KVConfig(num_blocks=10, max_model_len=100)
        with pytest.raises(ValueError, match="needs a trace, or both"):
            policy_config("static", pad_to="dataset").build(kv)
        given = policy_config(
            "static", pad_to="dataset", pad_input_tokens=9, pad_output_tokens=8
        ).build(kv)
        assert given.padding == (9, 8)


def test_bubbles_follow_the_order_statistics_of_the_lengths():
    rng = np.random.default_rng(5)
    outputs = rng.geometric(1 / 16, 4000)
    arriving = trace([(1, int(n)) for n in outputs])
    table = run(arriving, batch_size=8, num_blocks=10**6, max_model_len=10**4).iterations
    useful = (table["repeat"] * table["num_decode_tokens"]).sum() + table["num_first_tokens"].sum()
    longest = outputs.reshape(-1, 8).max(axis=1)
    assert useful == outputs.sum()
    assert (table["repeat"] * table["num_requests"]).sum() == 8 * longest.sum()
