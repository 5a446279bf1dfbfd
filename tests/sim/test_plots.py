"""What the figures show is what the tables say."""

import itertools

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busdoor.plots import (
    plot_bus_and_door,
    plot_kv,
    plot_latency_cdf,
    plot_occupancy,
    plot_timeline,
    plot_waste,
)
from busdoor.plots.breakdown import bubble_share, kv_account, slot_account
from busdoor.plots.occupancy import MAX_STEPS, steps
from busdoor.plots.slot_bars import BAR_HEIGHT
from busdoor.plots.timeline import MAX_STAYS

mpl.use("Agg")
MIXED = [(30, 12), (60, 3), (10, 40), (25, 7), (80, 1), (5, 22), (44, 9)]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


LENGTHS = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 30)), min_size=1, max_size=12)


def rectangles(ax, kind):
    """The rectangles of a kind of piece, shape (n, 5, 2): corners, the first repeated."""
    (patch,) = [p for p in ax.patches if p.get_label() == kind]
    return patch.get_path().vertices.reshape(-1, 5, 2)


def area(ax, kind):
    """Slots times seconds that a kind of piece covers."""
    return np.ptp(rectangles(ax, kind), axis=1).prod(axis=1).sum() / BAR_HEIGHT


class TestTimeline:
    @pytest.mark.parametrize("slots", [4, 16, 64])
    def test_the_hatched_area_is_the_bubble_share(self, toy_run, slots):
        run = toy_run(MIXED * 20, slots, bus=True)
        ax = plot_timeline(run)
        held = sum(area(ax, kind) for kind in ("prefill", "decode", "finished"))
        assert area(ax, "finished") / held == pytest.approx(bubble_share(run))
        hatches = {patch.get_label(): patch.get_hatch() for patch in ax.patches}
        assert hatches["finished"]
        assert not hatches["decode"]

    @pytest.mark.parametrize("bus", [True, False])
    def test_pieces_cover_every_slot_while_iterations_run(self, toy_run, bus):
        run = toy_run(
            MIXED, 3, bus, arrival_s=[0, 0, 0.1, 0.2, 9, 9, 9.2], per_token_s=1e-3
        )  # idle before 9 s
        ax = plot_timeline(run)
        covered = sum(area(ax, kind) for kind in ("prefill", "decode", "finished", "empty"))
        ever_held = run.stays["slot"].max() + 1
        assert covered == pytest.approx(ever_held * run.iterations["duration_s"].sum())

    def test_the_door_opens_when_somebody_enters(self, intro):
        for run, moments in zip(intro, ([0.0], [0.0, 0.2]), strict=True):
            (door,) = [
                line for line in plot_timeline(run).get_lines() if line.get_label() == "door"
            ]
            assert list(door.get_xdata()) == pytest.approx(moments)

    def test_requests_have_letters_while_the_alphabet_lasts(self, intro, toy_run):
        assert {text.get_text() for text in plot_timeline(intro[1]).texts} == set("ABCDE")
        assert not plot_timeline(toy_run(MIXED * 4, 4, bus=False)).texts

    def test_a_window_that_nobody_enters_in_takes_no_room_for_the_door(self, toy_run):
        run = toy_run(MIXED * 4, 4, bus=False)
        last_s = float(run.requests["finish_s"].max())
        ax = plot_timeline(run, window_s=(0.99 * last_s, last_s))
        assert [len(line.get_xdata()) for line in ax.get_lines() if line.get_label() == "door"] == [
            0
        ]
        ax.figure.set_layout_engine("constrained")
        # a layout that collapses warns, and warnings are errors here
        ax.figure.draw_without_rendering()
        assert ax.get_position().height > 0.3

    def test_a_window_says_what_it_leaves_out(self, toy_run):
        run = toy_run(MIXED * 3, 2, bus=False)
        ax = plot_timeline(run, window_s=(0.1, 0.5))
        assert ax.get_xlim() == (0.1, 0.5)
        assert "up to 0.5 of" in ax.get_xlabel()

    def test_a_long_run_stops_where_bars_would_be_too_thin(self, toy_run):
        ax = plot_timeline(toy_run([(1, 3)] * 2100, 4, bus=False))
        for kind in ("prefill", "decode", "empty"):
            assert len(rectangles(ax, kind)) <= MAX_STAYS + 4

    def test_the_callers_axes_and_settings_are_left_alone(self, intro):
        before, (figure, ax) = mpl.rcParams.copy(), plt.subplots()
        assert plot_timeline(intro[0], ax=ax) is ax
        assert figure.axes == [ax]
        assert mpl.rcParams == before

    def test_bus_above_door_below_on_one_time_axis(self, intro):
        figure = plot_bus_and_door(*intro)
        upper, lower = figure.axes
        assert "bus" in upper.get_title(loc="left")
        assert "door" in lower.get_title(loc="left")
        assert upper.get_title(loc="right") == "useful share 45%   ·   idle slot time 55%"
        assert lower.get_title(loc="right") == "useful share 100%   ·   idle slot time 0%"
        assert upper.get_xlim() == lower.get_xlim() == (0.0, pytest.approx(2.0))
        assert not plt.get_fignums()  # a page belongs to the caller, not to pyplot

    def test_the_door_says_how_much_sooner_it_is_done(self, toy_run):
        bus, door = (
            toy_run([(1, 10), (1, 100), (1, 90), (1, 10)], 2, bus=bus) for bus in (True, False)
        )
        words = plot_bus_and_door(bus, door).axes[1].texts
        assert "1.6 s sooner" in words[-1].get_text()  # 190 iterations against 110 (A, C, D)


