"""A step time whose terms were fitted to measured iterations."""

from __future__ import annotations

from bisect import bisect_left
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, ConfigDict, PositiveInt, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from busdoor.core.batch import Batch
from busdoor.core.names import unknown
from busdoor.core.registry import in_one_sentence
from busdoor.core.toml import parse_toml, read_toml
from busdoor.step_time.base import StepTime, TermSeconds

Line = tuple[float, float]


def _increasing(values: tuple[int, ...]) -> tuple[int, ...]:
    if list(values) != sorted(set(values)):
        raise ValueError(f"has to increase, as in [16, 64], not {list(values)}")
    return values


Increasing = Annotated[tuple[PositiveInt, ...], AfterValidator(_increasing)]


@in_one_sentence
@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class CalibratedStepTime(StepTime):
    """An iteration takes what the device needs, and what the host adds or does meanwhile.

    device = base + eager·[no CUDA graph] + per_chunk·chunks + per_request·requests + Σ per_token·(positions in each
    segment) + per_prefill_pair·Σ n(c + (n + 1)/2) + per_context·Σ (c + 1) of the decodes, and of those beside a prefill
    also per_mixed_request·decodes + per_mixed_context·Σ (c + 1);
    host = host + host_eager·[no CUDA graph] + host_per_chunk·chunks + host_per_request·requests.

    Where the host works ahead (`overlap`), an iteration of the device hides what the host does for the next one; in a
    row of like iterations that is the longer of the two.

    Parameters
    ----------
    path : str, optional
        File of a calibration, or the name of one that was measured here; the other fields are then read from it.
    base_s : float
        Seconds of any iteration: weights are read, kernels launched.
    eager_s : float
        More in an iteration that is no graph: one with prefill, or with more rows than the largest graph.
    per_chunk_s, per_request_s : float
        More for each piece of prefill; for each request in the batch.
    per_token_s : tuple of float
        Seconds for each position computed, in each segment: GEMMs are flat while weights are the bottleneck.
    token_breaks : tuple of int
        Where one segment ends and the next begins, in positions.
    per_prefill_pair_s, per_context_s : float
        For each query-key pair of a prefill; for each key that a decode reads.
    per_mixed_request_s, per_mixed_context_s : float
        More for each decode beside a prefill, and for each key that it reads: another kernel's work than decodes alone.
    host_s, host_eager_s, host_per_chunk_s, host_per_request_s : float
        Of the host, where the log had it apart; launching what is no graph takes it long.
    overlap : bool
        Whether the host works while the device does, so that the longer of the two counts; else they add.
    graph_sizes : tuple of int
        Batch sizes of CUDA graphs, to the next of which decodes are padded; empty without graphs.
    calibration : str
        Name of what these numbers are from.

    Examples
    --------
    >>> step_time = CalibratedStepTime(base_s=5e-3, per_token_s=(0.0, 1e-4), token_breaks=(8,), per_context_s=1e-6)
    >>> first_s, growth_s = step_time.line(Batch(num_decode_tokens=10, decode_context_tokens=990))
    >>> round(first_s, 6), round(growth_s, 9)              # 2 positions beyond the break, 1000 keys
    (0.0062, 1e-05)
    >>> graphs = CalibratedStepTime(base_s=1e-3, per_token_s=(1e-4,), graph_sizes=(1, 2, 4, 8))
    >>> graphs.line(Batch(num_decode_tokens=5))[0] == graphs.line(Batch(num_decode_tokens=8))[0]
    True
    """

    path: str | None = None
    base_s: TermSeconds
    eager_s: TermSeconds = 0.0
    per_chunk_s: TermSeconds = 0.0
    per_request_s: TermSeconds = 0.0
    per_token_s: tuple[TermSeconds, ...] = (0.0,)
    token_breaks: Increasing = ()
    per_prefill_pair_s: TermSeconds = 0.0
    per_context_s: TermSeconds = 0.0
    per_mixed_request_s: TermSeconds = 0.0
    per_mixed_context_s: TermSeconds = 0.0
    host_s: TermSeconds = 0.0
    host_eager_s: TermSeconds = 0.0
    host_per_chunk_s: TermSeconds = 0.0
    host_per_request_s: TermSeconds = 0.0
    overlap: bool = False
    graph_sizes: Increasing = ()
    calibration: str = ""

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        """Fill the fields from the file that `path` names; fields that are given win."""
        kwargs = dict(given.kwargs or {}) if isinstance(given, ArgsKwargs) else dict(given)
        path = kwargs.pop("path", None)
        if not isinstance(path, str | Path | None):
            raise ValueError(f"path = {path!r} has to be a calibration's file or name")
        return kwargs if path is None else {**read_step_time_table(path), **kwargs}

    def __post_init__(self) -> None:
        if not any((self.base_s, self.per_request_s, self.host_s, self.host_per_request_s, *self.per_token_s)):
            raise ValueError("an iteration would take no time; give base_s, or another term above 0")
        if len(self.per_token_s) != len(self.token_breaks) + 1:
            raise ValueError(
                f"per_token_s has {len(self.per_token_s)} segments, but {len(self.token_breaks)} token_breaks make "
                f"{len(self.token_breaks) + 1}"
            )

    @cached_property
    def _knots(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Where each segment begins, and the seconds of all positions before it."""
        starts = (0, *self.token_breaks)
        lengths = np.diff(starts)
        before = np.concatenate([[0.0], np.cumsum(lengths * np.array(self.per_token_s[:-1]))])
        return starts, tuple(before.tolist())

    def tokens_s(self, tokens: int) -> float:
        """Seconds of so many positions."""
        starts, before_s = self._knots
        segment = max(0, bisect_left(starts, tokens) - 1)
        return before_s[segment] + (tokens - starts[segment]) * self.per_token_s[segment]

    def device_line(self, batch: Batch) -> Line:
        """Seconds of the device in the first iteration, and how many more each repetition takes."""
        rows, chunks = batch.num_decode_tokens + batch.num_idle_rows, len(batch.chunks)
        tokens = batch.num_prefill_tokens + batch.num_decode_tokens + batch.num_padded_tokens
        seconds, context_s = self.base_s + self.per_request_s * (rows + chunks), self.per_context_s
        if self._eager(batch):
            seconds += self.eager_s
        elif self.graph_sizes:
            tokens = self.graph_sizes[bisect_left(self.graph_sizes, rows)]
        if chunks:
            seconds += self.per_chunk_s * chunks + self.per_prefill_pair_s * batch.prefill_attention
            seconds += self.per_mixed_request_s * rows
            context_s += self.per_mixed_context_s
        growth_s = context_s * rows
        return seconds + self.tokens_s(tokens) + context_s * batch.decode_context_tokens + growth_s, growth_s

    def _eager(self, batch: Batch) -> bool:
        sizes = self.graph_sizes
        return bool(batch.chunks or (sizes and batch.num_decode_tokens + batch.num_idle_rows > sizes[-1]))

    def host_of(self, batch: Batch) -> float:
        """Seconds that the host takes to submit a batch."""
        chunks = len(batch.chunks)
        requests = chunks + batch.num_decode_tokens + batch.num_idle_rows
        eager_s = self.host_eager_s if self._eager(batch) else 0.0
        return self.host_s + eager_s + self.host_per_chunk_s * chunks + self.host_per_request_s * requests

    def last_s(self, batch: Batch, repeat: int, following: Batch | None, from_idle: bool) -> float | None:
        """Seconds of the last of `repeat` iterations, while the host submits the batch that follows."""
        if not self.overlap:
            return None
        first_s, growth_s = self.device_line(batch)
        host_s = self.host_of(following) if following else 0.0
        if from_idle and batch.chunks:
            host_s += self.host_of(batch)
        return max(first_s + growth_s * (repeat - 1), host_s)

    def line(self, batch: Batch) -> Line | None:
        """Seconds of the first iteration, and how many more each repetition takes; None while the host is slower."""
        first_s, growth_s = self.device_line(batch)
        host_s = self.host_of(batch)
        if not self.overlap:
            return first_s + host_s, growth_s
        if first_s >= host_s:
            return first_s, growth_s
        return None if growth_s else (host_s, 0.0)

    def durations_s(self, batch: Batch, repeat: int) -> NDArray[np.float64]:
        """Durations of the `repeat` iterations of a batch, in seconds, shape (repeat,)."""
        first_s, growth_s = self.device_line(batch)
        device_s = first_s + growth_s * np.arange(repeat, dtype=np.float64)
        host_s = self.host_of(batch)
        return np.maximum(device_s, host_s) if self.overlap else device_s + host_s

    def describe(self) -> dict[str, Any]:
        """Name and parameters, as a result's meta.json keeps them: no file is needed beside them."""
        fields = {key: getattr(self, key) for key in self.__dataclass_fields__ if key != "path"}
        return {"name": "calibrated"} | {
            key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()
        }


def calibration_names() -> list[str]:
    """Names of the calibrations that were measured here.

    Examples
    --------
    >>> "vllm-cpu" in calibration_names()
    True
    """
    folder = resources.files("busdoor") / "calibrations"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_calibration_tables(path: str | Path) -> dict[str, Any]:
    """Read the tables of a calibration's file, or of one that ships under a name.

    Raises
    ------
    ValueError
        If there is no such file or name, or it is no calibration.
    """
    if Path(path).is_file():
        tables = read_toml(path).data
    elif str(path) in calibration_names():
        text = (resources.files("busdoor") / "calibrations" / f"{path}.toml").read_text(encoding="utf-8")
        tables = parse_toml(text, f"{path}.toml").data
    else:
        raise unknown("a calibration's file or name", str(path), calibration_names())
    if not isinstance(tables.get("step_time"), dict):
        raise ValueError(f"{path} is no calibration: it has no table [step_time]; busdoor calibrate writes one")
    return tables


def read_step_time_table(path: str | Path) -> dict[str, Any]:
    """Fields of the calibrated step time in a calibration's file."""
    fields = dict(read_calibration_tables(path)["step_time"])
    if fields.pop("name", "calibrated") != "calibrated":
        raise ValueError(f"{path}: its [step_time] is not calibrated; use it as --config")
    return fields
