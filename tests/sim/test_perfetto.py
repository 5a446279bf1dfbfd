"""A Chrome trace that a strict reader accepts, and that says what the tables say."""

import io
import itertools
import json
from collections import defaultdict

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busdoor.results.perfetto import to_perfetto

MIXED = [(30, 12), (60, 3), (10, 40), (25, 7), (80, 1), (5, 22), (44, 9)]
LENGTHS = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 30)), min_size=1, max_size=12)
KEYS = {
    "X": {"ph", "name", "pid", "tid", "ts", "dur"},
    "C": {"ph", "name", "pid", "ts", "args"},
    "M": {"ph", "name", "pid", "tid", "args"},
}


def ns(microseconds):
    """Whole nanoseconds, as Perfetto stores time; a time that is none is an error."""
    whole = round(microseconds * 1000)
    assert abs(microseconds * 1000 - whole) < 1e-3
    return whole


class Reader:
    """An independent Trace Event Format reader: it refuses what it does not understand."""

    def __init__(self, text):
        trace = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
        assert set(trace) == {"traceEvents", "displayTimeUnit", "otherData"}
        self.names, self.slices, self.counters = {}, defaultdict(list), defaultdict(list)
        for event in trace["traceEvents"]:
            assert KEYS[event["ph"]] <= set(event) <= KEYS[event["ph"]] | {"args"}
            getattr(self, f"read_{event['ph'].lower()}")(event)

    def read_m(self, event):
        if event["name"].endswith("_name"):
            self.names[event["name"], event["pid"], event["tid"]] = event["args"]["name"]

    def read_x(self, event):
        begin = ns(event["ts"])
        assert ns(event["dur"]) >= 0
        self.slices[event["pid"], event["tid"]].append((begin, begin + ns(event["dur"]), event))

    def read_c(self, event):
        assert all(isinstance(value, int) for value in event["args"].values())
        self.counters[event["pid"], event["name"]].append((ns(event["ts"]), event["args"]["value"]))

    def depths(self, track):
        """Push and pop a track's slices in file order; overlap without nesting is an error."""
        stack = []
        for begin, end, event in self.slices[track]:
            while stack and stack[-1] <= begin:
                stack.pop()
            assert not stack or end <= stack[-1], f"{event['name']} overlaps the slice around it"
            stack.append(end)
            yield len(stack), event


def read(run):
    text = io.StringIO()
    to_perfetto(run, text)
    return Reader(text.getvalue())


@given(lengths=LENGTHS, slots=st.integers(1, 5), bus=st.booleans(), per_token_s=st.floats(0, 1e-2))
@settings(max_examples=40, deadline=None)
def test_slices_of_a_track_nest_and_never_overlap(toy_run, lengths, slots, bus, per_token_s):
    run = toy_run(lengths, slots, bus, per_token_s=per_token_s)
    trace = read(run)
    for track in trace.slices:
        depths = list(trace.depths(track))
        assert max(depth for depth, _ in depths) == (1 if track[1] == 1 else 2)
    requests = [
        e for track in trace.slices for d, e in trace.depths(track) if d == 1 and track[1] > 1
    ]
    assert sorted(event["args"]["request_id"] for event in requests) == list(range(len(lengths)))


def test_pieces_fill_a_request_and_its_time_after_the_last_token_is_one(intro):
    trace = read(intro[0])
    pieces = [
        (event["name"], event["ts"] / 1e6, event["dur"] / 1e6) for _, _, event in trace.slices[0, 2]
    ]
    assert [name for name, _, _ in pieces] == ["request 0", "prefill", "decode", "finished"]
    assert [length for _, _, length in pieces] == pytest.approx([2.0, 0.02, 0.18, 1.8])
    assert [name for _, _, e in trace.slices[0, 5] if (name := e["name"])] == [
        "request 3",
        "prefill",
        "decode",
    ]


def test_tracks_are_named(intro):
    names = read(intro[0]).names
    assert names["process_name", 0, 0] == "static, replica 0"
    assert [names["thread_name", 0, tid] for tid in range(1, 6)] == [
        "iterations",
        "slot 1",
        "slot 2",
        "slot 3",
        "slot 4",
    ]


def test_a_stretch_is_one_slice_of_the_iterations_track(intro):
    _, door = intro
    slices = [event for _, _, event in read(door).slices[0, 1]]
    assert [event["name"] for event in slices][:3] == ["prefill", "decode × 9", "prefill + decode"]
    assert sum(event["args"]["repeat"] for event in slices) == door.iterations["repeat"].sum()


def test_iterations_that_touch_by_rounding_do_not_overlap(toy_run):
    run = toy_run(MIXED, 3, bus=False)
    run.iterations["duration_s"] += 4e-9
    assert all(depth == 1 for depth, _ in read(run).depths((0, 1)))


def test_counters_are_monotone_in_time_and_follow_the_tables(toy_run):
    run = toy_run(MIXED, 3, bus=False)
    counters = read(run).counters
    assert {name for _, name in counters} == {"KV blocks used", "queue length", "batch size"}
    for points in counters.values():
        assert [at for at, _ in points] == sorted(at for at, _ in points)
        assert all(a != b for (_, a), (_, b) in itertools.pairwise(points))
    blocks = run.iterations[["kv_blocks_used", "kv_blocks_used_last"]].to_numpy()
    assert max(value for _, value in counters[0, "KV blocks used"]) == blocks.max()
    assert (
        max(value for _, value in counters[0, "queue length"])
        == run.iterations["num_waiting"].max()
    )
    assert counters[0, "batch size"][-1] == (
        ns(run.iterations[["start_s", "duration_s"]].iloc[-1].sum() * 1e6),
        0,
    )


def test_a_replica_is_a_process(toy_run):
    run = toy_run(MIXED, 3, bus=False)
    for name in ("iterations", "stays"):
        setattr(
            run,
            name,
            pd.concat([table.assign(replica=r) for r in (0, 1) for table in [getattr(run, name)]]),
        )
    assert {pid for pid, _ in read(run).slices} == {0, 1}


def test_what_is_returned_is_what_is_written(intro, tmp_path):
    trace = to_perfetto(intro[0], tmp_path / "trace.json")
    assert json.loads((tmp_path / "trace.json").read_text(encoding="utf-8")) == trace
    assert trace["otherData"] == {"policy": "static", "trace": "toy"}
