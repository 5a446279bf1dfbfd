"""Small files of others that readers got wrong, with right answers; more like them."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from busdoor_workloads import Trace
from busdoor_workloads.describe import describe
from busdoor_workloads.formats import read_trace, write_trace

CASES = Path(__file__).resolve().parents[1] / "cases"
HEAD = "arrival_s,input_tokens,output_tokens\n"
ROWS = HEAD + "0,5,2\n1,6,3\n"
JSON_ROWS = (
    '{"arrival_s": 0, "input_tokens": 5, "output_tokens": 2}\n{"arrival_s": 1, '
    '"input_tokens": 6, "output_tokens": 3}\n'
)


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes, name: str = "trace.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


class TestNoFieldIsLost:
    @pytest.mark.parametrize("name", ["01-first-row-long.csv", "01-long-rows.csv"])
    def test_a_row_longer_than_the_header_is_refused(self, name):
        with pytest.raises(
            ValueError, match=rf"^{name} line 2: the row has 4 fields but the header 3"
        ):
            read_trace(CASES / name)

    def test_or_counted_and_left_out(self):
        trace = read_trace(CASES / "01-first-row-long.csv", skip_bad=True)
        assert (trace.input_tokens.tolist(), trace.metadata["rows_dropped_bad"]) == ([200, 300], 1)
        assert "rows dropped bad: 1" in trace.notes
        with pytest.raises(ValueError, match="no request left"):
            read_trace(CASES / "01-long-rows.csv", skip_bad=True)

    def test_a_thousands_separator_is_no_field_of_its_own(self, write):
        with pytest.raises(ValueError, match="line 2: the row has 4 fields"):
            read_trace(write(HEAD + "0,1,024,10\n1,2,048,10\n"))

    @pytest.mark.parametrize("rows", ["0,5,2,\n1,6,3,\n", "0,5,2\n1,6,3,\n", "0,5,2,,\n1,6,3\n"])
    def test_an_empty_field_at_the_end_is_none(self, write, rows):
        assert read_trace(write(HEAD + rows)).output_tokens.tolist() == [2, 3]

    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(widths=st.lists(st.integers(3, 6), min_size=1, max_size=6))
    def test_whatever_rows_are_long(self, tmp_path, widths):
        path = tmp_path / "t.csv"
        path.write_text(HEAD + "".join(",".join(["1"] * width) + "\n" for width in widths))
        if max(widths) == 3:
            assert len(read_trace(path)) == len(widths)
            return
        with pytest.raises(
            ValueError, match=f"line {2 + next(i for i, w in enumerate(widths) if w > 3)}: the row"
        ):
            read_trace(path)

    def test_a_second_column_of_one_name(self, write):
        with pytest.raises(
            ValueError, match=r"^dup.csv line 1: two columns are called 'input_tokens'"
        ):
            read_trace(CASES / "robustness/10_readers/dup.csv")
        for rows in (1, 3):
            twice = '{"arrival_s": 0, "input_tokens": 5, "output_tokens": 2, "input_tokens": 500}\n'
            with pytest.raises(
                ValueError, match=rf"line {rows}: the key 'input_tokens' stands twice"
            ):
                read_trace(write(JSON_ROWS * ((rows - 1) // 2) + twice, "t.jsonl"))


class TestClocks:
    FROM_ZERO = np.arange(0, 20, 0.5)

    def test_seconds_since_1970_count_from_the_first_request(self):
        trace = read_trace(CASES / "03-epoch-seconds.csv")
        assert trace.arrival_s[:3].tolist() == [0, 0.5, 1]
        assert (
            "counts from 1970: time 0 is the first request's, 2024-05-10T00:00:00 UTC"
            in trace.notes[0]
        )

    @pytest.mark.parametrize(
        ("unit", "per_second"), [("s", 1), ("ms", 1e3), ("us", 1e6), ("ns", 1e9)]
    )
    @pytest.mark.parametrize(
        "format", ["csv", "jsonl", "mooncake", "splitwise", "vidur", "llmservingsim", "columns"]
    )
    def test_in_every_format_and_unit(self, tmp_path, unit, per_second, format):
        columns = {
            "mooncake": ("timestamp", "input_length", "output_length"),
            "splitwise": ("arrival_timestamp", "prompt_size", "token_size"),
            "vidur": ("arrived_at", "num_prefill_tokens", "num_decode_tokens"),
            "llmservingsim": ("arrival_time_ns", "input_toks", "output_toks"),
            "columns": ("when", "prompt", "answer"),
        }.get(format, ("arrival_s", "input_tokens", "output_tokens"))
        times = np.round((1715299200 + self.FROM_ZERO) * per_second)
        times = (times.astype(np.int64) if unit != "s" else 1715299200 + self.FROM_ZERO).tolist()
        frame = pd.DataFrame({columns[0]: times, columns[1]: 7, columns[2]: 3})
        path = tmp_path / "t"
        if format in ("jsonl", "mooncake", "llmservingsim"):
            frame.to_json(path, orient="records", lines=True)
        else:
            frame.to_csv(path, index=False)
        mapped = dict(zip(("arrival_s", "input_tokens", "output_tokens"), columns, strict=True))
        trace = read_trace(path, columns=mapped if format == "columns" else None, time_unit=unit)
        assert trace.arrival_s.tolist() == self.FROM_ZERO.tolist()
        assert format == "columns" or trace.metadata["format"] == format

    def test_nanoseconds_since_1970_keep_every_nanosecond(self, write):
        rows = "1715299200000000001,5,2\n1715299200000000004,5,2\n"
        assert read_trace(write(HEAD + rows), time_unit="ns").arrival_s.tolist() == [0, 3e-9]

    def test_a_unit_that_cannot_be_seconds_is_asked_for(self, write):
        with pytest.raises(ValueError, match=r"line 2: arrival_s is 1715299200000; .* time_unit"):
            read_trace(write(HEAD + "1715299200000,5,2\n1715299201000,5,2\n"))

    def test_an_outlier_costs_neither_time_nor_memory(self):
        summary = describe(read_trace(CASES / "03-outlier.csv"))
        assert summary["span_s"] == 1715299201
        # One arrival in 1 of n windows, two in another: variance / mean of counts is close to (1 +
        # 1 + 1) / 3.
        assert summary["idc_60s"] == pytest.approx(1.0, rel=1)

    def test_a_long_idle_beginning_is_told(self, write):
        assert "--start-s 43200" in read_trace(write(HEAD + "43200,5,2\n43201,5,2\n")).notes[0]
        assert read_trace(write(HEAD + "30,5,2\n31,5,2\n")).notes == ()

    def test_a_unit_is_honoured_by_a_format_that_has_its_own(self):
        assert read_trace(CASES / "05-mooncake-in-seconds.jsonl", time_unit="s").request_rate == 2
        as_named = read_trace(CASES / "05-mooncake-in-seconds.jsonl")
        assert as_named.request_rate == pytest.approx(2000)
        assert "--time-unit s" in as_named.notes[0]

    def test_dates_where_the_format_has_numbers_and_numbers_where_it_has_dates(self, write):
        line = '{"timestamp": "2024-05-10T00:00:%02dZ", "input_length": 5, "output_length": 1}\n'
        assert read_trace(
            write(line % 0 + line % 9, "t.jsonl"), time_unit="datetime"
        ).arrival_s.tolist() == [0, 9]
        azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n1715299200000,5,1\n1715299209000,5,1\n"
        assert read_trace(write(azure), time_unit="ms").arrival_s.tolist() == [0, 9]

    def test_or_refused(self, write):
        result = json.dumps({"input_lens": [5], "output_lens": [1], "start_times": [3.0]})
        with pytest.raises(ValueError, match=r"time_unit .* does not apply"):
            read_trace(write(result, "r.json"), time_unit="ms")


class TestHashIds:
    def test_ids_of_another_block_size_are_refused_naming_it(self):
        with pytest.raises(
            ValueError,
            match=r"line 1: .* 10 ids for 160 tokens, .* 1 blocks of 512; .* block_size = 16",
        ):
            read_trace(CASES / "04-mooncake-16-token-blocks.jsonl")

    def test_and_read_with_it(self):
        trace = read_trace(CASES / "04-mooncake-16-token-blocks.jsonl", block_size=16)
        other = read_trace(CASES / "04-the-same-with-its-block-size.jsonl")
        assert trace.block_size == other.block_size == 16
        assert (
            describe(trace)["prefix_token_hit_share"] == describe(other)["prefix_token_hit_share"]
        )
        assert describe(trace)["prefix_token_hit_share"] == pytest.approx(0.09, abs=0.001)

    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        lengths=st.lists(st.integers(1, 5000), min_size=1, max_size=8),
        size=st.sampled_from([16, 32, 64, 256, 1024]),
    )
    def test_whatever_the_size(self, tmp_path, lengths, size):
        path = tmp_path / "t.jsonl"
        rows = [
            {
                "timestamp": 0,
                "input_length": n,
                "output_length": 1,
                "hash_ids": list(range(-(-n // size))),
            }
            for n in lengths
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert read_trace(path, block_size=size).block_size == size
        if any(-(-n // size) != -(-n // 512) for n in lengths):
            with pytest.raises(ValueError, match="fits blocks of"):
                read_trace(path)

    def test_a_flag_without_ids_or_against_the_file(self, write):
        with pytest.raises(ValueError, match="has no hash_ids, to which block_size"):
            read_trace(write(ROWS), block_size=16)
        with pytest.raises(
            ValueError, match=r"has block_size 16, but block_size \(--block-size\) is 32"
        ):
            read_trace(CASES / "04-the-same-with-its-block-size.jsonl", block_size=32)

    def test_ids_beyond_int64_are_numbered_anew(self, tmp_path):
        trace = read_trace(CASES / "09-u64-hash-ids.jsonl")
        assert trace.hash_ids == [(0, 1), (0, 2), (0, 3), (0, 4)]
        assert describe(trace)["prefix_block_hit_share"] == 3 / 8
        assert "hash_ids" in trace.notes[0]

    def test_a_trace_made_in_python_is_described_too(self):
        big = Trace(
            arrival_s=[0, 1],
            input_tokens=[5, 5],
            output_tokens=[1, 1],
            hash_ids=[(2**64 - 1,)] * 2,
            block_size=16,
        )
        assert describe(big)["prefix_block_hit_share"] == 0.5


class TestWholeNumbersStayWhole:
    def test_session_ids_pass_through_no_float(self, tmp_path):
        trace = read_trace(CASES / "10-big-session-ids.csv", skip_bad=True)
        assert trace.session_id.tolist() == [1234567890123456789] * 2 + [1234567890123456790] * 2
        with pytest.raises(ValueError, match="line 6: session_id is missing"):
            read_trace(CASES / "10-big-session-ids.csv")

    @pytest.mark.parametrize("name", ["t.jsonl", "t.csv", "t.parquet"])
    def test_in_any_container(self, tmp_path, name):
        frame = pd.DataFrame(
            {"arrival_s": [0.0, 1, 2], "input_tokens": 5, "output_tokens": 2, "turn": 0}
        )
        frame["session_id"] = pd.array([2**60 + 1, None, 2**60 + 2], dtype="Int64")
        path = tmp_path / name
        if name == "t.csv":
            frame.to_csv(path, index=False)
        elif name == "t.parquet":
            pytest.importorskip("pyarrow")
            frame.to_parquet(path)
        else:
            rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert read_trace(path, skip_bad=True).session_id.tolist() == [2**60 + 1, 2**60 + 2]
        assert Trace.from_frame(frame, skip_bad=True).session_id.tolist() == [2**60 + 1, 2**60 + 2]

    def test_names_of_sessions_are_numbered(self, write):
        rows = "0,5,2,u-1,0\n1,5,2,u-2,0\n2,5,2,u-1,1\n"
        trace = read_trace(write("arrival_s,input_tokens,output_tokens,session_id,turn\n" + rows))
        assert trace.session_id.tolist() == [0, 1, 0]
        assert "2 sessions, numbered from 0" in trace.notes[0]

    def test_more_tokens_than_any_request_has(self, write):
        with pytest.raises(
            ValueError,
            match=r"line 2: output_tokens is 9223372036854775807; .* at most 4,294,967,296",
        ):
            read_trace(CASES / "robustness/14_int64/big.csv")
        for big in (2**63, 2**64, 10**30, "1e300"):
            with pytest.raises(ValueError, match=r"line 2: output_tokens is"):
                read_trace(write(HEAD + f"0,5,{big}\n1,5,2\n"))
        with pytest.raises(ValueError, match="at most"):
            Trace(arrival_s=[0], input_tokens=[2**40], output_tokens=[1])

    @pytest.mark.parametrize(
        ("values", "sentence"),
        [
            ([2**63], "64 bits"),
            ([True], "is True; it must be a number"),
            ([2.0**60], "exactly"),
            ([2**70], "it must be a number of 64 bits"),
            (["5"], "is '5'; it must be a number"),
        ],
    )
    def test_in_python_too(self, values, sentence):
        with pytest.raises(ValueError, match=f"session_id.*{sentence}"):
            Trace(
                arrival_s=[0],
                input_tokens=[1],
                output_tokens=[1],
                session_id=np.array(values),
                turn=[0],
            )

    def test_a_number_of_thousands_of_digits(self):
        with pytest.raises(ValueError, match=r"hugeint.jsonl line 1: .*digits") as error:
            read_trace(CASES / "robustness/10_readers/hugeint.jsonl")
        assert len(str(error.value)) < 300

    @pytest.mark.parametrize("digits", [20, 400, 4000])
    def test_a_number_of_hundreds(self, write, digits):
        for name, text in (
            ("t.csv", HEAD + f"0,{'9' * digits},2\n"),
            (
                "t.jsonl",
                '{"arrival_s": 0, "input_tokens": %s, "output_tokens": 2}' % ("9" * digits),
            ),
        ):
            with pytest.raises(ValueError, match="input_tokens is") as error:
                read_trace(write(text, name))
            assert len(str(error.value)) < 300

    def test_true_is_not_1(self, write):
        with pytest.raises(ValueError, match=r"bool.jsonl line 1: input_tokens is True"):
            read_trace(CASES / "robustness/10_readers/bool.jsonl")
        for rows in ("true,5,2\n", "0,True,2\n", "0,5,true\n0,5,2\n", "0,5,2\nFalse,5,2\n"):
            with pytest.raises(ValueError, match=r"line [23]: .* it must be"):
                read_trace(write(HEAD + rows))


class TestBounds:
    def test_deep_nesting(self, write):
        row = '{"arrival_s":0,"input_tokens":1,"output_tokens":1,"x":%s}\n' % (
            "[" * 100_000 + "]" * 100_000
        )
        for text in (row, JSON_ROWS + row, f"[{row}]"):
            with pytest.raises(ValueError, match="nested deeper"):
                read_trace(write(text, "t.jsonl"))

    @pytest.mark.parametrize(("name", "pack"), [("t.csv.gz", gzip.compress), ("t.csv", bytes)])
    def test_an_unpacked_size(self, write, name, pack):
        path = write(pack((HEAD + "0,5,2\n" * 100_000).encode()), name)
        assert len(read_trace(path)) == 100_000
        with pytest.raises(ValueError, match=r"more than 100,000 bytes .*--max-bytes"):
            read_trace(path, max_bytes=100_000)

    def test_nothing_steers_the_terminal(self, write):
        with pytest.raises(ValueError, match=r"input_tokens is \"\\x1b\[31mred") as error:
            read_trace(write(HEAD + "0,\x1b[31mred,2\n"))
        assert "\x1b" not in str(error.value)
        assert "\x1b" not in read_trace(write(ROWS, "a\x1b[2Jb.csv")).name


class TestContainers:
    EXPECTED: ClassVar = [5, 6]

    @pytest.mark.parametrize(
        ("name", "pack"),
        [("t.csv.gz", gzip.compress), ("t.csv.bz2", bz2.compress), ("t.csv.xz", lzma.compress)],
    )
    def test_packed(self, write, name, pack):
        path = write(pack(ROWS.encode()), name)
        assert read_trace(path).input_tokens.tolist() == self.EXPECTED
        assert read_trace(path).name == "t"
        with pytest.raises(ValueError, match="damaged"):
            read_trace(write(pack(ROWS.encode() * 9999)[:-20], name))

    def test_zstd(self, write):
        pyarrow = pytest.importorskip("pyarrow")
        packed = pyarrow.Codec("zstd").compress(ROWS.encode(), asbytes=True)
        assert read_trace(write(packed, "t.csv.zst")).input_tokens.tolist() == self.EXPECTED
        with pytest.raises(ValueError, match="damaged"):
            read_trace(write(packed[:-9], "t.csv.zst"))

    def test_parquet(self, tmp_path):
        pytest.importorskip("pyarrow")
        hashes = [[1, 2], [1, 3]]
        frame = pd.DataFrame(
            {"timestamp": [0, 1000], "input_length": 600, "output_length": 2, "hash_ids": hashes}
        )
        frame.to_parquet(tmp_path / "t.parquet")
        trace = read_trace(tmp_path / "t.parquet")
        assert (trace.metadata["format"], trace.arrival_s.tolist()) == ("mooncake", [0, 1])
        assert trace.hash_ids == [(1, 2), (1, 3)]
        (tmp_path / "bad.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-9])
        with pytest.raises(ValueError, match="damaged Parquet"):
            read_trace(tmp_path / "bad.parquet")

    def test_a_json_array(self, write):
        text = json.dumps([json.loads(line) for line in JSON_ROWS.splitlines()], indent=1)
        assert read_trace(write(text, "t.json")).input_tokens.tolist() == self.EXPECTED
        with pytest.raises(ValueError, match=r"t.json request 1: 7 is no JSON object"):
            read_trace(
                write('[{"arrival_s": 0, "input_tokens": 5, "output_tokens": 2}, 7]', "t.json")
            )

    @pytest.mark.parametrize("separator", [";", "\t", "|"])
    def test_other_separators(self, write, separator):
        assert (
            read_trace(write(ROWS.replace(",", separator))).input_tokens.tolist() == self.EXPECTED
        )

    @pytest.mark.parametrize(("text", "name"), [(ROWS, "t.csv"), (JSON_ROWS, "t.jsonl")])
    def test_a_byte_order_mark(self, write, text, name):
        assert (
            read_trace(write(b"\xef\xbb\xbf" + text.encode(), name)).input_tokens.tolist()
            == self.EXPECTED
        )

    def test_a_byte_order_mark_in_a_result(self, write):
        result = json.dumps({"input_lens": [5], "output_lens": [1], "start_times": [3.0]})
        assert len(read_trace(write(b"\xef\xbb\xbf" + result.encode(), "r.json"))) == 1

    @pytest.mark.parametrize(
        ("start", "what"), [(b"PK\x03\x04", "zip archive"), (b"\xff\xfea\0", "UTF-16")]
    )
    def test_what_is_not_read_is_named(self, write, start, what):
        with pytest.raises(ValueError, match=what):
            read_trace(write(start + b"\0" * 40))

    def test_a_pipe_keeps_its_head_and_can_be_read_twice(self, tmp_path):
        reading, writing = os.pipe()
        with os.fdopen(writing, "w") as file:
            file.write(ROWS)
        try:
            for _ in range(2):
                assert read_trace(f"/dev/fd/{reading}").input_tokens.tolist() == self.EXPECTED
        finally:
            os.close(reading)

    def test_a_named_pipe_larger_than_its_buffer(self, tmp_path):
        os.mkfifo(tmp_path / "fifo")
        text = HEAD + "0,5,2\n" * 50_000
        writer = threading.Thread(target=(tmp_path / "fifo").write_text, args=(text,))
        writer.start()
        assert len(read_trace(tmp_path / "fifo")) == 50_000
        writer.join()


class TestNothingIsGuessedSilently:
    @pytest.mark.parametrize(
        "header",
        [
            "arrival_time,num_prefill_tokens,num_decode_tokens",
            "timestamp,input_tokens,output_tokens",
            "sent_at,input_tokens,output_tokens",
            "ts,input_tokens,output_tokens",
        ],
    )
    def test_arrivals_are_not_dropped(self, write, header):
        time, prompt, answer = header.split(",")
        path = write(f"{header}\n0.5,5,2\n1.5,6,3\n")
        with pytest.raises(
            ValueError, match=rf"{time}.*--columns.arrival_s {time} --columns.input_tokens {prompt}"
        ):
            read_trace(path)
        columns = {"arrival_s": time, "input_tokens": prompt, "output_tokens": answer}
        assert read_trace(path, columns=columns).arrival_s.tolist() == [0, 1]
        without = read_trace(path, columns=columns | {"arrival_s": ""})
        assert without.arrival_s.tolist() == [0, 0]
        assert "no arrival times" in without.notes[0]

    def test_sessions_without_turns_follow_one_another(self):
        columns = {
            "arrival_s": "ts",
            "input_tokens": "p",
            "output_tokens": "o",
            "session_id": "conv",
        }
        trace = read_trace(CASES / "13-sessions-without-turn.jsonl", columns=columns)
        assert trace.turn.tolist() == [0, 1, 0, 1]
        assert "numbered in each session" in trace.notes[0]

    def test_turns_without_sessions_are_refused(self, write):
        with pytest.raises(ValueError, match="turns but no session_id"):
            read_trace(write("input_tokens,output_tokens,turn\n5,2,0\n"))

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"model": "GPT-4"}, r"model \(--model\) applies only to burstgpt; trace.csv is csv"),
            ({"normalize_duration": True}, "applies only to servegen"),
            ({"run": 1}, "applies only to vllm"),
            ({"too_long": "clip"}, "applies only with max_total_tokens"),
        ],
    )
    def test_an_option_that_does_not_apply_is_refused(self, write, options, sentence):
        with pytest.raises(ValueError, match=sentence):
            read_trace(write(ROWS), **options)

    def test_a_column_map_is_not_ignored_by_a_named_format(self, write):
        path = write("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00,5,1\n")
        with pytest.raises(ValueError, match=r"columns .* applies only to csv, jsonl"):
            read_trace(path, "azure", {"input_tokens": "ContextTokens"})

    def test_a_file_of_another_is_not_taken_for_ours(self, write):
        with pytest.raises(
            ValueError,
            match=r"no column input_tokens; it has .*prompt_tokens.*--columns.input_tokens NAME",
        ):
            read_trace(write("id,prompt_tokens,output_tokens\n1,5,2\n"))
        with pytest.raises(ValueError, match="--output-details"):
            read_trace(write('{"request_throughput": 3.0, "backend": "sglang"}\n', "sglang.jsonl"))

    @pytest.mark.parametrize(
        ("name", "expected"),
        [("llama-3.1-8b.csv", "llama-3.1-8b"), ("v1.2.tar.csv.gz", "v1.2.tar"), ("a.b", "a.b")],
    )
    def test_names_keep_their_dots(self, write, name, expected):
        data = gzip.compress(ROWS.encode()) if name.endswith("gz") else ROWS
        assert read_trace(write(data, name)).name == expected


class TestVllmResults:
    RESULT: ClassVar = {
        "input_lens": [1000] * 2000,
        "output_lens": [10] * 2000,
        "request_rate": 2.0,
        "burstiness": 1.0,
    }

    def test_without_start_times_arrivals_follow_the_request_rate(self, write):
        trace = read_trace(write(json.dumps(self.RESULT), "r.json"))
        assert trace.request_rate == pytest.approx(2.0, rel=0.1)
        assert describe(trace)["interarrival_cv"] == pytest.approx(1.0, rel=0.1)
        assert (
            "no start_times: arrivals are drawn at the file's request_rate of 2/s" in trace.notes[0]
        )

    def test_or_its_closed_loop(self, write):
        trace = read_trace(
            write(json.dumps(self.RESULT | {"request_rate": "inf", "max_concurrency": 8}), "r.json")
        )
        assert trace.concurrency == 8
        assert "closed loop" in trace.notes[0]

    def test_or_all_at_once_aloud(self, write):
        trace = read_trace(write(json.dumps(self.RESULT | {"request_rate": "inf"}), "r.json"))
        assert not trace.arrival_s.any()
        assert "all at 0" in trace.notes[0]

    def test_of_appended_results_one_is_taken(self):
        with pytest.raises(
            ValueError, match=r"holds 2 results: 1 \(date 20260101-000000.*; choose one .*--run 1"
        ):
            read_trace(CASES / "12-vllm-appended.json")
        assert read_trace(CASES / "12-vllm-appended.json", run=2).input_tokens.tolist() == [
            10,
            20,
            40,
        ]
        with pytest.raises(ValueError, match="holds 2 results"):
            read_trace(CASES / "12-vllm-appended.json", run=3)


class TestWritten:
    def test_mooncake_in_whole_milliseconds(self, tmp_path):
        trace = read_trace(CASES / "14-written-mooncake.jsonl")
        write_trace(trace, tmp_path / "t.jsonl", "mooncake")
        written = [
            json.loads(line)["timestamp"]
            for line in (tmp_path / "t.jsonl").read_text().splitlines()
        ]
        assert written == [318, 1381, 1840, 1840, 1849]

    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(arrivals=st.lists(st.floats(0, 1e7), min_size=1, max_size=9))
    def test_a_round_trip_is_within_half_a_millisecond(self, tmp_path, arrivals):
        ones = [1] * len(arrivals)
        trace = Trace(arrival_s=sorted(arrivals), input_tokens=ones, output_tokens=ones)
        write_trace(trace, tmp_path / "t.jsonl", "mooncake")
        back = read_trace(tmp_path / "t.jsonl", jitter=False)
        assert np.abs(back.arrival_s - trace.arrival_s).max() <= 0.0005 + 1e-9

    def test_no_cell_is_a_formula(self, tmp_path):
        ids = [(-5, 6), (7, 8)]
        trace = Trace(
            arrival_s=[0, 1],
            input_tokens=[20, 20],
            output_tokens=[1, 1],
            hash_ids=ids,
            block_size=16,
        )
        write_trace(trace, tmp_path / "t.csv")
        assert "'-5 6" in (tmp_path / "t.csv").read_text()
        assert read_trace(tmp_path / "t.csv").hash_ids == ids


def test_an_outlier_is_described_in_little_memory(tmp_path):
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (4_000_000 << 10,) * 2)\n"
    code += "from busdoor_workloads.formats import read_trace\nfrom busdoor_workloads.describe import describe\n"
    code += f"print(describe(read_trace({str(CASES / '03-outlier.csv')!r}))['requests'])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "3.0"
