"""Workloads of agents and of other simulators: Weka/AgentX, OpenTelemetry, TraceV2, token ids."""

from __future__ import annotations

import json

import pytest

from busdoor_workloads.formats import FORMATS, detect_format, read_trace


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def call(t, tokens, out, blocks, think=None, api=2.0, **more):
    timed = {} if think is None else {"think_time": think}
    return {"t": t, "type": "n", "model": "m", "in": tokens, "out": out, "hash_ids": blocks, "api_time": api,
            "stop": "tool_use", **timed, **more}  # fmt: skip


def weka(name, *requests, **more):
    return {"id": name, "models": ["m"], "block_size": 64, "hash_id_scope": "local", "tool_tokens": 0,
            "system_tokens": 0, "requests": list(requests), **more}  # fmt: skip


PLAIN = weka("a", call(0.0, 130, 5, [1, 2], think=0.0), call(10.0, 200, 6, [1, 2, 3], think=7.0))
SUBAGENT = {"t": 4.0, "type": "subagent", "agent_id": "agent_001", "subagent_type": "Explore",
            "requests": [call(1.0, 70, 3, [1]), call(4.5, 140, 4, [1, 9], think=1.5)]}  # fmt: skip
NESTED = weka("b", call(1.0, 130, 5, [1, 2]), SUBAGENT, call(20.0, 150, 6, [1, 2], think=0.5))


def attribute(key, value):
    return {
        "key": key,
        "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value},
    }


def span(start_s, end_s, tokens, out, conversation=None, operation="chat", **more):
    named = {"gen_ai.operation.name": operation, "gen_ai.usage.input_tokens": tokens, "gen_ai.usage.output_tokens": out,
             "gen_ai.conversation.id": conversation}  # fmt: skip
    return {"traceId": "t", "spanId": "s", "name": f"{operation} m",
            "startTimeUnixNano": str(1_790_000_000 * 10**9 + int(start_s * 1e9)),
            "endTimeUnixNano": str(1_790_000_000 * 10**9 + int(end_s * 1e9)),
            "attributes": [attribute(*item) for item in named.items() if item[1] is not None], **more}  # fmt: skip


def otlp(*spans):
    return {
        "resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": list(spans)}]}]
    }


SPANS = otlp(
    span(0.0, 9.0, 300, 30, "c", operation="invoke_agent"),
    span(0.5, 2.5, 100, 10, "c"),
    span(4.5, 5.0, 150, 20, "c"),
    span(5.0, 6.0, 50, 5),
    span(6.0, 6.5, 60, 6, status={"code": 2}),
    span(7.0, 7.1, None, None, operation="execute_tool"),
)
V2 = (
    "request_id,client_id,tenant_id,slo_class,session_id,round_index,prefix_group,prefix_length,streaming,"
    "input_tokens,output_tokens,deadline_us,server_input_tokens,arrival_time_us,send_time_us,first_chunk_time_us,"
    "last_chunk_time_us,num_chunks,status,error_message\n"
    "0,c,t,standard,s1,0,,0,true,100,10,0,0,0,0,0,0,0,ok,\n"
    "1,c,t,standard,s1,1,,0,true,20,5,0,0,2000000,0,0,0,0,ok,\n"
    "2,c,t,standard,,0,g,40,true,10,5,5000000,0,3000000,0,0,0,0,ok,\n"
    "3,c,t,standard,,0,g,40,true,12,0,0,0,3500000,0,0,0,0,timeout,\n"
    "4,c,t,standard,,0,g,40,true,12,4,0,55,4000000,0,0,0,0,ok,\n"
)
TOKENS = list(range(100, 140))  # two blocks of 16 tokens and a half
SIM_ROWS = [
    {"input_toks": 40, "output_toks": 5, "arrival_time_ns": 0, "input_tok_ids": TOKENS},
    {
        "input_toks": 33,
        "output_toks": 5,
        "arrival_time_ns": 10**9,
        "input_tok_ids": [*TOKENS[:32], 7],
    },
]

FILES = {
    "weka": json.dumps(PLAIN, indent=1),
    "weka on lines": lines(PLAIN, NESTED),
    "otel": json.dumps(SPANS, indent=1),
    "otel on lines": lines(SPANS, SPANS),
    "tracev2": V2,
    "llmservingsim": lines(*SIM_ROWS),
}


