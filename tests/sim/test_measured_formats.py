"""Measured runs in other tools' files, on small files of the same shape: two requests of the same times each."""

from __future__ import annotations

import json

import pytest

from busdoor.calibration import load_measured
from busdoor.calibration.formats import MEASURED_FORMATS, measured_format
from busdoor.cli import main
from busdoor_workloads.reading.sniff import sniff

EPOCH_S = 1_790_000_000.5  # clocks since 1970
# Two answered requests, as every file below has them: arrival, prompt, output, first token, last
# token.
WANTED = ([0.0, 1.0], [10, 20], [3, 2], [0.5, 1.25], [0.8, 1.5])
GAPS_S = [0.1, 0.2, 0.25]


def guidellm_request(start, prompt, output, first, last):
    """A request of guidellm 0.5 to 0.8."""
    timings = {"request_start": EPOCH_S + start, "first_token_iteration": EPOCH_S + first,
               "last_token_iteration": EPOCH_S + last, "request_end": EPOCH_S + last + 0.01}  # fmt: skip
    return {
        "type_": "generative_request_stats",
        "request_id": "r",
        "info": {"timings": timings, "status": "completed"},
        "input_metrics": {"text_tokens": prompt},
        "output_metrics": {"text_tokens": output},
        "prompt_tokens": prompt,
        "output_tokens": output,
    }


def guidellm_old_request(start, prompt, output, first, last):
    """A request of guidellm 0.3."""
    return {"type_": "generative_text_response", "prompt_tokens": prompt, "output_tokens": output,
            "start_time": EPOCH_S + start, "end_time": EPOCH_S + last + 0.01,
            "first_token_time": EPOCH_S + first, "last_token_time": EPOCH_S + last}  # fmt: skip


ROWS = list(zip(*WANTED, strict=True))


def guidellm(make=guidellm_request, **more):
    requests = {
        "successful": [make(*row) for row in ROWS],
        "errored": [{"info": {}}],
        "incomplete": [],
    }
    return {
        "type_": "generative_benchmark",
        "config": {"strategy": {"type_": "constant", "rate": 2.0}},
        "requests": requests,
        **more,
    }


def aiperf_record(row, gaps_ms, phase="profiling", **more):
    start, prompt, output, first, last = row
    values = {
        "time_to_first_token": ((first - start) * 1e3, "ms"),
        "request_latency": ((last - start) * 1e3, "ms"),
        "input_sequence_length": (prompt, "tokens"),
        "output_sequence_length": (output, "tokens"),
        "inter_chunk_latency": (gaps_ms, "ms"),
    }
    return {
        "metadata": {
            "session_num": 0,
            "request_start_ns": int(EPOCH_S * 10) * 10**8 + round(start * 1e9),
            "benchmark_phase": phase,
        },
        "metrics": {key: {"value": value, "unit": unit} for key, (value, unit) in values.items()},
        "error": None,
        **more,
    }


AIPERF = [
    aiperf_record(ROWS[0], [], phase="warmup"),
    aiperf_record(ROWS[0], [100.0, 200.0]),
    {**aiperf_record(ROWS[1], []), "metrics": {}, "error": {"code": 500}},
    aiperf_record(ROWS[1], [250.0]),
]


def inference_perf_record(row, times, nested=False, **more):
    start, prompt, output, _, last = row
    response = {"output_tokens": output, "output_token_times": times}
    info = {"input_tokens": prompt} | ({"response_metrics": response} if nested else response)
    return {"start_time": start + 5e3, "end_time": last + 5e3, "request": "{}", "response": "",
            "info": info, "error": None, **more}  # fmt: skip


TOKEN_TIMES = ([5000.5, 5000.6, 5000.8], [5001.25, 5001.5])


def inference_perf(nested):
    records = [
        inference_perf_record(row, times, nested)
        for row, times in zip(ROWS, TOKEN_TIMES, strict=True)
    ]
    return [
        *records,
        inference_perf_record(
            ROWS[0], [], nested, error={"error_type": "timeout", "error_msg": ""}
        ),
    ]


