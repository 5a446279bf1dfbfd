"""Workloads: a trace is drawn property by property, each from its own stream."""

import tomllib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busdoor_workloads import PriorityClass, Workload, replication_seed, stream, workload_from_table
from busdoor_workloads.sessions import block_ids, sessions_of

COLUMNS = (
    "arrival_s",
    "input_tokens",
    "output_tokens",
    "max_output_tokens",
    "priority",
    "session_id",
    "turn",
)
CHAT = {
    "input_tokens": {"type": "lognormal", "p50": 500, "p99": 4000},
    "output_tokens": {"type": "exponential", "mean": 128},
    "arrival": 4.0,
}


def columns_of(trace):
    return {
        c: getattr(trace, c)
        for c in (*COLUMNS, "think_time_s", "timeout_s")
        if getattr(trace, c) is not None
    }


# --- Randomness ---


def test_same_seed_same_bytes():
    first, second = (Workload(**CHAT).generate(seed=5) for _ in range(2))
    for name, values in columns_of(first).items():
        assert values.tobytes() == getattr(second, name).tobytes()
    assert Workload(**CHAT).generate(seed=6).arrival_s[0] != first.arrival_s[0]


@pytest.mark.parametrize(
    "more",
    [
        {"timeout_s": {"type": "exponential", "mean": 30}},
        {"priorities": [{"priority": 0}, {"priority": 1, "weight": 3}]},
        {"max_output_factor": 2.0},
        {"timeout_s": 3, "priorities": [{"priority": 0}], "max_output_tokens": 10**6},
    ],
)
def test_a_new_consumer_of_randomness_shifts_no_other(more):
    plain, richer = Workload(**CHAT).generate(seed=1), Workload(**CHAT, **more).generate(seed=1)
    for name, values in columns_of(plain).items():
        assert np.array_equal(values, getattr(richer, name))


def test_another_rate_or_law_leaves_the_rest_alone():
    plain = Workload(**CHAT).generate(seed=1)
    faster = Workload(**CHAT).generate(seed=1, request_rate=40)
    longer = Workload(**CHAT | {"output_tokens": 999}).generate(seed=1)
    assert np.array_equal(plain.output_tokens, faster.output_tokens)
    assert faster.arrival_s == pytest.approx(plain.arrival_s / 10)
    assert np.array_equal(plain.input_tokens, longer.input_tokens)


def test_streams_of_other_names_or_seeds_are_independent():
    draws = [
        stream(seed, name).random(20_000) for seed in (0, 1) for name in ("a", "b", "arrivals")
    ]
    correlation = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlation).max() < 5 / np.sqrt(20_000)


def test_replications_have_seeds_of_their_own():
    seeds = [replication_seed(3, k) for k in range(100)]
    assert seeds[0] == 3 and len(set(seeds)) == 100


# --- Caps, patience, classes ---


def test_a_fixed_cap_stops_the_answers():
    free, capped = Workload(**CHAT).generate(), Workload(**CHAT, max_output_tokens=100).generate()
    assert (capped.max_output_tokens == 100).all()
    assert np.array_equal(capped.output_tokens, np.minimum(free.output_tokens, 100))


def test_a_factor_asks_for_more_than_it_gets():
    trace = Workload(**CHAT, max_output_factor=1.5).generate()
    assert np.array_equal(trace.max_output_tokens, np.ceil(trace.output_tokens * 1.5))


def test_patience():
    assert (Workload(**CHAT, timeout_s=30).generate().timeout_s == 30).all()
    drawn = (
        Workload(**CHAT, timeout_s={"type": "exponential", "mean": 0.25})
        .generate(num_requests=50_000)
        .timeout_s
    )
    assert drawn.mean() == pytest.approx(0.25, rel=0.03)


def test_priority_classes_have_their_weights():
    classes = (PriorityClass(priority=0, weight=1), PriorityClass(priority=5, weight=3))
    priority = Workload(**CHAT, priorities=classes).generate(num_requests=40_000).priority
    assert set(priority.tolist()) == {0, 5}
    assert (priority == 5).mean() == pytest.approx(0.75, abs=0.01)


# --- Closed loop, duration ---


