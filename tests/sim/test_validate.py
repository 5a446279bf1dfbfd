"""The simulator beside real runs: vLLM's own engine on a CPU, and runs whose truth is known."""

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from busdoor.calibration import Calibration, calibrate, calibrate_from_requests, load_measured
from busdoor.calibration.calibration import about_runs
from busdoor.calibration.import_logs import from_requests_table
from busdoor.cli import main
from busdoor.config import Config
from busdoor.kv.paged import PagedKV
from busdoor.policies.vllm import VllmPolicy
from busdoor.results.result import Result
from busdoor.simulator.simulate import simulate
from busdoor.step_time import CalibratedStepTime
from busdoor.validation.validate import validate
from busdoor_workloads import Trace

VLLM_CPU = Path(__file__).parents[1] / "measured" / "vllm_cpu"
ABOUT = {"gpu": "cpu, 1 thread", "model": "llama-256x4", "dtype": "float32"}
MEMORY = ("policy_config", "num_blocks", "block_size", "max_model_len")


@pytest.fixture(scope="module")
def vllm_runs():
    return {
        name: load_measured(VLLM_CPU / f"{name}.json.gz", ABOUT)
        for name in ("rate_4", "rate_12", "rate_20")
    }


@pytest.fixture(scope="module")
def fitted(vllm_runs):
    """Fitted at a low and at a high rate: the one between is predicted."""
    ends = ["rate_4", "rate_20"]
    return calibrate([vllm_runs[name] for name in ends], ends, name="vllm-cpu", resamples=20)


@pytest.fixture(scope="module")
def validation(vllm_runs, fitted):
    return validate(list(vllm_runs.values()), fitted.step_time, list(vllm_runs))


def test_vllms_batches_are_ours_when_iterations_last_as_long(validation):
    for run in validation.runs:
        assert run.agreement["played"] == 1.0
        assert abs(run.budget["scheduling"]) < 1e-6


def test_an_unseen_rate_is_predicted_as_well_as_the_machine_allows(validation):
    """Reached: step +4.3 %, E2E +10.0 %, TTFT +8.2 %, TPOT +11.2 %; drift is 10 %."""
    run = validation.runs[1]
    errors = run.table["error"]
    print(run.table, run.steps, run.budget, sep="\n")
    assert run.regime == "0.5–0.8"
    assert abs(run.steps.total) < 0.06
    assert run.steps.mean_absolute < 0.20
    assert abs(errors["e2e", "mean"]) < 0.13
    assert abs(errors["e2e", "p99"]) < 0.05
    assert abs(errors["ttft", "mean"]) < 0.11
    assert abs(errors["tpot", "mean"]) < 0.14
    assert abs(errors["output", "rate"]) < 0.01
    assert abs(validation.knee["error"]) < 0.06


def test_the_knee_is_found_in_whatever_order_the_runs_come(vllm_runs, fitted, validation):
    """A shell's glob puts static runs first, which are too few for a knee of their own."""
    other = vllm_runs["rate_12"]
    batched = Result(
        other.requests, other.iterations, other.stays, other.meta | {"max_model_len": 1000}
    )
    runs = {"a": batched, **vllm_runs}
    assert validate(list(runs.values()), fitted.step_time, list(runs)).knee == validation.knee


def test_the_machine_is_what_limits_it(fitted):
    """Parts of the log differ by 10 % in speed; like iterations in a row by 6 %."""
    assert 0.08 < fitted.about["drift"] < 0.15
    assert 0.04 < fitted.about["repeatability"] < 0.08


def test_the_parts_of_the_error_add_up(validation):
    for run in validation.runs:
        assert run.budget.drop("total").sum() == pytest.approx(run.budget["total"])


def test_regimes_and_amplification(validation):
    assert list(validation.by_regime.index) == ["ρ < 0.5", "0.5–0.8", "0.8–1"]
    assert validation.runs[2].amplification == pytest.approx(1 / (1 - validation.runs[2].load))


