"""Sliders in a notebook: rate, batch size, spread of lengths, GPU; timelines and gain follow."""

from __future__ import annotations

from functools import lru_cache
from html import escape
from math import sqrt
from typing import Any

import numpy as np

from busdoor.catalog import gpu_names
from busdoor.config import Config
from busdoor.config.limits import limits_for
from busdoor.config.run import run
from busdoor.html.page import Page
from busdoor.html.sections import timelines
from busdoor.metrics.saturation import LEAST_BATCHES, saturated_rates
from busdoor_workloads import Trace, Workload

INPUT_TOKENS, MEAN_OUTPUT_TOKENS, MAX_OUTPUT_TOKENS = 512, 150, 1024
NUM_REQUESTS = 26  # as many as the timelines have letters for
BATCH_SIZES = (2, 4, 8, 16, 32)
HEIGHT_PX = 760  # of a picture of two times four slots with its counters


class Scene:
    """Static and continuous batching in the same slots: two timelines, and the gain.

    `rate` in requests per second, `batch_size` the slots of both, `spread` the standard deviation
    of the output lengths over their mean, `gpu` and `model` names of the catalogue.

    >>> equal, spread = (Scene(8.0, 4, cv, "h100", "llama-3.1-8b").gain for cv in (0.0, 1.5))
    >>> equal < 1.1 < 2 < spread
    True
    """

    def __init__(self, rate: float, batch_size: int, spread: float, gpu: str, model: str) -> None:
        policies = [
            {"name": "static", "batch_size": batch_size},
            {"name": "vllm", "max_num_seqs": batch_size},
        ]
        tables = {"gpu": {"name": gpu, "model": model}, "policy": policies}
        config = Config.from_table(tables)
        shown = _requests(rate, spread, max(NUM_REQUESTS, 3 * batch_size))
        full = _requests(np.inf, spread, (LEAST_BATCHES + 1) * max(batch_size, 8))
        limits = limits_for(config, [shown, full])
        self.runs = {policy.label: run(config, policy, shown, limits) for policy in config.policies}
        bursts = [run(config, policy, full, limits, iterations=False) for policy in config.policies]
        static, continuous = (saturated_rates(one.requests, one.meta) for one in bursts)
        self.gain = float(continuous["output_throughput"] / static["output_throughput"])
        self.title = f"{rate:g} requests/s in {batch_size} slots, spread {spread:g}, on {gpu}"

    def __repr__(self) -> str:
        return f"{self.title}: gain {self.gain:.2f}"

    def _repr_html_(self) -> str:
        words = f"Continuous batching serves {self.gain:.1f}× the tokens in the same slots."
        page = Page(self.title, "", words, (timelines("", "", self.runs),)).html()
        return (
            f'<iframe srcdoc="{escape(page)}" style="width: 100%; height: {HEIGHT_PX}px; border: 0">'
            f"</iframe>"
        )


def _requests(rate: float, spread: float, count: int) -> Trace:
    median = MEAN_OUTPUT_TOKENS / sqrt(1 + spread**2)  # of a lognormal law with that spread
    law = {"type": "lognormal", "mean": MEAN_OUTPUT_TOKENS, "median": median}
    lengths: Any = {**law, "max": MAX_OUTPUT_TOKENS} if spread else MEAN_OUTPUT_TOKENS
    arrival: Any = {"process": "burst"} if np.isinf(rate) else rate
    workload = Workload(input_tokens=INPUT_TOKENS, output_tokens=lengths, arrival=arrival)  # type: ignore[arg-type]
    return workload.generate(seed=0, num_requests=count)


@lru_cache(maxsize=256)
def _html(rate: float, batch_size: int, spread: float, gpu: str, model: str) -> str:
    try:
        return Scene(rate, batch_size, spread, gpu, model)._repr_html_()
    except ValueError as error:  # a model that does not fit
        return f"<p>{escape(str(error))}</p>"


def explore(model: str = "llama-3.1-8b") -> Any:
    """Show static and continuous batching with sliders, in a notebook.

    Parameters
    ----------
    model : str
        Name of the catalogue.

    Returns
    -------
    object
        A widget; without ipywidgets (`pip install 'busdoor[notebooks]'`) the picture alone.
    """
    try:
        import ipywidgets as widgets
    except ModuleNotFoundError:
        return Scene(8.0, 4, 1.0, "h100", model)
    late = {"continuous_update": False}
    controls = {
        "rate": widgets.FloatSlider(8, min=1, max=40, step=1, description="requests/s", **late),
        "batch_size": widgets.SelectionSlider(
            options=BATCH_SIZES, value=4, description="slots", **late
        ),
        "spread": widgets.FloatSlider(1, min=0, max=2, step=0.25, description="spread", **late),
        "gpu": widgets.Dropdown(options=gpu_names(), value="h100", description="GPU"),
    }
    picture = widgets.HTML(layout=widgets.Layout(width="100%"))

    def follow(_: object = None) -> None:
        picture.value = _html(**{name: one.value for name, one in controls.items()}, model=model)

    for control in controls.values():
        control.observe(follow, "value")
    follow()
    return widgets.VBox([widgets.HBox(list(controls.values())), picture])
