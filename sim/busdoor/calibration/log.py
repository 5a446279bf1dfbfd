"""From measured iterations to the columns that a calibration multiplies by its coefficients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from busdoor.core.arrays import Floats
from busdoor.results.result import Result
from busdoor.step_time.terms import TERM, TERMS, Work, term_names


@dataclass(frozen=True)
class Log:
    """Measured iterations of several runs, one after the other; arrays of shape (n,).

    A row stands for `repeat` iterations of `duration_s` on average; `device_s` and `host_s` where
    the logs have them apart. `columns` are what the terms multiply, and `positions`, the tokens
    computed, graph padding included. `run` and `block` number the runs and the contiguous pieces of
    all runs. `graph_sizes` are batch sizes of CUDA graphs of decodes, `mixed_graph_sizes` token
    counts of those of other batches; empty without.
    """

    duration_s: Floats
    repeat: Floats
    device_s: Floats | None
    host_s: Floats | None
    columns: Mapping[str, Floats]
    run: NDArray[np.int64]
    block: NDArray[np.int64]
    names: tuple[str, ...]
    graph_sizes: tuple[int, ...]
    mixed_graph_sizes: tuple[int, ...]
    results: tuple[Result, ...]

    def __len__(self) -> int:
        return len(self.duration_s)

    def matrix(self, terms: Sequence[str], breaks: Sequence[int]) -> Floats:
        """Put the columns of the terms side by side; a term that bends has one for each segment."""
        parts = [
            segments(self.columns[term], breaks)
            if TERM[term].segmented
            else self.columns[term][:, None]
            for term in terms
        ]
        return np.hstack(parts) if parts else np.zeros((len(self), 0))


def segments(positions: Floats, breaks: Sequence[int]) -> Floats:
    """Positions in each segment between breaks, shape (n, segments).

    >>> segments(np.array([5.0, 20.0]), [16]).tolist()
    [[5.0, 0.0], [16.0, 4.0]]
    """
    edges = [0.0, *breaks, np.inf]
    return np.column_stack([np.clip(positions, low, high) - low for low, high in pairwise(edges)])


# long enough each for the slow drift of a machine to be inside of them, not between
BLOCKS_PER_RUN = 20
MIN_BLOCK_ROWS = 10


def read_log(
    results: Sequence[Result],
    names: Sequence[str],
    graph_sizes: Sequence[int] | None = None,
    mixed_graph_sizes: Sequence[int] | None = None,
) -> Log:
    """Collect the iterations of measured runs.

    Sizes of CUDA graphs are by default those in the runs' meta. Raises ValueError if a run has no
    iterations, or the runs do not belong together.
    """
    for result, name in zip(results, names, strict=True):
        if not len(result.iterations):
            raise ValueError(
                f"{name} has no table of iterations, only requests; use --from-requests"
            )
    decodes = _same_sizes("graph_sizes", graph_sizes, results, names)
    mixed = _same_sizes("mixed_graph_sizes", mixed_graph_sizes, results, names)
    table = pd.concat([result.iterations for result in results], ignore_index=True)
    timed = table["duration_s"].to_numpy() > 0
    lengths = [len(result.iterations) for result in results]
    run = np.repeat(np.arange(len(results)), lengths)[timed]
    columns = _joined([_columns(result, decodes, mixed) for result in results])
    apart = {"device_s", "host_s"} <= set.intersection(
        *(set(result.iterations) for result in results)
    )
    repeat = _floats(table, "repeat")
    return Log(
        duration_s=(_floats(table, "duration_s") / repeat)[timed],
        repeat=repeat[timed],
        device_s=(_floats(table, "device_s") / repeat)[timed] if apart else None,
        host_s=(_floats(table, "host_s") / repeat)[timed] if apart else None,
        columns={key: column[timed] for key, column in columns.items()},
        run=run,
        block=_blocks(np.bincount(run, minlength=len(results)).tolist()),
        names=tuple(names),
        graph_sizes=decodes,
        mixed_graph_sizes=mixed,
        results=tuple(results),
    )


def columns_of(
    iterations: pd.DataFrame, graph_sizes: Sequence[int] = (), mixed_graph_sizes: Sequence[int] = ()
) -> dict[str, Floats]:
    """Work out what each term multiplies, and `positions`, for each row of iterations."""
    work, ones = work_of(iterations, graph_sizes, mixed_graph_sizes), np.ones(len(iterations))
    return {"positions": work.positions} | {term.name: term.feature(work) * ones for term in TERMS}


def work_of(
    iterations: pd.DataFrame, graph_sizes: Sequence[int] = (), mixed_graph_sizes: Sequence[int] = ()
) -> Work:
    """Return what each row of a table of iterations asks of device and host, shape (n,)."""
    rows = _floats(iterations, "num_decode_tokens") + _floats(iterations, "num_idle_rows")
    chunks = _floats(iterations, "num_requests") - rows
    positions = sum(
        (_floats(iterations, f"num_{kind}_tokens") for kind in ("prefill", "decode", "padded")),
        np.zeros(len(iterations)),
    )
    decodes = np.where(chunks > 0, np.nan, _padded(rows, graph_sizes))
    padded = np.where(np.isnan(decodes), _padded(positions, mixed_graph_sizes), decodes)
    eager = np.isnan(padded) & ((chunks > 0) | bool(len(graph_sizes) or len(mixed_graph_sizes)))
    context = (
        _floats(iterations, "context_tokens") + _floats(iterations, "context_tokens_last")
    ) / 2
    pairs = _floats(iterations, "prefill_attention")
    return Work(
        rows,
        chunks,
        np.where(np.isnan(padded), positions, padded),
        eager.astype(float),
        pairs,
        context + rows,
    )


def _padded(counts: Floats, sizes: Sequence[int]) -> Floats:
    """Return the next larger size of each count; NaN where there is none."""
    larger = np.append(np.array(sizes, dtype=np.float64), np.nan)
    padded: Floats = larger[np.searchsorted(larger[:-1], counts)]
    return padded


# between the end of one iteration and the beginning of the next: rounding, and no idleness
_TOUCHING_S = 1e-6


def touching(iterations: pd.DataFrame) -> NDArray[np.bool_]:
    """Return of each row but the first whether it begins where the one before ends, shape (n - 1,).

    >>> touching(pd.DataFrame({"start_s": [0.0, 1.0, 3.0], "duration_s": [1.0, 1.0, 1.0]})).tolist()
    [True, False]
    """
    start_s, duration_s = _floats(iterations, "start_s"), _floats(iterations, "duration_s")
    touches: NDArray[np.bool_] = start_s[1:] - (start_s + duration_s)[:-1] < _TOUCHING_S
    return touches


def works_ahead(result: Result) -> bool:
    """Whether an iteration has another batch's host work: not where like follows like."""
    return bool(result.meta.get("lookahead")) and "cell" not in result.iterations


