"""What a notebook shows: tables of results, progress, and sliders."""

import sys
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure

import busdoor
from busdoor import Comparison, Result, compare, find_capacity, profile
from busdoor.calibration import Calibration
from busdoor.comparison.explore import BATCH_SIZES, Scene, explore
from busdoor.html import notebook
from busdoor.sweep import plan, run_sweep

RUN = {"num_requests": 60, "replications": 1}


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare("azure-conv", ["static", "vllm"], request_rate=12, **RUN)


def test_results_are_tables_in_words_and_not_dataclasses(comparison):
    shown = comparison._repr_html_()
    assert "gain over static" in shown and comparison.verdict.split(".")[0] in shown
    for result in (
        comparison.results["vllm"],
        Calibration.load("vllm-cpu"),
        profile("azure-conv").generate(0),
    ):
        html = result._repr_html_()
        assert "<table" in html and "array(" not in html and f"{type(result).__name__}(" not in html


def test_titles_that_are_html_are_escaped():
    assert "<b>x" not in notebook.notebook_html(
        "<b>x", (("<i>",), [("<u>", ["<s>"])]), answer="<b>y"
    ).replace("<p><b>&", "")


class Display:
    """Stands in for IPython's display handle."""

    def __init__(self):
        self.shown = []

    def __call__(self, content, **_):
        self.shown.append(content)
        return self

    update = __call__


@pytest.fixture
def display(monkeypatch) -> Display:
    """Make this process a kernel, in which a bar appears at once."""
    display = Display()
    shell = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    monkeypatch.setattr(notebook, "PATIENCE_S", 0.0)
    monkeypatch.setattr(notebook, "REFRESH_S", 0.0)
    return display


def test_progress_is_drawn_in_a_kernel_and_goes(display):
    compare("azure-conv", ["static", "vllm"], request_rate=12, **RUN)
    assert any("<progress" in one["text/html"] for one in display.shown)
    assert display.shown[-1] == {"text/html": "", "text/plain": ""}


def test_a_report_of_ones_own_takes_its_place(display):
    reported = []
    compare(
        "azure-conv", ["vllm"], request_rate=12, report=lambda *one: reported.append(one), **RUN
    )
    assert reported and not display.shown


def test_without_a_kernel_nothing_is_drawn(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    with notebook.notebook_progress(None) as report:
        assert report is None


def test_a_sweep_has_a_bar_in_a_notebook(display, tmp_path):
    workload = {"name": "azure-conv", "num_requests": 5}
    study = {"workload": workload, "policy": "vllm", "replications": 1, "sweep": {"seed": [1, 2]}}
    assert len(run_sweep(plan(study), tmp_path, jobs=1).table) == 2
    assert "2 of 2 points" in display.shown[-2]["text/html"]
    assert display.shown[-1]["text/html"] == ""


def test_explore_is_a_picture_without_widgets(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    picture = explore()
    assert isinstance(picture, Scene) and picture._repr_html_().startswith("<iframe")
    assert busdoor.explore is explore


def test_explore_follows_its_sliders():
    pytest.importorskip("ipywidgets")
    box = explore()
    controls, picture = box.children[0].children, box.children[1]
    before = picture.value
    controls[2].value = 0.0
    assert picture.value != before and "spread 0" in picture.value


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_equal_lengths_gain_nothing_and_spread_ones_do(batch_size):
    equal, spread = (Scene(8.0, batch_size, cv, "h100", "llama-3.1-8b").gain for cv in (0.0, 2.0))
    assert equal < 1.15 < spread


def test_capacity_shows_its_rates():
    found = find_capacity(
        "azure-conv", ["vllm"], "e2e_p99=60s", num_requests=300, replications=4, tolerance=0.3
    )
    assert "binding" in found._repr_html_() and found.verdict() in found._repr_html_()


def test_a_saved_result_shows_its_numbers(tmp_path, comparison):
    comparison.results["vllm"].save(tmp_path / "run")
    assert "completed" in Result.load(tmp_path / "run")._repr_html_()


def test_figures_are_drawn_where_they_are_told_to(comparison):
    for draw in (comparison.plot, comparison.plot_timeline):
        figure = Figure(layout="constrained")
        assert draw(fig=figure) is figure
        assert figure.axes or figure.subfigs
    ax = Figure().subplots()
    assert comparison.plot_gain(ax=ax) is ax
