"""ServeGen folders (alibaba/ServeGen `data/*/*`): rates, gap shapes, lengths per client.

The folder holds distributions, not requests: reading it draws a trace. Each client is a renewal
process whose rate and shape change every window; its clock runs in expected requests, so that a gap
that starts in one window ends in the next one at that window's rate (Xiang et al., arXiv
2505.09999; their tool draws each window separately).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from busdoor_workloads.formats.base import Format
from busdoor_workloads.reading.draft import Draft, ReadOptions
from busdoor_workloads.reading.json_table import read_json
from busdoor_workloads.reading.parse import numbers
from busdoor_workloads.reading.source import open_text
from busdoor_workloads.reading.table import Table
from busdoor_workloads.streams import stream
from busdoor_workloads.text import shown

WINDOW_S = 600.0  # length of a row's window in chunk-N-trace.csv
_ROW = ("start_s", "rate", "cv", "family", "shape", "scale")
_LEAST = {
    "start_s": 0,
    "rate": 0,
    "shape": np.nextafter(0, 1),
}  # of the columns that are drawn from
_MOST_REQUESTS = 20_000_000  # about 2 GB of columns; the 14 days of m-large hold 237 million
_INPUT_FIELDS = ("input_tokens", "text_tokens")  # multimodal clients count their text separately


def _read(path: Path, options: ReadOptions) -> Draft:
    files = (file for file in path.glob("chunk-*-trace.csv") if file.name.split("-")[1].isdecimal())
    clients = sorted(files, key=lambda file: int(file.name.split("-")[1]))
    if not clients:
        raise ValueError(f"{path} holds no chunk-N-trace.csv, so it is no ServeGen folder")
    with_lengths = [file for file in clients if _dataset(file).exists()]
    windows = {file: _windows(file, options) for file in with_lengths}
    _refuse_too_many(path, windows)
    drawn = [_client(file, windows[file], options) for file in with_lengths]
    frame = pd.concat(drawn, ignore_index=True) if drawn else pd.DataFrame()
    if frame.empty:
        raise ValueError(
            f"{path} has no request in this window; use another start_s or a longer duration_s"
        )
    notes = {
        "clients": len(with_lengths),
        "clients_without_lengths": len(clients) - len(with_lengths),
    }
    return Draft(
        table=Table(path=path, frame=frame),
        frame=frame,
        names={},
        metadata={**notes, "seed": options.seed},
    )


@dataclass(frozen=True)
class _Window:
    start_s: float
    rate: float
    family: str
    shape: float

    @property
    def expected(self) -> float:
        return self.rate * WINDOW_S

    def gaps(self, number: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw gaps of mean 1; the window's measured rate sets their scale."""
        if self.family.strip() == "Weibull":
            from scipy.special import gamma as gamma_function  # a tenth of a second to import

            return rng.weibull(self.shape, number) / float(gamma_function(1 + 1 / self.shape))
        return rng.gamma(self.shape, 1 / self.shape, number)


def _dataset(trace_file: Path) -> Path:
    return trace_file.with_name(trace_file.name.replace("-trace.csv", "-dataset.json"))


def _windows(file: Path, options: ReadOptions) -> list[_Window]:
    with open_text(file, options.max_bytes) as text:
        try:
            windows = pd.read_csv(
                text, header=None, names=list(_ROW), skipinitialspace=True, index_col=False
            )
        except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
            raise ValueError(f"{file.name} is no table of a client's windows: {error}") from None
    for column, least in _LEAST.items():
        values = numbers(windows[column])
        if (bad := ~(np.isfinite(values) & (values >= least))).any():
            line = int(bad.argmax()) + 1
            value = shown(windows[column].iloc[line - 1])
            raise ValueError(
                f"{file.name} line {line}: {column} is {value}; it must be a number of at least "
                f"{least:g}"
            )
        windows[column] = values
    end_s = options.start_s + options.duration_s
    inside = (
        (windows["start_s"] + WINDOW_S > options.start_s)
        & (windows["start_s"] < end_s)
        & (windows["rate"] > 0)
    )
    kept = windows[inside].sort_values("start_s")
    columns = (kept[name].tolist() for name in ("start_s", "rate", "family", "shape"))
    return [_Window(*row) for row in zip(*columns, strict=True)]


