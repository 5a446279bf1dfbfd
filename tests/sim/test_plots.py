"""What the figures show is what the tables say."""

import itertools
import subprocess
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from busdoor.plots import (
    identity,
    plot_bus_and_door,
    plot_compare,
    plot_gain,
    plot_kv,
    plot_latency_cdf,
    plot_latency_throughput,
    plot_occupancy,
    plot_timeline,
    plot_waste,
    save_figure,
)
from busdoor.plots.accounts import bubble_share, kv_account, slot_account
from busdoor.plots.occupancy import MAX_STEPS, steps
from busdoor.plots.phases import stay_phases
from busdoor.plots.runs import IterationClock
from busdoor.plots.timeline import BAR_HEIGHT, MAX_STAYS

mpl.use("Agg")
BUILT_IN = ["static", "dynamic", "orca", "vllm", "prefill_first", "tgi", "trtllm"]
MIXED = [(30, 12), (60, 3), (10, 40), (25, 7), (80, 1), (5, 22), (44, 9)]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


LENGTHS = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 30)), min_size=1, max_size=12)


def rectangles(ax, kind):
    """The rectangles of a kind of piece, shape (n, 5, 2): corners, the first one again at the end."""
    (patch,) = [p for p in ax.patches if p.get_label() == kind]
    return patch.get_path().vertices.reshape(-1, 5, 2)


def area(ax, kind):
    """Slots times seconds that a kind of piece covers."""
    return np.ptp(rectangles(ax, kind), axis=1).prod(axis=1).sum() / BAR_HEIGHT


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
        for name in BUILT_IN[2:]:
            assert identity(name)["linestyle"] != "-"
            assert identity(name)["marker"] not in "sD"

    def test_no_two_policies_share_colour_marker_or_line(self):
        for key in ("color", "marker"):
            assert len({identity(name)[key] for name in BUILT_IN}) == len(BUILT_IN)
        assert len({str(identity(name)["linestyle"]) for name in BUILT_IN[2:]}) == len(BUILT_IN) - 2

    def test_underscores_do_not_matter(self):
        assert identity("prefillfirst")["color"] == identity("prefill_first")["color"] != identity("other")["color"]

    def test_a_policy_of_the_users_own_is_drawn_too(self):
        assert identity("mine")["label"] == "mine"


class TestImport:
    def test_matplotlib_waits_until_something_is_drawn(self):
        code = "import busdoor.plots, busdoor.perfetto, sys; sys.exit('matplotlib' in sys.modules)"
        path = [entry for entry in sys.path if entry]
        assert (
            subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(path)}, check=False).returncode
            == 0
        )


class TestPhases:
    def test_a_row_of_a_batch_released_whole_is_done_when_its_tokens_are(self, intro):
        bus, _ = intro
        phases = stay_phases(bus).set_index("request_id")
        assert bus.requests["finish_s"].tolist() == pytest.approx([2.0] * 4)  # nobody is answered before the end
        assert phases["done_s"].tolist() == pytest.approx([0.2, 0.4, 1.0, 2.0])

    def test_a_streamed_batch_gives_the_same_phases(self, toy_run):
        whole, streamed = (toy_run(MIXED, 3, bus=True, per_token_s=1e-3, release=r) for r in ("batch", "request"))
        columns = ["enter_s", "prefill_end_s", "done_s", "leave_s"]
        pd.testing.assert_frame_equal(stay_phases(whole)[columns], stay_phases(streamed)[columns])

    def test_nobody_rides_along_behind_a_door(self, toy_run):
        phases = stay_phases(toy_run(MIXED, 3, bus=False, per_token_s=1e-3))
        assert (phases["done_s"] == phases["leave_s"]).all()
        assert (phases["prefill_end_s"] == phases["first_token_s"]).all()

    def test_a_stay_after_a_preemption_prefills_until_that_is_complete(self, toy_run):
        run = toy_run([(10, 20)], 1, bus=False)  # thrown out after 0.1 s, back at 0.2 s
        run.stays = pd.DataFrame(
            {"request_id": 0, "slot": 0, "enter_s": [0.0, 0.2], "leave_s": [0.1, 0.5], "replica": 0}
        )
        run.requests["finish_s"] = 0.5
        rows = [run.iterations.iloc[0].to_dict() | {"start_s": at} for at in (0.0, 0.2)]
        rows[1] |= {"num_first_tokens": 0, "num_resumed": 1}
        run.iterations = pd.DataFrame(rows)
        phases = stay_phases(run)
        assert phases["prefill_end_s"].tolist() == pytest.approx([0.02, 0.22])
        assert phases["done_s"].tolist() == pytest.approx([0.1, 0.5])
        assert phases["ends_request"].tolist() == [False, True]

    @given(lengths=LENGTHS, slots=st.integers(1, 5), bus=st.booleans())
    @settings(max_examples=40, deadline=None)
    def test_phases_are_in_order_and_every_token_has_its_iteration(self, toy_run, lengths, slots, bus):
        run = toy_run(lengths, slots, bus, per_token_s=1e-3)
        phases, clock = stay_phases(run), IterationClock(run.iterations)
        times = phases[["enter_s", "prefill_end_s", "done_s", "leave_s"]].to_numpy()
        assert (np.diff(times, axis=1) >= -1e-12).all()
        wanted = clock.count(phases["done_s"]) - clock.count(phases["enter_s"])
        assert wanted == pytest.approx(phases["output_tokens"].to_numpy())