def test_the_page_shows_both_sides(validation):
    figure = validation.plot(validation.runs[2])
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert {"measured", "simulated"} <= set(titles)
    assert [len(ax.get_lines()) for ax in figure.axes[:4]] == [2, 2, 2, 2]


def served(step_time, rate, num_requests=150, lookahead=0):
    rng = np.random.default_rng(5)
    trace = Trace(
        arrival_s=np.cumsum(rng.exponential(1 / rate, num_requests)),
        input_tokens=rng.integers(16, 250, num_requests),
        output_tokens=rng.integers(2, 60, num_requests),
    )
    policy = VllmPolicy(
        PagedKV(400, 16), max_num_seqs=16, max_num_batched_tokens=256, max_model_len=512
    )
    config = {"name": "vllm", "max_num_seqs": 16, "max_num_batched_tokens": 256}
    return simulate(
        trace,
        policy,
        step_time,
        step_by_step=True,
        lookahead=lookahead,
        meta={"policy_config": config},
    )


@pytest.mark.parametrize("lookahead", [0, 1])
def test_a_model_that_is_right_has_no_error_anywhere(lookahead):
    truth = CalibratedStepTime(base_s=4e-3, per_token_s=(1e-4,), per_context_s=1e-6)
    run = validate([served(truth, 10.0, lookahead=lookahead)], truth).runs[0]
    assert run.agreement["same"] == run.agreement["played"] == 1.0
    assert run.table["error"].abs().max() < 1e-9
    assert run.budget.abs().max() < 1e-9
    assert max(run.steps) < 1e-9


def test_a_step_time_that_is_too_long_is_blamed_on_the_step_model():
    truth = CalibratedStepTime(base_s=4e-3, per_token_s=(1e-4,))
    slow = CalibratedStepTime(base_s=4.4e-3, per_token_s=(1.1e-4,))
    run = validate([served(truth, 4.0)], slow).runs[0]
    assert run.steps.total == pytest.approx(0.1)
    assert run.budget["step_model"] == pytest.approx(0.1, abs=0.02)
    assert run.budget["scheduling"] == pytest.approx(0.0, abs=1e-9)


def test_a_run_that_does_not_say_how_it_was_scheduled_is_refused(vllm_runs):
    table = from_requests_table(vllm_runs["rate_4"].requests, "mine")
    with pytest.raises(
        ValueError, match=r"^a: the run's meta has no num_blocks; give it, as in --policy vllm,"
    ):
        validate([table], CalibratedStepTime(base_s=1.0), ["a"])


# Importing


def test_a_vllm_log_keeps_its_times_and_tokens(vllm_runs):
    log = vllm_runs["rate_12"]
    assert log.summary["completed"] == 300
    table = log.iterations
    assert (table["num_prefill_tokens"].sum(), table["num_decode_tokens"].sum()) == (
        log.requests["input_tokens"].sum(),
        (log.requests["output_tokens"] - 1).sum(),
    )
    assert (table["device_s"] + table["host_s"]).to_numpy() == pytest.approx(
        table["duration_s"].to_numpy()
    )
    assert table["num_running"].max() <= log.meta["num_slots"]
    assert len(log.stays) == 300


def test_a_broken_vllm_log_is_one_sentence(tmp_path):
    log = {
        "config": {
            "block_size": 16,
            "max_num_seqs": 4,
            "max_num_batched_tokens": 64,
            "num_blocks": 9,
            "max_model_len": 64,
        },
        "requests": [[0.0, 10, 2, 1.0, 2.0]],
        "iterations": [[0.0, 1.0, [[0, 11]], []]],
    }
    path = tmp_path / "log.json"
    path.write_text(json.dumps(log))
    with pytest.raises(
        ValueError, match=r"log\.json iteration 0: request 0 has 10 tokens, but runs 11"
    ):
        load_measured(path)
    path.write_text(
        json.dumps({**log, "iterations": [[0.0, 1.0, [[0, 10]], []], [0.5, 1.5, [[0, 1]], []]]})
    )
    with pytest.raises(
        ValueError, match=r"log\.json iteration 1: it starts at 0\.5 s, .* 1\.0 or later"
    ):
        load_measured(path)