def _refuse_too_many(path: Path, windows: dict[Path, list[_Window]]) -> None:
    expected = sum(window.expected for of_client in windows.values() for window in of_client)
    if expected > _MOST_REQUESTS:
        raise ValueError(
            f"{path.name} would give about {expected / 1e6:.0f} million requests, more than "
            f"{_MOST_REQUESTS / 1e6:.0f} million; take a window of it with start_s and duration_s"
        )


def _client(file: Path, windows: list[_Window], options: ReadOptions) -> pd.DataFrame:
    rng = stream(options.seed, file.name)
    draw = _fitted_windows if options.normalize_duration else _renewals
    times = [np.empty(0), *draw(windows, rng)]
    arrival_s = np.concatenate(times)
    return pd.DataFrame({"arrival_s": arrival_s, **_lengths(_dataset(file), arrival_s, rng)})


def _renewals(windows: list[_Window], rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    # Expected requests until the next arrival; the first gap is cut at a random place.
    to_next = None
    for window in windows:
        if to_next is None:
            to_next = rng.uniform() * window.gaps(1, rng)[0]
        places = np.array([to_next])
        while places[-1] < window.expected:
            more = window.gaps(int(window.expected) + 1, rng)
            places = np.concatenate([places, places[-1] + np.cumsum(more)])
        inside = places < window.expected
        to_next = places[~inside][0] - window.expected
        yield window.start_s + places[inside] / window.rate


def _fitted_windows(
    windows: list[_Window], rng: np.random.Generator
) -> Iterator[NDArray[np.float64]]:
    for window in windows:
        places = np.cumsum(window.gaps(round(window.expected) + 1, rng))
        yield window.start_s + WINDOW_S * places[:-1] / places[-1]


@dataclass(frozen=True)
class _Histogram:
    tokens: NDArray[np.int64]
    below: NDArray[np.float64]

    def draw(self, number: int, rng: np.random.Generator) -> NDArray[np.int64]:
        return self.tokens[
            np.searchsorted(self.below, rng.uniform(0, self.below[-1], number), side="right")
        ]


def _lengths(
    file: Path, arrival_s: NDArray[np.float64], rng: np.random.Generator
) -> dict[str, NDArray[np.int64]]:
    document = read_json(file)
    try:
        tables = {float(start_s): fields for start_s, fields in document.items() if fields}
    except ValueError as error:
        raise ValueError(f"{file.name} has a window that begins at no number: {error}") from None
    starts = np.array(sorted(tables))
    if not len(starts):
        raise ValueError(f"{file.name} holds no length histogram")
    which = np.clip(np.searchsorted(starts, arrival_s, side="right") - 1, 0, None)
    lengths = {
        "input_tokens": np.ones(len(arrival_s), np.int64),
        "output_tokens": np.ones(len(arrival_s), np.int64),
    }
    for index in np.unique(which):
        rows, fields = which == index, tables[starts[index]]
        for column, names in (
            ("input_tokens", _INPUT_FIELDS),
            ("output_tokens", ("output_tokens",)),
        ):
            drawn = _histogram(file, fields, names).draw(int(rows.sum()), rng)
            lengths[column][rows] = np.maximum(drawn, 1)
    return lengths


def _histogram(file: Path, fields: dict[str, str], names: tuple[str, ...]) -> _Histogram:
    name = next((name for name in names if name in fields), None)
    if name is None:
        raise ValueError(f"{file.name} has no histogram of {names[0]}; it has {', '.join(fields)}")
    try:
        shares: dict[int, float] = ast.literal_eval(fields[name])
        tokens = np.array([int(token) for token in shares], dtype=np.int64)
        below = np.cumsum(np.array(list(shares.values()), dtype=np.float64))
    except (
        ValueError,
        TypeError,
        SyntaxError,
        AttributeError,
        OverflowError,
        RecursionError,
        MemoryError,
    ):
        raise ValueError(
            f"{file.name}: {name} is {shown(fields[name])}; it must be like {{100: 0.5, 200: 0.5}}"
        ) from None
    if (
        not len(below)
        or not np.isfinite(below).all()
        or below[-1] <= 0
        or (np.diff(below, prepend=0) < 0).any()
    ):
        raise ValueError(
            f"{file.name}: {name} holds shares that are no shares: {shown(fields[name])}"
        )
    return _Histogram(tokens, below)


SERVEGEN = Format(
    name="servegen",
    title="ServeGen client folder (drawn from)",
    container="folder",
    marks=frozenset(),
    time_unit=None,
    uses=frozenset({"normalize_duration"}),
    read=_read,
)