def _columns(
    result: Result, graph_sizes: Sequence[int], mixed_graph_sizes: Sequence[int]
) -> dict[str, Floats]:
    """Return a run's columns; the host's: what it submits meanwhile (`StepTime.ahead`)."""
    table = result.iterations
    columns = columns_of(table, graph_sizes, mixed_graph_sizes)
    if not works_ahead(result):
        return columns
    touches, repeat = touching(table), _floats(table, "repeat")
    first = np.append(True, ~touches)
    for term in term_names("host", graphs=True):
        own = columns[term]
        columns[term] = ((repeat - 1 + first) * own + np.append(touches * own[1:], 0.0)) / repeat
    return columns


def _joined(parts: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
    return {term: np.concatenate([part[term] for part in parts]) for term in parts[0]}


def _floats(table: pd.DataFrame, column: str) -> Floats:
    return table[column].to_numpy(dtype=np.float64)


def _blocks(lengths: Sequence[int]) -> NDArray[np.int64]:
    """Number contiguous pieces of the runs, from 0, in the same order as the rows."""
    pieces, first = [], 0
    for length in lengths:
        count = max(1, min(BLOCKS_PER_RUN, length // MIN_BLOCK_ROWS))
        pieces.append(first + np.arange(length) * count // max(length, 1))
        first += count
    return np.concatenate(pieces)


def _same_sizes(
    key: str, given: Sequence[int] | None, results: Sequence[Result], names: Sequence[str]
) -> tuple[int, ...]:
    """Return the sizes given, else those of all meta; raise ValueError if they differ."""
    if given is not None:
        return tuple(given)
    found = [tuple(int(size) for size in result.meta.get(key) or ()) for result in results]
    for sizes, name in zip(found, names, strict=True):
        if sizes != found[0]:
            raise ValueError(
                f"{name} ran with other CUDA graphs ({key}) than {names[0]}; calibrate them apart"
            )
    return found[0]