def with_ids(log, of_iteration, of_request=None):
    """Return a log whose iterations name requests otherwise; requests may have own ids."""
    items = [
        [
            start,
            end,
            [[of_iteration(request), tokens] for request, tokens in pairs],
            [of_iteration(own) for own in lost],
        ]
        for start, end, pairs, lost in log["iterations"]
    ]
    rows = [
        [*row, of_request(place)] if of_request else row
        for place, row in enumerate(log["requests"])
    ]
    return {**log, "iterations": items, "requests": rows}


BIG = 2**64 - 1  # beyond int64, and beyond what a float keeps apart


@pytest.mark.parametrize(
    ("of_iteration", "of_request"),
    [
        (str, None),
        (lambda place: f"{place:06}", None),
        (lambda place: f"{place}-0123abcd", None),
        (lambda place: f"chat-{place}", lambda place: f"chat-{place}"),
        (lambda place: f"chat-{place}-0123abcd", lambda place: f"chat-{place}"),
        (lambda place: BIG - place, lambda place: str(BIG - place)),
    ],
    ids=["text", "zeros", "vLLM's suffix", "own", "own with suffix", "large"],
)
def test_a_vllm_log_may_name_requests_by_any_id(of_iteration, of_request, tmp_path):
    plain = VLLM_CPU / "rate_4.json.gz"
    path = tmp_path / "log.json"
    path.write_text(
        json.dumps(
            with_ids(json.loads(gzip.decompress(plain.read_bytes())), of_iteration, of_request)
        )
    )
    found, expected = load_measured(path), load_measured(plain)
    for part in ("requests", "iterations", "stays"):
        pd.testing.assert_frame_equal(getattr(found, part), getattr(expected, part))


SMALL_LOG = {
    "config": {
        "block_size": 16,
        "max_num_seqs": 4,
        "max_num_batched_tokens": 64,
        "num_blocks": 9,
        "max_model_len": 64,
    },
    "requests": [[0.0, 10, 2, 1.0, 2.0]],
    "iterations": [[0.0, 1.0, [[0, 10]], []]],
}


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        (
            {"iterations": [[0.0, 1.0, [["chat-a", 10]], []]]},
            "iteration 0: there is no request 'chat-a'; add each",
        ),
        ({"iterations": [[0.0, 1.0, [[1, 10]], []]]}, "iteration 0: there is no request '1'"),
        ({"iterations": [[0.0, 1.0, [[-1, 10]], []]]}, "iteration 0: there is no request '-1'"),
        (
            {"iterations": [[0.0, 1.0, [[0.0, 10]], []]]},
            "iteration 0: the id 0.0 is neither a whole number nor",
        ),
        ({"iterations": [[0.0, 1.0, [[True, 10]], []]]}, "iteration 0: the id True is neither"),
        (
            {"iterations": [[0.0, 1.0, [[0, 10.5]], []]]},
            r"iteration 0: it must be \[start_s, end_s",
        ),
        ({"iterations": [[0.0, 1.0, []]]}, r"iteration 0: it must be \[start_s, end_s"),
        (
            {"iterations": [[0.0, 1.0, [[0, 10]], [0]]]},
            "iteration 0: request 0 is preempted, but does not run",
        ),
        (
            {"requests": [[0.0, 10, 2, 1.0, 2.0, "a"], [0.0, 10, 2, 1.0, 2.0, "a"]]},
            "request 1: its id 'a' is that of",
        ),
        ({"requests": [[0.0, 10, 2, 1.0]]}, "each of requests must be"),
        (
            {"requests": [[0.0, 10, True, 1.0, 2.0]]},
            r"request 0: its lengths \[10, True\] must be whole numbers",
        ),
        ({"requests": [["0", 10, 2, 1.0, 2.0]]}, "request 0: its times .* must be numbers"),
        (
            {"config": {**SMALL_LOG["config"], "block_size": 0}},
            "config.block_size is 0; it must be a whole number",
        ),
        ({"config": []}, "config.max_num_seqs is None; it must be"),
    ],
)
def test_a_vllm_log_that_does_not_hold_together_is_one_sentence(part, sentence, tmp_path):
    path = tmp_path / "log.json"
    path.write_text(json.dumps({**SMALL_LOG, **part}))
    with pytest.raises(ValueError, match=sentence):
        load_measured(path)


