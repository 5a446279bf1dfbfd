"""One TOML schema: what it takes, what it gives back, and what it says about mistakes."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from busdoor.config import Config, load_config, merge
from busdoor.config.limits import limits_for
from busdoor.config.recorded import burst, resampled
from busdoor.config.run import run
from busdoor.step_time import LinearStepTime
from busdoor_workloads import Trace

ISSUE = """
[policy]
name = "vllm"
max_num_seqs = 16
max_num_batched_tokens = 256
chunked_prefill = true
long_prefill_token_threshold = 0
queue = "fcfs"               # or "priority"
watermark = 0.0
reserve_full_prompt = true   # vLLM's scheduler_reserve_full_isl
prefix_caching = false
[kv]
block_size = 16
num_blocks = 400
max_model_len = 2048
[step_time]
name = "linear"
base_s = 5e-3
per_token_s = 5e-5
per_context_s = 1e-6
"""
EVERYTHING = """
seed = 7
replications = 3
lookahead = 1
[workload]
name = "azure-code"
request_rate = 4.5
num_requests = 100
timeout_s = "2min"
max_output_tokens = 64
[[policy]]
name = "static"
batch_size = 8
[[policy]]
name = "static"
batch_size = 16
[[policy]]
name = "vllm"
label = "ours"
[kv]
num_blocks = 1000
[gpu]
name = "l40s"
model = "qwen3-8b"
weight_dtype = "fp8"
price_per_hour = 1.2
[step_time]
name = "roofline"
step_overhead_s = 1e-3
[slo]
ttft_p99 = "2s"
tpot = "100ms"
"""


def written(tmp_path, text):
    file = tmp_path / "study.toml"
    file.write_text(text)
    return file


def test_the_issues_file_works_as_it_is(tmp_path):
    config = load_config(written(tmp_path, ISSUE))
    (policy,) = config.policies
    assert (policy.name, policy.config.max_num_seqs, policy.config.max_num_batched_tokens) == (
        "vllm",
        16,
        256,
    )
    assert config.step_time == LinearStepTime(base_s=5e-3, per_token_s=5e-5, per_context_s=1e-6)
    limits = limits_for(config, [config.workload.trace()])
    assert (limits.kv.num_blocks, limits.kv.block_size, limits.kv.max_model_len) == (400, 16, 2048)


def test_every_table_has_its_say(tmp_path):
    config = load_config(written(tmp_path, EVERYTHING))
    assert [policy.label for policy in config.policies] == [
        "static (batch_size 8)",
        "static (batch_size 16)",
        "ours",
    ]
    assert config.step_time.describe()["gpu"] == "l40s"
    assert config.step_time.describe()["step_overhead_s"] == 1e-3
    assert config.slo.to_dict() == {"ttft_p99": 2.0, "tpot": 0.1, "goodput": 0.99}
    trace = config.workload.trace(config.seed)
    assert len(trace) == 100
    assert np.all(trace.timeout_s == 120) and np.all(trace.max_output_tokens == 64)


@pytest.mark.parametrize(
    "text", [ISSUE, EVERYTHING, "", '[workload]\nname = "anyscale_512"\nrequest_rate = inf']
)
def test_what_is_noted_builds_the_same_configuration_again(tmp_path, text):
    config = load_config(written(tmp_path, text))
    noted = json.loads(json.dumps(config.to_dict(), allow_nan=False))
    assert Config.from_table(noted) == config


def test_limits_that_vllm_chooses_by_the_gpu_are_chosen_so_where_the_table_is_silent():
    def limits(card, **fields):
        config = (
            Config.from_table({"gpu": {"name": card}, "policy": {"name": "vllm", **fields}})
            .policies[0]
            .config
        )
        return config.max_num_seqs, config.max_num_batched_tokens

    assert limits("h100") == (1024, 8192)
    assert limits("l40s") == (256, 2048)
    assert limits("l40s", max_num_seqs=8) == (8, 2048)


SENTENCES = {
    '[policy]\nname = "vllm"\nmax_num_seq = 16': "line 3: [policy] max_num_seq: unknown; did you "
    "mean max_num_seqs?",
    '[policy]\nname = "vlm"': "line 2: [policy] name: 'vlm' is not a policy; did you mean 'vllm'? "
    "(known: dynamic, multi_bin, orca, prefill_first, static, tgi, transformers, trtllm, vllm)",
    '[[policy]]\nname = "static"\n\n[[policy]]\nname = "vllm"\nmax_num_seqs = 0': "line 6: "
    "[policy] max_num_seqs = 0: "
    "input should be greater than 0",
    "[policy]\nmax_num_seqs = 3": "line 1: [policy] name = None: it has to name a policy, as in "
    'name = "vllm"',
    '[polcy]\nname = "vllm"': "[polcy]: unknown; did you mean [policy]?",
    "sed = 1": "line 1: sed: unknown; did you mean seed?",
    "lookahead = 2": "line 1: the configuration's lookahead = 2: input should be 0 or 1",
    "[kv]\nnum_block = 4": "line 2: [kv] num_block: unknown; did you mean num_blocks?",
    '[gpu]\nmodel = "llama-3.1-70b"': "line 1: llama-3.1-70b (131.4 GiB of bf16 weights and 2.4 "
    "GiB of working space) "
    "does not fit the 72.8 GiB that h100 lends with gpu_memory_utilization = 0.92; use tp = 2 or "
    "weight_dtype = 'fp8'",
    '[step_time]\nname = "linear"\nbase_s = 1\nper_tok = 2': "line 4: [step_time] per_tok: "
    "unknown; did you mean "
    "per_token_s?",
    '[slo]\nttft_p99 = "2 sec"': "line 2: [slo] ttft_p99: '2 sec' is no duration; write a number "
    "of seconds, or one "
    "with a unit: '200ms', '2s', '5min', '1h'",
    "[slo]\ntfft = 1": "line 2: [slo] tfft: unknown; did you mean ttft?",
    '[workload]\nname = "azure-conv"\nrate = 3': "line 3: [workload] rate: unknown; did you mean "
    "request_rate?",
    '[workload]\nname = "azure-conv"\nrequest_rate = 1\ntime_scale = 2': "line 3: [workload] "
    "request_rate and "
    "time_scale both set the rate; give one of them",
    "[workload]\ninput_tokens = {type = 'lognorml'}\noutput_tokens = 3": "line 2: [workload] "
    "input_tokens: lengths "
    "{'type': 'lognorml'} names the unknown type 'lognorml'; did you mean 'lognormal'?",
}


@pytest.mark.parametrize("text", SENTENCES)
def test_a_mistake_is_one_sentence_with_file_line_and_what_would_be_right(tmp_path, text):
    file = written(tmp_path, text)
    with pytest.raises(ValueError) as error:
        load_config(file)
    separator = ", " if SENTENCES[text].startswith("line") else ": "
    assert str(error.value) == f"{file}{separator}{SENTENCES[text]}"


def test_what_is_no_toml_is_said_with_its_line(tmp_path):
    file = written(tmp_path, "seed = 1\nkv = = 2")
    with pytest.raises(ValueError) as error:
        load_config(file)
    assert str(error.value) == f"{file} is not valid TOML: invalid value (at line 2, column 6)"


def test_a_trace_file_starts_at_the_configurations_folder(tmp_path):
    (tmp_path / "two.csv").write_text(
        "arrival_s,input_tokens,output_tokens\n0,100,10\n0.5,200,20\n"
    )
    config = load_config(written(tmp_path, '[workload]\npath = "two.csv"\nrequest_rate = 4'))
    assert config.workload.trace().arrival_s.tolist() == [0.0, 0.25]
    with pytest.raises(ValueError) as error:
        load_config(written(tmp_path, '[workload]\npath = "too.csv"'))
    assert (
        str(error.value)
        == f"{tmp_path}/study.toml, line 2: [workload] path: there is no file {tmp_path}/too.csv"
    )


def test_a_flag_replaces_a_files_name_by_a_path_and_the_other_way():
    table = {"workload": {"name": "azure-conv", "num_requests": 5}}
    assert merge(table, {"workload": {"path": "x.csv"}}) == {
        "workload": {"num_requests": 5, "path": "x.csv"}
    }
    assert merge({"workload": {"path": "x.csv"}}, {"workload": {"name": "chat"}}) == {
        "workload": {"name": "chat"}
    }


trace_rows = st.lists(
    st.tuples(st.floats(0, 5), st.integers(1, 50), st.integers(1, 9)), min_size=1, max_size=20
)


@given(trace_rows, st.integers(0, 3), st.integers(1, 5))
def test_replications_of_a_file_keep_its_arrivals_and_draw_its_rows(rows, seed, replication):
    gaps, inputs, outputs = np.array(rows).T
    trace = Trace(arrival_s=np.cumsum(gaps), input_tokens=inputs, output_tokens=outputs)
    again = resampled(trace, seed, replication)
    assert again.arrival_s.tolist() == trace.arrival_s.tolist()
    pairs = set(zip(trace.input_tokens.tolist(), trace.output_tokens.tolist(), strict=True))
    assert set(zip(again.input_tokens.tolist(), again.output_tokens.tolist(), strict=True)) <= pairs
    assert resampled(trace, seed, 0) is trace


def test_rows_that_belong_together_are_not_drawn_one_by_one():
    trace = Trace(
        arrival_s=[0, 1],
        input_tokens=[5, 5],
        output_tokens=[1, 1],
        session_id=[0, 0],
        turn=[0, 1],
        name="t",
    )
    with pytest.raises(ValueError) as error:
        resampled(trace, 0, 1)
    assert str(error.value) == (
        "the rows of t belong together (sessions or shared prefixes), so it can be run only once; "
        "use replications = 1"
    )


def test_a_burst_keeps_the_lengths_and_forgets_the_clients():
    trace = Trace(
        arrival_s=[0, 9], input_tokens=[5, 6], output_tokens=[1, 2], timeout_s=[1, 1], concurrency=3
    )
    full = burst(trace, at_least=5)
    assert full.input_tokens.tolist() == [5, 6] * 3
    assert (full.arrival_s == 0).all() and full.timeout_s is None
    assert full.concurrency == 3  # in a closed loop nobody but its users is there to ask


def test_the_limits_are_those_of_an_operator_who_knows_the_traffic():
    config = Config.from_table({"policy": "static", "kv": {"num_blocks": 1000}})
    traces = [Trace(arrival_s=[0], input_tokens=[n], output_tokens=[90]) for n in (100, 2000)]
    limits = limits_for(config, traces)
    assert (limits.kv.max_model_len, limits.max_output_tokens) == (4096, 128)
    result = run(config, config.policies[0], traces[0], limits)
    assert result.meta["policy_config"]["max_output_tokens"] == 128
    assert result.meta["config"]["policy"][0]["max_output_tokens"] == 128
