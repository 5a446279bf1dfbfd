"""The command line: what it prints, where it writes, what it answers to mistakes."""

import json
import subprocess
import sys

import pandas as pd
import pytest

import busdoor.comparison.experiment
from busdoor.cli import main
from busdoor.results.result import Result

SMALL = """
replications = 2
[workload]
input_tokens = {type = "uniform", low = 10, high = 200}
output_tokens = {type = "exponential", mean = 30, max = 200}
num_requests = 100
request_rate = 5.0
[[policy]]
name = "static"
batch_size = 8
[[policy]]
name = "vllm"
max_num_seqs = 8
[kv]
num_blocks = 1000
[step_time]
name = "linear"
base_s = 0.01
"""
TRACE = "arrival_s,input_tokens,output_tokens\n0.5,100,10\n0,200,20\n1.0,5000,5\n1.5,50,5\n"
ISSUE = """
[policy]
name = "vllm"
max_num_seqs = 16
max_num_batched_tokens = 256
[kv]
num_blocks = 400
max_model_len = 2048
[step_time]
name = "linear"
base_s = 5e-3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(SMALL)
    (tmp_path / "issue.toml").write_text(ISSUE)
    (tmp_path / "trace.csv").write_text(
        TRACE.replace("0.5,100,10\n0,200,20", "0,100,10\n0.5,200,20")
    )
    return tmp_path


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr("busdoor.comparison.folder.save_plots", lambda *arguments: [])


def test_compare_prints_one_line_of_json_to_stdout_and_table_and_verdict_to_stderr(
    folder, no_pictures, capsys
):
    assert main(["compare", "--config", "small.toml", "--json", "--perfetto", "timeline.json"]) == 0
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert lines[0].startswith(
        "workload, 100 requests, 5/s, on h100 with llama-3.1-8b; mean of 2 replications"
    )
    assert any(line.startswith("Continuous batching (vllm) serves") for line in lines)
    assert any(
        line.startswith("offered load  ") for line in lines
    )  # titles do not wrap in 80 columns
    numbers = json.loads(out)
    assert out.count("\n") == 1
    assert list(numbers["policies"]) == list(pd.read_csv("busdoor-compare-001/table.csv")["policy"])
    assert json.loads((folder / "timeline.json").read_text())["traceEvents"]


def test_a_policy_that_does_not_fit_is_left_out_unless_it_was_asked_for(
    folder, no_pictures, capsys
):
    """A calibration brings the measured memory, less than orca reserves for one request."""
    job = [
        "compare",
        "--step-time",
        "vllm-cpu",
        "--rate",
        "0.5",
        "--num-requests",
        "60",
        "--replications",
        "2",
    ]
    assert main(job) == 0
    out, err = capsys.readouterr()
    assert err.startswith("Left out: orca. Orca's reservation") and "vllm" in out
    assert main([*job, "--policy", "orca", "--policy", "vllm"]) == 2
    assert "orca's reservation" in capsys.readouterr().err


def test_every_run_has_a_fresh_folder_unless_told_where(folder, no_pictures, capsys):
    for _ in range(2):
        main(["compare", "--config", "small.toml", "--replications", "1"])
    main(["compare", "--config", "small.toml", "--replications", "1", "--out", "here/it/is"])
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == [
        "busdoor-compare-001",
        "busdoor-compare-002",
        "here",
    ]
    assert (folder / "here/it/is/table.csv").exists()


def test_flags_override_the_file(folder, no_pictures, capsys):
    flags = [
        "--policy",
        "vllm,max_num_seqs=4",
        "--policy",
        "orca",
        "--rate",
        "9",
        "--num-requests",
        "50",
        "--seed",
        "3",
    ]
    assert (
        main(
            [
                "compare",
                "--config",
                "small.toml",
                *flags,
                "--timeout",
                "2s",
                "--lookahead",
                "1",
                "--out",
                "o",
            ]
        )
        == 0
    )
    config = json.loads((folder / "o/comparison.json").read_text())["config"]
    assert [(policy["name"], policy["max_num_seqs"]) for policy in config["policy"]] == [
        ("vllm", 4),
        ("orca", 1024),
    ]
    workload = config["workload"]
    assert (workload["request_rate"], workload["num_requests"], workload["timeout_s"]) == (
        9.0,
        50,
        2.0,
    )
    assert (config["seed"], config["lookahead"], config["replications"]) == (3, 1, 2)


def test_an_interrupted_comparison_keeps_what_it_has(folder, no_pictures, monkeypatch, capsys):
    calls = iter(range(1000))
    run = busdoor.comparison.experiment.run

    def interrupted(config, policy, *arguments, **options):
        if policy.label == "vllm" and options.get("iterations", True) and next(calls) == 1:
            raise KeyboardInterrupt
        return run(config, policy, *arguments, **options)

    monkeypatch.setattr(busdoor.comparison.experiment, "run", interrupted)
    assert main(["compare", "--config", "small.toml", "--out", "o"]) == 130
    assert (
        "Interrupted: this is the mean of the 1 of 2 replications that every row had run.\n"
        in capsys.readouterr().out
    )
    assert pd.read_csv("o/replications.csv")["replication"].tolist() == [0, 0]


def test_an_interruption_before_anything_is_done_says_so(folder, monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(busdoor.comparison.experiment, "run", interrupted)
    assert main(["compare", "--config", "small.toml"]) == 130
    assert capsys.readouterr().err == "busdoor: interrupted\n"
    assert not list(folder.glob("busdoor-*"))


def test_simulate_writes_a_row_for_each_row_of_the_trace(folder, capsys):
    assert main(["simulate", "trace.csv", "--config", "issue.toml", "--out", "r", "--json"]) == 0
    requests = Result.load("r").requests
    assert requests["input_tokens"].tolist() == [100, 200, 5000, 50]
    assert requests["status"].tolist() == [
        "finished",
        "finished",
        "refused: 5005 tokens exceed max_model_len 2048",
        "finished",
    ]
    out, err = capsys.readouterr()
    assert "Refused: 1; 5005 tokens exceed max_model_len 2048" in err.splitlines()
    assert json.loads(out)["completed"] == 3


def test_step_by_step_gives_the_same_requests(folder, capsys):
    for name, flags in (("jumps", []), ("steps", ["--step-by-step"])):
        assert main(["simulate", "trace.csv", "--config", "issue.toml", "--out", name, *flags]) == 0
    jumps, steps = (Result.load(name).requests for name in ("jumps", "steps"))
    pd.testing.assert_frame_equal(jumps, steps, rtol=1e-9)


def test_a_saved_result_can_be_run_again_from_its_meta(folder, capsys):
    from busdoor.config import Config
    from busdoor.config.limits import limits_for
    from busdoor.config.run import run

    main(["simulate", "trace.csv", "--config", "issue.toml", "--out", "r"])
    config = Config.from_table(Result.load("r").meta["config"])
    trace = config.workload.trace(config.seed)
    again = run(config, config.policies[0], trace, limits_for(config, [trace]))
    assert again.requests["finish_s"].equals(Result.load("r").requests["finish_s"])


@pytest.mark.parametrize(
    "command", [["simulate", "azure-conv"], ["compare", "--workload", "azure-conv"]]
)
def test_a_prefix_cache_that_can_find_nothing_is_told(folder, no_pictures, capsys, command):
    few = ["--policy", "vllm,prefix_caching=true", "--num-requests", "20"]
    assert (
        main([*command, *few, *(["--replications", "1"] if command[0] == "compare" else [])]) == 0
    )
    told = capsys.readouterr().err
    assert told.startswith(
        "busdoor: vllm: prefix_caching finds only what preempted requests had, as those of azure-conv"
    )


def test_plot_draws_a_saved_result_again(folder, capsys):
    main(["simulate", "trace.csv", "--config", "issue.toml", "--out", "r"])
    capsys.readouterr()
    assert main(["plot", "r", "--out", "pictures"]) == 0
    files = capsys.readouterr().out.split()
    assert len(files) == 10 and all((folder / file).stat().st_size > 1000 for file in files)


def test_demo_tells_the_introductory_scenario(folder, capsys):
    assert main(["demo", "--out", "d"]) == 0
    assert capsys.readouterr().out == (
        "Requests A, B, C and D want 10, 20, 50 and 100 tokens; the server has four slots. A "
        "fifth, E, wants 30.\n\n"
        "Static batching, the bus:\n"
        "  100 iterations x 4 slots = 400 slot-iterations, of which 180 make a wanted token (45 "
        "%).\n"
        "  A has its 10 tokens after iteration 10, but its slot stays taken, idle, for 90 more. "
        "E waits 100 iterations.\n"
        "  With E's own batch of 30 iterations: 210 of 430 slot-iterations that were held are "
        "useful (49 %).\n"
        "Continuous batching, the door:\n"
        "  A is answered after iteration 10. E enters at iteration 11, which yields its first "
        "token.\n"
        "  E is answered after iteration 40; the last after iteration 100 (static: 130).\n\n"
        "Picture: d/bus-and-door.png, d/bus-and-door.svg\n"
    )


SENTENCES = {
    "compare --rte 3": "Unknown option: --rte. Did you mean --rate?",
    "compare --rate abc": 'Invalid value for --rate: unable to convert "abc" into float.',
    "compare --rate -3": "[workload] request_rate = -3.0: input should be greater than 0",
    "compare --gpu h10": "[gpu] name: 'h10' is not a GPU of the catalogue; did you mean 'h100'? "
    "(known: a10, "
    "a100-40gb, a100-80gb, a10g, a30, a40, b200, b300, gb200, gb300, gh200, h100, ... and 19 more)",
    "compare --workload nosuch.csv": "[workload] path: there is no file nosuch.csv",
    "compare --policy static,foo": "--policy static,foo: 'foo' is no FIELD=VALUE; write it as in "
    "static,batch_size=16",
    "compare --policy static,batch_sze=3": "[policy] batch_sze: unknown; did you mean batch_size?",
    "compare --config no.toml": "no.toml: No such file or directory",
    "simulate": 'Command "simulate" parameter TRACE requires an argument.',
    "simulate trace.csv --config small.toml": "simulate runs one policy, but the configuration "
    "has static, "
    "vllm; choose one, as in --policy vllm",
    "plot nodir": "nodir is not a folder; name one that busdoor compare, capacity or simulate "
    "wrote",
    "plot .": ". holds neither a comparison (comparison.json) nor a capacity study "
    "(capacity.json) nor a long run (hours.csv) nor a result "
    "(meta.json) nor a curve (curve.json) nor a map (map.json)",
}


def test_a_mistyped_command_is_answered_with_the_nearest(capsys):
    assert main(["compre"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith('busdoor: Unknown command "compre". Did you mean "compare"?')
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", SENTENCES)
def test_a_mistake_is_one_sentence_and_exit_code_2(folder, command, capsys):
    assert main(command.split()) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"busdoor: {SENTENCES[command]}\n")


def test_a_bad_row_is_named_by_file_and_line(folder, capsys):
    (folder / "bad.csv").write_text("arrival_s,input_tokens,output_tokens\n0,100,10\n1,0,10\n")
    assert main(["simulate", "bad.csv"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "bad.csv" in err and "line 3" in err


def test_help_and_import_wait_for_nothing_heavy():
    code = (
        "import sys, busdoor; from busdoor.cli import main; main(['--help']);"
        "print(sorted({'numpy', 'pandas', 'matplotlib', 'scipy', 'simpy', 'torch'} & "
        "set(sys.modules)))"
    )
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path), "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(
        name in done.stdout
        for name in ("compare", "simulate", "demo", "plot", "trace", "--version")
    )


def test_the_package_offers_its_names_and_no_others():
    import busdoor

    for name in busdoor.__all__:
        assert getattr(busdoor, name) is not None
    assert callable(busdoor.simulate) and callable(busdoor.compare)
    with pytest.raises(AttributeError, match="module 'busdoor' has no attribute 'compre'"):
        _ = busdoor.compre
