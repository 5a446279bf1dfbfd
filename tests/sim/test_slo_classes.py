"""SLOs of classes of requests: one reading for every command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from busdoor.capacity import capacity
from busdoor.capacity.estimate import Outcome, readings
from busdoor.capacity.runs import Task, sample
from busdoor.capacity.steady_state import Window
from busdoor.cli import main
from busdoor.config import Config
from busdoor.config.limits import limits_for
from busdoor.config.run import run
from busdoor.metrics.slo import SLO
from busdoor.results.result import Result
from busdoor.results.slo_shares import slo_shares
from busdoor_workloads import Trace

CHAT_FIRST = {
    "e2e_p99": "60s",
    "chat": {"priority": 0, "ttft_p99": "1s"},
    "batch": {"priority": 1, "e2e": "30s", "goodput": 0.9},
}
TABLES = {
    "policy": [{"name": "vllm", "max_num_seqs": 4, "queue": "priority"}],
    "step_time": {"name": "linear", "base_s": 0.02},
    "kv": {"num_blocks": 1000},
}


def trace(n: int = 400) -> Trace:
    """Every second request is of the batch; together they are more than one at a time."""
    random = np.random.default_rng(0)
    return Trace(
        arrival_s=np.cumsum(random.exponential(0.3, n)),
        input_tokens=np.full(n, 20),
        output_tokens=random.integers(10, 80, n),
        priority=np.arange(n) % 2,
    )


def test_a_class_reads_back_as_it_was_written() -> None:
    slo = SLO.from_table(CHAT_FIRST)
    assert [target.key for target in slo.targets] == ["e2e_p99", "chat.ttft_p99", "batch.goodput"]
    assert [target.name for target in slo.targets][1:] == ["chat: TTFT p99", "batch: goodput"]
    assert SLO.from_table(slo.to_dict()) == slo
    assert slo.per_request_s == {"e2e": 60.0}  # goodput counts by the limits of all requests
    odd = SLO.from_table({"x": {"column": "input_tokens", "at_least": 9, "ttft_p99.9": 1.0}})
    assert odd.targets[0].name == "x: TTFT p99.9" and odd.targets[0].share == pytest.approx(0.999)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"ttft_p99": 1.0}, r"\[slo.chat\] says not which requests it is for"),
        ({"column": "colour", "value": 1, "ttft_p99": 1.0}, "one of priority, input_tokens"),
        ({"priority": "high", "ttft_p99": 1.0}, "value = .high.: it must be a whole number"),
        ({"priority": 1}, r"\[slo.chat\] needs limits"),
        ({"priority": 1, "itl_p99": 0.1}, "gaps between tokens"),
        ({"priority": 1, "ttft_p9": 0.1, "speed": 1.0}, r"\[slo.chat\] speed: unknown"),
    ],
)
def test_a_wrong_class_is_one_sentence(table: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SLO.from_table({"chat": table})


def test_shares_and_readings_count_only_the_requests_of_their_class() -> None:
    config, load = Config.from_table({**TABLES, "slo": CHAT_FIRST}), trace()
    limits = limits_for(config, [load])
    result = run(config, config.policies[0], load, limits)
    ttft = result.requests["first_token_s"] - result.requests["arrival_s"]
    chat = load.priority[result.requests["request_id"]] == 0
    shares = slo_shares(result, config.slo)
    assert shares["slo_chat.ttft_p99"] == pytest.approx((ttft[chat] <= 1).mean())
    assert shares["slo_chat.ttft_p99"] > (ttft[~chat] <= 1).mean()  # chat is served first
    seen = sample(Task(config, config.policies[0], load, limits, False))
    whole = readings([seen, seen], config.slo.targets, Window(0, len(load), True))
    of_chat = next(one for one in whole if one.key == "chat.ttft_p99")
    assert of_chat.risks == pytest.approx([(ttft[chat] > 1).mean()] * 2)


def test_a_class_that_no_window_has_leaves_the_answer_open() -> None:
    slo = {"rare": {"priority": 7, "ttft_p99": "1s"}, "none": {"priority": 8, "ttft": "1s"}}
    config, load = Config.from_table({**TABLES, "slo": slo}), trace(50)
    seen = sample(Task(config, config.policies[0], load, limits_for(config, [load]), False))
    found = readings([seen, seen], config.slo.targets, Window(0, 50, True))
    assert [one.outcome for one in found] == [Outcome.OPEN] * 2


def test_capacity_is_limited_by_the_class_that_is_missed_first() -> None:
    """A limit on the batch alone allows more than the same limit on all."""
    more = {key: TABLES[key] for key in ("step_time", "kv")}
    size = {"num_requests": 400, "replications": 4, "tolerance": 0.2, "max_doublings": 1}
    of_all, of_chat = (
        capacity(trace(4000), TABLES["policy"], slo, **more, **size).table.loc["vllm"]
        for slo in ({"ttft_p99": 2.0}, {"chat": {"priority": 0, "ttft_p99": 2.0}})
    )
    assert of_chat["low"] > of_all["high"]


def test_commands_read_classes_from_the_file(tmp_path: Path, capsys: Any) -> None:
    config = tmp_path / "study.toml"
    config.write_text(
        '[workload]\nname = "azure-conv"\nnum_requests = 60\nrequest_rate = 4\n[policy]\n'
        'name = "vllm"\n[slo.long]\ncolumn = "input_tokens"\nat_least = 1000\nttft_p99 = "9s"\n'
    )
    out = tmp_path / "out"
    assert main(["simulate", "azure-conv", "--config", str(config), "--out", str(out)]) == 0
    assert "long: TTFT p99" in capsys.readouterr().out
    assert "slo_classes" in Result.load(out).requests
    command = ["compare", "--config", str(config), "--replications", "2", "--json"]
    assert main([*command, "--out", str(tmp_path / "compared")]) == 0
    assert json.loads(capsys.readouterr().out)