def test_vllm_bench_serve_results_are_read(tmp_path):
    path = tmp_path / "bench.json"
    document = {
        "input_lens": [10, 20, 5],
        "output_lens": [3, 1, 0],
        "start_times": [100.0, 101.0, 102.0],
        "ttfts": [0.5, 0.25, 0.0],
        "itls": [[0.1, 0.2], [], []],
        "request_throughput": 1.0,
    }
    path.write_text(json.dumps(document))
    result = load_measured(path)
    assert result.requests["arrival_s"].tolist() == [0.0, 1.0]  # the third failed
    assert result.requests["finish_s"].tolist() == pytest.approx([0.8, 1.25])
    assert result.meta["itls_s"] == [0.1, 0.2]
    del document["itls"]
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"bench\.json has no list itls; .* --save-detailed"):
        load_measured(path)


def test_llmservingsims_requests_are_read_by_the_engines_clock(tmp_path):
    path = tmp_path / "requests.jsonl"
    row = {
        "request_id": "bench-0",
        "input_toks": 20,
        "output_toks": 5,
        "arrival_time": 1.7e9,
        "queued_ts": 10.0,
        "scheduled_ts": 10.5,
        "first_token_ts": 11.0,
        "last_token_ts": 13.0,
    }
    path.write_text(f"{json.dumps(row)}\n{json.dumps({**row, 'queued_ts': 9.0})}\n")
    result = load_measured(path)
    assert result.requests["arrival_s"].tolist() == [0.0, 1.0]
    assert result.summary["mean_queue_ms"] == pytest.approx(1000.0)
    row.pop("queued_ts")
    path.write_text(f"{json.dumps(row)}\n")
    with pytest.raises(ValueError, match=r"requests\.jsonl has no column queued_ts"):
        load_measured(path)


def test_a_csv_may_have_times_or_latencies(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "arrival_s,input_tokens,output_tokens,ttft_s,e2e_s\n5,10,3,0.5,1.5\n6,10,3,0.5,2.5\n"
    )
    assert load_measured(path).requests["finish_s"].tolist() == [1.5, 3.5]
    path.write_text("arrival_s,input_tokens,output_tokens,first_token_s,finish_s\n5,10,3,4,6\n")
    with pytest.raises(ValueError, match=r"request 0: first_token_s 4.* is before arrival_s 5"):
        load_measured(path)
    path.write_text("arrival_s,input_tokens,output_tokens,first_token_s\n5,10,3,6\n")
    with pytest.raises(ValueError, match=r"mine\.csv has no column finish_s \(or e2e_s\)"):
        load_measured(path)
    path.write_text("arrival_s,input_tokens,output_tokens,ttft_s,e2e_s\n5,10,0,0.5,1.5\n")
    with pytest.raises(ValueError, match=r"mine\.csv request 0: arrival and lengths"):
        load_measured(path)


# From requests alone


def requests_only(result):
    return from_requests_table(
        result.requests, "mine", {key: result.meta[key] for key in (*MEMORY, "lookahead")}
    )


def test_per_request_times_give_the_reduced_model_back():
    truth = CalibratedStepTime(
        base_s=4e-3, per_token_s=(1e-4,), per_prefill_pair_s=1e-6, per_context_s=1e-6
    )
    fitted = calibrate_from_requests(
        [requests_only(served(truth, rate, 150)) for rate in (4.0, 12.0)]
    )
    assert fitted.step_time.base_s == pytest.approx(4e-3, rel=0.05)
    assert fitted.step_time.per_token_s[0] == pytest.approx(1e-4, rel=0.1)
    assert fitted.step_time.per_prefill_pair_s == pytest.approx(1e-6, rel=0.1)
    assert fitted.step_time.per_context_s == pytest.approx(1e-6, rel=0.3)
    assert fitted.about["not_identified"] == []
    assert "host time apart from the device's" in fitted.about["hidden"]