def parts(**slot_iterations):
    return {"useful": 0, "padding": 0, "stalled": 0, "finished": 0, "empty": 0, **slot_iterations}


class TestAccounts:
    def test_the_introductory_bus(self, intro):
        bus, _ = intro
        assert slot_account(bus) == pytest.approx(parts(useful=180, finished=220))
        assert bubble_share(bus) == pytest.approx(0.55)

    def test_the_introductory_door(self, intro):
        _, door = intro
        assert slot_account(door) == pytest.approx(parts(useful=210, empty=190))
        assert bubble_share(door) == 0

    def test_padding_is_the_share_of_the_longest_prompt_that_was_not_asked_for(self, toy_run):
        run = toy_run([(10, 1), (40, 1)], 2, bus=True)
        assert slot_account(run) == pytest.approx(parts(useful=2 - 30 / 40, padding=30 / 40))

    def test_a_request_left_out_of_an_iteration_is_stalled(self, toy_run):
        run = toy_run([(10, 5), (10, 5)], 2, bus=False)
        run.iterations.loc[1:, ["num_requests", "num_decode_tokens"]] = 1
        assert slot_account(run)["stalled"] == pytest.approx(4)

    @given(lengths=LENGTHS, slots=st.integers(1, 5), bus=st.booleans())
    @settings(max_examples=40, deadline=None)
    def test_parts_add_up_to_slots_times_iterations(self, toy_run, lengths, slots, bus):
        run = toy_run(lengths, slots, bus)
        account = slot_account(run)
        assert sum(account.values()) == pytest.approx(slots * run.iterations["repeat"].sum())
        assert account["useful"] + account["padding"] == pytest.approx(sum(n for _, n in lengths))
        assert min(account.values()) >= -1e-9

    @given(lengths=LENGTHS, slots=st.integers(1, 5), bus=st.booleans())
    @settings(max_examples=40, deadline=None)
    def test_kv_parts_add_up_to_the_cache(self, toy_run, lengths, slots, bus):
        run = toy_run(lengths, slots, bus)
        cache = kv_account(run)
        assert sum(cache.values()) == pytest.approx(run.meta["num_blocks"] * run.meta["block_size"])
        assert cache["unused"] > 0 if bus else cache["unused"] == 0


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
        run = toy_run(MIXED, 3, bus, arrival_s=[0, 0, 0.1, 0.2, 9, 9, 9.2], per_token_s=1e-3)  # idle before 9 s
        ax = plot_timeline(run)
        covered = sum(area(ax, kind) for kind in ("prefill", "decode", "finished", "empty"))
        assert covered == pytest.approx(3 * run.iterations["duration_s"].sum())

    def test_the_door_opens_when_somebody_enters(self, intro):
        for run, moments in zip(intro, ([0.0], [0.0, 0.2]), strict=True):
            (door,) = [line for line in plot_timeline(run).get_lines() if line.get_label() == "door"]
            assert list(door.get_xdata()) == pytest.approx(moments)

    def test_requests_have_letters_while_the_alphabet_lasts(self, intro, toy_run):
        assert {text.get_text() for text in plot_timeline(intro[1]).texts} == set("ABCDE")
        assert not plot_timeline(toy_run(MIXED * 4, 4, bus=False)).texts

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
        assert upper.get_title(loc="right") == "useful share 45%   ·   bubble share 55%"
        assert lower.get_title(loc="right") == "useful share 100%   ·   bubble share 0%"
        assert upper.get_xlim() == lower.get_xlim() == (0.0, pytest.approx(2.0))
        assert not plt.get_fignums()  # a page belongs to the caller, not to pyplot

    def test_the_door_says_how_much_sooner_it_is_done(self, toy_run):
        bus, door = (toy_run([(1, 10), (1, 100), (1, 90), (1, 10)], 2, bus=bus) for bus in (True, False))
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
        assert [t.get_text() for t in ax.get_legend().get_texts()] == ["static: no TPOT (answers come whole)", "vllm"]
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
        table = pd.DataFrame({"start_s": np.cumsum(duration + gap) - duration, "duration_s": duration})
        values = rng.integers(0, 9, rows).astype(float)
        edges_s, heights = steps(table, values)
        assert len(heights) <= MAX_STEPS
        assert (heights * np.diff(edges_s)).sum() == pytest.approx((values * duration).sum())


