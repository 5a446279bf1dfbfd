"""Trace files: what was written comes back, and a bad row is named by file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from busdoor_workloads import Trace
from busdoor_workloads.formats import FORMATS, detect_format, read_trace, write_trace

COLUMNS = (
    *("arrival_s", "input_tokens", "output_tokens", "max_output_tokens", "priority"),
    *("session_id", "turn", "think_time_s", "timeout_s"),
)
TOKENS = st.integers(1, 2**31)
SECONDS = st.floats(0, 1e9)


def same(one: Trace, other: Trace) -> bool:
    """Every column is the same to the bit (and absent where it was absent)."""
    for column in COLUMNS:
        left, right = getattr(one, column), getattr(other, column)
        if (left is None) != (right is None) or (
            left is not None and not np.array_equal(left, right, equal_nan=True)
        ):
            return False
    blocks = [
        None if t.hash_ids is None else [tuple(ids) for ids in t.hash_ids] for t in (one, other)
    ]
    return (
        blocks[0] == blocks[1]
        and (one.block_size, one.concurrency) == (other.block_size, other.concurrency)
        and len(one) == len(other)
    )


@st.composite
def traces(
    draw: st.DrawFn, arrivals: st.SearchStrategy[float] = SECONDS, every_column: bool = True
) -> Trace:
    n = draw(st.integers(1, 8))

    def column(values: st.SearchStrategy) -> list:
        return draw(st.lists(values, min_size=n, max_size=n))

    input_tokens, output_tokens = column(TOKENS), column(TOKENS)
    ids = st.integers(-(2**62), 2**62)
    optional = {
        "max_output_tokens": [
            o + extra for o, extra in zip(output_tokens, column(st.integers(0, 999)), strict=True)
        ],
        "priority": column(st.integers(-(2**62), 2**62)),
        "session_id": column(st.integers(-(2**62), 2**62)),
        "turn": column(st.integers(0, 99)),
        "think_time_s": column(SECONDS | st.just(np.nan)),
        "timeout_s": column(st.floats(1e-9, 1e9) | st.just(np.nan)),
        "hash_ids": [
            tuple(draw(st.lists(ids, max_size=min(3, -(-tokens // 16))))) for tokens in input_tokens
        ],
        "concurrency": draw(st.integers(1, 99)),
    }
    kept = {c: v for c, v in optional.items() if every_column and draw(st.booleans())}
    if len({"session_id", "turn"} & kept.keys()) == 1:  # a turn is one of a session
        kept |= {c: optional[c] for c in ("session_id", "turn")}
    return Trace(
        arrival_s=sorted(column(arrivals)),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        block_size=16 if "hash_ids" in kept else None,
        **kept,
    )


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "trace.csv") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


class TestWhatWasWrittenComesBack:
    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(trace=traces(), suffix=st.sampled_from([".csv", ".jsonl", ".csv.gz", ".jsonl.gz"]))
    def test_ours_to_the_bit(self, tmp_path, trace, suffix):
        path = tmp_path / f"trace{suffix}"
        write_trace(trace, path)
        assert same(read_trace(path), trace)

    @settings(
        max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(trace=traces(st.integers(0, 10**9).map(lambda ms: ms / 1000), every_column=False))
    def test_mooncake_whole_milliseconds(self, tmp_path, trace):
        write_trace(trace, tmp_path / "trace.jsonl", "mooncake")
        back = read_trace(tmp_path / "trace.jsonl", jitter=False)
        np.testing.assert_allclose(back.arrival_s, trace.arrival_s, rtol=1e-15)
        assert np.array_equal(back.input_tokens, trace.input_tokens)
        assert back.metadata["format"] == "mooncake"

    @settings(
        max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(trace=traces(st.integers(0, 10**12).map(lambda ticks: ticks / 1e7), every_column=False))
    def test_azure_to_its_100_ns(self, tmp_path, trace):
        write_trace(trace, tmp_path / "trace.csv", "azure")
        back = read_trace(tmp_path / "trace.csv")
        np.testing.assert_allclose(back.arrival_s, trace.arrival_s - trace.arrival_s[0], atol=2e-7)
        assert np.array_equal(back.output_tokens, trace.output_tokens)
        assert back.metadata["format"] == "azure"

    def test_the_same_trace_gives_the_same_compressed_bytes(self, tmp_path):
        trace = Trace(arrival_s=[0.0], input_tokens=[1], output_tokens=[1])
        for name in ("a.csv.gz", "b.csv.gz"):
            write_trace(trace, tmp_path / name)
        assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()

    def test_a_timeout_that_never_comes_is_empty(self, tmp_path):
        trace = Trace(
            arrival_s=[0, 1], input_tokens=[1, 1], output_tokens=[1, 1], timeout_s=[np.inf, 2.0]
        )
        write_trace(trace, tmp_path / "t.jsonl")
        assert json.loads((tmp_path / "t.jsonl").read_text().splitlines()[0])["timeout_s"] is None
        np.testing.assert_array_equal(read_trace(tmp_path / "t.jsonl").timeout_s, [np.nan, 2.0])

    def test_a_format_says_what_it_has_no_place_for(self):
        trace = Trace(
            arrival_s=[0],
            input_tokens=[1],
            output_tokens=[1],
            hash_ids=[(1,)],
            block_size=16,
            turn=[0],
        )
        assert FORMATS["mooncake"].cannot_keep(trace) == ["turn"]
        assert FORMATS["jsonl"].cannot_keep(trace) == []

    def test_small_blocks_are_joined_into_mooncake_blocks(self, tmp_path):
        shared = tuple(range(32))
        trace = Trace(
            arrival_s=[0, 1],
            input_tokens=[1000, 530],
            output_tokens=[1, 1],
            hash_ids=[(*shared, 50, 51), (*shared, 60)],
            block_size=16,
        )
        write_trace(trace, tmp_path / "t.jsonl", "mooncake")
        first, second = read_trace(tmp_path / "t.jsonl").hash_ids
        assert first[0] == second[0]
        assert first[1] != second[1]


class TestABadRowIsNamed:
    HEAD = "arrival_s,input_tokens,output_tokens\n"

    @pytest.mark.parametrize(
        ("rows", "sentence"),
        [
            (
                "0,5,5\n1,5,abc\n",
                'trace.csv line 3: output_tokens is "abc"; it must be a whole number of at least 1',
            ),
            (
                "0,5,5\n1,0,5\n",
                "trace.csv line 3: input_tokens is 0; it must be a whole number of at least 1",
            ),
            (
                "0,5,2.5\n",
                "trace.csv line 2: output_tokens is 2.5; it must be a whole number of at least 1",
            ),
            (
                "0,5,5\n\n\n-1,5,5\n",
                "trace.csv line 5: arrival_s is -1; it must be a time of 0 or later",
            ),
            (
                "0,5,5\n1,5\n",
                "trace.csv line 3: output_tokens is missing; it must be a whole number of at "
                "least 1",
            ),
            ("0,5,5\n1,5,5,9\n", "trace.csv line 3: the row has 4 fields but the header 3"),
            (
                "2026-11-03T09:00:00,5,5\n",
                'trace.csv line 2: arrival_s is "2026-11-03T09:00:00"; it must be a number: give its '
                "unit with time_unit (--time-unit datetime)",
            ),
            ("inf,5,5\n", "trace.csv line 2: arrival_s is inf; it must be a time of 0 or later"),
            (
                "2,5,5\n1,5,5\n",
                "trace.csv line 3: arrival_s is 1.0 after 2.0; the file must be sorted by it",
            ),
        ],
    )
    def test_in_csv(self, write, rows, sentence):
        with pytest.raises(ValueError) as error:
            read_trace(write(self.HEAD + rows))
        assert str(error.value) == sentence

    @pytest.mark.parametrize(
        ("line", "complaint"),
        [
            ('{"arrival_s": 1, "input_tokens": 5}', "output_tokens is missing"),
            ('{"arrival_s": 1, "input_tokens": [5], "output_tokens": 5}', r"input_tokens is \[5\]"),
            ('{"arrival_s": 1, "input_tokens": 5, "output_tokens": 5', "no JSON"),
            ("[1, 5, 5]", "is no JSON object"),
            (
                '{"arrival_s":1,"input_tokens":5,"output_tokens":5,"hash_ids":["a"]}',
                "hash_ids is .* whole numbers",
            ),
            (
                '{"arrival_s":1,"input_tokens":5,"output_tokens":5,"timeout_s":0}',
                "timeout_s is 0; .* more than 0",
            ),
        ],
    )
    def test_in_jsonl(self, write, line, complaint):
        good = '{"arrival_s": 0, "input_tokens": 5, "output_tokens": 5}\n\n'
        with pytest.raises(ValueError, match=f"^trace.jsonl line 3: .*{complaint}"):
            read_trace(write(good + line + "\n", "trace.jsonl"))

    def test_by_the_name_the_file_gives_the_column(self, write):
        text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,5,0\n"
        with pytest.raises(ValueError, match=r"^trace.csv line 2: GeneratedTokens is 0"):
            read_trace(write(text))
        with pytest.raises(
            ValueError, match=r'^trace.csv line 2: TIMESTAMP is "noon"; .* timestamp such as'
        ):
            read_trace(write(text.replace("2023-11-16 18:15:46.68", "noon")))

    def test_a_cap_below_the_output(self, write):
        text = "input_tokens,output_tokens,max_output_tokens\n5,10,20\n5,10,9\n"
        with pytest.raises(
            ValueError, match=r"line 3: max_output_tokens is 9; .* at least output_tokens"
        ):
            read_trace(write(text))

    def test_skip_bad_drops_and_counts(self, write):
        path = write(self.HEAD + "0,5,5\nx,5,5\n2,5,5,5\n3,5,0\n4,7,7\n")
        trace = read_trace(path, skip_bad=True)
        assert trace.arrival_s.tolist() == [0, 4]
        assert trace.metadata["rows_read"] == 5
        assert trace.metadata["rows_dropped_bad"] == 3

    def test_skip_bad_in_jsonl(self, write):
        good = '{"arrival_s": 0, "input_tokens": 5, "output_tokens": 5}\n'
        trace = read_trace(write(good + "oops\n{}\n", "t.jsonl"), skip_bad=True)
        assert (len(trace), trace.metadata["rows_dropped_bad"]) == (1, 2)


class TestAFileThatCannotBeRead:
    def test_absent(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no\.csv does not exist"):
            read_trace(tmp_path / "no.csv")

    @pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
    def test_empty(self, write, name):
        with pytest.raises(ValueError, match="is empty"):
            read_trace(write("", name))

    def test_header_only(self, write):
        with pytest.raises(ValueError, match="no request left"):
            read_trace(write("arrival_s,input_tokens,output_tokens\n"))

    def test_damaged_compression(self, tmp_path):
        data = gzip.compress(b"arrival_s,input_tokens,output_tokens\n" + b"0,5,5\n" * 9999)
        (tmp_path / "t.csv.gz").write_bytes(data[: len(data) // 2])
        with pytest.raises(ValueError, match="damaged gzip"):
            read_trace(tmp_path / "t.csv.gz")

    def test_no_text(self, tmp_path):
        (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00\x01")
        with pytest.raises(ValueError, match="no UTF-8 text"):
            read_trace(tmp_path / "t.csv")

    def test_unknown_names_get_the_nearest(self, write):
        path = write("arrival_s,input_tokens,output_tokens\n0,5,5\n")
        with pytest.raises(ValueError, match="'azur' is unknown; did you mean 'azure'"):
            read_trace(path, "azur")
        with pytest.raises(ValueError, match="did you mean 'input_tokens'"):
            read_trace(path, columns={"input_token": "x"})
        with pytest.raises(ValueError, match="no column prompts; it has"):
            read_trace(path, columns={"input_tokens": "prompts"})
        with pytest.raises(ValueError, match="did you mean 'input_tokens'"):
            read_trace(write("arrival_s,input_token,output_tokens\n0,5,5\n"))
        with pytest.raises(ValueError, match="'arival_s'; did you mean 'arrival_s'"):
            read_trace(write("arival_s,input_tokens,output_tokens\n0,5,5\n"))

    @pytest.mark.parametrize(
        "wrong",
        [
            {"time_scale": 0},
            {"max_requests": 0},
            {"time_unit": "sec"},
            {"too_long": "cut"},
            {"duration_s": -1},
        ],
    )
    def test_an_option_that_makes_no_sense(self, write, wrong):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            read_trace(write("input_tokens,output_tokens\n5,5\n"), **wrong)


class TestWhatTheReaderDoes:
    def test_lengths_without_arrivals_come_at_once(self, write):
        trace = read_trace(write("input_tokens,output_tokens,note\n5,6,x\n7,8,y\n"))
        assert trace.arrival_s.tolist() == [0, 0]
        assert "none in the file" in trace.metadata["arrivals"]

    def test_a_column_map_with_a_unit(self, write):
        text = "t,prompt,completion\n2000,5,6\n1000,7,8\n"
        columns = {"arrival_s": "t", "input_tokens": "prompt", "output_tokens": "completion"}
        trace = read_trace(write(text), columns=columns, time_unit="ms")
        assert trace.arrival_s.tolist() == [0, 1]
        assert trace.input_tokens.tolist() == [7, 5]

    def test_both_azure_timestamp_styles_unsorted(self, write):
        text = (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n"
            "2024-05-10 00:00:01.009930+00:00,2,1\n2024-05-10 00:00:00+00:00,1,1\n2024-05-10 "
            "00:00:02.5000000,3,1\n"
        )
        trace = read_trace(write(text))
        assert trace.arrival_s.tolist() == [0, 1.00993, 2.5]
        assert trace.input_tokens.tolist() == [1, 2, 3]

    def test_coarse_ticks_are_spread_and_reported(self, write):
        rows = [
            {"timestamp": 3000 * (i // 4), "input_length": i + 1, "output_length": 1}
            for i in range(400)
        ]
        path = write("".join(json.dumps(row) + "\n" for row in rows), "t.jsonl")
        trace = read_trace(path)
        assert trace.metadata["jitter"] == {"tick_s": 3.0, "seed": 0}
        assert np.array_equal(trace.arrival_s // 3, np.arange(400) // 4)
        assert trace.input_tokens.tolist() == list(range(1, 401))
        assert not np.array_equal(read_trace(path, seed=1).arrival_s, trace.arrival_s)
        assert np.array_equal(read_trace(path).arrival_s, trace.arrival_s)
        assert "jitter" not in read_trace(path, jitter=False).metadata

    def test_window_scale_and_number(self, write):
        text = "arrival_s,input_tokens,output_tokens\n" + "".join(f"{i},5,5\n" for i in range(10))
        trace = read_trace(write(text), start_s=2, duration_s=5, time_scale=2, max_requests=3)
        assert trace.arrival_s.tolist() == [0, 2, 4]

    def test_too_long_is_dropped_or_clipped_and_counted(self, write):
        path = write("input_tokens,output_tokens,max_output_tokens\n5,5,9\n8,8,8\n30,4,5\n")
        dropped = read_trace(path, max_total_tokens=10)
        assert (len(dropped), dropped.metadata["rows_dropped_too_long"]) == (1, 2)
        clipped = read_trace(path, max_total_tokens=10, too_long="clip")
        assert clipped.input_tokens.tolist() == [5, 8, 9]
        assert clipped.output_tokens.tolist() == [5, 2, 1]
        assert clipped.max_output_tokens.tolist() == [5, 2, 1]
        assert clipped.metadata["rows_clipped"] == 2

    def test_detection(self, write):
        assert detect_format(write("TIMESTAMP,ContextTokens,GeneratedTokens\n")) == "azure"
        assert detect_format(write("a,b\n")) == "csv"
        assert (
            detect_format(write('{"timestamp":0,"input_length":1,"output_length":1}\n', "t.jsonl"))
            == "mooncake"
        )


class TestADataFrame:
    FRAME = pd.DataFrame({"arrival_s": [0.0, 0.5], "input_tokens": [5, 6], "output_tokens": [2, 3]})

    @settings(max_examples=40, deadline=None)
    @given(trace=traces())
    def test_what_a_trace_gives_comes_back(self, trace):
        frame = trace.to_frame()
        for column in ("block_size", "concurrency"):
            frame[column] = getattr(trace, column)
        assert same(Trace.from_frame(frame), trace)

    def test_other_names_another_unit_and_any_index(self):
        frame = pd.DataFrame(
            {"ms": [2000, 1000], "prompt": [5, 6], "answer": [1, 2]}, index=["b", "a"]
        )
        names = {"arrival_s": "ms", "input_tokens": "prompt", "output_tokens": "answer"}
        trace = Trace.from_frame(frame, columns=names, time_unit="ms", name="mine")
        assert (trace.arrival_s.tolist(), trace.input_tokens.tolist(), trace.name) == (
            [0, 1],
            [6, 5],
            "mine",
        )

    def test_datetimes_need_no_unit(self):
        frame = self.FRAME.assign(
            arrival_s=pd.to_datetime(["2024-05-10T00:00Z", "2024-05-10T00:01Z"])
        )
        assert Trace.from_frame(frame).arrival_s.tolist() == [0, 60]

    def test_a_bad_row_is_named(self):
        with pytest.raises(
            ValueError, match=r'^frame row 1: input_tokens is "x"; it must be a whole number'
        ):
            Trace.from_frame(self.FRAME.assign(input_tokens=[5, "x"]))
        trace = Trace.from_frame(self.FRAME.assign(input_tokens=[5, "x"]), skip_bad=True)
        assert (len(trace), trace.metadata["rows_dropped_bad"]) == (1, 1)

    def test_what_is_no_frame(self):
        with pytest.raises(ValueError, match="a trace can be made of a data frame, not of list"):
            Trace.from_frame([1, 2])
