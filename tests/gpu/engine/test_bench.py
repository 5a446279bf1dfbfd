"""The benchmark's one command, at toy sizes."""

from __future__ import annotations

import csv
import json
from importlib.util import find_spec

import pytest

torch = pytest.importorskip("torch")

from benchmarks.gpu import engine, hf  # noqa: E402
from benchmarks.gpu.__main__ import main  # noqa: E402
from benchmarks.gpu.engine import nano_vllm_workload  # noqa: E402
from benchmarks.gpu.timing import Deadline  # noqa: E402


def no_constant(name):
    raise AssertionError(f"{name} is no JSON")


def run(tmp_path, capsys, *options):
    main([*options, "--quick", "--device", "cpu", "--csv", str(tmp_path / "rows.csv")])
    printed = json.loads(capsys.readouterr().out.splitlines()[-1], parse_constant=no_constant)
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(printed["kernels"]) + len(printed["engine"])
    return printed, rows


@pytest.fixture
def without_transformers(monkeypatch):
    monkeypatch.setattr(hf, "find_spec", lambda name: None)


def test_it_prints_tables_and_ends_with_a_line_of_json(tmp_path, capsys, without_transformers):
    printed, rows = run(tmp_path, capsys)
    assert {row["table"] for row in rows} == {"kernels", "engine"}
    continuous, static, dataset = printed["engine"][3:6]
    assert continuous["bubbles"] == 0 < static["bubbles"] <= dataset["bubbles"]
    assert continuous["padding"] == 0 < static["padding"]
    assert [row["note"] for row in printed["engine"][6:]] == ["absent: no transformers"] * 2
    assert not printed["stopped"]


def test_a_deadline_stops_it_cleanly_and_keeps_its_rows(tmp_path, capsys, monkeypatch):
    """Here it passes while the first row of the engine is measured."""
    now = [0.0]
    monkeypatch.setattr("benchmarks.gpu.timing.time.monotonic", lambda: now[0])
    measure = engine.time_decode

    def late(*args):
        now[0] = 1e9
        return measure(*args)

    monkeypatch.setattr(engine, "time_decode", late)
    printed, _ = run(tmp_path, capsys)
    assert printed["stopped"] and len(printed["kernels"]) > 5 and len(printed["engine"]) == 1


@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")
def test_transformers_serves_the_same_requests_both_ways():
    trace = nano_vllm_workload(6, 2, 12)
    static, continuous = hf.time_transformers(
        "tiny-qwen3", trace, torch.device("cpu"), 3, Deadline()
    )
    assert static.note == continuous.note == ""
    assert static.tokens_per_s > 0 and continuous.tokens_per_s > 0
    outputs = trace.output_tokens.tolist()
    rows = 3 * (max(outputs[:3]) + max(outputs[3:]))
    assert static.bubbles == pytest.approx(1 - sum(outputs) / rows)


def test_what_breaks_in_transformers_costs_its_own_row_only(monkeypatch):
    monkeypatch.setattr(hf, "find_spec", lambda name: True)

    def broken(*args):
        raise RuntimeError("no such attention")

    monkeypatch.setattr(hf, "_load", broken)
    rows = list(
        hf.time_transformers(
            "tiny-llama", nano_vllm_workload(2, 2, 3), torch.device("cpu"), 2, Deadline()
        )
    )
    assert [row.note for row in rows] == ["failed: RuntimeError: no such attention"] * 2