def test_a_term_that_does_not_show_is_said_to_be_unknown():
    truth = CalibratedStepTime(base_s=4e-3, per_token_s=(1e-4,))
    fitted = calibrate_from_requests([requests_only(served(truth, 2.0, num_requests=60))])
    assert fitted.about["not_identified"] == ["per_prefill_pair_s", "per_context_s"]


def write_csv(path, result):
    table = result.requests[
        ["arrival_s", "input_tokens", "output_tokens", "first_token_s", "finish_s"]
    ]
    table.to_csv(path, index=False)
    return str(path)


POLICY = (
    "vllm,max_num_seqs=16,max_num_batched_tokens=256,num_blocks=400,block_size=16,max_model_len=512"
)


TRUTH = CalibratedStepTime(
    base_s=4e-3, per_token_s=(1e-4,), per_prefill_pair_s=1e-6, per_context_s=1e-6
)


@pytest.fixture(scope="module")
def csv_run():
    return served(TRUTH, 12.0, 60)


def test_a_csv_brings_the_server_that_the_user_gave_and_none_that_it_did_not(csv_run, tmp_path):
    file = write_csv(tmp_path / "mine.csv", csv_run)
    light = write_csv(tmp_path / "light.csv", served(TRUTH, 4.0, 60))
    out = tmp_path / "mine.toml"
    flags = ["--policy", POLICY, "--lookahead", "0", "--out", str(out)]
    assert main(["calibrate", file, light, "--from-requests", *flags]) == 0
    about = Calibration.load(out).about
    assert about["server"] == {
        "policy": "vllm",
        "max_num_seqs": 16,
        "max_num_batched_tokens": 256,
        "num_blocks": 400,
        "block_size": 16,
        "max_model_len": 512,
    }
    assert about["lookahead"] == 0  # as the user gave it
    config = Config.from_table(
        {"step_time": {"name": "calibrated", "path": str(out)}, "policy": ["static", "vllm"]}
    )
    assert (config.kv.num_blocks, config.kv.block_size) == (400, 16)
    assert [policy.config.max_num_seqs for policy in config.policies] == [16, 16]
    observed = about_runs([load_measured(file)], ["mine"])
    assert observed["server"] == {}


def test_a_log_keeps_its_own_server_where_the_user_gives_another_field(tmp_path):
    out = tmp_path / "mine.toml"
    left = ["eager_s", "per_chunk_s", "per_request_s", "per_prefill_pair_s"]
    flags = [part for term in left for part in ("--without", term)]
    served(CalibratedStepTime(base_s=4e-3, per_token_s=(1e-4,), per_context_s=1e-6), 12.0, 60).save(
        tmp_path / "run"
    )
    given = ["--policy", "vllm,max_num_seqs=8"]
    assert main(["calibrate", str(tmp_path / "run"), "--out", str(out), *flags, *given]) == 0
    server = Calibration.load(out).about["server"]
    assert (server["max_num_seqs"], server["block_size"], server["num_blocks"]) == (8, 16, 400)


def test_a_fit_that_does_not_reproduce_its_own_requests_is_refused(csv_run, tmp_path, capsys):
    table = csv_run.requests.copy()
    odd = table.index % 2 == 1
    table.loc[odd, ["first_token_s", "finish_s"]] += 3.0  # what no step time explains
    file = write_csv(tmp_path / "odd.csv", from_requests_table(table, "odd"))
    out = tmp_path / "odd.toml"
    arguments = ["calibrate", file, "--from-requests", "--policy", POLICY, "--out", str(out)]
    assert main(arguments) == 2
    assert re.search(
        r"not written, because the mean T\w+ of odd is .[\d.]+ % off in sample",
        capsys.readouterr().err,
    )
    assert not out.exists()
    assert main([*arguments, "--force"]) == 0
    kept = Calibration.load(out)
    assert max(map(abs, kept.errors.values())) > 0.05
    assert kept.intervals and "off in sample" in kept.about["doubts"][0]


