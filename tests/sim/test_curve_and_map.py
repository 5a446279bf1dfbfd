"""compare --curve and --map: loads, intervals, where the curves part, and measured points."""

import json
from math import inf, isfinite

import numpy as np
import pandas as pd
import pytest

from busdoor.cli import main
from busdoor.cli.report_pages import page_of
from busdoor.comparison import curve_report, gain_map_report
from busdoor.comparison.api import draws
from busdoor.comparison.curve import CurveExperiment
from busdoor.comparison.gain_map import GainMap, MapExperiment
from busdoor.comparison.gain_map_figure import values
from busdoor.config import Config
from busdoor.core.study_folder import study_folder

TABLES = {
    "workload": {
        "input_tokens": {"type": "uniform", "low": 10, "high": 50},
        "output_tokens": {"type": "exponential", "mean": 20, "max": 200},
        "num_requests": 200,
        "arrival": 6.0,
    },
    "step_time": {"name": "linear", "base_s": 0.01, "per_token_s": 1e-5},
    "kv": {"num_blocks": 4000, "max_model_len": 512},
    "gpu": {"price_per_hour": 3.6},
    "policy": [{"name": "static", "batch_size": 8}, {"name": "vllm", "max_num_seqs": 8}],
    "replications": 3,
}


@pytest.fixture(scope="module")
def curve():
    config = Config.from_table(TABLES)
    experiment = CurveExperiment(config, draws(config), loads=(0.1, 0.3, 0.9))
    experiment.run()
    return experiment.curve()


def test_loads_are_shares_of_what_the_best_continuous_policy_carries(curve):
    assert curve.reference == "vllm"
    assert curve.keeps_up["load"]["vllm"] == 1.0
    assert curve.keeps_up["high"]["static"] < 0.9  # whole batches idle while the longest row runs
    overloaded = curve.points["overloaded"]
    assert overloaded.loc[0.9, "static"] and not overloaded.loc[0.1, "static"]


def test_intervals_are_paired_over_the_same_draws(curve):
    ratios = curve.points["e2e_ratio"]
    own = curve.runs["e2e_s"].xs(0.3, level="load")
    by_hand = np.exp(np.log(own["static"] / own["vllm"]).mean())
    assert ratios.loc[0.3, "static"] == pytest.approx(by_hand)
    assert (curve.points["e2e_ratio_low"] <= ratios).all()
    assert ratios.xs("vllm", level="policy").eq(1.0).all()


def test_cost_is_price_over_tokens(curve):
    points = curve.points
    hours, cost = points["gpu_hours_per_million_tokens"], points["cost_per_million_tokens"]
    assert np.allclose(cost, 3.6 * hours)
    assert cost.loc[0.1, "vllm"] > cost.loc[0.9, "vllm"]  # an idle GPU costs as much


def test_the_curves_part_where_every_higher_load_shows_it(curve):
    longer = curve.partings.loc["static", "longer"]
    own = curve.points["e2e_ratio_low"].xs("static", level="policy")
    assert (own[own.index >= longer] > 1.1).all()


def test_a_burst_has_no_load():
    config = Config.from_table({**TABLES, "workload": {**TABLES["workload"], "arrival": inf}})
    with pytest.raises(ValueError, match="no rate of its own"):
        CurveExperiment(config, draws(config))


def test_too_few_requests_are_named_with_their_field():
    few = {**TABLES["workload"], "num_requests": 1}
    config = Config.from_table({**TABLES, "workload": few, "policy": [{"name": "vllm"}]})
    with pytest.raises(ValueError, match="num_requests is 1; a load takes two"):
        CurveExperiment(config, draws(config))
    with pytest.raises(ValueError, match="num_requests is 1; too few to fill"):
        MapExperiment(config, draws(config)).run()


def test_a_curve_from_one_command_is_read_back_and_shown(tmp_path, capsys):
    out = tmp_path / "curve"
    flags = ["--num-requests", "60", "--replications", "1", "--step-time", "vllm-cpu"]
    policies = ["--policy", "static,batch_size=4", "--policy", "vllm"]
    assert main(["compare", "--curve", *policies, *flags, "--out", str(out), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    again = curve_report.load(out)
    assert again.capacity_rps == pytest.approx(answer["capacity_rps"])
    assert len(answer["points"]) == 2 * 12
    assert page_of(out).html().count("<title>vllm, load") == 4 * 12
    _assert_page_has_the_versions_of(out / "curve.json")


def _assert_page_has_the_versions_of(file):
    """Check that a page names what ran the study, not what reads it."""
    about = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**about, "versions": {"busdoor": "0.0.7"}}), encoding="utf-8")
    assert "<p>busdoor 0.0.7.</p>" in page_of(file.parent).html()


def test_flags_that_do_not_go_together_are_refused(capsys):
    assert main(["compare", "--curve", "--rate", "3"]) == 2
    assert "the loads set the rates" in capsys.readouterr().err
    assert main(["compare", "--measured", "x"]) == 2
    assert "only to --map" in capsys.readouterr().err


@pytest.fixture(scope="module")
def found():
    config = Config.from_table({**TABLES, "replications": 2})
    experiment = MapExperiment(config, draws(config), spreads=(0.0, 0.5, 1.0), batches=(4, 8))
    experiment.run()
    measured = {
        "machine": ["here"], "run": ["burst"], "load": [inf], "batch_size": [8], "spread": [0.5],
        "measured": [2.0], "predicted": [2.1], "error": [0.05], "is_gain": [True],
    }  # fmt: skip
    return experiment.map(pd.DataFrame(measured))


def test_the_gain_grows_with_the_spread(found):
    assert isinstance(found, GainMap)
    saturated = found.panel(inf)
    assert (saturated.diff(axis=1).iloc[:, 1:].mean() > 0).all()
    assert saturated.loc[8, 0.0] == pytest.approx(1.0, abs=0.2)  # equal answers leave no slot idle


def test_lengths_of_every_spread_are_of_the_same_mean_and_draws():
    config = Config.from_table({**TABLES, "workload": {**TABLES["workload"], "num_requests": 4000}})
    experiment = MapExperiment(config, draws(config))
    tight, wide = (experiment.trace(spread, 0).output_tokens for spread in (0.25, 1.0))
    assert tight.mean() == pytest.approx(experiment.mean, rel=0.05)
    assert wide.std() / wide.mean() == pytest.approx(1.0, rel=0.1)
    assert np.corrcoef(np.argsort(np.argsort(tight)), np.argsort(np.argsort(wide)))[0, 1] > 0.99


def test_a_load_that_static_cannot_carry_has_no_number(found):
    cells = found.cells
    assert cells.loc[cells["overloaded"], "gain"].isna().all()
    assert cells["gain"][~cells["overloaded"]].notna().all()


def test_measured_points_lie_on_the_panel_of_their_load(found):
    assert len(found.measured_at(inf)) == 1 and not len(found.measured_at(0.1))
    assert any("measured 2.00×, predicted 2.10×" in text for _, _, text in values(found, inf))
    assert "lie within 5.0 %" in gain_map_report.verdict(found)


def test_a_map_is_written_read_and_shown(found, tmp_path):
    with study_folder(tmp_path / "map", "map", False) as place:
        folder = gain_map_report.write(found, place)
    again = gain_map_report.load(folder)
    pd.testing.assert_frame_equal(again.cells, found.cells)
    assert "batch size 8, spread 0.5" in page_of(folder).html()
    assert isfinite(again.measured["error"].iloc[0])
    _assert_page_has_the_versions_of(folder / "map.json")