V2_COLUMNS = (
    "request_id,client_id,tenant_id,slo_class,session_id,round_index,prefix_group,prefix_length,streaming,"
    "input_tokens,output_tokens,text_tokens,image_tokens,audio_tokens,video_tokens,reason_ratio,model,deadline_us,"
    "server_input_tokens,arrival_time_us,send_time_us,first_chunk_time_us,last_chunk_time_us,num_chunks,status,"
    "error_message,finish_reason"
)
TRACEV2 = f"""{V2_COLUMNS}
0,c,t,standard,,0,,0,true,9,3,9,0,0,0,0,,0,10,0,0,500000,800000,3,ok,,length
1,c,t,standard,,0,g,5,true,15,2,15,0,0,0,0,,0,0,900000,1000000,1250000,1500000,2,ok,,length
2,c,t,standard,,0,,0,true,9,3,9,0,0,0,0,,0,0,950000,1100000,0,0,0,timeout,deadline,
"""

LISTS = {"input_lens": [10, 20, 7], "output_lens": [3, 2, 0], "ttfts": [0.5, 0.25, 0.0],
         "itls": [[0.1, 0.2], [0.25], []], "errors": ["", "", "broken pipe"]}  # fmt: skip
SGLANG = {
    "backend": "sglang",
    "dataset_name": "random",
    "request_rate": float("inf"),
    "max_concurrency": 1,
    "sharegpt_output_len": None,
    "random_range_ratio": 0.5,
    "duration": 2.0,
    "completed": 2,
    "request_throughput": 1.0,
    **LISTS,
}
VLLM = {
    "date": "20261128",
    "backend": "vllm",
    "request_rate": 1.0,
    "request_throughput": 1.0,
    **LISTS,
    "start_times": [100.0, 101.0, 101.5],
}
LLMSERVINGSIM = [
    {
        "request_id": f"bench-{place}",
        "input_toks": prompt,
        "output_toks": output,
        "arrival_time": 1.7e9,
        "queued_ts": start,
        "scheduled_ts": start,
        "first_token_ts": first,
        "last_token_ts": last,
    }
    for place, (start, prompt, output, first, last) in enumerate(ROWS)
]
OWN = "arrival_s,input_tokens,output_tokens,ttft_s,e2e_s\n5,10,3,0.5,0.8\n6,20,2,0.25,0.5\n"


def lines(records):
    return "".join(json.dumps(record) + "\n" for record in records)


# Format, and a file of it as the tool writes it.
FILES = {
    "guidellm": (
        "guidellm",
        json.dumps({"metadata": {"version": 1}, "args": {}, "benchmarks": [guidellm()]}),
    ),
    "guidellm 0.3": (
        "guidellm",
        json.dumps({"benchmarks": [guidellm(guidellm_old_request)]}, indent=2),
    ),
    "aiperf": ("aiperf", lines(AIPERF)),
    "inference-perf": ("inference-perf", json.dumps(inference_perf(nested=True), indent=2)),
    "inference-perf, older": ("inference-perf", json.dumps(inference_perf(nested=False))),
    "tracev2": ("tracev2", TRACEV2),
    "sglang": ("sglang", lines([SGLANG])),
    "vllm": ("vllm", json.dumps(VLLM, indent=4)),
    "vllm on a line": ("vllm", json.dumps(VLLM)),
    "llmservingsim": ("llmservingsim", lines(LLMSERVINGSIM)),
    "csv": ("csv", OWN),
}
# Without a rate, SGLang's only user sends its second request when the first is answered.
ARRIVALS = {"sglang": [0.0, 0.8]}