def test_a_fit_whose_terms_cannot_be_told_apart_is_refused(tmp_path, capsys):
    truth = CalibratedStepTime(
        base_s=4e-3, per_token_s=(1e-4,), per_prefill_pair_s=1e-6, per_context_s=1e-6
    )
    table = served(truth, 1.0, 40).requests
    alone = table.assign(arrival_s=np.arange(40.0), input_tokens=100, output_tokens=20)
    alone = alone.assign(
        first_token_s=alone["arrival_s"] + 0.02, finish_s=alone["arrival_s"] + 0.115
    )
    file = write_csv(tmp_path / "alike.csv", from_requests_table(alone, "alike"))
    out = tmp_path / "alike.toml"
    assert main(["calibrate", file, "--from-requests", "--policy", POLICY, "--out", str(out)]) == 2
    assert (
        "these runs cannot tell apart base_s, per_token_s, per_prefill_pair_s, "
        "per_context_s" in capsys.readouterr().err
    )
    assert not out.exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            ["--from-requests", "--without", "eager_s"],
            "--without does not apply to a fit to requests",
        ),
        (
            ["--from-requests", "--graph-sizes", "1,2"],
            "--graph-sizes does not apply to a fit to requests",
        ),
        (
            ["--from-requests", "--mixed-graph-sizes", "8"],
            "--mixed-graph-sizes does not apply to a fit to requests",
        ),
        (
            ["--mixed-graph-sizes", "8;9"],
            "--mixed-graph-sizes 8;9: it must be whole numbers with commas",
        ),
        (["--policy", "vllm,max_num_seq=4"], "max_num_seq"),
        (
            ["--policy", "vllm,num_blocks=0"],
            "num_blocks is 0; it must be a whole number of 1 or more",
        ),
    ],
)
def test_a_flag_that_does_not_apply_is_refused(flags, sentence, csv_run, tmp_path, capsys):
    out = tmp_path / "x.toml"
    assert (
        main(["calibrate", write_csv(tmp_path / "a.csv", csv_run), "--out", str(out), *flags]) == 2
    )
    assert sentence in capsys.readouterr().err
    assert not out.exists()


def test_force_does_not_apply_to_iterations(tmp_path, capsys):
    out = tmp_path / "x.toml"
    assert main(["calibrate", str(VLLM_CPU / "rate_20.json.gz"), "--force", "--out", str(out)]) == 2
    assert "--force does not apply to a fit to iterations" in capsys.readouterr().err
    assert not out.exists()


REFUSING = (
    "vllm,max_num_seqs=16,max_num_batched_tokens=256,num_blocks=400,block_size=16,max_model_len=2"
)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["calibrate", "a.csv", "--from-requests", "--policy", REFUSING, "--out", "o.toml"],
            "60 of 60 are refused",
        ),
        (
            ["validate", "a.csv", "--step-time", "vllm-cpu", "--policy", REFUSING],
            "no finished request: 60 of 60",
        ),
        (
            ["validate", "open.csv", "--step-time", "vllm-cpu", "--policy", POLICY],
            "open has no finished request",
        ),
        (
            ["calibrate", "inf.csv", "--from-requests", "--out", "o.toml"],
            "inf.csv request 0: finish_s is infinite",
        ),
        (
            ["calibrate", "a.csv", "--from-requests", "--out", "folder"],
            "--out folder is a folder; name a file",
        ),
        (
            ["calibrate", "a.csv", "--from-requests", "--out", "a.csv/o.toml"],
            "a.csv is a file, not a folder",
        ),
    ],
)
def test_what_cannot_be_fitted_or_validated_is_one_sentence(
    arguments, sentence, csv_run, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "a.csv", csv_run)
    for name, last in (("open", ""), ("inf", "inf")):
        (tmp_path / f"{name}.csv").write_text(
            f"arrival_s,input_tokens,output_tokens,first_token_s,finish_s\n0,9,3,0.5,{last}\n"
        )
    (tmp_path / "folder").mkdir()
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert sentence in errors and "Traceback" not in errors


