"""Pages of capacity studies and sweeps: what is in their folders' tables is on the page."""

import json

import pandas as pd
import pytest

from busdoor.cli.report_pages import page_of


@pytest.fixture
def capacity_folder(tmp_path):
    own = {"low": 22.4, "high": 23.0, "binds": "ttft_p99", "reason": ""}
    study = {
        "verdict": "One H100 serves 22.7 requests/s with vllm.",
        "slo_text": "TTFT p99 ≤ 2 s",
        "slo": {"ttft_p99": 2.0},
        "policies": {
            "static": {
                "request_rate": 0.0,
                "low": 0.0,
                "high": 0.0,
                "binds": "",
                "reason": "it <never> keeps it",
            },
            "vllm": {"request_rate": 22.7, **own},
        },
        "num_runs": 40,
        "num_requests": 40_000,
        "replications": 8,
        "config": {"seed": 0},
        "versions": {"busdoor": "0.1.0"},
    }
    (tmp_path / "capacity.json").write_text(json.dumps(study), encoding="utf-8")
    points = {
        "policy": "vllm",
        "request_rate": [20.0, 22.0],
        "num_requests": 1000,
        "target": "ttft_p99",
        "value": [1.0, 1.9],
    }
    pd.DataFrame(points).to_csv(tmp_path / "points.csv", index=False)
    return tmp_path


def test_a_capacity_study_shows_rates_brackets_and_reasons(capacity_folder):
    html = page_of(capacity_folder).html()
    for said in (
        "One H100 serves 22.7 requests/s with vllm.",
        "<td>22.4</td><td>23</td>",
        "it &lt;never&gt; keeps it",
        "<svg",
    ):
        assert said in html
    assert "GPUs for the rate" not in html
    assert "http" not in html


def test_a_plan_for_a_rate_is_shown_where_there_is_one(capacity_folder):
    pd.DataFrame({"policy": ["vllm"], "replicas": [2]}).to_csv(
        capacity_folder / "plan.csv", index=False
    )
    html = page_of(capacity_folder).html()
    assert "GPUs for the rate" in html
    assert '<th scope="row">vllm</th><td>2</td>' in html


def test_the_lowest_rates_and_refused_requests_are_shown_where_there_are_any(capacity_folder):
    file = capacity_folder / "capacity.json"
    study = json.loads(file.read_text())
    assert "meets from" not in page_of(capacity_folder).html()
    study["policies"]["vllm"] |= {"least": 3.85, "least_misses": 3.5}
    file.write_text(json.dumps(study | {"num_refused": 120, "refused_share": 0.2}))
    html = page_of(capacity_folder).html()
    assert "<td>meets from</td><td>to</td>" in html and "<td>3.85</td><td>22.4</td>" in html
    assert "120 requests (20 %) are refused, and are no load" in html


def test_a_sweep_shows_its_points_and_why_some_failed(tmp_path):
    table = {
        "key": ["a", "b"],
        "gpu.name": ["h100", "l40s"],
        "policy": "vllm",
        "status": ["done", "failed"],
        "error": [None, "it does not fit"],
        "output_throughput": [2527.0, None],
    }
    pd.DataFrame(table).to_csv(tmp_path / "sweep.csv", index=False)
    html = page_of(tmp_path).html()
    for said in ("2 points, 1 of them failed", "<td>2,527</td>", "it does not fit (1)", "l40s"):
        assert said in html
    assert '"a"' not in html


def test_a_sweep_names_its_subject_and_its_winner(tmp_path):
    table = {
        "key": list("abcd"),
        "workload.request_rate": [4.0, 4.0, 8.0, 8.0],
        "policy": ["static", "vllm"] * 2,
        "status": "done",
        "output_throughput": [500.0, 800.0, 510.0, 1530.0],
        "p99_e2el_ms": [9e3, 2e3, 19e3, 3e3],
    }
    pd.DataFrame(table).to_csv(tmp_path / "sweep.csv", index=False)
    config = {"workload": {"name": "azure-code"}, "gpu": {"name": "l40s"}, "seed": 7}
    (tmp_path / "sweep.json").write_text(json.dumps({"config": config}))
    html = page_of(tmp_path).html()
    for said in (
        "policy? azure-code on l40s with llama-3.1-8b, seed 7",
        "vllm serves 1.6 to 3× the output tokens/s of static in 2 of 2 combinations.",
        "Most output tokens/s: 1,530, with workload.request_rate 8, policy vllm.",
        "Output tokens/s over workload.request_rate",
    ):
        assert said in html
    rows = html[html.index("The points") :]
    assert rows.index("<td>1,530</td>") < rows.index("<td>800</td>") < rows.index("<td>510</td>")


def test_a_folder_of_nothing_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds neither a comparison"):
        page_of(tmp_path)
