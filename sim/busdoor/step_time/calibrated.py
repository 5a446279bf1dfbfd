"""A step time whose terms were fitted to measured iterations."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, ConfigDict, PositiveInt, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from busdoor.core.batch import Batch
from busdoor.core.registry import in_one_sentence
from busdoor.step_time.base import Line, StepTime, TermSeconds
from busdoor.step_time.calibration_files import read_step_time_table
from busdoor.step_time.pipeline import PipelinedBatch


def _increasing(values: tuple[int, ...]) -> tuple[int, ...]:
    if list(values) != sorted(set(values)):
        raise ValueError(f"has to increase, as in [16, 64], not {list(values)}")
    return values


Increasing = Annotated[tuple[PositiveInt, ...], AfterValidator(_increasing)]


@in_one_sentence
@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class CalibratedStepTime(StepTime):
    """An iteration takes what the device needs, and what the host adds or does meanwhile.

    device = base + eager·[no CUDA graph] + per_chunk·chunks + per_request·requests + Σ
    per_token·(positions in each segment) + per_prefill_pair·Σ n(c + (n + 1)/2) + per_context·Σ (c +
    1) of the decodes, and of those beside a prefill also per_mixed_request·decodes +
    per_mixed_context·Σ (c + 1); host = host + host_eager·[no CUDA graph] + host_per_chunk·chunks +
    host_per_request·requests.

    Where the host works ahead (`overlap`), it submits an iteration while the one before runs; in a
    row of like iterations each takes the longer of device and host. With `pipeline`, kernels that
    are launched one by one begin to run meanwhile: `PipelinedBatch` has the recurrence.

    Parameters
    ----------
    path : str, optional
        File of a calibration, or the name of one that was measured here; the other fields are then
        read from it.
    base_s : float
        Seconds of any iteration: weights are read, kernels launched.
    eager_s : float
        More in an iteration that is no graph: one with prefill, or with more rows or tokens than
        the largest graph.
    per_chunk_s : float
        More for each piece of prefill.
    per_request_s : float
        More for each request in the batch.
    per_token_s : tuple of float
        Seconds for each position computed, in each segment: GEMMs are flat while weights are the
        bottleneck.
    token_breaks : tuple of int
        Where one segment ends and the next begins, in positions.
    per_prefill_pair_s : float
        More for each query-key pair of a prefill.
    per_context_s : float
        More for each key that a decode reads.
    per_mixed_request_s : float
        More for each decode beside a prefill: another kernel's work than decodes alone.
    per_mixed_context_s : float
        More for each key that such a decode reads.
    host_s : float
        The host, to submit an iteration; this and the next three where the log had the host apart.
    host_eager_s : float
        More to launch an iteration's kernels one by one; a fact of the machine, measured at start-
        up.
    host_per_chunk_s : float
        More of the host for each piece of prefill.
    host_per_request_s : float
        More of the host for each request.
    overlap : bool
        Whether the host works while the device does, so that the longer of the two counts; else
        they add.
    pipeline : bool
        Whether kernels that are launched one by one run while the host launches the rest of them;
        needs `overlap`. Calibrations from before 2026-11-28 have no such field: they were fitted,
        and are used, without.
    graph_sizes : tuple of int
        Batch sizes of CUDA graphs, to the next of which decodes are padded; empty without graphs.
    mixed_graph_sizes : tuple of int
        Token counts of CUDA graphs for batches that are no decodes of those sizes; empty if these
        run without graphs.
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

    path: str | None = field(default=None, compare=False, repr=False)
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
    pipeline: bool = False
    graph_sizes: Increasing = ()
    mixed_graph_sizes: Increasing = ()
    calibration: str = ""

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any) -> Any:
        """Fill the fields from the file that `path` names; fields that are given win."""
        kwargs = dict(given.kwargs or {}) if isinstance(given, ArgsKwargs) else dict(given)
        path = kwargs.pop("path", None)
        if not isinstance(path, str | Path | None):
            raise ValueError(f"path = {path!r} must be a calibration's file or name")
        if path is None:
            return kwargs
        return {**read_step_time_table(path), **kwargs, "path": str(path)}

    def __post_init__(self) -> None:
        if self.pipeline and not self.overlap:
            raise ValueError(
                "pipeline is true, but overlap is false: only a host that works ahead can be a "
                "pipeline; set both"
            )
        if not any(
            (
                self.base_s,
                self.per_request_s,
                self.host_s,
                self.host_per_request_s,
                *self.per_token_s,
            )
        ):
            raise ValueError(
                "an iteration would take no time; give base_s, or another term above 0"
            )
        if len(self.per_token_s) != len(self.token_breaks) + 1:
            raise ValueError(
                f"per_token_s has {len(self.per_token_s)} segments, but {len(self.token_breaks)} "
                f"token_breaks make {len(self.token_breaks) + 1}"
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
        """Return the device's seconds in the first iteration, and the growth per repetition."""
        rows, chunks = batch.num_decode_tokens + batch.num_idle_rows, len(batch.chunks)
        seconds, context_s = self.base_s + self.per_request_s * (rows + chunks), self.per_context_s
        tokens = self._graph_tokens(batch)
        if tokens is None:
            tokens = batch.num_tokens
            seconds += self.eager_s if self._eager(batch) else 0.0
        if chunks:
            seconds += self.per_chunk_s * chunks + self.per_prefill_pair_s * batch.prefill_attention
            seconds += self.per_mixed_request_s * rows
            context_s += self.per_mixed_context_s
        growth_s = context_s * rows
        seconds += self.tokens_s(tokens) + context_s * batch.decode_context_tokens
        return seconds + growth_s, growth_s

    def _graph_tokens(self, batch: Batch) -> int | None:
        """Return the positions of the CUDA graph that a batch runs as; None if there is none."""
        rows = batch.num_decode_tokens + batch.num_idle_rows
        if self.graph_sizes and not batch.chunks and rows <= self.graph_sizes[-1]:
            return self.graph_sizes[bisect_left(self.graph_sizes, rows)]
        if self.mixed_graph_sizes and batch.num_tokens <= self.mixed_graph_sizes[-1]:
            return self.mixed_graph_sizes[bisect_left(self.mixed_graph_sizes, batch.num_tokens)]
        return None

    def _eager(self, batch: Batch) -> bool:
        """Whether a batch that is no graph has eager terms; without any graphs, only prefill has."""
        return bool(batch.chunks or self.graph_sizes or self.mixed_graph_sizes)

    def host_of(self, batch: Batch) -> float:
        """Return the seconds in which the host submits a batch."""
        chunks = len(batch.chunks)
        requests = chunks + batch.num_decode_tokens + batch.num_idle_rows
        seconds = self.host_s + self.host_per_chunk_s * chunks + self.host_per_request_s * requests
        launched = self.host_eager_s and self._eager(batch) and self._graph_tokens(batch) is None
        return seconds + self.host_eager_s if launched else seconds

    def ahead(self, batch: Batch, lead_s: float | None) -> PipelinedBatch | None:
        """Return how a batch runs while the next is submitted; None if host and device add."""
        if not self.overlap:
            return None
        device = self.device_line(batch)
        if not self.pipeline:
            hidden = lead_s is None and bool(batch.chunks)
            return PipelinedBatch(batch, device, self.host_of, hidden=hidden)
        launched = self._graph_tokens(batch) is None
        return PipelinedBatch(batch, device, self.host_of, launched=launched, lead_s=lead_s)

    def line(self, batch: Batch) -> Line | None:
        """Seconds of the first iteration, growth per repetition; None while the host is slower."""
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
        """Name and parameters as in a result's meta.json: no file is needed beside them."""
        fields = {key: getattr(self, key) for key in self.__dataclass_fields__ if key != "path"}
        return {"name": "calibrated"} | {
            key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()
        }