def test_requests_without_a_first_token_do_not_calibrate():
    table = pd.DataFrame(
        {
            "arrival_s": [0.0],
            "input_tokens": [9],
            "output_tokens": [1],
            "first_token_s": [1.0],
            "finish_s": [1.0],
        }
    )
    with pytest.raises(ValueError, match="a has no TTFT or no TPOT"):
        calibrate_from_requests([from_requests_table(table, "mine")], ["a"])


# Commands


def test_the_commands_go_from_a_log_to_a_file_to_a_verdict(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    truth = CalibratedStepTime(base_s=4e-3, per_token_s=(1e-4,), per_context_s=1e-6)
    served(truth, 12.0, 60).save(tmp_path / "measured")
    left = ["eager_s", "per_chunk_s", "per_request_s", "per_prefill_pair_s"]
    flags = [part for term in left for part in ("--without", term)]
    assert main(["calibrate", "measured", "--out", "mine.toml", *flags, "--json"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(line)["step_time"]["base_s"] == pytest.approx(4e-3, rel=1e-3)
    assert Path("mine_residuals.png").exists()
    assert main(["validate", "measured", "--step-time", "mine.toml", "--out", "out", "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert abs(said["runs"]["measured"]["errors"]["e2e"]["mean"]) < 1e-3
    assert {
        "measured.png",
        "measured.svg",
        "measured.csv",
        "validation.json",
        "regimes.csv",
        "bars.csv",
    } <= {path.name for path in Path("out").iterdir()}
    assert Result.load("out/measured_simulated").summary["completed"] == 60
    assert said["fitted_to"] == ["measured"]  # and so no bar applies
    assert main(["report", "out"]) == 0
    assert "The calibration was fitted to measured" in Path("out/report.html").read_text(
        encoding="utf-8"
    )


def test_compare_simulate_and_capacity_take_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    few = ["--step-time", "vllm-cpu", "--rate", "2", "--num-requests", "20", "--out", "out"]
    assert main(["simulate", "azure-conv", *few]) == 0
    meta = Result.load("out").meta
    assert meta["step_time"]["calibration"] == "vllm-cpu"
    assert meta["config"]["step_time"] == meta["step_time"]
    Path("study.toml").write_text('[step_time]\nname = "linear"\nbase_s = 1.0\n')
    assert main(["simulate", "azure-conv", "--config", "study.toml", *few, "--overwrite"]) == 0
    for command in (["compare"], ["capacity"], ["simulate", "azure-conv"]):
        assert main([*command, "--step-time", "nothing.toml"]) == 2
        assert "'nothing.toml' is not a calibration's file or name" in capsys.readouterr().err


def test_a_configuration_names_its_calibration_beside_itself(tmp_path):
    from busdoor.config import load_config

    (tmp_path / "mine.toml").write_text('[step_time]\nname = "calibrated"\nbase_s = 0.5\n')
    (tmp_path / "study.toml").write_text('[step_time]\nname = "calibrated"\npath = "mine.toml"\n')
    config = load_config(tmp_path / "study.toml")
    assert config.step_time == CalibratedStepTime(base_s=0.5)
    assert type(config).from_table(config.to_dict()) == config


@pytest.mark.parametrize("command", ["calibrate", "validate"])
def test_nothing_measured_is_one_sentence(command, capsys):
    flags = {"calibrate": ["--out", "x.toml"], "validate": ["--step-time", "vllm-cpu"]}[command]
    assert main([command, *flags]) == 2
    assert f"{command} needs something measured" in capsys.readouterr().err