@pytest.fixture
def write(tmp_path):
    def write(text, name="run"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("case", FILES)
def test_a_run_is_read_with_its_times(case, write):
    requests = load_measured(write(FILES[case][1])).requests
    arrivals = ARRIVALS.get(case, WANTED[0])
    assert requests["arrival_s"].tolist() == pytest.approx(arrivals, abs=1e-6)
    assert (requests["input_tokens"].tolist(), requests["output_tokens"].tolist()) == WANTED[1:3]
    for column, wanted in (("first_token_s", WANTED[3]), ("finish_s", WANTED[4])):
        since = [time - start for time, start in zip(wanted, WANTED[0], strict=True)]
        assert (requests[column] - requests["arrival_s"]).tolist() == pytest.approx(since, abs=1e-6)


@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("reader", MEASURED_FORMATS, ids=lambda form: form.name)
def test_no_reader_takes_the_file_of_another(case, reader, write):
    path = write(FILES[case][1])
    assert measured_format(path, *sniff(path)).name == FILES[case][0]
    if reader.name == FILES[case][0] or {reader.name, FILES[case][0]} == {"vllm", "sglang"}:
        return  # vLLM and SGLang have the same lists
    with pytest.raises(ValueError, match=r"run|answered"):
        reader.read(path, None)


@pytest.mark.parametrize("case", ["aiperf", "inference-perf", "sglang", "vllm"])
def test_gaps_between_tokens_are_kept_where_the_file_has_them(case, write):
    assert load_measured(write(FILES[case][1])).meta["itls_s"] == pytest.approx(GAPS_S)


@pytest.mark.parametrize("case", ["guidellm", "tracev2", "csv", "llmservingsim"])
def test_a_file_without_gaps_claims_none(case, write):
    assert "itls_s" not in load_measured(write(FILES[case][1])).meta


@pytest.mark.parametrize(
    ("case", "note"),
    [
        ("guidellm", "run: left out 1 failed"),
        ("aiperf", "run: left out 1 of the warm-up, 1 failed"),
        ("inference-perf", "run: left out 1 failed"),
        ("tracev2", "run: left out 1 failed or unfinished"),
        ("sglang", "run: left out 1 failed"),
    ],
)
def test_failed_requests_are_left_out_and_counted(case, note, write):
    assert load_measured(write(FILES[case][1])).meta["notes"][0] == note


def test_one_of_several_benchmarks_of_guidellm_is_chosen(write):
    later = guidellm(lambda start, *more: guidellm_request(start * 2, *more))
    later["requests"]["successful"][1]["info"]["timings"] |= {
        "first_token_iteration": EPOCH_S + 3, "last_token_iteration": EPOCH_S + 4
    }  # fmt: skip
    path = write(json.dumps({"benchmarks": [guidellm(), later]}), "benchmarks.json")
    with pytest.raises(
        ValueError,
        match=r"holds 2 results: 1 \(constant 2\.0\); 2 .*; choose one with run \(--run 1\)",
    ):
        load_measured(path)
    assert load_measured(path, run=2).requests["arrival_s"].tolist() == pytest.approx(
        [0, 2], abs=1e-6
    )
    with pytest.raises(ValueError, match="holds 2 results"):
        load_measured(path, run=3)


def test_one_of_several_results_of_sglang_is_chosen(write):
    path = write(
        lines([SGLANG, {**SGLANG, "request_rate": 2.0, "max_concurrency": None}]), "sglang.jsonl"
    )
    drawn = load_measured(path, run=2)
    assert drawn.meta["notes"][1] == (
        "sglang.jsonl has no start times: assumed are starts drawn at its request_rate of 2/s"
    )
    assert (
        load_measured(path, run=1)
        .meta["notes"][1]
        .endswith("its request_rate is infinite, with 1 in flight at most")
    )
    with pytest.raises(ValueError, match="has no start times, and its request_rate is 'trace'"):
        load_measured(write(lines([{**SGLANG, "request_rate": "trace"}])))


def test_only_files_of_several_runs_have_one_to_choose(write):
    with pytest.raises(ValueError, match=r"run \(--run\) applies only to .*guidellm"):
        load_measured(write(FILES["aiperf"][1]), run=1)


def test_doubled_chunk_times_are_no_gaps_between_tokens(write):
    doubled = [inference_perf_record(ROWS[0], [5000.5, 5000.5, 5000.6, 5000.6, 5000.8, 5000.8]),
               inference_perf_record(ROWS[1], TOKEN_TIMES[1])]  # fmt: skip
    run = load_measured(write(json.dumps(doubled)))
    assert run.meta["itls_s"] == pytest.approx([0.25])
    assert run.meta["notes"] == [
        "run: 1 requests have more chunk times than tokens; the gaps of these are left out"
    ]
    assert run.requests["finish_s"].tolist() == pytest.approx(WANTED[4])


def test_the_servers_own_counts_are_preferred(write):
    record = inference_perf_record(ROWS[0], TOKEN_TIMES[0], nested=True)
    record["info"]["response_metrics"] |= {
        "output_tokens": 2,
        "server_usage": {"completion_tokens": 3, "prompt_tokens": 12},
    }
    requests = load_measured(write(json.dumps([record]))).requests
    assert (requests["input_tokens"].tolist(), requests["output_tokens"].tolist()) == ([12], [3])


def without(record, *keys):
    record = json.loads(json.dumps(record))
    inner = record
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return record


OF_A_SAMPLE = guidellm(guidellm_old_request, request_totals={"successful": 90})
BROKEN = {
    "an unknown document": (
        '{"hello": 1}',
        "is no measured run that is known .it has hello.; known are .*guidellm",
    ),
    "an unknown row": ('{"hello": 1}\n{"hello": 2}\n', "is no measured run that is known"),
    "a summary in CSV": (
        "Run Info,Timings\n1,2\n",
        "is no measured run .* .it has Run Info, Timings",
    ),
    "YAML": ("args: {}\nbenchmarks: []\n", "is no measured run that is known"),
    "a latency in words": (
        OWN.replace("0.5,0.8", "x,0.8"),
        "request 0: ttft_s is 'x'; it must be a number",
    ),
    "a time in words": (
        "arrival_s,input_tokens,output_tokens,first_token_s,finish_s\n5,10,3,x,9\n",
        "request 0: first_token_s is 'x'; it must be a number",
    ),
    "odd times": (
        json.dumps([inference_perf_record(ROWS[0], [1.0, "x"])]),
        "request 0 has no first_token_s",
    ),
    "an odd unit": (lines([AIPERF[1]]).replace('"ms"', "[]"), r"has the unit \[\], which is none"),
    "an unknown array": ('[{"hello": 1}]', "is no measured run that is known"),
    "no benchmarks": ('{"benchmarks": 5}', "benchmarks is not a list of JSON objects"),
    "no requests": (
        '{"benchmarks": [{"requests": {}}]}',
        "requests.successful is not a list of JSON objects",
    ),
    "empty": ('{"benchmarks": []}', "holds no result"),
    "none answered": (
        '{"benchmarks": [{"requests": {"successful": []}}]}',
        "has no request that was answered",
    ),
    "a sample": (
        json.dumps({"benchmarks": [OF_A_SAMPLE]}),
        "keeps 2 of 90 answered requests; run guidellm without",
    ),
    "no stream": (
        lines([without(AIPERF[1], "metrics", "time_to_first_token")]),
        "request 0 has no first_token_s; aiperf writes it with --streaming",
    ),
    "no start": (
        lines([without(AIPERF[1], "metadata", "request_start_ns")]),
        "request_start_ns is None; it must be",
    ),
    "no length": (
        lines([without(AIPERF[1], "metrics", "input_sequence_length")]),
        "request 0: arrival and lengths",
    ),
    "a unit": (
        lines([AIPERF[1]]).replace('"ms"', '"h"'),
        "time_to_first_token has the unit 'h', which is none of ns",
    ),
    "no times": (
        json.dumps([inference_perf_record(ROWS[0], [])]),
        "first_token_s; .* api.streaming: true",
    ),
    "no details": (
        json.dumps(without(without(SGLANG, "itls"), "ttfts")),
        "has no list ttfts; SGLang's bench_serving writes it with --output-details",
    ),
    "uneven": (json.dumps({**SGLANG, "ttfts": [0.5]}), "lists of different lengths"),
    "a gap": (json.dumps({**SGLANG, "itls": [[0.1, -0.2], [], []]}), "gap between tokens of -0.2"),
    "no list": (
        json.dumps({**SGLANG, "itls": [0.1, [], []]}),
        "request 0: itls is 0.1; it must be a list",
    ),
    "no column": (
        TRACEV2.replace("last_chunk_time_us", "last"),
        "has no column last_chunk_time_us",
    ),
    "no answer": (TRACEV2.replace(",ok,", ",error,"), "has no request that was answered"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_one_sentence(case, write):
    text, sentence = BROKEN[case]
    with pytest.raises(ValueError, match=sentence) as error:
        load_measured(write(text))
    assert "\n" not in str(error.value)


def test_the_command_line_says_what_was_left_out(tmp_path, write, capsys):
    path = write(FILES["sglang"][1], "sglang.jsonl")
    policy = "vllm,max_num_seqs=4,num_blocks=64,block_size=16,max_model_len=512"
    main(
        [
            "calibrate",
            str(path),
            "--out",
            str(tmp_path / "fit.toml"),
            "--from-requests",
            "--policy",
            policy,
        ]
    )
    assert "note: sglang.jsonl: left out 1 failed" in capsys.readouterr().err


def test_the_latencies_of_a_file_are_drawn(tmp_path, write, capsys):
    path = write(FILES["guidellm"][1], "benchmarks.json")
    assert main(["plot", str(path), "--out", str(tmp_path / "pictures")]) == 0
    assert sorted(file.name for file in (tmp_path / "pictures").iterdir()) == [
        "latency.png",
        "latency.svg",
    ]
    assert "note: benchmarks.json: left out 1 failed" in capsys.readouterr().err
    assert main(["plot", str(path)]) != 0
    assert "is a file: name a folder for the pictures with --out" in capsys.readouterr().err
