"""Operator tables of LLMServingSim: a folder of CSV that its profiler writes for one GPU and model."""

from __future__ import annotations

import csv
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

from busdoor.catalog import ModelShape
from busdoor.core.names import listed
from busdoor.step_time.operator_tables import US
from busdoor.step_time.roofline_costs import distinct_experts

ONCE = ("embedding", "final_layernorm")  # of a step; every other dense operator is in each layer
TWICE = ("layernorm",)  # before attention and before the MLP: one row, two calls
NEEDED = ("dense.csv", "per_sequence.csv", "attention.csv")
AXES = ("prefill_chunk", "history", "n_decode", "kv_decode")
BUDGET = (0, 2)  # the axes whose sum the profiler bounds: tokens of the chunk, and one per decode
Point = tuple[float, ...]


class Grid:
    """Times by coordinates, with lines between grid points and, from the last two on, beyond them.

    A point that was not measured (more tokens than the profiler's budget) adds what two axes add
    one by one to the point below it on both; where there is no such pair, it is as that below it.

    >>> grid = Grid({(1.0, 0.0): 2.0, (3.0, 0.0): 4.0, (1.0, 8.0): 10.0, (3.0, 8.0): 12.0})
    >>> grid(2, 4), grid(4, 0)
    (7.0, 5.0)
    """

    def __init__(self, times: dict[Point, float]) -> None:
        self._axes = [sorted(set(values)) for values in zip(*times, strict=True)]
        self._times = dict(times)
        for point in product(*self._axes):
            if point not in self._times:
                self._times[point] = self._guess(point)

    def _guess(self, point: Point) -> float:
        lower = [self._lower(point, axis) for axis in range(len(point))]
        pairs = combinations(range(len(point)), 2)
        for first, second in sorted(pairs, key=lambda pair: pair != BUDGET):
            one, other = lower[first], lower[second]
            both = None if one is None or other is None else self._lower(one, second)
            if one and other and both:
                return self._times[one] + self._times[other] - self._times[both]
        for near in lower:
            if near:
                return self._times[near]
        raise ValueError(f"the profile has no time near {point} ({', '.join(AXES)})")

    def _lower(self, point: Point, axis: int) -> Point | None:
        """Return the neighbour below a point on an axis, if its time is known."""
        values = self._axes[axis]
        index = values.index(point[axis])
        near = (*point[:axis], values[index - 1], *point[axis + 1 :])
        return near if index and near in self._times else None

    def __call__(self, *at: float) -> float:
        """Return the time at a point."""
        corners = [_bracket(values, value) for values, value in zip(self._axes, at, strict=True)]
        total = 0.0
        for corner in product(*corners):
            weight = 1.0
            for _, share in corner:
                weight *= share
            if weight:
                total += weight * self._times[tuple(value for value, _ in corner)]
        return total


def _bracket(values: Sequence[float], at: float) -> list[tuple[float, float]]:
    """Return the two values around one, each with its weight."""
    if len(values) == 1:
        return [(values[0], 1.0)]
    index = min(max(bisect_right(values, at), 1), len(values) - 1)
    low, high = values[index - 1], values[index]
    share = max(0.0, (at - low) / (high - low))
    return [(low, 1 - share), (high, share)]


