"""What becomes of KV memory: the same requests in the same blocks, handed out in four ways; and why pages help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from busdoor.config import Config
from busdoor.config.run import limits_for, run
from busdoor.core.request import Request
from busdoor.kv.contiguous import ContiguousKV
from busdoor.kv.paged import PagedKV
from busdoor.results.result import Result
from busdoor_workloads import profile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_BLOCKS = 2000  # 32,000 tokens: little enough that memory decides, whatever the policy
POLICIES: tuple[dict[str, Any], ...] = (
    {"name": "static"},
    {"name": "orca", "reservation": "max", "label": "orca (max)"},
    {"name": "orca", "reservation": "oracle", "label": "orca (oracle)"},
    {"name": "vllm"},
)


def four_memories(num_requests: int = 240, seed: int = 0) -> dict[str, Result]:
    """Serve the same conversations in 2,000 KV blocks: static, Orca with two reservations, and vLLM's pages.

    Parameters
    ----------
    num_requests : int
        Of Azure's conversations, all there from the start.
    seed : int
        Of their lengths.

    Returns
    -------
    dict of str to Result
        By policy.
    """
    trace = profile("azure-conv").generate(seed=seed, num_requests=num_requests)
    trace = replace(trace, arrival_s=np.zeros(num_requests))
    config = Config.from_table({"policy": list(POLICIES), "kv": {"num_blocks": NUM_BLOCKS}})
    limits = limits_for(config, [trace])
    return {policy.label: run(config, policy, trace, limits) for policy in config.policies}


def memory_table(results: Mapping[str, Result]) -> pd.DataFrame:
    """Tell what the memory of runs held, per cent of it by what it was for, and how many requests that let in."""
    from busdoor.plots.waste import shares

    table = 100 * pd.DataFrame(shares(results, "kv")).T
    table["mean_batch_size"] = [float(run.summary["mean_batch_size_time"]) for run in results.values()]
    table["duration_s"] = [float(run.summary["duration"]) for run in results.values()]
    return table


def plot_caches(results: Mapping[str, Result]) -> Figure:
    """Draw the KV cache of runs over time, one panel a policy, on the same time axis."""
    from matplotlib.lines import Line2D

    from busdoor.plots.hatches import KV_LABELS, legend_below
    from busdoor.plots.kv import plot_kv
    from busdoor.plots.style import INK, identity, new_figure, styled

    @styled
    def draw() -> Figure:
        figure = new_figure(9.0, 1.1 + 2.1 * -(-len(results) // 2))
        panels = figure.subplots(-(-len(results) // 2), 2, sharex=True, sharey=True)
        for (name, result), ax in zip(results.items(), panels.flat, strict=True):
            plot_kv(result, ax)
            ax.get_legend().remove()
            ax.set_title(name, color=identity(name)["color"])
            ax.label_outer()
        panels.flat[0].set_xlim(0, max(run.summary["duration"] for run in results.values()))
        panels.flat[0].set_ylim(0, 1.08 * NUM_BLOCKS * 16)
        parts = {part: text for part, text in KV_LABELS.items() if part != "free"}
        legend_below(figure, parts, {"capacity": Line2D([], [], color=INK)})
        return figure

    return draw()


class Moment(NamedTuple):
    """A cache at one moment: who holds each cell, and whether the newcomer got in."""

    what: str
    cells: list[str]
    entered: bool


ARRIVALS = {"A": 12, "B": 8, "C": 12, "D": 8, "F": 8}  # tokens; the cache holds 48
LEAVE, NEWCOMER = ("B", "D"), ("E", 12)
CELL = 4  # tokens of a block


def fragmentation() -> tuple[Moment, Moment]:
    """Let B and D leave a full cache, and see whether E fits: contiguous memory first, then pages.

    Examples
    --------
    >>> for moment in fragmentation():
    ...     print("".join(moment.cells), moment.entered)
    AAA..CCC..FF False
    AAAE.CCCEEFF True
    """
    return _contiguous(), _paged()


def _contiguous() -> Moment:
    kv = ContiguousKV(sum(ARRIVALS.values()))
    for name, tokens in ARRIVALS.items():
        kv.reserve(name, tokens)
    for name in LEAVE:
        kv.free(name)
    entered = kv.reserve(*NEWCOMER) is not None
    cells = ["."] * (kv.num_tokens // CELL)
    for name in {*ARRIVALS, *(NEWCOMER[:1] if entered else ())} - {*LEAVE}:
        offset, tokens = kv.reserved(name)
        cells[offset // CELL : (offset + tokens) // CELL] = name * (tokens // CELL)
    return Moment("in one piece (contiguous)", cells, entered)


def _paged() -> Moment:
    kv = PagedKV(sum(ARRIVALS.values()) // CELL, CELL)
    tables: dict[str, list[int]] = {}
    requests = {name: Request(i, 0.0, tokens, 1) for i, (name, tokens) in enumerate(ARRIVALS.items())}
    for name, request in requests.items():
        kv.grow(request, request.input_tokens)
        tables[name] = kv.block_table(request, request.input_tokens)
    for name in LEAVE:
        kv.free(requests[name])
        del tables[name]
    late = Request(len(requests), 0.0, NEWCOMER[1], 1)
    entered = kv.needed(late, late.input_tokens) <= kv.num_free_blocks
    kv.grow(late, late.input_tokens)
    tables[NEWCOMER[0]] = kv.block_table(late, late.input_tokens)
    owner = {block: name for name, blocks in tables.items() for block in blocks}
    return Moment("in blocks (paged)", [owner.get(block, ".") for block in range(kv.num_blocks)], entered)


def plot_fragmentation() -> Figure:
    """Draw `fragmentation`: two rows of cells, free ones hatched."""
    from busdoor.plots.hatches import look
    from busdoor.plots.style import INK, identity, new_figure, styled, tint

    @styled
    def draw() -> Figure:
        figure = new_figure(8.0, 2.2)
        moments = fragmentation()
        for ax, moment, policy in zip(figure.subplots(2, 1), moments, ("static", "vllm"), strict=True):
            color = identity(policy)["color"]
            for place, name in enumerate(moment.cells):
                strong = 1.0 if name == NEWCOMER[0] else 0.3
                free = look("free" if moment.entered else "holes", color) | {"edgecolor": tint(INK, 0.4)}
                ax.bar(place, 1, 0.94, **(free if name == "." else {"facecolor": tint(color, strong)}))
                ax.text(place, 0.5, name.strip("."), ha="center", va="center", fontweight="bold",
                        color="white" if name == NEWCOMER[0] else INK)  # fmt: skip
            said = "E enters" if moment.entered else "E waits: enough is free, but not in one piece"
            ax.set_title(f"{moment.what}: {said}", color=color)
            ax.set_axis_off()
        return figure

    return draw()
