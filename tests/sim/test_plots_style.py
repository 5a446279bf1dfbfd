"""One look for every figure: identities, curves over many runs, pages and files."""

import subprocess
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from busdoor.plots import (
    identity,
    plot_bus_and_door,
    plot_compare,
    plot_gain,
    plot_latency_throughput,
    save_figure,
)
from busdoor.plots.style import new_figure, styled
from busdoor.plots.timeline import LEGIBLE_STAYS
from busdoor.plots.variants import identities

mpl.use("Agg")
WHOLE = ["static", "dynamic", "multi_bin"]
CONTINUOUS = ["orca", "vllm", "prefill_first", "tgi", "transformers", "trtllm"]
BUILT_IN = WHOLE + CONTINUOUS
MIXED = [(30, 12), (60, 3), (10, 40), (25, 7), (80, 1), (5, 22), (44, 9)]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def lightness(color):
    """CIE L* of a colour."""
    channels = np.array(to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return 116 * (linear @ [0.2126, 0.7152, 0.0722]) ** (1 / 3) - 16


class TestIdentity:
    def test_a_qualified_name_looks_like_its_policy_and_keeps_its_label(self):
        tuned = identity("static (tuned)")
        assert tuned == {**identity("static"), "label": "static (tuned)"}

    def test_policies_differ_in_greyscale(self):
        lights = sorted(lightness(identity(name)["color"]) for name in BUILT_IN)
        assert np.diff(lights).min() > 5

    def test_static_is_solid_and_square_continuous_is_not(self):
        assert identity("static")["linestyle"] == "-"
        assert identity("static")["marker"] == "s"
        for name in CONTINUOUS:
            assert identity(name)["linestyle"] != "-"
            assert identity(name)["marker"] not in "sD"

    def test_no_two_policies_share_colour_marker_or_line(self):
        for key in ("color", "marker"):
            assert len({identity(name)[key] for name in BUILT_IN}) == len(BUILT_IN)
        assert len({str(identity(name)["linestyle"]) for name in CONTINUOUS}) == len(CONTINUOUS)

    def test_underscores_do_not_matter(self):
        assert (
            identity("prefillfirst")["color"]
            == identity("prefill_first")["color"]
            != identity("other")["color"]
        )

    def test_a_policy_of_the_users_own_is_drawn_too(self):
        assert identity("mine")["label"] == "mine"


class TestImport:
    def test_matplotlib_waits_until_something_is_drawn(self):
        code = (
            "import busdoor.plots, busdoor.results.perfetto, sys; sys.exit('matplotlib' in "
            "sys.modules)"
        )
        path = [entry for entry in sys.path if entry]
        assert (
            subprocess.run(
                [sys.executable, "-c", code], env={"PYTHONPATH": ":".join(path)}, check=False
            ).returncode
            == 0
        )


class TestCurves:
    POINTS = pd.DataFrame(
        {
            "policy": ["vllm", "vllm", "static", "static"],
            "request_rate": [2.0, 1.0, 1.0, 2.0],
            "throughput": [400.0, 200.0, 200.0, 250.0],
            "p50": [0.05, 0.03, 0.2, 9.0],
            "ci_low": [0.04, 0.02, 0.1, 7.0],
            "ci_high": [0.06, 0.04, 0.3, 12.0],
        }
    )

    def test_one_line_a_policy_in_order_of_rate(self):
        ax = plot_latency_throughput(self.POINTS, x="throughput")
        lines = {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()}
        assert lines == {"vllm": [[200, 0.03], [400, 0.05]], "static": [[200, 0.2], [250, 9.0]]}
        assert ax.get_ylim() == (0.02, 20)

    def test_a_missing_column_is_named(self):
        with pytest.raises(ValueError, match="lack the column 'p99'"):
            plot_latency_throughput(self.POINTS, value="p99")

    def test_gain_over_named_workloads_has_marks_without_lines(self):
        points = pd.DataFrame(
            {
                "policy": ["orca", "vllm"] * 2,
                "name": ["code"] * 2 + ["chat"] * 2,
                "gain": [1.5, 2, 3, 4],
            }
        )
        ax = plot_gain(points)
        assert [text.get_text() for text in ax.get_xticklabels()] == ["code", "chat"]
        orca, vllm = ax.get_lines()[:2]
        assert orca.get_linestyle() == "None"
        assert vllm.get_ydata().tolist() == [2, 4]

    def test_gain_shows_theory_and_intervals(self):
        cv = [0.0, 0.5, 1.0]
        columns = {
            "gain": [1, 1.5, 2],
            "ci_low": [0.9, 1.4, 1.9],
            "ci_high": [1.1, 1.6, 2.1],
            "theory": [1, 1.6, 2.2],
        }
        ax = plot_gain(pd.DataFrame({"policy": "vllm", "cv": cv, **columns}))
        assert ax.get_lines()[1].get_ydata().tolist() == columns["theory"]
        spans = [path.vertices[:, 1].tolist() for path in ax.collections[0].get_paths()]
        assert spans == [[0.9, 1.1], [1.4, 1.6], [1.9, 2.1]]


class TestPage:
    def test_every_policy_is_on_it(self, toy_run):
        figure = plot_compare(
            {"static": toy_run(MIXED, 3, bus=True), "vllm": toy_run(MIXED, 3, bus=False)}
        )
        titles = [ax.get_title(loc="left") for ax in figure.axes]
        assert titles.count("static") == titles.count("vllm") == 3

    def test_the_same_figure_gives_the_same_bytes(self, intro, tmp_path):
        for name in ("one", "two"):
            save_figure(plot_bus_and_door(*intro), tmp_path / name / "hero.v1")
        for suffix in ("png", "svg"):
            first, second = (
                (tmp_path / name / f"hero.v1.{suffix}").read_bytes() for name in ("one", "two")
            )
            assert first == second

    def test_so_does_a_whole_page_of_panels(self, toy_run, tmp_path):
        runs = {"static": toy_run(MIXED, 3, bus=True), "vllm": toy_run(MIXED, 3, bus=False)}
        one, two = (
            save_figure(plot_compare(runs), tmp_path / name)[1].read_bytes()
            for name in ("one", "two")
        )
        assert one == two

    def test_panels_that_are_compared_have_the_same_axes_and_none_is_empty(self, toy_run):
        runs = {"static": toy_run(MIXED * 9, 6, bus=True), "dynamic": toy_run(MIXED, 3, bus=True)}
        figure = plot_compare(runs)
        for label in ("slot", "in the batch", "waiting", "KV cache (tokens)"):
            panels = [ax for ax in figure.axes if ax.get_ylabel() == label]
            assert len(panels) == 2 and panels[0].get_ylim() == panels[1].get_ylim()
            assert panels[0].get_xlim() == panels[1].get_xlim()
        assert "time per output token" not in " ".join(
            ax.get_xlabel() for ax in figure.axes
        )  # answers come whole

    def test_two_rows_of_one_policy_are_told_apart(self):
        first, second = identities(["static", "static (best batch, 32)"]).values()
        assert first == identity("static")
        assert all(first[key] != second[key] for key in ("color", "marker", "linestyle"))

    def test_timelines_show_the_first_seconds_only(self, toy_run):
        runs = [toy_run(MIXED * 100, 3, bus=bus) for bus in (True, False)]
        figure = plot_bus_and_door(*runs)
        begin_s, end_s = figure.axes[0].get_xlim()
        begun = [
            ((run.stays["enter_s"] >= begin_s) & (run.stays["enter_s"] < end_s)).sum()
            for run in runs
        ]
        assert max(begun) == LEGIBLE_STAYS
        assert not any("sooner" in text.get_text() for ax in figure.axes for text in ax.texts)
        assert " of " in figure.axes[1].get_xlabel()

    def test_any_figure_can_be_saved(self, tmp_path):
        assert [path.exists() for path in save_figure(Figure(), tmp_path / "empty")] == [True, True]


LABELS = ("$\\frac$", "$x$ & y", "a_b^c", "50 $", "\\alpha")


@pytest.mark.parametrize("log", [False, True])
def test_labels_are_shown_as_typed_and_ticks_of_logarithmic_axes_as_text(log, tmp_path):
    @styled
    def drawn():
        figure = new_figure(4, 3)
        ax = figure.subplots()
        for number, label in enumerate(LABELS):
            ax.plot([1, 1e-4 if log else 2], [number + 1, 1000], label=label)
        ax.legend()
        ax.set(
            title="$\\frac$", xscale="log" if log else "linear", yscale="log" if log else "linear"
        )
        return figure

    figure = drawn()
    figure.draw_without_rendering()
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert set(LABELS) <= set(texts)
    assert not any("mathdefault" in text for text in texts)
    assert ("10²" in texts and "10⁻²" in texts) == log
    assert len(save_figure(figure, tmp_path / "f")) == 2