class ProfileTables:
    """What an iteration's parts take, from a folder tp<N> of LLMServingSim's profiler.

    It has dense.csv, per_sequence.csv, attention.csv, and moe.csv for a mixture of experts; how
    many layers the model has is not in them, nor are the all-reduces: `all_reduce_s` per step and
    position.

    The attention of a step that prefills and decodes is one measured call, looked up as such.
    A bundle's correction for contexts that differ (skew) is not applied: it needs each request's
    context, and a batch here keeps their sum; the mean is what its table is measured at.

    Source: casys-kaist/LLMServingSim (MIT), docs/profiler/output-bundle.md: a chunk's key length is
    its history and half the chunk; older tables have the history itself (kv_prefill).
    """

    def __init__(
        self, folder: Path, shape: ModelShape, all_reduce_s: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        _check(folder, shape)
        self._layers, self._all_reduce_s = shape.num_hidden_layers, all_reduce_s
        self._experts = (shape.num_experts, shape.num_experts_per_tok)
        self._dense = _by_layer(folder / "dense.csv", "tokens")
        self._each = _by_layer(folder / "per_sequence.csv", "sequences")
        moe = folder / "moe.csv"
        self._moe = Grid(_moe_times(moe)) if shape.num_experts > 1 else None
        times = _attention_times(folder / "attention.csv")
        self._decode = Grid({point[2:]: us for point, us in times.items() if not point[0]})
        self._prefill = Grid({point[:2]: us for point, us in times.items() if not point[2]})
        self._mixed = Grid({point: us for point, us in times.items() if point[0] and point[2]})
        self.notes: tuple[str, ...] = (
            f"operators: measured by LLMServingSim's profiler, {folder}",
        )

    def tokens_s(self, tokens: int) -> float:
        """Seconds of what depends on the positions alone."""
        total = 0.0
        for name, grid in self._dense.items():
            calls = 1 if name in ONCE else self._layers * (2 if name in TWICE else 1)
            total += calls * grid(tokens)
        if self._moe is not None:
            total += self._layers * self._moe(
                tokens, distinct_experts(float(tokens), *self._experts)
            )
        step_s, position_s = self._all_reduce_s
        return US * total + step_s + position_s * tokens

    def heads_s(self, requests: int) -> float:
        """Seconds of the LM head and the sampler for so many requests."""
        return US * sum(grid(requests) for grid in self._each.values())

    def rows_s(self, rows: int) -> float:
        """Seconds of a decode of so many rows, but for its attention."""
        return self.tokens_s(rows) + self.heads_s(rows)

    def contexts_s(self, rows: int, context: int) -> float:
        """Seconds of the attention of rows that read `context` tokens each, their own among them."""
        return US * self._layers * self._decode(rows, context - 1)

    def chunks_s(self, chunks: int, tokens: int, cached: int) -> float:
        """Seconds of the attention of chunks of `tokens` each after `cached` tokens each."""
        return US * self._layers * chunks * self._prefill(tokens, cached)

    def mixed_s(self, chunks: int, tokens: int, cached: int, rows: int, context: float) -> float:
        """Seconds of the attention of chunks and decodes: one of the chunks is in the decodes' call."""
        us = self._mixed(tokens, cached, rows, context - 1)
        return US * self._layers * us + self.chunks_s(chunks - 1, tokens, cached)


def _check(folder: Path, shape: ModelShape) -> None:
    """Raise ValueError for a folder that is none, or whose model is not modelled."""
    needed = (*NEEDED, *(("moe.csv",) if shape.num_experts > 1 else ()))
    if missing := [name for name in needed if not (folder / name).is_file()]:
        raise ValueError(
            f"profile = '{folder}' lacks {listed(missing)}; give a folder tp<N> of a profile by "
            f"LLMServingSim, and the model that it is of"
        )
    if (folder / "linear_attention.csv").exists():
        raise ValueError(f"profile = '{folder}' has linear attention, which is not modelled")
    if shape.num_experts > 1 and shape.num_expert_layers < shape.num_hidden_layers:
        raise ValueError(
            f"profile = '{folder}': {shape.name} has experts in {shape.num_expert_layers} of "
            f"{shape.num_hidden_layers} layers, which its tables do not tell apart"
        )


def _rows(path: Path, *needed: str) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        if missing := {*needed, "time_us"} - set(reader.fieldnames or ()):
            raise ValueError(f"{path} has no column {listed(sorted(missing))}")
        return list(reader)


def _by_layer(path: Path, axis: str) -> dict[str, Grid]:
    times: dict[str, dict[Point, float]] = defaultdict(dict)
    for row in _rows(path, "layer", axis):
        times[row["layer"]][(float(row[axis]),)] = float(row["time_us"])
    return {layer: Grid(of) for layer, of in times.items()}


def _moe_times(path: Path) -> dict[Point, float]:
    rows = _rows(path, "tokens", "activated_experts")
    own = [row for row in rows if row.get("ep", "1") == "1"]
    return {
        (float(row["tokens"]), float(row["activated_experts"])): float(row["time_us"])
        for row in own
    }


def _attention_times(path: Path) -> dict[Point, float]:
    """Return times by chunk, its history, decodes and theirs; of one query token per decode."""
    times: dict[Point, float] = {}
    for row in _rows(path, "prefill_chunk", "n_decode", "kv_decode"):
        if row.get("layer", "attention") != "attention":
            raise ValueError(f"{path} has {row['layer']}, which is not modelled; full attention is")
        if float(row.get("decode_q_len") or 1) != 1:
            continue
        chunk = float(row["prefill_chunk"])
        history = (
            float(row["prefill_key"]) - chunk / 2
            if "prefill_key" in row
            else float(row["kv_prefill"])
        )
        times[(chunk, history, float(row["n_decode"]), float(row["kv_decode"]))] = float(
            row["time_us"]
        )
    return times
