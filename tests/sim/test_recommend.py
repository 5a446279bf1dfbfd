"""The search for the cheapest servers: against exhaustive search, closed forms, and by its rules."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from busdoor.capacity.estimate import Outcome
from busdoor.cli import main
from busdoor.config import Config
from busdoor.config.recommend import RecommendTable
from busdoor.core.toml import Document
from busdoor.metrics.slo import SLO
from busdoor.recommend import Recommendation, recommend
from busdoor.recommend.command_line import command_line
from busdoor.recommend.data import _front
from busdoor.recommend.race import STAGES, Entry, race
from busdoor.recommend.recommender import Recommender
from busdoor.recommend.space import Candidate, Server, Setup, servers
from busdoor.recommend.table_text import ladder_rows, notes
from busdoor.sweep.task import Record

_PLACE = Path(__file__).parents[2] / "benchmarks" / "recommend.py"
_SPEC = importlib.util.spec_from_file_location("recommend_benchmark", _PLACE)
assert _SPEC is not None and _SPEC.loader is not None
benchmark = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(benchmark)

SMALL = {
    "tp": [1],
    "max_num_seqs": [64],
    "max_num_batched_tokens": [8192],
    "chunked_prefill": [True],
    "router": ["least_outstanding"],
}
EXHAUSTIVE = json.loads(benchmark.FILE.read_text())


@pytest.mark.parametrize("title", list(EXHAUSTIVE)[2::3])  # the benchmark has the others
def test_it_finds_what_exhaustive_search_does_with_few_requests(title: str, tmp_path: Path) -> None:
    """The same servers or within 2 % of their cost, with at most 15 % of the requests."""
    known = EXHAUSTIVE[title]
    made = benchmark.study(*benchmark.cases()[title])
    found = made.run(tmp_path, 1, None, None, overwrite=False, with_ladder=False)
    assert found.winner is not None and found.complete
    assert found.winner.cost_per_hour == pytest.approx(known["cost_per_hour"], rel=0.02)
    assert found.num_requests <= 0.15 * known["num_requests"]


# The race


def entry(name: str, ratios: list[float], allowed: float = 0.01) -> tuple[Entry, list[float]]:
    """Return an entry, and how much of its SLO its replications will use."""
    config = Config.from_table({"policy": "vllm", "slo": {"ttft_p99": 1.0}})
    server = Server(config.to_dict(), config)
    fields = () if name == "plain" else (("max_num_seqs", len(name)),)
    own = Entry(Candidate(server, 1, Setup(fields)), SLO.from_table({"ttft_p99": 1.0}), 1.0, 10.0)
    return own, ratios


def runner(results: dict[Entry, list[float]], spent: list[int]) -> Any:
    """Return what makes runs: a share of late requests that grows with the SLO that is used."""

    def run(entries: Any, stage: Any) -> None:
        for own in entries:
            ratios = (results[own] * 10)[: stage.replications]
            spent.append(len(ratios))
            own.num_requests = 1000 * stage.times
            own.records = [
                Record(
                    "a",
                    {
                        "steady": [1.0],
                        "ttft_p99.risk": (np.full(10, 0.01 * ratio) + np.linspace(-1, 1, 10) * 1e-4)
                        .clip(0)
                        .tolist(),
                        "ttft_p99.value": [ratio],
                        "ttft_p99.ratio": [ratio],
                        "e2e_s": [1.0],
                    },
                )
                for ratio in ratios
            ]
            own.bursts = [Record("b", {"saturated_rps": [2.0]})] * stage.bursts

    return run


def test_hopeless_setups_get_one_run_and_good_ones_as_many_as_a_decision_takes() -> None:
    good, bad = entry("plain", [0.5, 0.52, 0.48]), entry("bad", [9.0])
    spent: list[int] = []
    verdict = race([bad[0], good[0]], runner(dict([good, bad]), spent), lambda own: [])
    assert verdict.outcome is Outcome.MEETS and verdict.best is good[0]
    assert len(bad[0].records) < len(good[0].records) == 8
    lost = entry("bad", [9.0])
    spent.clear()
    assert race([lost[0]], runner(dict([lost]), spent), lambda own: []).outcome is Outcome.MISSES
    assert sum(spent) == 1


def test_a_setup_at_its_limit_stays_undecided_however_long_it_runs() -> None:
    near = entry("plain", [0.8, 1.2])
    spent: list[int] = []
    verdict = race([near[0]], runner(dict([near]), spent), lambda own: [])
    assert verdict.outcome is Outcome.OPEN and len(spent) == len(STAGES)
    assert 0.3 < near[0].confidence < 0.7


def test_what_ties_goes_to_the_engines_own_settings() -> None:
    """Draws cannot tell the first two; the third uses more in every draw."""
    plain, other = entry("plain", [0.51, 0.49, 0.5]), entry("other", [0.49, 0.5, 0.495])
    worse = entry("worse!", [0.71, 0.69, 0.7])
    verdict = race(
        [own for own, _ in (other, plain, worse)],
        runner(dict([plain, other, worse]), []),
        lambda own: [],
    )
    assert verdict.best is plain[0]
    assert plain[0].ties(other[0]) and not plain[0].ties(worse[0])


# What is searched


def test_servers_that_cannot_hold_the_model_are_left_out_with_the_reason() -> None:
    document = Document({"gpu": {"model": "llama-3.1-70b"}, "policy": [{"name": "vllm"}]})
    cards = [{"name": "l4", "price_per_hour": 0.8}, {"name": "h100", "price_per_hour": 4.9}]
    found = servers(document, cards, RecommendTable(tp=(1, 2, 3)))
    assert [one.name for one in found if isinstance(one, Server)] == ["2 × h100"]
    reasons = [one for one in found if isinstance(one, str)]
    assert any("does not fit" in reason for reason in reasons)
    assert any("tp = 3 cannot share out" in reason for reason in reasons)


def test_a_setup_differs_from_the_engines_own_and_has_a_budget_for_its_slots() -> None:
    config = Config.from_table({"policy": "vllm", "kv": {"max_model_len": 4096}})
    axes = RecommendTable(max_num_seqs=(512,), max_num_batched_tokens=(256,))
    setups = list(Server({}, config).setups(axes, shares_blocks=False))
    assert setups[0] == Setup() and len(set(setups)) == len(setups)
    assert not any(dict(own.fields).get("max_num_batched_tokens") == 256 for own in setups)
    assert not any("prefix_caching" in dict(own.fields) for own in setups)
    assert any(
        "prefix_caching" in dict(own.fields) for own in Server({}, config).setups(axes, True)
    )


def test_prefill_apart_is_a_configuration_of_pools() -> None:
    config = Config.from_table({"policy": "vllm"})
    own = Candidate(Server(config.to_dict(), config), 4, Setup(num_prefill=1))
    read = Config.from_table(own.tables)
    assert [(pool.role, pool.replicas) for pool in read.pools] == [("prefill", 1), ("decode", 3)]
    assert own.num_gpus == read.num_gpus == 4


@pytest.mark.parametrize(
    ("engine", "flags"),
    [
        ("vllm", "vllm serve Qwen/Qwen3-14B --tensor-parallel-size 2 --max-num-seqs 64"),
        ("trtllm", "trtllm-serve Qwen/Qwen3-14B --tp_size 2 --max_batch_size 64"),
        ("sglang", "--model-path Qwen/Qwen3-14B --tp-size 2 --max-running-requests 64"),
    ],
)
def test_the_command_line_has_the_flags_of_its_engine(engine: str, flags: str) -> None:
    tables = {"gpu": {"model": "qwen3-14b", "tp": 2}, "engine": {"name": engine}, "policy": "vllm"}
    config = Config.from_table(tables)
    own = Candidate(Server(tables, config), 1, Setup((("max_num_seqs", 64),)))
    assert flags in command_line(own)


def test_the_front_is_what_nothing_beats() -> None:
    table = pd.DataFrame(
        {
            "cost_per_hour": [1.0, 2.0, 2.0, 3.0, 4.0],
            "latency_s": [5.0, 4.0, 3.0, 3.5, 1.0],
            "outcome": ["misses", "meets", "meets", "meets", "meets"],
        }
    )
    assert _front(table) == [False, False, True, False, True]


# The command


@pytest.fixture(scope="module")
def found() -> Recommendation:
    return recommend(
        "azure-conv",
        "ttft_p99=2s",
        request_rate=6.0,
        gpus=[{"name": "l40s", "price_per_hour": 1.0}, {"name": "h100", "price_per_hour": 4.0}],
        recommend=SMALL,
        num_requests=200,
    )


def test_the_winner_is_cheaper_than_the_runner_up_and_static_is_dearer(
    found: Recommendation,
) -> None:
    assert found.winner and found.runner_up
    assert found.winner.cost_per_hour <= found.runner_up.cost_per_hour
    assert found.best(found.winner).candidate.server.name == "l40s"
    static = found.ladder.loc[[name.startswith("static") for name in found.ladder.index]]
    assert not (static["cost_per_hour"] < found.winner.cost_per_hour).any()
    said = found.verdict()
    assert "l40s" in said and "Next is 1 × h100" in said and "static batching" in said
    assert "TPOT was 6.5 % off" in found.unchecked


def test_the_models_error_is_counted_beside_the_race(found: Recommendation) -> None:
    sure = found.certainty
    assert set(sure["missed"]) == {"ttft_p99", "stability"}
    assert set(sure["half_widths"]) == {"sampling", "calibration", "model"}
    assert "P(TTFT p99 > 2 s)" in sure["text"] and "by source: sampling" in sure["text"]
    assert found.winner and 0 < sure["chance"] <= 1 and sure["servers"] >= found.winner.replicas
    assert any(sure["text"] in line for line in notes(found))
    rows = dict(ladder_rows(found.ladder, found.winner_row))
    assert rows["recommended"] == rows["vllm"] and rows["recommended"][2] == "2.00"
    # with the engine's settings, the ladder's vllm is the recommended server
    assert found.ladder.loc["vllm", "replicas"] == found.winner.replicas


def test_servers_are_chosen_and_sized_for_a_confidence(tmp_path: Path) -> None:
    """Three cheap servers for the confidence cost more than the dearer one, which is sure alone."""
    cards = [{"name": "l40s", "price_per_hour": 1.0}, {"name": "h100", "price_per_hour": 2.5}]
    tables = {"workload": {"name": "azure-conv"}, "slo": {"ttft_p99": "2s"}}
    document = Document({**tables, "recommend": {**SMALL, "confidence": 0.97}})
    made = Recommender(document, cards, 6.0, num_requests=200)
    assert made.sure.confidence == 0.97
    numbers = {"l40s": 3, "h100": 1}
    made.sure.servers = lambda own: numbers[own.server.name]  # type: ignore[method-assign]
    made.sure.to_dict = lambda own, slo: {"text": own.title}  # type: ignore[method-assign]
    sized = made.run(tmp_path, 1, None, None, False, with_ladder=False)
    assert sized.winner is not None and sized.runner_up is not None
    titles = [sized.best(place).candidate.title for place in (sized.winner, sized.runner_up)]
    assert titles == ["1 × h100", "3 × l40s"] and notes(sized)[1] == "1 × h100"
    assert "sized for a confidence of 97 %" in sized.verdict()
    numbers["l40s"] = 0
    made.interrupted = False
    again = made.run(tmp_path, 1, None, None, False, with_ladder=False)
    assert any("l40s, of which no number is sure enough" in line for line in again.left_out)
    with pytest.raises(ValueError, match="confidence is 95; it must be between 0 and 1"):
        Recommender(document, cards, 6.0, confidence=95)


def test_a_search_goes_on_in_its_folder_and_only_there(tmp_path: Path, capsys: Any) -> None:
    config = tmp_path / "study.toml"
    config.write_text(
        '[slo]\nttft_p99 = "2s"\n[workload]\nname = "azure-conv"\nrequest_rate = 3\n'
        '[recommend]\ngpu = ["l40s"]\ntp = [1]\nmax_num_seqs = [64]\n'
        "max_num_batched_tokens = [8192]\nchunked_prefill = [true]\n"
    )
    out = tmp_path / "out"
    command = ["recommend", "--config", str(config), "--jobs", "1", "--out", str(out), "--json"]
    command.append("--no-ladder")
    assert main([*command, "--budget", "1ms"]) == 0
    early = json.loads(capsys.readouterr().out)
    assert not early["complete"] and "ended early" in early["verdict"]
    assert main(command) == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole["complete"] and whole["winner"]["servers"] == "1 × l40s"
    kept = {file.name: file.stat().st_mtime_ns for file in (out / "points").iterdir()}
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["winner"] == whole["winner"]
    assert kept == {file.name: file.stat().st_mtime_ns for file in (out / "points").iterdir()}
    assert main([*command, "--rate", "4"]) == 2
    assert "holds" in capsys.readouterr().err
    assert main(["report", str(out)]) == 0
    page = (out / "report.html").read_text()
    assert "<title>1 × l40s: 1.86 per hour" in page and "vllm serve" in page


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "--rate is missing"),
        (["--rate", "-1"], "it must be a number of requests/s above 0"),
        (["--rate", "4", "--gpu", "mi300x"], "mi300x has no price in the catalogue"),
        (["--rate", "4", "--gpu", "t4", "--tp", "1"], "does not fit the 13.4 GiB that t4 lends"),
    ],
)
def test_what_is_wrong_is_one_sentence(flags: list[str], sentence: str, capsys: Any) -> None:
    assert main(["recommend", *flags]) == 2
    assert sentence in capsys.readouterr().err


def test_a_cluster_is_what_it_chooses() -> None:
    tables = {"gpu": {"model": "llama-3.1-8b"}, "cluster": {"replicas": 2}}
    with pytest.raises(ValueError, match=r"\[cluster\]: recommend chooses the servers itself"):
        Recommender(Document(tables), ["l40s"], 4.0)
