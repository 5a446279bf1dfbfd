"""Formats that others publish, on small files of the same shape."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from busdoor_workloads import Trace
from busdoor_workloads.formats import FORMATS, detect_format, read_trace, write_trace


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "trace.csv") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def lines(*records: dict) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


class TestBurstGPT:
    V1 = (
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,1087,230,1317,API "
        "log\n118,ChatGPT,417,0,417,API log\n"
    )
    V3 = (
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log "
        "Type\n"
        "0,a,1,GPT-4,10,1,11,x\n1,b,1,GPT-4,20,1,21,x\n2,,1,GPT-4,30,1,31,x\n3,a,1,GPT-4,40,1,41,x\n4,,1,GPT-4,5,1,6,x\n"
    )

    def test_failed_requests_are_dropped_and_counted(self, write):
        trace = read_trace(write(self.V1))
        assert trace.metadata["format"] == "burstgpt"
        assert trace.arrival_s.tolist() == [0, 40]
        assert trace.output_tokens.tolist() == [18, 230]
        assert trace.metadata["rows_dropped_zero_tokens"] == 1

    def test_one_model(self, write):
        assert read_trace(write(self.V1), model="GPT-4").input_tokens.tolist() == [1087]
        with pytest.raises(ValueError, match="'GPT4'; did you mean 'GPT-4'"):
            read_trace(write(self.V1), model="GPT4")

    def test_version_3_has_sessions(self, write):
        trace = read_trace(write(self.V3))
        assert trace.turn.tolist() == [0, 0, 0, 1, 0]
        assert len(set(trace.session_id.tolist())) == 4
        assert trace.session_id[0] == trace.session_id[3]


class TestBailian:
    ROWS = (
        {
            "chat_id": 7,
            "parent_chat_id": -1,
            "timestamp": 1.5,
            "input_length": 20,
            "output_length": 2,
            "hash_ids": [1, 2],
        },
        {
            "chat_id": 8,
            "parent_chat_id": -1,
            "timestamp": 2.0,
            "input_length": 20,
            "output_length": 2,
            "hash_ids": [9, 3],
        },
        {
            "chat_id": 9,
            "parent_chat_id": 7,
            "timestamp": 3.5,
            "input_length": 40,
            "output_length": 2,
            "hash_ids": [1, 2, 4],
        },
        {
            "chat_id": 11,
            "parent_chat_id": 9,
            "timestamp": 9.5,
            "input_length": 60,
            "output_length": 2,
            "hash_ids": [1, 2, 4],
        },
        {
            "chat_id": 12,
            "parent_chat_id": 4,
            "timestamp": 9.6,
            "input_length": 60,
            "output_length": 2,
            "hash_ids": [5],
        },
    )

    def test_conversations_follow_their_parents(self, write):
        trace = read_trace(write(lines(*self.ROWS), "t.jsonl"))
        assert trace.metadata["format"] == "bailian"
        assert trace.session_id.tolist() == [0, 1, 0, 0, 4]
        assert trace.turn.tolist() == [0, 0, 1, 2, 0]
        assert trace.block_size == 16
        assert trace.hash_ids[2] == (1, 2, 4)
        np.testing.assert_allclose(trace.arrival_s, [0, 0.5, 2, 8, 8.1])

    def test_a_dropped_turn_leaves_no_gap_in_its_conversation(self, write):
        rows = [dict(row) for row in self.ROWS]
        rows[2]["input_length"] = 4000
        trace = read_trace(write(lines(*rows), "t.jsonl"), max_total_tokens=1000)
        assert trace.turn.tolist() == [0, 0, 1, 0]


class TestVidurAndSplitwise:
    TRACE = Trace(arrival_s=[0.25, 1.0 / 3], input_tokens=[10, 20], output_tokens=[4, 3])

    @pytest.mark.parametrize("format", ["vidur", "splitwise"])
    def test_written_files_come_back(self, tmp_path, format):
        write_trace(self.TRACE, tmp_path / "t.csv", format)
        back = read_trace(tmp_path / "t.csv")
        assert back.metadata["format"] == format
        for column in ("arrival_s", "input_tokens", "output_tokens"):
            assert np.array_equal(getattr(back, column), getattr(self.TRACE, column))

    def test_vidur_lengths_alone(self, write):
        trace = read_trace(
            write(
                "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n3772,54,3826,69.8\n"
            )
        )
        assert (trace.input_tokens[0], trace.output_tokens[0], trace.arrival_s[0]) == (3772, 54, 0)


class TestVllmResult:
    def test_lengths_and_start_times(self, write):
        result = {
            "input_lens": [5, 6, 7],
            "output_lens": [1, 0, 3],
            "start_times": [102.5, 101.0, 100.0],
        }
        trace = read_trace(write(json.dumps(result, indent=2), "r.json"))
        assert trace.input_tokens.tolist() == [7, 5]
        assert trace.arrival_s.tolist() == [0, 2.5]
        assert trace.metadata["rows_dropped_zero_tokens"] == 1

    def test_without_start_times_all_at_once(self, write):
        trace = read_trace(
            write(json.dumps({"input_lens": [5, 6], "output_lens": [1, 2]}), "r.json")
        )
        assert trace.arrival_s.tolist() == [0, 0]

    def test_a_result_without_details_says_which_flag_is_missing(self, write):
        with pytest.raises(ValueError, match="--save-detailed"):
            read_trace(write(json.dumps({"request_throughput": 3.0}), "r.json"))

    def test_a_bad_length_names_the_request(self, write):
        result = {"input_lens": [5, -6], "output_lens": [1, 2]}
        with pytest.raises(ValueError, match=r"r\.json request 1: input_lens is -6"):
            read_trace(write(json.dumps(result), "r.json"))


class TestLLMServingSim:
    def test_single_requests(self, write):
        trace = read_trace(
            write(
                lines({"input_toks": 5, "output_toks": 2, "arrival_time_ns": 1_500_000_000}),
                "t.jsonl",
            )
        )
        assert (trace.metadata["format"], trace.arrival_s[0]) == ("llmservingsim", 1.5)

    def test_agents_calls_wait_for_their_tools(self, write):
        calls = [
            {"input_toks": n, "output_toks": 1, "tool_duration_ns": 2_000_000_000} for n in (10, 20)
        ]
        rows = (
            {"session_id": "a", "arrival_time_ns": 0, "sub_requests": calls},
            {"session_id": "b", "arrival_time_ns": 1_000_000_000, "sub_requests": calls[:1]},
        )
        trace = read_trace(write(lines(*rows), "t.jsonl"))
        assert trace.input_tokens.tolist() == [10, 10, 20]
        assert trace.session_id.tolist() == [0, 1, 0]
        assert trace.turn.tolist() == [0, 0, 1]
        assert trace.think_time_s.tolist() == [0, 0, 2]
        assert trace.arrival_s.tolist() == [0, 1, 2]

    def test_a_bad_call_names_its_line(self, write):
        row = {
            "session_id": "a",
            "arrival_time_ns": 0,
            "sub_requests": [{"input_toks": 0, "output_toks": 1}],
        }
        with pytest.raises(ValueError, match=r"t\.jsonl line 1: input_toks is 0"):
            read_trace(write(lines(row), "t.jsonl"))


class TestServeGen:
    @pytest.fixture
    def folder(self, tmp_path):
        """One client, three windows: 5 per second (Gamma, cv 2), none, 20 (Weibull, shape 1)."""
        windows = "0,5,2,Gamma,0.25,0.8\n600,0,1,Gamma,1,1\n1200,20,1,Weibull,1,0.05\n"
        (tmp_path / "chunk-0-trace.csv").write_text(windows)
        hists = {"0": {"input_tokens": "{100: 0.5, 300: 0.5}", "output_tokens": "{7: 1.0}"}}
        (tmp_path / "chunk-0-dataset.json").write_text(json.dumps(hists))
        (tmp_path / "chunk-1-trace.csv").write_text(windows)
        return tmp_path

    def test_rates_follow_the_windows(self, folder):
        trace = read_trace(folder)
        counts, _ = np.histogram(trace.arrival_s, [0, 600, 1200, 1800])
        assert counts[1] == 0
        # Counts of a renewal process have variance cv^2 x mean: five deviations each way.
        assert abs(counts[0] - 3000) < 5 * 2 * np.sqrt(3000)
        assert abs(counts[2] - 12000) < 5 * np.sqrt(12000)
        assert set(trace.output_tokens.tolist()) == {7}
        assert trace.input_tokens.mean() == pytest.approx(200, rel=0.05)
        assert trace.metadata["clients_without_lengths"] == 1

    def test_gaps_have_the_window_s_spread(self, folder):
        gaps = np.diff(read_trace(folder, duration_s=600).arrival_s)
        assert gaps.std() / gaps.mean() == pytest.approx(2, rel=0.15)

    def test_seeded(self, folder):
        assert np.array_equal(read_trace(folder).arrival_s, read_trace(folder).arrival_s)
        assert not np.array_equal(
            read_trace(folder).arrival_s[:9], read_trace(folder, seed=1).arrival_s[:9]
        )

    def test_normalised_windows_hold_exactly_their_expectation(self, folder):
        counts, _ = np.histogram(
            read_trace(folder, normalize_duration=True).arrival_s, [0, 600, 1200, 1800]
        )
        assert counts.tolist() == [3000, 0, 12000]

    def test_a_window_of_it(self, folder):
        trace = read_trace(folder, start_s=1200, duration_s=100)
        assert trace.duration_s < 100
        assert trace.request_rate == pytest.approx(20, rel=0.2)

    def test_more_than_memory_holds_is_refused_before_it_is_drawn(self, folder):
        (folder / "chunk-0-trace.csv").write_text("0,100000,1,Gamma,1,1\n")
        with pytest.raises(ValueError, match=r"about 60 million requests.*duration_s"):
            read_trace(folder)

    def test_another_folder(self, tmp_path):
        with pytest.raises(ValueError, match="no ServeGen folder"):
            read_trace(tmp_path)


def test_every_format_is_told_by_its_own_header(write):
    heads = {
        "burstgpt": TestBurstGPT.V1,
        "vidur": "num_prefill_tokens,num_decode_tokens\n",
        "splitwise": "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n",
    }
    assert {name: detect_format(write(text)) for name, text in heads.items()} == {
        name: name for name in heads
    }
    assert all(name == format.name for name, format in FORMATS.items())


def test_a_format_that_is_only_read_cannot_be_written(tmp_path):
    with pytest.raises(
        ValueError, match="burstgpt can be read but not written; these can: csv, jsonl, azure"
    ):
        write_trace(TestVidurAndSplitwise.TRACE, tmp_path / "t.csv", "burstgpt")