class TestLatencyCdf:
    def test_the_curve_rises_to_all_requests_at_the_slowest(self, toy_run):
        run = toy_run(MIXED, 3, bus=False)
        (curve, _) = plot_latency_cdf(run, "ttft").get_lines()
        assert curve.get_xdata().max() == pytest.approx(run.requests["first_token_s"].max())
        assert curve.get_ydata()[-1] == 100

    def test_half_of_the_requests_are_at_the_median(self, toy_run):
        run = toy_run(MIXED, 3, bus=False)
        curve = plot_latency_cdf(run, "e2e").get_lines()[0]
        first = np.searchsorted(curve.get_ydata(), 50)
        assert curve.get_xdata()[first] == pytest.approx(run.requests["finish_s"].median())

    def test_a_batch_released_whole_has_no_tpot_and_the_legend_says_so(self, toy_run):
        runs = {"static": toy_run(MIXED, 3, bus=True), "vllm": toy_run(MIXED, 3, bus=False)}
        ax = plot_latency_cdf(runs, "tpot")
        assert [t.get_text() for t in ax.get_legend().get_texts()] == [
            "static: no TPOT (answers come whole)",
            "vllm",
        ]
        assert not len(ax.get_lines()[0].get_xdata())

    def test_runs_of_one_policy_are_numbered(self, toy_run):
        ax = plot_latency_cdf([toy_run(MIXED, 2, bus=False)] * 2)
        assert [line.get_label() for line in ax.get_lines()][:2] == ["vllm", "vllm (2)"]

    def test_an_unknown_metric_is_named_with_those_there_are(self, intro):
        with pytest.raises(ValueError, match="'itl', which is none of ttft, tpot, e2e, normalized"):
            plot_latency_cdf(intro[1], "itl")