@pytest.fixture
def write(tmp_path):
    def write(text, name="trace"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("case", FILES)
def test_a_file_is_told_by_its_keys(case, write):
    path = write(FILES[case])
    assert detect_format(path) == case.split(" ")[0]
    assert read_trace(path).metadata["format"] == case.split(" ")[0]


@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("format", [*sorted(set(FORMATS) - {"csv", "jsonl"})])
def test_no_other_format_reads_it(case, format, write):
    if format != case.split(" ")[0]:
        with pytest.raises(ValueError, match="trace"):
            read_trace(write(FILES[case]), format)


class TestWeka:
    def test_calls_come_a_think_time_after_the_answer(self, write):
        trace = read_trace(write(json.dumps(PLAIN)))
        assert (trace.input_tokens.tolist(), trace.output_tokens.tolist()) == ([130, 200], [5, 6])
        assert (trace.session_id.tolist(), trace.turn.tolist()) == ([0, 0], [0, 1])
        assert trace.think_time_s.tolist() == [0, 7]
        assert trace.arrival_s.tolist() == [
            0,
            0,
        ]  # not t: the server's recorded time is not replayed
        assert (trace.block_size, trace.hash_ids) == (64, [(0, 1), (0, 1, 2)])

    def test_a_subagent_is_a_session_that_begins_when_it_was_called(self, write):
        trace = read_trace(write(lines(NESTED)))
        assert trace.session_id.tolist() == [0, 0, 1, 1]
        assert trace.arrival_s.tolist() == [
            1,
            1,
            5,
            5,
        ]  # the subagent's times count from its start at 4
        # The agent waited for its subagent: 20 - (1 + 2), not the think time after the subagent's
        # last call.
        assert trace.think_time_s.tolist() == [0, 17, 0, 1.5]
        assert trace.hash_ids == [(0, 1), (0, 1), (0,), (0, 2)]
        assert (
            trace.notes[1]
            == "trace: 1 subagents are sessions of their own, which begin at their recorded times"
        )

    def test_blocks_are_local_to_a_session(self, write):
        trace = read_trace(write(lines(PLAIN, weka("z", call(0.0, 130, 5, [1, 2])))))
        assert len({block for ids in trace.hash_ids for block in ids}) == 5

    def test_a_folder_of_sessions(self, write):
        write(json.dumps(NESTED, indent=2), "folder/trace_2.json")
        folder = write(json.dumps(PLAIN, indent=2), "folder/trace_1.json").parent
        trace = read_trace(folder)
        assert (trace.metadata["format"], len(trace)) == ("weka", 6)
        assert trace.arrival_s.tolist() == [0, 0, 1, 1, 5, 5]

    def test_a_folder_without_sessions_is_one_sentence(self, tmp_path):
        with pytest.raises(ValueError, match="has no file of a session"):
            read_trace(tmp_path, "weka")

    def test_a_call_without_an_answer_is_left_out(self, write):
        trace = read_trace(write(json.dumps(weka("a", call(0.0, 9, 0, []), call(1.0, 9, 2, [])))))
        assert (len(trace), trace.turn.tolist(), trace.metadata["rows_dropped_zero_tokens"]) == (
            1,
            [0],
            1,
        )


class TestOpenTelemetry:
    def test_a_conversation_is_a_session(self, write):
        trace = read_trace(write(json.dumps(SPANS)))
        assert trace.input_tokens.tolist() == [100, 150, 50]
        assert (trace.session_id.tolist(), trace.turn.tolist()) == ([0, 0, 1], [0, 1, 0])
        assert trace.think_time_s.tolist() == [0, 2, 0]
        assert trace.arrival_s.tolist() == [0, 0, 4.5]
        assert trace.metadata["rows_dropped_failed"] == 1

    def test_calls_without_conversations_keep_their_times(self, write):
        trace = read_trace(write(json.dumps(otlp(span(2.0, 3.0, 10, 2), span(0.5, 9.0, 20, 3)))))
        assert (trace.arrival_s.tolist(), trace.input_tokens.tolist()) == ([0, 1.5], [20, 10])
        assert trace.session_id is None

    def test_parallel_calls_of_a_conversation_are_said(self, write):
        trace = read_trace(
            write(json.dumps(otlp(span(0.0, 3.0, 10, 2, "c"), span(1.0, 2.0, 20, 3, "c"))))
        )
        assert trace.think_time_s.tolist() == [0, 0]
        assert any("1 calls began before the answer before" in note for note in trace.notes)

    def test_attributes_of_older_conventions(self, write):
        text = json.dumps(SPANS).replace("usage.input_tokens", "usage.prompt_tokens")
        text = text.replace("usage.output_tokens", "usage.completion_tokens")
        assert read_trace(write(text)).output_tokens.tolist() == [10, 20, 5]


class TestTraceV2:
    def test_prefixes_timeouts_and_sessions(self, write):
        trace = read_trace(write(V2, "t.csv"))
        assert trace.arrival_s.tolist() == [0, 2, 3, 4]
        assert trace.input_tokens.tolist() == [
            100,
            20,
            50,
            55,
        ]  # suffix and prefix, or what the server counted
        assert (trace.session_id.tolist(), trace.turn.tolist()) == ([0, 0, 1, 3], [0, 1, 0, 0])
        assert trace.timeout_s[2] == 2
        assert (trace.block_size, trace.hash_ids) == (16, [(), (), (0, 1), (0, 1)])
        assert trace.metadata["rows_dropped_zero_tokens"] == 1
        assert any("t.csv has no header t.yaml beside it" in note for note in trace.notes)

    def test_rounds_add_to_a_context_if_the_header_says_so(self, write):
        write("trace_version: 3\nsession_context_growth: accumulate\n", "t.yaml")
        assert read_trace(write(V2, "t.csv")).input_tokens.tolist()[:2] == [100, 130]

    def test_recorded_think_times_replace_arrivals(self, write):
        rows = [
            f"{line},{'think_time_us' if place == 0 else (500000 if place == 2 else '')}"
            for place, line in enumerate(V2.splitlines())
        ]
        trace = read_trace(write("\n".join(rows) + "\n", "t.csv"))
        assert trace.arrival_s.tolist() == [0, 0, 3, 4]
        assert trace.think_time_s[1] == 0.5


class TestTokenIds:
    def test_equal_tokens_are_equal_blocks(self, write):
        trace = read_trace(write(lines(*SIM_ROWS)))
        assert (trace.block_size, trace.hash_ids) == (16, [(0, 1, 2), (0, 1, 3)])
        assert read_trace(write(lines(*SIM_ROWS)), block_size=32).hash_ids == [(0, 1), (0, 2)]

    def test_calls_of_agents_have_them_too(self, write):
        session = {"session_id": "s", "arrival_time_ns": 0, "sub_requests": [
            {"input_toks": 16, "output_toks": 2, "input_tok_ids": TOKENS[:16], "tool_duration_ns": 10**9},
            {"input_toks": 32, "output_toks": 2, "input_tok_ids": TOKENS[:32]}]}  # fmt: skip
        assert read_trace(write(lines(session))).hash_ids == [(0,), (0, 1)]


BROKEN = {
    "no requests": (json.dumps({**PLAIN, "requests": 5}), "trace session a: requests must be a "
        "list of objects"),
    "no time": (json.dumps(weka("a", call(None, 9, 2, []))), "trace session a: t is None; it must "
        "be a time of 0"),
    "no tokens": (json.dumps(weka("a", call(0.0, None, 2, []))), "trace call 0: in is missing; it "
        "must be a whole"),
    "no think time": (
        json.dumps(weka("a", call(0.0, 9, 2, []), call(1.0, 9, 2, [], think="soon"))),
        "trace call 1: think_time is .soon.; it must be a time of 0 or more",
    ),
    "too many blocks": (json.dumps(weka("a", call(0.0, 64, 2, [1, 2, 3]))), "trace call 0: "
        "hash_ids"),
    "no block size": (json.dumps({**PLAIN, "block_size": "64"}), "sessions of block_size 64; it "
        "must be one whole"),
    "two block sizes": (lines(PLAIN, {**NESTED, "block_size": 16}), "sessions of block_size 16, "
        "64; it must be one"),
    "no spans of calls": (json.dumps(otlp(span(0, 1, None, None))), "has 1 spans, but none with "
        "gen_ai.usage"),
    "no list of spans": ('{"resourceSpans": 5}', "resourceSpans must be a list of objects, as in "
        "OTLP JSON"),
    "no start": (json.dumps(otlp(span(0, 1, 5, 5, startTimeUnixNano=None))), "startTimeUnixNano "
        "is None; it must be"),
    "no number": (json.dumps(otlp(span(0, 1, "many", 5))), "trace call 0: "
        "gen_ai.usage.input_tokens is .many."),
    "a bad prompt": (V2.replace("true,100,", "true,-100,"), "line 2: input_tokens is -100"),
    "too few tokens": (lines({**SIM_ROWS[0], "input_tok_ids": [1]}), "trace line 1: input_tok_ids"),
    "no token ids": (lines({**SIM_ROWS[0], "input_tok_ids": ["a"]}), "trace line 1: input_tok_ids"),
    "another document": ('{\n"hello": 1}', "is a JSON document, but no workload that is known .it "
        "has hello."),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_one_sentence(case, write):
    text, sentence = BROKEN[case]
    with pytest.raises(ValueError, match=sentence) as error:
        read_trace(write(text))
    assert "\n" not in str(error.value)