def test_closed_loop_says_how_many_users_and_how_long_they_think():
    loop = {
        "process": "closed_loop",
        "concurrency": 8,
        "think_time_s": {"type": "exponential", "mean": 2},
    }
    trace = Workload(**CHAT | {"arrival": loop}).generate(num_requests=20_000)
    assert trace.concurrency == 8 and (trace.arrival_s == 0).all()
    assert trace.think_time_s.mean() == pytest.approx(2, rel=0.05)


def test_a_duration_sets_the_number():
    trace = Workload(**CHAT, duration_s=2500).generate()
    assert len(trace) == pytest.approx(4 * 2500, abs=5 * 100)
    assert 2490 < trace.arrival_s[-1] < 2500
    with pytest.raises(ValueError, match="arrives all at once"):
        Workload(input_tokens=1, output_tokens=1, duration_s=10).generate()


# --- Sessions and shared prefixes ---

SESSIONS = {
    "turns": {"type": "uniform", "low": 1, "high": 9},
    "think_time_s": {"type": "exponential", "mean": 5},
}


@given(
    seed=st.integers(0, 1000),
    n=st.integers(0, 200),
    prefix=st.booleans(),
    block_size=st.sampled_from([1, 16, 64]),
)
@settings(max_examples=40, deadline=None)
def test_context_accumulates_turn_by_turn(seed, n, prefix, block_size):
    shared = {"num_groups": 3, "prefix_tokens": 100, "block_size": block_size} if prefix else None
    workload = Workload(
        **CHAT,
        multi_turn={**SESSIONS, "block_size": block_size},
        shared_prefix=shared,
        max_output_tokens=300,
    )
    trace = workload.generate(seed, num_requests=n)
    assert len(trace) == n
    rows = {
        (s, k): row
        for row, (s, k) in enumerate(
            zip(trace.session_id.tolist(), trace.turn.tolist(), strict=True)
        )
    }
    for (session, turn), row in rows.items():
        assert len(trace.hash_ids[row]) == -(-trace.input_tokens[row] // block_size)
        if turn == 0:
            assert trace.think_time_s[row] == 0
            continue
        before = rows[session, turn - 1]
        history = trace.input_tokens[before] + trace.output_tokens[before]
        assert trace.input_tokens[row] > history
        assert trace.arrival_s[row] == pytest.approx(
            trace.arrival_s[before] + trace.think_time_s[row]
        )
        assert trace.hash_ids[row][: len(trace.hash_ids[before])] == trace.hash_ids[before]


def test_sessions_keep_the_request_rate():
    trace = Workload(**CHAT | {"arrival": 10.0}, multi_turn={"turns": 5}).generate(
        num_requests=50_000
    )
    starts = trace.arrival_s[trace.turn == 0]
    assert len(starts) == 10_000
    assert np.diff(starts).mean() == pytest.approx(5 / 10, rel=0.03)
    assert np.diff(starts).std() / np.diff(starts).mean() == pytest.approx(1, rel=0.05)


def test_no_two_sessions_share_a_block():
    trace = Workload(**CHAT, multi_turn={"turns": 3}).generate(num_requests=60)
    owners = {}
    for session, ids in zip(trace.session_id.tolist(), trace.hash_ids, strict=True):
        assert all(owners.setdefault(block, session) == session for block in ids)


def test_groups_share_their_prefix_and_nothing_else():
    prefix = {
        "num_groups": 4,
        "prefix_tokens": {"type": "uniform", "low": 50, "high": 90},
        "block_size": 16,
    }
    trace = Workload(input_tokens=40, output_tokens=5, shared_prefix=prefix).generate(
        num_requests=40
    )
    groups = {}
    for ids, length in zip(trace.hash_ids, trace.input_tokens.tolist(), strict=True):
        groups.setdefault(ids[0], []).append((ids, length))
    assert [len(members) for members in groups.values()] == [10] * 4
    for members in groups.values():
        common = set.intersection(*(set(ids) for ids, _ in members))
        assert len(common) == (members[0][1] - 40) // 16
        assert len({length for _, length in members}) == 1
    every = [block for ids in trace.hash_ids for block in ids]
    assert len(set(every)) == sum(len(set(ids)) for ids in trace.hash_ids) - 9 * sum(
        len(set.intersection(*(set(ids) for ids, _ in m))) for m in groups.values()
    )


def test_a_prompt_inside_its_prefix_block_shares_only_whole_blocks():
    ids = block_ids(np.array([20, 20]), np.array([0, 1]), np.array([0, 0]), np.array([15]), 16)
    assert not set(ids[0]) & set(ids[1])


def test_the_last_session_is_cut_off():
    sessions = sessions_of(np.array([2, 2, 2]), 5)
    assert sessions.session_id.tolist() == [0, 0, 1, 1, 2] and len(sessions) == 3
    assert len(sessions_of(np.array([], dtype=int), 0)) == 0


# --- Configuration files ---


def test_a_toml_table_becomes_a_workload():
    text = """
    [workload]
    num_requests = 7
    output_tokens = 128
    timeout_s = 60
    [workload.input_tokens]
    type = "uniform"
    low = 10
    high = 20
    [workload.arrival]
    process = "gamma"
    request_rate = 3.0
    burstiness = 0.5
    """
    workload = workload_from_table(tomllib.loads(text)["workload"])
    assert len(workload.generate()) == 7
    assert workload.arrival.burstiness == 0.5 and workload.pairs.inputs.mean_tokens == 15


def test_a_base_is_changed_key_by_key():
    base = workload_from_table({"base": "azure-conv"})
    shorter = workload_from_table({"base": "azure-conv", "output_tokens": 64, "num_requests": 5})
    assert shorter.pairs.outputs.mean_tokens == 64
    assert shorter.pairs.inputs == base.pairs.inputs and shorter.arrival == base.arrival
    assert shorter.source == base.source
    assert workload_from_table({"base": "chat", "request_rate": 9}).arrival.request_rate == 9


def test_a_joint_law_replaces_the_two():
    workload = Workload(
        lengths={"type": "resample", "input_tokens": [1, 2], "output_tokens": [10, 20]}
    )
    trace = workload.generate(num_requests=20)
    assert np.array_equal(trace.output_tokens, 10 * trace.input_tokens)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"input_tokens": 5}, "needs input_tokens and output_tokens, or lengths instead of both"),
        (
            {**CHAT, "lengths": {"type": "independent", "input_tokens": 1, "output_tokens": 1}},
            "lengths instead of both",
        ),
        (
            {**CHAT, "imput_tokens": 5},
            "Workload has no 'imput_tokens'; did you mean 'input_tokens'?",
        ),
        ({**CHAT, "output_tokens": {"type": "geometrc", "mean": 5}}, "did you mean 'geometric'?"),
        ({**CHAT, "arrival": {"process": "gama"}}, "did you mean 'gamma'?"),
        ({**CHAT, "arrival": -1}, "arrival: poisson: request_rate is -1"),
        ({**CHAT, "timeout_s": -5}, "timeout_s: it is -5 seconds"),
        (
            {**CHAT, "timeout_s": {"type": "exponential", "mean": 3, "max": 9}},
            "'max' cuts a number of tokens",
        ),
        ({**CHAT, "max_output_tokens": 5, "max_output_factor": 2}, "give one of them"),
        ({**CHAT, "multi_turn": {"turn": 3}}, "turn"),
        (
            {
                **CHAT,
                "multi_turn": {"turns": 3},
                "arrival": {"process": "closed_loop", "concurrency": 1},
            },
            "own think_time_s",
        ),
        ({**CHAT, "num_requests": -1}, "num_requests is -1"),
        (
            {"base": "code", "request_rate": 0},
            "request_rate is 0; it must be a number of requests per second",
        ),
        (
            {"base": "code", "request_rate": "4"},
            "request_rate is '4'; it must be a number of requests per second",
        ),
        ({"base": "azur-conv"}, "there is no workload 'azur-conv'; did you mean 'azure-conv'?"),
    ],
)
def test_a_mistake_is_one_sentence(table, sentence):
    with pytest.raises(ValueError) as caught:
        workload_from_table(table)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [({"num_requests": -1}, "num_requests is -1"), ({"seed": -1}, "seed is -1")],
)
def test_generate_refuses_negative_numbers(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Workload(**CHAT).generate(**arguments)
