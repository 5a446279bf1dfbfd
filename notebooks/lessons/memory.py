"""Pictures and tables of KV memory: what runs held, and why pages help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from busdoor.core.request import Request
from busdoor.kv.contiguous import ContiguousKV
from busdoor.kv.paged import PagedKV
from busdoor.plots.hatches import KV_LABELS, legend_below, look
from busdoor.plots.kv import plot_kv
from busdoor.plots.style import INK, identity, new_figure, styled, tint
from busdoor.plots.waste import shares
from busdoor.results.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def memory_table(results: Mapping[str, Result]) -> pd.DataFrame:
    """Return what runs' memory held, in per cent by purpose, and how many ran at once."""
    table = 100 * pd.DataFrame(shares(results, "kv")).T.add_suffix("_%")
    table["mean_batch_size"] = [
        float(run.summary["mean_batch_size_time"]) for run in results.values()
    ]
    table["duration_s"] = [float(run.summary["duration"]) for run in results.values()]
    return table


def plot_caches(results: Mapping[str, Result]) -> Figure:
    """Draw the KV cache of runs over time, one panel per policy, on the same axes."""
    from matplotlib.lines import Line2D

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
        capacity = max(run.meta["num_blocks"] * run.meta["block_size"] for run in results.values())
        panels.flat[0].set_ylim(0, 1.08 * capacity)
        parts = {part: text for part, text in KV_LABELS.items() if part != "free"}
        legend_below(figure, parts, {"capacity": Line2D([], [], color=INK)})
        return figure

    return draw()


class Moment(NamedTuple):
    """A cache at one moment: which request holds each cell, and whether the newcomer entered."""

    what: str
    cells: list[str]
    entered: bool


ARRIVALS = {"A": 12, "B": 8, "C": 12, "D": 8, "F": 8}  # tokens; the cache holds 48
LEAVE, NEWCOMER = ("B", "D"), ("E", 12)
CELL = 4  # tokens of a block


def fragmentation() -> tuple[Moment, Moment]:
    """Return a cache that B and D have left, and whether E fits: contiguous, then pages.

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
    requests = {
        name: Request(i, 0.0, tokens, 1) for i, (name, tokens) in enumerate(ARRIVALS.items())
    }
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
    return Moment(
        "in blocks (paged)", [owner.get(block, ".") for block in range(kv.num_blocks)], entered
    )


def plot_fragmentation() -> Figure:
    """Draw `fragmentation`: two rows of cells, free ones hatched."""

    @styled
    def draw() -> Figure:
        figure = new_figure(8.0, 2.2)
        moments = fragmentation()
        for ax, moment, policy in zip(
            figure.subplots(2, 1), moments, ("static", "vllm"), strict=True
        ):
            color = identity(policy)["color"]
            for place, name in enumerate(moment.cells):
                strong = 1.0 if name == NEWCOMER[0] else 0.3
                free = look("free" if moment.entered else "holes", color) | {
                    "edgecolor": tint(INK, 0.4)
                }
                ax.bar(
                    place, 1, 0.94, **(free if name == "." else {"facecolor": tint(color, strong)})
                )
                ax.text(place, 0.5, name.strip("."), ha="center", va="center", fontweight="bold",
                        color="white" if name == NEWCOMER[0] else INK)  # fmt: skip
            event = (
                "E enters" if moment.entered else "E waits: enough is free, but not in one piece"
            )
            ax.set_title(f"{moment.what}: {event}", color=color)
            ax.set_axis_off()
        return figure

    return draw()
