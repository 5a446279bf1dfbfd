"""Capacity of several servers: clusters behind routers, pools, and GPUs side by side."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from busdoor.capacity import Capacity, capacity
from busdoor.capacity.sizing import billed_hours, fixed_fleet, plan_day
from busdoor.cli import main
from busdoor.config import Config
from busdoor.config.limits import limits_for
from busdoor.config.run import run
from busdoor_workloads import Trace

STEP_TIME = {"name": "linear", "base_s": 0.020, "per_request_s": 0.0005, "per_token_s": 1e-4}
CHAT = {
    "name": "chat",
    "input_tokens": 100,
    "output_tokens": {"type": "uniform", "low": 1, "high": 63},
    "arrival": 1.0,
}
POLICY = [{"name": "vllm", "max_num_seqs": 8}]
SHARED: dict[str, Any] = {
    "step_time": STEP_TIME,
    "kv": {"num_blocks": 10_000},
    "replications": 4,
    "num_requests": 200,
    "tolerance": 0.05,
}
POOLS = {
    "link_bytes_per_s": 1e12,
    "pool": [{"role": "prefill"}, {"role": "decode", "replicas": 2}],
}


def of_cluster(cluster: dict[str, Any] | None, load: Any = CHAT, **more: Any) -> Capacity:
    tables = SHARED | more | ({} if cluster is None else {"cluster": cluster})
    return capacity(load, POLICY, "e2e_p99=2.5s", **tables)


def test_round_robin_is_so_many_servers_on_thinned_arrivals() -> None:
    """Every third request goes to the same server, to the last digit."""
    random = np.random.default_rng(0)
    trace = Trace(
        arrival_s=np.cumsum(random.exponential(0.05, 300)),
        input_tokens=random.integers(1, 200, 300),
        output_tokens=random.integers(1, 60, 300),
    )
    tables = {"policy": POLICY, "step_time": STEP_TIME, "kv": {"num_blocks": 10_000}}
    several = Config.from_table({**tables, "cluster": {"replicas": 3, "router": "round_robin"}})
    one = Config.from_table(tables)
    limits = limits_for(several, [trace])
    together = run(several, several.policies[0], trace, limits).requests
    for server in range(3):
        alone = run(one, one.policies[0], trace.select(np.arange(server, 300, 3)), limits)
        own = together[together["replica"] == server].sort_values("request_id")
        apart = alone.requests.sort_values("request_id")
        assert own["finish_s"].to_numpy() == pytest.approx(apart["finish_s"].to_numpy())


def test_the_capacity_of_round_robin_is_that_of_its_servers() -> None:
    """Every second of Poisson arrivals has gaps of an Erlang law, with a cv of 1/sqrt(2)."""
    together = of_cluster({"replicas": 2, "router": "round_robin"}).table.loc["vllm"]
    thinned = {**CHAT, "arrival": {"process": "gamma", "request_rate": 1.0, "cv": 0.5**0.5}}
    alone = of_cluster(None, thinned).table.loc["vllm"]
    assert 2 * alone["low"] <= together["high"] and together["low"] <= 2 * alone["high"]
    assert together["high"] <= 1.15 * together["low"] and alone["high"] <= 1.15 * alone["low"]


def test_a_router_that_sees_queues_serves_more_than_one_that_does_not() -> None:
    least, blind = (
        of_cluster({"replicas": 3, "router": router}, max_doublings=4).table.loc["vllm"]
        for router in ("least_outstanding", "random")
    )
    assert least["low"] > blind["high"]


def test_pools_serve_what_a_sweep_of_rates_finds() -> None:
    """Other draws, in steps of 4 %: the highest rate at which 99 % are within the limit."""
    row = of_cluster(POOLS, max_doublings=2).table.loc["vllm"]
    config = Config.from_table(
        {
            "workload": CHAT,
            "policy": POLICY,
            "cluster": POOLS,
            "seed": 99,
            **{key: SHARED[key] for key in ("step_time", "kv")},
        }
    )
    trace = config.workload.workload.generate(99, num_requests=6_000, request_rate=1.0)
    limits, best = limits_for(config, [trace]), 0.0
    for request_rate in row["low"] * 1.04 ** np.arange(-2, 4):
        scaled = trace.scale_time(1 / request_rate)
        requests = run(config, config.policies[0], scaled, limits, iterations=False).requests
        late = (requests["finish_s"] - requests["arrival_s"]) > 2.5
        best = max(best, request_rate * float(late.mean() <= 0.01))
    assert row["low"] / 1.04 <= best <= row["high"] * 1.04


def test_a_policy_that_cannot_decode_elsewhere_is_told_so() -> None:
    rough = SHARED | {"num_requests": 50, "tolerance": 0.3, "max_doublings": 0}
    table = capacity(CHAT, ["static", *POLICY], "e2e_p99=2.5s", cluster=POOLS, **rough).table
    assert "cannot take in KV" in table.loc["static", "reason"]
    assert table.loc["vllm", "low"] > 0


def test_several_gpus_have_a_row_each_and_their_own_price(tmp_path: Path, capsys: Any) -> None:
    """The model does not fit the T4, which is left out with a note."""
    flags = ["--policy", "vllm,max_num_seqs=8", "--slo", "e2e_p99=60s", "--num-requests", "100"]
    cards = ["--gpu", "h100,price_per_hour=2.5", "--gpu", "t4", "--gpu", "l40s", "--rate", "9"]
    out = [
        "--out",
        str(tmp_path / "out"),
        "--json",
        "--jobs",
        "1",
        "--tolerance",
        "0.2",
        "--replications",
        "3",
    ]
    assert main(["capacity", *flags, *cards, *out]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert list(found["policies"]) == ["h100: vllm", "l40s: vllm"]
    assert found["plan"]["h100: vllm"]["cost_per_hour"] > 0
    assert found["plan"]["l40s: vllm"].get("cost_per_hour") is None
    assert "left out" in said.err and "t4" in said.err


def test_the_plan_of_a_cluster_is_in_clusters() -> None:
    found = of_cluster({"replicas": 2}, max_doublings=0, tolerance=0.2)
    low = float(found.low["vllm"])
    plan: pd.DataFrame = found.plan(1.5 * low)
    assert plan.loc["vllm", ["replicas", "gpus"]].tolist() == [2, 4]
    assert "2 × h100 behind least_outstanding serve" in found.verdict()


def test_a_fleet_that_follows_the_day_is_billed_while_it_starts() -> None:
    """One hour of two servers; ordered 30 min before, and kept where a gap is shorter than that."""
    assert billed_hours([1, 1, 2, 1], 1800) == 5.5
    assert billed_hours([2, 1, 1, 1], 1800) == 5.5  # the day repeats
    assert billed_hours([1, 2, 1, 2], 3600) == 8.0
    hours = plan_day(pd.Series({"vllm": 10.0}), [1.0, 25.0], floor=2)["vllm"]
    assert hours.tolist() == [2.0, 3.0]


def test_a_floor_that_leaves_each_server_too_little_is_no_plan() -> None:
    low, least = pd.Series({"static": 4.0}), pd.Series({"static": 2.0})
    hours = plan_day(low, [0.0, 3.0, 20.0], least, floor=5)["static"]
    assert hours.iloc[[0, 2]].tolist() == [5.0, 5.0] and np.isnan(hours.iloc[1])
    assert np.isnan(fixed_fleet(low, [9.0, 10.0], least, floor=5)["static"])
    assert fixed_fleet(low, [10.0, 10.0], least, floor=5)["static"] == 5.0


def test_the_command_says_what_a_day_costs(tmp_path: Path, capsys: Any) -> None:
    flags = ["--policy", "vllm,max_num_seqs=8", "--slo", "e2e_p99=60s", "--num-requests", "100"]
    day = ["--diurnal", "9,18", "--startup", "30min", "--floor", "1", "--gpu-price", "2"]
    out = ["--out", str(tmp_path / "out"), "--json", "--jobs", "1", "--replications", "3"]
    assert main(["capacity", *flags, *day, *out, "--tolerance", "0.2"]) == 0
    bill = json.loads(capsys.readouterr().out)["day"]["vllm"]
    assert bill["fixed_gpu_hours"] >= bill["gpu_hours"] > 0
    assert bill["cost_per_day"] == pytest.approx(2 * bill["gpu_hours"])
    assert (tmp_path / "out" / "plots" / "day.png").exists()
    assert main(["capacity", "--startup", "5min"]) == 2
    assert "--startup does not apply without --diurnal" in capsys.readouterr().err
    for startup in ("nan", "inf", "-60"):
        assert main(["capacity", "--diurnal", "9,18", f"--startup={startup}"]) == 2
        assert f"--startup {startup}: it must be a finite time" in capsys.readouterr().err


def test_energy_of_a_plan_is_that_of_its_gpus_at_their_load() -> None:
    """Half as much load on twice the servers draws more, as each idles more."""
    found = of_cluster({"replicas": 2}, max_doublings=0, tolerance=0.2)
    row, low = found.table.loc["vllm"], float(found.low["vllm"])
    full = found.plan(low).loc["vllm", "kwh_per_million_output_tokens"]
    watts = 2 * 700 * (0.13 + 0.72 * low / row["saturated_request_rate"])
    assert full == pytest.approx(watts / (low * found.mean_output_tokens) / 3.6)
    assert found.plan(1.01 * low).loc["vllm", "kwh_per_million_output_tokens"] > full