class TestOccupancy:
    def test_heights_are_the_requests_in_the_batch(self, intro):
        ax = plot_occupancy(intro[0])
        working, finished = ax.patches
        assert working.get_data().values.tolist() == [4, 4, 3, 2, 1]
        assert finished.get_data().values.tolist() == [4, 4, 4, 4, 4]
        assert working.get_data().edges[[0, -1]] == pytest.approx([0.0, 2.0])

    def test_the_queue_has_its_own_axes_below(self, toy_run):
        ax = plot_occupancy(toy_run(MIXED, 3, bus=True))
        (queue,) = [other for other in ax.figure.axes if other.get_label() == "queue"]
        assert queue.patches[0].get_data().values.max() == 4

    def test_a_pause_is_zero(self):
        table = pd.DataFrame({"start_s": [0.0, 5.0], "duration_s": [1.0, 2.0]})
        edges_s, heights = steps(table, np.array([3.0, 4.0]))
        assert edges_s.tolist() == [0, 1, 5, 7]
        assert heights.tolist() == [3, 0, 4]

    @given(seed=st.integers(0, 100), rows=st.sampled_from([50, 5000]))
    @settings(max_examples=20, deadline=None)
    def test_request_seconds_survive_thinning(self, seed, rows):
        rng = np.random.default_rng(seed)
        duration, gap = rng.exponential(1.0, rows), rng.choice([0.0, 0.5], rows)
        table = pd.DataFrame(
            {"start_s": np.cumsum(duration + gap) - duration, "duration_s": duration}
        )
        values = rng.integers(0, 9, rows).astype(float)
        edges_s, heights = steps(table, values)
        assert len(heights) <= MAX_STEPS
        assert (heights * np.diff(edges_s)).sum() == pytest.approx((values * duration).sum())


class TestKv:
    def test_a_stretch_fills_as_its_decodes_write(self, toy_run):
        ax = plot_kv(
            toy_run([(16, 33)], 1, bus=False)
        )  # 16 + 33 - 1 tokens: the last is never fed back
        used = next(c for c in ax.collections if c.get_label() == "used")
        top = used.get_paths()[0].vertices[:, 1].max()
        assert top == pytest.approx(48, abs=1)

    def test_the_stack_ends_at_what_is_reserved(self, toy_run):
        run = toy_run(MIXED, 3, bus=True)
        top = max(c.get_paths()[0].vertices[:, 1].max() for c in plot_kv(run).collections)
        assert top == pytest.approx(run.iterations["kv_reserved_tokens"].max())

    def test_the_capacity_is_a_line(self, toy_run):
        run = toy_run(MIXED, 3, bus=True)
        (line,) = plot_kv(run).get_lines()
        assert line.get_ydata()[0] == run.meta["num_blocks"] * 16

    def test_a_long_run_is_thinned(self, toy_run):
        ax = plot_kv(toy_run([(20, 3)] * 3000, 4, bus=False))
        assert len(ax.collections[0].get_paths()[0].vertices) < 5000


class TestWaste:
    def test_bars_hang_from_all_there_was_down_to_what_was_useful(self, toy_run):
        runs = {"static": toy_run(MIXED, 3, bus=True), "vllm": toy_run(MIXED, 3, bus=False)}
        ax = plot_waste(runs)
        for name, run in runs.items():
            bars = [
                (b.get_label(), b[0].get_x(), b[0].get_width())
                for b in ax.containers
                if b.get_label().startswith(name)
            ]
            assert bars[0][1] + bars[0][2] == pytest.approx(100)
            for (_, left, _), (_, x, width) in itertools.pairwise(bars):
                assert x + width == pytest.approx(left, abs=0.11)  # a part under 0.05 % is left out
            account = slot_account(run)
            assert bars[-1] == (
                f"{name}: useful",
                pytest.approx(0),
                pytest.approx(100 * account["useful"] / sum(account.values())),
            )

    def test_the_kv_waterfall_ends_with_what_was_used(self, toy_run):
        run = toy_run(MIXED, 3, bus=True)
        cache = kv_account(run)
        last = plot_waste(run, "kv").containers[-1]
        assert last[0].get_width() == pytest.approx(100 * cache["used"] / sum(cache.values()))

    def test_slots_or_kv(self, intro):
        with pytest.raises(ValueError, match="'places', which is neither 'slots' nor 'kv'"):
            plot_waste(intro[0], "places")


class TestNothingToDraw:
    @pytest.mark.parametrize("draw", [plot_timeline, plot_occupancy, plot_kv, plot_waste])
    def test_a_run_without_iterations_is_a_sentence(self, toy_run, draw):
        run = toy_run(MIXED, 3, bus=True)
        run.iterations, run.stays = run.iterations[:0], run.stays[:0]
        with pytest.raises(ValueError, match="no iterations to draw"):
            draw(run)
