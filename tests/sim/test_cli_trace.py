"""`busdoor trace`: describe, generate, convert and fetch."""

from __future__ import annotations

import json

import pytest

from busdoor.cli.trace import trace as app
from busdoor_workloads.fetch import PUBLIC_TRACES
from busdoor_workloads.formats import read_trace


def run(*tokens: object) -> None:
    command, bound, _ = app.parse_args([str(token) for token in tokens], exit_on_error=False, print_error=False)
    command(*bound.args, **bound.kwargs)


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("arrival_s,input_tokens,output_tokens,priority\n0,100,10,1\n1,200,20,1\n3,300,60,1\n")
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
    summary = json.loads(printed, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
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


def test_describe_reads_a_fetched_trace(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BUSDOOR_CACHE", str(tmp_path))
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374,44\n2023-11-16 18:15:47.68,1,1\n"
    (tmp_path / PUBLIC_TRACES["azure-2023-conv"].filename).write_text(text)
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
    run("convert", tmp_path / "log.csv", tmp_path / "t.csv", *flags, "--time-unit", "ms", "--skip-bad")
    assert "rows dropped bad: 1" in capsys.readouterr().err
    assert read_trace(tmp_path / "t.csv").arrival_s.tolist() == [0, 2]


def test_a_bad_row_or_format_is_one_sentence(own, tmp_path):
    own.write_text(own.read_text().replace("200", "many"))
    with pytest.raises(ValueError, match=r'^mine\.csv line 3: input_tokens is "many"; it must be a whole number'):
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