class TestKv:
    def test_a_stretch_fills_as_its_decodes_write(self, toy_run):
        ax = plot_kv(toy_run([(16, 33)], 1, bus=False))  # 16 + 33 - 1 tokens: the last is never fed back
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
                (b.get_label(), b[0].get_x(), b[0].get_width()) for b in ax.containers if b.get_label().startswith(name)
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
        with pytest.raises(ValueError, match="'seats', which is neither 'slots' nor 'kv'"):
            plot_waste(intro[0], "seats")


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
            {"policy": ["orca", "vllm"] * 2, "name": ["code"] * 2 + ["chat"] * 2, "gain": [1.5, 2, 3, 4]}
        )
        ax = plot_gain(points)
        assert [text.get_text() for text in ax.get_xticklabels()] == ["code", "chat"]
        orca, vllm = ax.get_lines()[:2]
        assert orca.get_linestyle() == "None"
        assert vllm.get_ydata().tolist() == [2, 4]

    def test_gain_shows_theory_and_intervals(self):
        cv = [0.0, 0.5, 1.0]
        columns = {"gain": [1, 1.5, 2], "ci_low": [0.9, 1.4, 1.9], "ci_high": [1.1, 1.6, 2.1], "theory": [1, 1.6, 2.2]}
        ax = plot_gain(pd.DataFrame({"policy": "vllm", "cv": cv, **columns}))
        assert ax.get_lines()[1].get_ydata().tolist() == columns["theory"]
        spans = [path.vertices[:, 1].tolist() for path in ax.collections[0].get_paths()]
        assert spans == [[0.9, 1.1], [1.4, 1.6], [1.9, 2.1]]


class TestNothingToDraw:
    @pytest.mark.parametrize("draw", [plot_timeline, plot_occupancy, plot_kv, plot_waste])
    def test_a_run_without_iterations_is_a_sentence(self, toy_run, draw):
        run = toy_run(MIXED, 3, bus=True)
        run.iterations, run.stays = run.iterations[:0], run.stays[:0]
        with pytest.raises(ValueError, match="no iterations to draw"):
            draw(run)


class TestPage:
    def test_every_policy_is_on_it(self, toy_run):
        figure = plot_compare({"static": toy_run(MIXED, 3, bus=True), "vllm": toy_run(MIXED, 3, bus=False)})
        titles = [ax.get_title(loc="left") for ax in figure.axes]
        assert titles.count("static") == titles.count("vllm") == 3

    def test_the_same_figure_gives_the_same_bytes(self, intro, tmp_path):
        for name in ("one", "two"):
            save_figure(plot_bus_and_door(*intro), tmp_path / name / "hero.v1")
        for suffix in ("png", "svg"):
            first, second = ((tmp_path / name / f"hero.v1.{suffix}").read_bytes() for name in ("one", "two"))
            assert first == second

    def test_any_figure_can_be_saved(self, tmp_path):
        assert [path.exists() for path in save_figure(Figure(), tmp_path / "empty")] == [True, True]
