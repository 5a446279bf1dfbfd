"""`busdoor trace`: describe, generate, convert and fetch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from busdoor.cli import main
from busdoor.cli.traces.commands import trace as app
from busdoor_workloads.fetch import PUBLIC_TRACES
from busdoor_workloads.formats import read_trace


def run(*tokens: object) -> None:
    command, bound, _ = app.parse_args(
        [str(token) for token in tokens], exit_on_error=False, print_error=False
    )
    command(*bound.args, **bound.kwargs)


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "arrival_s,input_tokens,output_tokens,priority\n0,100,10,1\n1,200,20,1\n3,300,60,1\n"
    )
    return path


def test_describe_prints_tables_and_draws_when_asked(own, tmp_path, capsys):
    run("describe", own, "--out", tmp_path / "pictures")
    printed = capsys.readouterr().out
    for word in ("mine", "3 requests", "input", "E[N] / E[max of b]", "CV of gaps"):
        assert word in printed
    assert (tmp_path / "pictures" / "mine.png").stat().st_size > 10_000


def test_describe_as_json_is_one_line_without_nan(own, capsys):
    run("describe", own, "--json")
    printed = capsys.readouterr().out
    summary = json.loads(
        printed, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON")
    )
    assert printed.count("\n") == 1
    assert summary["output_tokens_mean"] == 30
    assert summary["prefix_block_hit_share"] is None


def test_describe_draws_from_a_profile(capsys):
    run("describe", "azure-conv", "--num-requests", 500, "--json")
    assert json.loads(capsys.readouterr().out)["requests"] == 500


def test_describe_says_what_it_does_not_know(tmp_path, monkeypatch):
    monkeypatch.setenv("BUSDOOR_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="did you mean 'azure-conv'"):
        run("describe", "azure-cnv")
    with pytest.raises(ValueError, match="busdoor trace fetch azure-2023-conv"):
        run("describe", "azure-2023-conv")


def test_describe_reads_a_fetched_trace_and_no_other_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BUSDOOR_CACHE", str(tmp_path))
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374,44\n2023-11-16 "
        "18:15:47.68,1,1\n"
    )
    known = PUBLIC_TRACES["azure-2023-conv"]
    (tmp_path / known.filename).write_text(text)
    with pytest.raises(
        ValueError,
        match=r"is not the published azure-2023-conv.*busdoor trace fetch azure-2023-conv",
    ):
        run("describe", "azure-2023-conv", "--json")
    published = replace(known, sha256=hashlib.sha256(text.encode()).hexdigest())
    monkeypatch.setattr("busdoor_workloads.fetch.PUBLIC_TRACES", {known.name: published})
    run("describe", "azure-2023-conv", "--json")
    assert json.loads(capsys.readouterr().out)["name"] == "azure-2023-conv"


def test_generate_is_seeded_and_takes_a_rate(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(
            "generate",
            "azure-conv",
            "--num-requests",
            2000,
            "--rate",
            4,
            "--seed",
            seed,
            "--out",
            tmp_path / f"{name}.csv",
        )
    files = [(tmp_path / f"{name}.csv").read_bytes() for name in "abc"]
    assert files[0] == files[1] != files[2]
    assert read_trace(tmp_path / "a.csv").request_rate == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize("flags", [("--num-requests", 0), ("--rate", -1)])
def test_generate_refuses_nonsense(tmp_path, flags):
    with pytest.raises(ValueError, match="must be more than 0"):
        run("generate", "azure-conv", *flags, "--out", tmp_path / "t.csv")


def test_convert_there_and_back_and_says_what_is_lost(own, tmp_path, capsys):
    run("convert", own, tmp_path / "m.jsonl", "--to", "mooncake")
    assert "left out, as mooncake files have no place for it: priority" in capsys.readouterr().out
    run("convert", tmp_path / "m.jsonl", tmp_path / "back.csv.gz", "--from", "mooncake")
    back = read_trace(tmp_path / "back.csv.gz")
    assert back.arrival_s.tolist() == [0, 1, 3]
    assert back.input_tokens.tolist() == [100, 200, 300]


def test_convert_any_csv_by_a_column_map(tmp_path, capsys):
    (tmp_path / "log.csv").write_text("ms,prompt,answer\n5000,1,2\nx,3,4\n7000,5,6\n")
    names = {"arrival_s": "ms", "input_tokens": "prompt", "output_tokens": "answer"}
    flags = [token for ours, theirs in names.items() for token in (f"--columns.{ours}", theirs)]
    run(
        "convert",
        tmp_path / "log.csv",
        tmp_path / "t.csv",
        *flags,
        "--time-unit",
        "ms",
        "--skip-bad",
    )
    assert "rows dropped bad: 1" in capsys.readouterr().err
    assert read_trace(tmp_path / "t.csv").arrival_s.tolist() == [0, 2]


def test_a_bad_row_or_format_is_one_sentence(own, tmp_path):
    own.write_text(own.read_text().replace("200", "many"))
    with pytest.raises(
        ValueError, match=r'^mine\.csv line 3: input_tokens is "many"; it must be a whole number'
    ):
        run("convert", own, tmp_path / "t.jsonl")
    with pytest.raises(ValueError, match="did you mean 'mooncake'"):
        run("convert", own, tmp_path / "t.jsonl", "--from", "moncake")


def test_fetch_lists_what_there_is(capsys):
    run("fetch", "--list")
    printed = capsys.readouterr().out
    assert "azure-2023-conv" in printed
    assert "CC-BY-4.0" in printed


def test_fetch_of_an_unknown_name():
    with pytest.raises(ValueError, match="did you mean 'burstgpt-1'"):
        run("fetch", "burstgpt")


CASES = Path(__file__).resolve().parents[1] / "cases"


class TestFlagsThatDoNotApply:
    @pytest.mark.parametrize(
        ("source", "flags", "sentence"),
        [
            (
                CASES / "08-200-requests.csv",
                ("--num-requests", 2),
                "--num-requests is for a profile .*--max-requests",
            ),
            (
                CASES / "08-200-requests.csv",
                ("--model", "GPT-4"),
                r"model \(--model\) applies only to burstgpt",
            ),
            (CASES / "08-200-requests.csv", ("--run", 1), "applies only to vllm"),
            (CASES / "08-200-requests.csv", ("--block-size", 16), "has no hash_ids"),
            (CASES / "08-200-requests.csv", ("--too-long", "clip"), "only with max_total_tokens"),
            (
                "azure-conv",
                ("--time-scale", 2),
                "--time-scale: only for a trace file, which azure-conv is not",
            ),
            (
                "azure-conv",
                ("--columns.input_tokens", "x", "--from", "csv"),
                "--from, --columns: only for a trace file",
            ),
        ],
    )
    def test_describe_refuses_them(self, source, flags, sentence):
        with pytest.raises(ValueError, match=sentence):
            run("describe", source, *flags)

    def test_a_list_of_one(self):
        with pytest.raises(ValueError, match="leave out 'azure-2023-conv', or --list"):
            run("fetch", "azure-2023-conv", "--list")


class TestNotes:
    def test_what_the_file_does_not_say_is_told_on_standard_error(self, capsys):
        run("describe", CASES / "03-epoch-seconds.csv", "--json")
        told = capsys.readouterr()
        assert "busdoor: note: arrival_s counts from 1970" in told.err
        assert json.loads(told.out)["span_s"] > 0

    def test_what_is_rounded_is_told(self, tmp_path, capsys):
        run(
            "convert",
            CASES / "14-written-mooncake.jsonl",
            tmp_path / "t.jsonl",
            "--to",
            "mooncake",
            "--from",
            "mooncake",
        )
        assert (
            "arrivals are written to 0.001 s; the largest change is 0.000468 s"
            in capsys.readouterr().out
        )

    def test_a_known_name_is_the_profile_beside_a_folder_of_that_name(
        self, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "azure-conv").mkdir()
        run("describe", "azure-conv", "--num-requests", 50, "--json")
        told = capsys.readouterr()
        assert json.loads(told.out)["requests"] == 50
        assert "write ./azure-conv" in told.err

    def test_a_name_with_dots_keeps_them(self, tmp_path, capsys):
        path = tmp_path / "llama-3.1-8b.csv"
        path.write_text("arrival_s,input_tokens,output_tokens\n0,1,1\n")
        run("describe", path, "--out", tmp_path / "o")
        assert (tmp_path / "o" / "llama-3.1-8b.png").exists()


class TestEveryCommandReadsWithTheSameFlags:
    COLUMNS = (
        "--columns.arrival_s",
        "ts",
        "--columns.input_tokens",
        "p",
        "--columns.output_tokens",
        "o",
    )

    @pytest.fixture
    def log(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        path = tmp_path / "log.csv"
        path.write_text(
            "ts,p,o\n"
            + "".join(f"{1715299200000 + 250 * i},100,10\n" for i in range(8))
            + "x,1,1\n"
        )
        return path

    @pytest.mark.parametrize(
        "command",
        [
            ("simulate", "LOG"),
            (
                "compare",
                "--workload",
                "LOG",
                "--policy",
                "vllm",
                "--policy",
                "orca",
                "--replications",
                1,
            ),
        ],
    )
    def test_columns_unit_and_bad_rows(self, log, command, capsys):
        tokens = [str(log) if token == "LOG" else str(token) for token in command]
        assert main([*tokens, "--out", "o"]) == 2
        assert "--columns.input_tokens NAME" in capsys.readouterr().err
        assert main([*tokens, *self.COLUMNS, "--time-unit", "ms", "--skip-bad", "--out", "o2"]) == 0
        told = capsys.readouterr()
        assert "counts from 1970" in told.err
        assert "rows dropped bad: 1" in told.err

    def test_a_profile_has_no_columns(self, capsys):
        assert main(["simulate", "azure-conv", *self.COLUMNS]) == 2
        assert "columns: only for a trace file" in capsys.readouterr().err

    def test_an_error_steers_no_terminal(self, tmp_path, capsys):
        path = tmp_path / "a\x1b[2J.csv"
        path.write_text("x,y\n1,2\n")
        assert main(["trace", "describe", str(path)]) == 2
        assert "\x1b" not in capsys.readouterr().err


def test_shared_blocks_of_another_size_hit_the_cache_as_often_as_they_are_shared(tmp_path, capsys):
    file = str(CASES / "04-mooncake-16-token-blocks.jsonl")
    simulated = [
        "simulate",
        file,
        "--policy",
        "vllm,prefix_caching=true",
        "--out",
        str(tmp_path / "o"),
        "--json",
    ]
    assert main(simulated) == 2
    assert "--block-size 16" in capsys.readouterr().err
    assert main([*simulated, "--block-size", "16"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["cached_tokens"] == 144


def test_an_outlier_is_simulated_and_a_clock_since_1970_changes_no_figure(tmp_path, capsys):
    rows = (CASES / "03-epoch-seconds.csv").read_text().splitlines()[1:]
    from_zero = [f"{float(row.split(',')[0]) - 1715299200},{row.split(',', 1)[1]}" for row in rows]
    (tmp_path / "zero.csv").write_text(
        "\n".join(["arrival_s,input_tokens,output_tokens", *from_zero])
    )
    told = []
    for file in (CASES / "03-epoch-seconds.csv", tmp_path / "zero.csv", CASES / "03-outlier.csv"):
        assert (
            main(["simulate", str(file), "--out", str(tmp_path / f"{file.stem}-o"), "--json"]) == 0
        )
        told.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert told[0] == told[1]
    assert told[2]["completed"] == 3


def test_what_cannot_be_written_is_refused_before_anything_is_read(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").touch()
    for arguments, says in (
        (["describe", "azure-conv", "--out", "f"], "f is a file, but a study is a folder"),
        (
            ["generate", "azure-conv", "--out", "missing/t.csv"],
            "--out missing/t.csv: there is no folder missing",
        ),
        (["convert", "nowhere.csv", str(tmp_path)], f"TARGET {tmp_path} is a folder; name a file"),
    ):
        assert main(["trace", *arguments]) == 2
        assert says in capsys.readouterr().err
