"""Policies side by side: the same draws, table, gain, verdict, and what is saved."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from busdoor import Comparison, compare
from busdoor.comparison.api import draws
from busdoor.comparison.experiment import Experiment
from busdoor.comparison.folder import to_json, to_perfetto
from busdoor.comparison.page import comparison_page
from busdoor.comparison.summary_text import _sure
from busdoor.comparison.table_text import comparison_rows, ladder_rows, ratio
from busdoor.config import Config
from busdoor.config.limits import limits_for
from busdoor.config.run import run
from busdoor.html.sections import kind_of
from busdoor.metrics.saturation import burst_rates, saturated_rates
from busdoor_workloads import Trace

CASES = Path(__file__).parents[1] / "cases"
FAST = {
    "step_time": {"name": "linear", "base_s": 0.01, "per_token_s": 1e-6},
    "kv": {"num_blocks": 2000, "max_model_len": 1024},
}
LAWS = {
    "input_tokens": {"type": "uniform", "low": 10, "high": 200},
    "output_tokens": {"type": "exponential", "mean": 40, "max": 400},
    "num_requests": 300,
    "max_output_tokens": 400,
}
SLOTS = [{"name": "static", "max_num_seqs": 8}, {"name": "vllm", "max_num_seqs": 8}]


@pytest.fixture(scope="module")
def comparison():
    return compare(
        {**LAWS, "arrival": 6.0}, SLOTS, replications=3, seed=1, slo={"ttft_p99": "5s"}, **FAST,
        gpu_options={"price_per_hour": 2.5},
    )  # fmt: skip


def test_every_policy_has_the_same_draws(comparison):
    static, vllm = (comparison.results[name].requests for name in ("static", "vllm"))
    columns = ["arrival_s", "input_tokens", "output_tokens"]
    pd.testing.assert_frame_equal(static[columns], vllm[columns])
    tokens = comparison.summaries["total_output_tokens"]
    assert tokens["static"].tolist() == tokens["vllm"].tolist()
    assert len(set(tokens["vllm"])) == 3  # and the replications differ


def test_the_same_seed_gives_the_same_numbers(comparison):
    again = compare(
        {**LAWS, "arrival": 6.0}, SLOTS, replications=3, seed=1, slo={"ttft_p99": "5s"}, **FAST,
        gpu_options={"price_per_hour": 2.5},
    )  # fmt: skip
    pd.testing.assert_frame_equal(again.summaries, comparison.summaries)
    pd.testing.assert_frame_equal(again.capacities, comparison.capacities)


def test_fewer_replications_are_the_first_of_more(comparison):
    fewer = compare(
        {**LAWS, "arrival": 6.0}, SLOTS, replications=2, seed=1, slo={"ttft_p99": "5s"}, **FAST
    )
    pd.testing.assert_frame_equal(fewer.summaries, comparison.summaries.query("replication < 2"))


def test_static_is_shown_at_its_best_batch_size_too():
    def tokens_per_s(**fields):
        comparison = compare(
            {**LAWS, "arrival": 6.0}, [{"name": "static", **fields}], replications=1, **FAST
        )
        return comparison, comparison.table["saturated_output_throughput"]

    comparison, tuned = tokens_per_s()
    by_size = {2**power: tokens_per_s(batch_size=2**power)[1]["static"] for power in range(11)}
    best = max(by_size, key=by_size.get)
    assert comparison.policies == ["static", f"static (best batch, {best})"]
    assert tuned.tolist() == [pytest.approx(by_size[best], rel=0.2), by_size[best]]


def test_a_batch_size_that_somebody_chose_is_not_tuned():
    comparison = compare(LAWS, [{"name": "static", "batch_size": 4}], replications=1, **FAST)
    assert comparison.policies == ["static"] and comparison.best_static is None


def test_the_gain_is_the_ratio_of_what_is_carried_at_most(comparison):
    tokens_per_s = comparison.capacities["output_throughput"]
    ratio = np.exp(np.log(tokens_per_s["vllm"] / tokens_per_s["static"]).mean())
    row = comparison.gain.loc["vllm"]
    assert row["over_static"] == pytest.approx(ratio)
    assert row["over_static_low"] < ratio < row["over_static_high"]
    # An iteration costs the same whoever is in it: the gain is E[max of 8] / E[N] (about 2.7 for an
    # exponential law).
    assert ratio == pytest.approx(2.7, rel=0.1)


def test_a_burst_of_identical_requests_gains_nothing():
    workload = {"input_tokens": 32, "output_tokens": 20, "num_requests": 800}
    policies = [{"name": "static", "batch_size": 8}, {"name": "vllm", "max_num_seqs": 8}]
    comparison = compare(workload, policies, replications=1, **FAST)
    assert comparison.gain.loc["vllm", "over_static"] == pytest.approx(1.0, rel=1e-9)


def test_as_many_gpus_as_carry_the_load(comparison):
    table = comparison.table
    carried = table["gpus"] * table["saturated_request_throughput"]
    one_less = (table["gpus"] - 1) * table["saturated_request_throughput"]
    assert (carried >= comparison.request_rate).all() and (one_less < comparison.request_rate).all()
    assert (table["cost_per_hour"] == 2.5 * table["gpus"]).all()


def test_intervals_are_paired_with_the_first_policy(comparison):
    own = comparison.intervals.xs("output_throughput", level="metric")
    assert own.loc["static", ["ratio", "ratio_low", "ratio_high"]].tolist() == [1, 1, 1]
    vllm = own.loc["vllm"]
    assert vllm["low"] < vllm["mean"] < vllm["high"]
    assert vllm["difference"] == pytest.approx(own.loc["vllm", "mean"] - own.loc["static", "mean"])


def test_the_verdict_is_in_plain_words(comparison):
    gain, table = comparison.gain.loc["vllm"], comparison.table
    expected = (
        f"Continuous batching (vllm) serves {gain['over_best_static']:.1f}× the tokens of static "
        f"batching at its best "
        f"batch size (95 % interval {gain['over_best_static_low']:.1f} to "
        f"{gain['over_best_static_high']:.1f}), "
        f"{gain['over_static']:.1f}× at its default. "
        f"By throughput, {comparison.request_rate:.3g} requests/s need "
        f"{table.loc['vllm', 'gpus']:.0f} H100 with vllm{_sure(comparison, 'vllm')}, "
        f"{table.loc['static', 'gpus']:.0f} with static{_sure(comparison, 'static')}."
    )
    assert 0.5 < comparison.gpus_suffice["static"] < 1  # draws differ; a linear step time is exact
    assert comparison.verdict.startswith(expected)


def test_promises_are_kept_only_by_whom_99_per_cent_say_so(comparison):
    result = comparison.results["vllm"]
    share = (result.latencies["ttft"] <= 5).sum() / len(result.requests)
    assert comparison.summaries.loc[("vllm", 0), "slo_ttft_p99"] == pytest.approx(share)
    assert comparison.summaries.loc[("vllm", 0), "slo_met"] == (share >= 0.99)


def test_a_trace_of_ones_own_can_be_compared():
    trace = Trace(
        arrival_s=np.arange(50) / 5,
        input_tokens=np.full(50, 20),
        output_tokens=np.arange(50) % 7 + 1,
    )
    comparison = compare(trace, ["vllm"], request_rate=10, replications=2, **FAST)
    first, second = (comparison.summaries.loc[("vllm", i)] for i in (0, 1))
    assert comparison.results["vllm"].requests["arrival_s"].to_numpy() == pytest.approx(
        trace.arrival_s / 2
    )
    assert first["total_output_tokens"] != second["total_output_tokens"]  # rows drawn anew
    assert comparison.best_static is None and "over_best_static" not in comparison.gain
    assert comparison.verdict.startswith("Continuous batching (vllm) serves ")


def test_multi_bin_is_told_and_drawn_as_whole_batches():
    policies = [{"name": name, "batch_size": 8} for name in ("dynamic", "multi_bin")]
    comparison = compare({**LAWS, "arrival": 6.0}, policies, replications=1, **FAST)
    assert comparison.static == "dynamic"
    assert comparison.verdict.startswith("Multi_bin batching serves ")
    assert [ax.get_title(loc="left") for ax in comparison.plot_timeline().axes] == [
        "The bus: dynamic batching",
        "The bus: multi_bin batching",
    ]
    assert [kind_of(run) for run in comparison.bus_and_door.values()] == ["bus", "bus"]


def test_the_door_beside_the_bus_is_the_last_continuous_policy():
    policies = [{"name": "vllm", "max_num_seqs": 8}, {"name": "multi_bin", "batch_size": 8}]
    comparison = compare({**LAWS, "arrival": 6.0}, policies, replications=1, **FAST)
    assert list(comparison.bus_and_door) == ["multi_bin", "vllm"]


def test_saturated_rates_leave_out_filling_and_draining():
    # Ten answers a second, but for a slow start and a long end.
    finish = np.concatenate(
        [np.linspace(50, 100, 50), 100 + np.arange(1, 301) / 10, np.full(10, 500.0)]
    )
    admitted = np.concatenate([np.zeros(50), finish[:310] - 1e-9])
    columns = {
        "arrival_s": 0.0,
        "first_scheduled_s": admitted,
        "finish_s": finish,
        "output_tokens": 7,
        "replica": 0,
    }
    requests = pd.DataFrame({**columns, "status": "finished"})
    rates = saturated_rates(requests, {})
    assert rates["request_throughput"] == pytest.approx(10, rel=0.01)
    assert rates["output_throughput"] == pytest.approx(70, rel=0.01)
    pd.testing.assert_series_equal(burst_rates(requests, {}), rates)
    late = requests.assign(
        arrival_s=np.linspace(0, 120, len(requests))
    )  # some come while rates are counted
    assert burst_rates(late, {}).isna().all()
    late.loc[late["arrival_s"] > 90, "status"] = "refused: too long"
    assert burst_rates(late, {}).notna().all()  # what is refused is no load


@pytest.mark.parametrize(("num_batches", "known"), [(2, False), (3, True)])
def test_saturated_rates_want_three_static_batches(num_batches, known):
    trace = Trace(
        arrival_s=[0.0] * 4 * num_batches,
        input_tokens=[5] * 4 * num_batches,
        output_tokens=[3, 9] * 2 * num_batches,
    )
    table = {"policy": [{"name": "static", "batch_size": 4}], **FAST}
    config = Config.from_table(table)
    summary = run(config, config.policies[0], trace, limits_for(config, [trace])).summary
    assert np.isfinite(summary["saturated_output_throughput"]) == known


def test_an_interrupted_experiment_keeps_what_it_has():
    config = Config.from_table({"workload": LAWS, "policy": SLOTS, "replications": 3, **FAST})

    def interrupt(share, what):
        if what == "replication 2 of 3: vllm":
            raise KeyboardInterrupt

    experiment = Experiment(config, draws(config), interrupt)
    with pytest.raises(KeyboardInterrupt):
        experiment.run()
    comparison = Comparison.of(experiment)
    for rows in (comparison.summaries, comparison.capacities):
        assert rows.groupby("policy", sort=False).size().to_dict() == {
            "static": 1, comparison.best_static: 1, "vllm": 1,
        }  # fmt: skip
    assert np.isfinite(comparison.gain.loc["vllm", "over_static"])
    assert comparison.ladder["factor"].notna().all() and comparison.verdict


def test_interrupted_in_its_first_replication_an_experiment_keeps_the_rows_that_it_had_run():
    config = Config.from_table({"workload": LAWS, "policy": SLOTS, "replications": 3, **FAST})

    def interrupt(share, what):
        if what == "replication 1 of 3: vllm":
            raise KeyboardInterrupt

    experiment = Experiment(config, draws(config), interrupt)
    with pytest.raises(KeyboardInterrupt):
        experiment.run()
    comparison = Comparison.of(experiment)
    assert comparison.policies == ["static", comparison.best_static] == list(comparison.results)
    assert comparison.ladder.empty and comparison.verdict


def test_the_ladder_multiplies_up_to_the_gain(comparison):
    ladder = comparison.ladder
    best = comparison.results[comparison.best_static].meta["num_slots"]
    assert list(ladder.index) == [
        "static",
        f"+ best batch size ({best})",
        "+ finished rows skipped",
        f"orca (oracle), {best} slots",
        f"vllm, {best} slots",
        "vllm",
    ]
    assert ladder["factor"].prod() == pytest.approx(comparison.gain.loc["vllm", "over_static"])
    assert ladder["over_static"].to_numpy() == pytest.approx(ladder["factor"].cumprod().to_numpy())
    tokens_per_s = comparison.capacities["output_throughput"].groupby("policy").mean()
    for rung, policy in (
        ("static", "static"),
        (f"+ best batch size ({best})", comparison.best_static),
        ("vllm", "vllm"),
    ):
        assert ladder.loc[rung, "tokens_per_s"] == pytest.approx(tokens_per_s[policy])


def test_the_gain_and_the_ladder_are_drawn_as_labelled_bars(comparison):
    bars = comparison.plot_gain()
    assert [bar.get_width() for bar in bars.patches] == comparison.gain["over_static"].tolist()
    assert bars.texts[-1].get_text() == ratio(*comparison.gain.loc["vllm"].iloc[:3])
    steps = comparison.plot_ladder()
    assert [bar.get_width() for bar in steps.patches] == comparison.ladder["over_static"].tolist()
    assert f"step: {comparison.ladder['factor'].iloc[-1]:.2f}×" in steps.texts[-1].get_text()


def test_the_page_tells_every_step_of_the_ladder(comparison):
    page = comparison_page(comparison).html()
    assert "What each step is worth" in page
    for title, cells in ladder_rows(comparison):
        assert title in page and all(cell in page for cell in cells)


def test_an_interval_wider_than_its_value_is_called_undecided(comparison):
    wide = comparison.capacities.copy()
    wide.loc[("vllm", 0), "output_throughput"] *= 9
    undecided = replace(comparison, capacities=wide)
    assert "(undecided: 95 % interval" in undecided.verdict
    assert "undecided" in dict(comparison_rows(undecided))["saturated: tokens/s"][-1]
    assert "undecided" not in comparison.verdict


def test_a_step_of_the_ladder_that_loses_is_shown():
    # Where an iteration with a prompt in it costs much, few prompts at a time lose against whole
    # batches of them.
    eager = {"name": "calibrated", "base_s": 0.001, "eager_s": 0.05}
    policies = [{"name": "static", "batch_size": 16}, {"name": "vllm", "max_num_seqs": 16}]
    comparison = compare(
        {**LAWS, "arrival": 6.0}, policies, replications=2, **(FAST | {"step_time": eager})
    )
    steps = comparison.ladder["factor"]
    assert list(steps.index) == [
        "static",
        "+ finished rows skipped",
        "orca (oracle), 16 slots",
        "vllm, 16 slots",
        "vllm",
    ]
    assert steps["orca (oracle), 16 slots"] < 1
    assert (
        f"{steps['orca (oracle), 16 slots']:.2f}×"
        in dict(ladder_rows(comparison))["orca (oracle), 16 slots"][1]
    )


@pytest.mark.parametrize("policies", [["vllm"], ["static"], ["dynamic", "vllm"]])
def test_there_is_no_ladder_without_static_and_vllm(policies):
    limit = {"static": {"batch_size": 8}, "dynamic": {"batch_size": 8}, "vllm": {"max_num_seqs": 8}}
    named = [{"name": name, **limit[name]} for name in policies]
    comparison = compare({**LAWS, "arrival": 6.0}, named, replications=1, **FAST)
    assert comparison.ladder.empty and to_json(comparison)["ladder"] == []


def test_refused_requests_are_counted_and_are_no_load():
    files = [CASES / f"06-{name}.csv" for name in ("fifth-refused", "without-the-refused")]
    with_refused, without = (
        compare(file, ["static", "dynamic", "orca", "vllm"], replications=1) for file in files
    )
    assert (with_refused.summaries["num_refused"] == 120).all() and (
        without.summaries["num_refused"] == 0
    ).all()
    assert not with_refused.summaries["saturated"].any()
    for column, relative in (
        ("offered_load", 0.002),
        ("saturated_output_throughput", 1e-3),
        ("request_throughput", 0.002),
    ):
        expected = without.table[column].to_numpy()
        assert with_refused.table[column].to_numpy() == pytest.approx(
            expected, rel=relative, nan_ok=True
        )
    for column in ("p99_ttft_ms", "num_slots", "kv_wasted_share", "slot_use"):
        expected = without.table[
            column
        ].to_numpy()  # static waits a second longer to learn that no arrival is left
        assert with_refused.table[column].to_numpy() == pytest.approx(
            expected, rel=0.002, nan_ok=True
        )
    assert with_refused.verdict.replace(REFUSED, "") == without.verdict
    assert REFUSED in with_refused.verdict


REFUSED = (
    " 120 of 600 requests are refused, which are no load: 400100 tokens exceed max_model_len 1024."
)


@pytest.fixture(scope="module")
def saved(comparison, tmp_path_factory):
    return comparison.save(tmp_path_factory.mktemp("saved") / "comparison")


def test_the_folder_has_tables_results_and_pictures(saved):
    assert sorted(path.name for path in saved.iterdir()) == [
        "bounds.csv",
        "capacities.csv",
        "chances.csv",
        "comparison.json",
        "forms.csv",
        "gain.csv",
        "intervals.csv",
        "ladder.csv",
        "plots",
        "replications.csv",
        "results",
        "rungs.csv",
        "table.csv",
    ]
    assert sorted(path.name for path in (saved / "plots").iterdir()) == [
        "compare.png",
        "compare.svg",
        "gain.png",
        "gain.svg",
        "ladder.png",
        "ladder.svg",
        "timeline.png",
        "timeline.svg",
    ]


def test_what_is_saved_reads_back(saved, comparison):
    loaded = Comparison.load(saved)
    assert loaded.config == comparison.config
    assert loaded.verdict == comparison.verdict
    pd.testing.assert_frame_equal(loaded.table, comparison.table, check_dtype=False)
    pd.testing.assert_frame_equal(loaded.ladder, comparison.ladder)
    assert list(loaded.results) == comparison.policies == ["static", comparison.best_static, "vllm"]


def test_a_comparison_can_be_repeated_from_what_it_noted(saved, comparison):
    config = Config.from_table(json.loads((saved / "comparison.json").read_text())["config"])
    experiment = Experiment(config, draws(config))
    experiment.run()
    pd.testing.assert_frame_equal(Comparison.of(experiment).summaries, comparison.summaries)


def test_json_has_neither_nan_nor_infinity(comparison):
    assert (
        json.loads(json.dumps(to_json(comparison), allow_nan=False))["results"]
        == comparison.policies
    )


def test_one_timeline_holds_all_policies(comparison, tmp_path):
    to_perfetto(comparison, tmp_path / "all.json")
    events = json.loads((tmp_path / "all.json").read_text())["traceEvents"]
    processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert processes == {
        number: f"{policy}, replica 0" for number, policy in enumerate(comparison.policies)
    }


def test_a_folder_without_a_comparison_is_one_sentence(tmp_path):
    with pytest.raises(ValueError) as error:
        Comparison.load(tmp_path)
    assert str(error.value) == f"{tmp_path} holds no comparison: it has no comparison.json"


def test_a_saved_comparison_of_a_file_is_read_where_the_file_is_not(tmp_path):
    csv = tmp_path / "mine.csv"
    csv.write_text("arrival_s,input_tokens,output_tokens\n0,100,10\n0.5,200,20\n")
    saved = compare(csv, ["vllm"], replications=1).save(tmp_path / "study")
    csv.unlink()
    assert Comparison.load(saved).policies == ["vllm"]
