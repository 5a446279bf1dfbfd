"""The report: one self-contained HTML file that says the results and plays timelines."""

import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from busdoor.cli import main
from busdoor.cli.report_pages import page_of
from busdoor.comparison.api import compare
from busdoor.comparison.comparison import Comparison
from busdoor.comparison.demo import introductory_scenario
from busdoor.comparison.page import comparison_page
from busdoor.html.page import Page
from busdoor.html.palette import at_night
from busdoor.html.sections import timelines
from busdoor.html.svg import figure, inline, thin
from busdoor.html.tables import html_table
from busdoor.html.timeline_frames import (
    MAX_BARS,
    MAX_FRAMES,
    MAX_SLOTS,
    VISIBLE_SLOTS,
    Scene,
    Window,
    bars,
    counters,
)
from busdoor.plots.breakdown import bubble_share
from busdoor.results.page import result_page
from busdoor.results.result import Result

VOID = {"meta", "link", "br", "input", "hr", "img"}
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
# Quiet and alone: no first-run page, no look for updates, nothing that reaches for a network.
QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-extensions", "--disable-dev-shm-usage",
]  # fmt: skip


class Outline(HTMLParser):
    """Reads a page; fails where a tag is not closed in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.ids, self.tags = [], [], []
        self.film, self.words = "", []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing, near {self.getpos()}"

    def handle_data(self, data):
        if self.open[-1:] == ["script"] and '"frames"' in data:
            self.film = json.loads(data)
        elif self.open[-1:] not in (["script"], ["style"]):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def comparison():
    return compare(
        "azure-conv", ["static", "vllm"], request_rate=12, num_requests=300, replications=2
    )


@pytest.fixture(scope="module")
def page(comparison):
    return comparison_page(comparison).html()


@pytest.fixture(scope="module")
def lone_page(comparison):
    """The page of one run, whose trace has the worst of names."""
    result = comparison.results["vllm"]
    nasty = Result(
        result.requests, result.iterations, result.stays, {**result.meta, "trace": "</script><b>&"}
    )
    return result_page(nasty).html()


@pytest.fixture(scope="module")
def demo():
    """The introductory scenario: five requests, four slots, an iteration a second."""
    static, continuous = introductory_scenario()
    return {"static": static, "vllm": continuous}


def demo_page(demo):
    return Page("Demo", "", "", (timelines("The bus and the door", "", demo),))


# -- the file


@pytest.mark.parametrize("kind", ["comparison", "result"])
def test_a_page_is_whole_and_needs_nothing_else(kind, page, lone_page):
    html = page if kind == "comparison" else lone_page
    outline = Outline(html)
    assert "http" not in html
    assert not re.search(r"url\((?!#)|@import|<link|src=", html)
    assert [tag for tag, _ in outline.tags[:2]] == ["html", "head"]
    assert dict(outline.tags[0][1])["lang"] == "en"


def test_names_are_unique_and_what_is_referred_to_is_there(page):
    ids = Outline(page).ids
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([\w-]+)\)", page)) | set(
        re.findall(r'href="#([\w-]+)"', page)
    ) <= set(ids)
    assert set(re.findall(r"var\((--c[0-9a-f]{6})\)", page)) <= set(
        re.findall(r"(--c[0-9a-f]{6}):", page)
    )


def test_pictures_say_what_they_show_and_the_slider_has_a_name(page):
    tags = Outline(page).tags
    for tag, attrs in tags:
        if tag == "svg":
            assert attrs.get("aria-hidden") == "true" or (
                attrs["role"] == "img" and len(attrs["aria-label"]) > 2
            )
        if tag in ("input", "button"):
            assert attrs["aria-label"]
    assert [attrs for tag, attrs in tags if tag == "h1"] == [{}]


def test_a_comparison_says_its_verdict_and_its_numbers(page, comparison):
    text = Outline(page).text
    assert comparison.verdict in text
    assert f"{comparison.gain.loc['vllm', 'over_static']:.2f}×" in text
    for title in (
        "The bus and the door",
        "The numbers",
        "Latency",
        "Words",
        "How to reproduce this",
    ):
        assert title in text


def test_a_page_is_small_enough_to_mail(page):
    assert len(page.encode()) < 3e6


def test_what_a_user_named_cannot_break_the_page(lone_page):
    outline = Outline(lone_page)
    assert "vllm on </script><b>&" in outline.text
    assert "b" not in [tag for tag, _ in outline.tags]


def test_a_run_that_served_nobody_has_a_page_of_its_own(comparison):
    result = comparison.results["vllm"]
    empty = Result(result.requests, result.iterations[:0], result.stays[:0], result.meta)
    section = timelines("Title", "", {"vllm": empty})
    assert "nothing to draw" in section.body


# -- the film


def test_the_film_counts_what_the_results_say(demo):
    window = Window.of([Scene(run) for run in demo.values()])
    assert (window.end_s, window.whole) == (130.0, True)
    bus, door = (counters(Scene(run), window) for run in demo.values())
    at = {second: round(second / window.step_s) for second in (0, 10, 20, 40, 50, 100, 130)}
    assert [bus["answered"][at[s]] for s in (0, 10, 50, 100, 130)] == [0, 0, 0, 4, 5]
    assert [door["answered"][at[s]] for s in (0, 10, 20, 40, 50, 100)] == [0, 1, 2, 3, 4, 5]
    assert [bus["waiting"][at[s]] for s in (0, 10, 100)] == [1, 1, 0]
    assert [door["waiting"][at[s]] for s in (0, 10)] == [1, 0]
    assert (bus["opened"][-1], door["opened"][-1]) == (2, 2)
    assert bus["useful"][at[100]] == 450  # 180 of 400 slot-iterations
    assert door["useful"][-1] == 1000


@pytest.mark.parametrize("policy", ["static", "vllm"])
def test_the_useful_share_of_the_whole_run_is_the_summarys(comparison, policy):
    result = comparison.results[policy]
    scene = Scene(result)
    whole = counters(scene, Window(scene.end_s, 1, scene.used_slots, True))
    assert whole["answered"][-1] == result.summary["completed"]
    assert whole["useful"][-1] / 1000 == pytest.approx(1 - bubble_share(result), abs=5.1e-4)
    assert whole["waiting"][-1] == 0


def test_a_long_run_is_cut_where_bars_would_be_too_fine(comparison):
    scenes = [Scene(comparison.results[name]) for name in ("static", "vllm")]
    window = Window.of(scenes)
    assert window.frames <= MAX_FRAMES
    for scene in scenes:
        shown = np.array(bars(scene, window))
        assert (shown[:, 0] < VISIBLE_SLOTS).sum() <= MAX_BARS
        assert shown[:, 0].max() < scene.rows(window) <= MAX_SLOTS
        assert (np.diff(shown[:, 1:], axis=1) >= 0).all()


def test_refused_and_impatient_requests_do_not_wait_for_ever():
    trace = {"name": "azure-conv", "request_rate": 40.0, "num_requests": 60, "timeout_s": 2.0}
    static = compare(trace, ["static"], replications=1).results["static"]
    scene = Scene(static)
    assert static.summary["num_abandoned"] > 0
    last_s = max(scene.end_s, float(static.requests["arrival_s"].max()) + 2.0)
    assert counters(scene, Window(last_s, 1, scene.used_slots, True))["waiting"] == [0, 0]


# -- the parts


def test_night_is_the_negative_of_day():
    greys = [f"#{level:02x}{level:02x}{level:02x}" for level in range(0, 256, 15)]
    nights = [int(at_night(grey)[1:3], 16) for grey in greys]
    assert nights == sorted(nights, reverse=True)
    assert nights[-1] < 40 < 220 < nights[0]


def test_thinning_a_path_keeps_its_corners():
    staircase = "M 0 0 L 5 0 L 10 0 L 10 0.01 L 10 7 L 20 7"
    assert thin(staircase) == "M0 0 10 0 10 7 20 7"


# -- the command


def test_report_writes_a_page_beside_what_it_tells(tmp_path, capsys):
    Result.example().save(tmp_path / "run")
    assert main(["report", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "run" / "report.html")
    assert "vllm on intro" in (tmp_path / "run" / "report.html").read_text()


def test_report_writes_where_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("busdoor.cli.report_pages.page_of", lambda _: Page("Title", "", "", ()))
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "new" / "page.html")]) == 0
    assert "<h1>Title</h1>" in (tmp_path / "new" / "page.html").read_text()


def test_a_saved_comparison_gives_the_same_page(tmp_path, comparison, page, monkeypatch):
    monkeypatch.setattr("busdoor.comparison.folder.save_plots", lambda *_: [])
    comparison.save(tmp_path)
    assert Comparison.load(tmp_path).to_html(tmp_path / "both.html").read_text() == page
    monkeypatch.setattr("busdoor.cli.report_pages.comparison_page", lambda loaded: loaded.verdict)
    assert page_of(tmp_path) == comparison.verdict


@pytest.mark.parametrize(
    ("folder", "says"),
    [
        ("nowhere", "nowhere is not a folder"),
        (
            ".",
            "neither a comparison (comparison.json) nor a capacity study (capacity.json) nor a "
            "sweep (sweep.csv) nor",
        ),
    ],
)
def test_a_folder_without_anything_to_tell_is_one_sentence(
    tmp_path, capsys, monkeypatch, folder, says
):
    monkeypatch.chdir(tmp_path)
    assert main(["report", folder]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


# -- the browser

# Injected into a copy of the page: it uses the controls as a reader does, and writes down what it
# then reads.
VISITOR = """
<script>
const log = {}, slider = document.getElementById("time"), button = document.getElementById("play");
const read = () => ({
  clock: document.getElementById("clock").value, frame: slider.value, spoken: slider.getAttribute("aria-valuetext"),
  counts: [...document.querySelectorAll(".side")].map((side) => Object.fromEntries(
    [...side.querySelectorAll("[data-count]")].map((each) => [each.dataset.count, each.textContent]))),
  riders: [...document.querySelectorAll(".side")].map((side) =>
    [...side.querySelectorAll(".rider")].map((each) => each.getAttribute("class").split(" ")[1])),
  curtain: document.querySelector(".curtain rect").getAttribute("x"), button: button.getAttribute("aria-label"),
});
const go = (frame) => {
  slider.value = frame;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  return read();
};
const later = (ms) => new Promise((done) => setTimeout(done, ms));
(async () => {
  log.before = read();
  log.seen = FRAMES.map(go);
  go(0);
  button.click();
  log.started = read();
  await later(6000);
  log.playing = read();
  slider.dispatchEvent(new KeyboardEvent("keydown", { key: " ", bubbles: true }));
  log.paused = read();
  await later(1000);
  log.still = read();
  button.click();
  await later(30000);
  log.ended = read();
  const pre = document.createElement("pre");
  pre.id = "log";
  pre.textContent = JSON.stringify(log);
  document.body.append(pre);
})();
</script>
"""


def browse(file, *flags):
    """Load a page in a browser with the fastest clock; return what its scripts made of it."""
    if BROWSER is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    command = [
        BROWSER,
        *QUIET,
        f"--user-data-dir={file.parent / 'profile'}",
        *flags,
        "--dump-dom",
        file.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def visit(page, folder, frames):
    """Let the visitor use the page, and return what it wrote down."""
    file = folder / "page.html"
    file.write_text(
        page.replace("</body>", VISITOR.replace("FRAMES", json.dumps(frames)) + "</body>")
    )
    dom = browse(file, "--virtual-time-budget=60000")
    found = re.search(r'<pre id="log">(.*?)</pre>', dom, re.DOTALL)
    assert found, f"the page's script did not run to its end: {dom[-500:]}"
    return SimpleNamespace(**json.loads(unescape(found[1])))


def test_the_slider_shows_the_introductory_scenario(demo, tmp_path):
    html = demo_page(demo).html()
    film = Outline(html).film
    frames = [round(second / film["step_s"]) for second in (0, 10, 15, 100, 130)]
    log = visit(html, tmp_path, frames)
    start, ten, fifteen, hundred, end = log.seen
    assert [each["clock"] for each in log.seen] == [
        "0.0 s",
        "10.0 s",
        "15.0 s",
        "100.0 s",
        "130.0 s",
    ]
    assert ten["counts"][0] == {
        "answered": "0",
        "useful": "100.0 %",
        "waiting": "1",
        "opened": "1×",
    }
    assert ten["counts"][1] == {
        "answered": "1",
        "useful": "100.0 %",
        "waiting": "0",
        "opened": "2×",
    }
    assert hundred["counts"][0]["answered"] == "4"
    assert hundred["counts"][0]["useful"] == "45.0 %"
    assert end["counts"][1]["answered"] == "5"
    assert start["riders"] == [["prefill"] * 4] * 2
    assert fifteen["riders"] == [["finished", "decode", "decode", "decode"], ["decode"] * 4]
    assert hundred["riders"] == [["prefill", "free", "free", "free"], ["free"] * 4]
    assert "static: 0 answered, useful share 100.0 %; vllm: 1 answered" in ten["spoken"]
    assert log.before["counts"] == end["counts"]


def test_play_runs_to_the_end_and_stops_when_told(page, tmp_path):
    film = Outline(page).film
    log = visit(page, tmp_path, [0, film["frames"] // 2])
    assert (log.started["button"], log.paused["button"], log.ended["button"]) == (
        "Pause",
        "Play",
        "Play",
    )
    assert 0.15 < int(log.playing["frame"]) / film["frames"] < 0.35  # a quarter of its 24 s
    assert log.paused["frame"] == log.still["frame"]
    assert int(log.ended["frame"]) == film["frames"]
    assert log.ended["curtain"] == "100%"
    for picture in (*log.seen, log.playing, log.ended):
        for side, shown in zip(film["sides"], picture["counts"], strict=True):
            frame, useful = int(picture["frame"]), side["useful"][int(picture["frame"])]
            assert shown["answered"] == f"{side['answered'][frame]:,}"
            assert shown["waiting"] == f"{side['waiting'][frame]:,}"
            assert shown["useful"] == ("–" if useful < 0 else f"{useful / 10:.1f} %")


def test_a_phone_scrolls_tables_but_never_the_page(page, tmp_path):
    (tmp_path / "inner.html").write_text(page)
    outer = (
        tmp_path / "outer.html"
    )  # a window is never narrower than 500 pixels, but a frame in it may be
    outer.write_text(
        """<!DOCTYPE html><iframe src="inner.html" style="width: 320px; height: 600px; border: 0"></iframe>
        <pre id="log"></pre><script>addEventListener("load", () => { const root = frames[0].document.documentElement;
        document.getElementById("log").textContent = root.scrollWidth + " of " + root.clientWidth; });</script>"""
    )
    dom = browse(
        outer, "--hide-scrollbars", "--allow-file-access-from-files", "--virtual-time-budget=5000"
    )
    assert '<pre id="log">320 of 320</pre>' in dom


def test_a_sweeps_sliders_show_the_points_of_a_value(tmp_path):
    table = {
        "key": list("abcd"),
        "gpu.name": ["h100", "h100", "l40s", "l40s"],
        "seed": [1, 2, 1, 2],
    }
    pd.DataFrame({**table, "status": "done"}).to_csv(tmp_path / "sweep.csv", index=False)
    user = """<pre id="log"></pre><script>
      const [gpu, seed] = document.querySelectorAll(".sift input"), seen = [];
      const set = (slider, value) => { slider.value = value; slider.dispatchEvent(new Event("input"));
        seen.push([...document.querySelectorAll("tbody tr")].filter((row) => !row.hidden).length - 1); };
      set(gpu, 2); set(seed, 1); set(gpu, 0); set(seed, 0);
      document.getElementById("log").textContent = seen.join(" ") + " " + gpu.max;</script></body>"""
    file = tmp_path / "page.html"
    file.write_text(page_of(tmp_path).html().replace("</body>", user))
    assert '<pre id="log">2 1 2 4 2</pre>' in browse(file, "--virtual-time-budget=5000")


def test_numbers_are_rounded_in_tags_and_never_in_words():
    drawn = (
        '<svg viewBox="0 0 9 9"><g transform="translate(1.23456 2.5)"><text x="0.00001">load '
        "0.60</text></g></svg>"
    )
    element = inline(drawn, "a figure")
    assert "translate(1.23 2.5)" in element and ">load 0.60<" in element


def test_the_best_policys_column_is_marked_for_phones():
    table = html_table([("TTFT", ["4 min", "35 ms"])], ["static", "vllm"], best="vllm")
    assert table.index("35 ms") < table.index("4 min")  # and comes first
    marked = re.findall(r'<(t[hd])[^>]* class="best"[^>]*>(.*?)</t', table)
    assert marked == [("th", "<span>vllm</span>"), ("td", "35 ms")]


def test_points_and_bars_show_their_values_under_the_pointer():
    def draw(ax):
        ax.plot([1, 2, 3], [10, 20, 40], label="vllm")
        ax.axhline(15, label="limit")
        ax.set(xlabel="requests/s", ylabel="ms")

    html = figure(draw, "A curve")
    assert re.findall("<title>(.*?)</title>", html) == [
        "vllm: 1 requests/s; 10 ms",
        "vllm: 2 requests/s; 20 ms",
        "vllm: 3 requests/s; 40 ms",
    ]
    bars = figure(lambda ax: ax.barh(["static", "vllm"], [1.0, 5.25]), "Bars")
    assert re.findall("<title>(.*?)</title>", bars) == ["static: 1", "vllm: 5.25"]
