"""The table [workload]: a profile, a file or laws of your own, and the traces that it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

import busdoor_workloads as workloads  # its laws are imported where a workload has some
from busdoor.config.recorded import at_rate, resampled
from busdoor.core.names import Label, unknown
from busdoor.core.registry import checked
from busdoor.core.units import STRICT, Seconds, reject_unknown
from busdoor_workloads import Trace, replication_seed
from busdoor_workloads.config import to_table
from busdoor_workloads.formats import read_trace

DEFAULT_WORKLOAD = "azure-conv"

# What `busdoor_workloads.formats.read_trace` takes beside what this table has under the same or
# another name.
READ_OPTIONS = (
    "format",
    "columns",
    "time_unit",
    "start_s",
    "duration_s",
    "max_total_tokens",
    "too_long",
    "skip_bad",
    "jitter",
    "model",
    "normalize_duration",
    "block_size",
    "run",
    "max_bytes",
)
_OWN = (
    "name",
    "path",
    "num_requests",
    "request_rate",
    "time_scale",
    "timeout_s",
    "max_output_tokens",
    "seed",
)
_RATES = {"request_rate": "time_scale", "time_scale": "request_rate"}  # each in place of the other


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WorkloadTable:
    """[workload]: when requests arrive, and how long they are.

    Parameters
    ----------
    name : str, optional
        A profile or preset; or what to call laws of your own.
    path : str, optional
        A trace file instead.
    num_requests : int, optional
        How many; by default as many as the profile, the preset or the file has.
    request_rate : float, optional
        Requests per second; infinity for all at once. A file's arrivals are stretched; where it has
        none, they are drawn as Poisson.
    time_scale : float, optional
        Instead: stretches time by this factor.
    timeout_s : float or str, optional
        Clients give up after so long.
    max_output_tokens : int, optional
        The cap that clients ask for; longer answers stop there.
    seed : int, optional
        Of the draws; the configuration's by default.
    laws : dict
        The other keys: laws as in `busdoor_workloads.Workload`, or for a file options of
        `read_trace`.

    Examples
    --------
    >>> table = WorkloadTable.from_table({"name": "azure-conv", "request_rate": 4.0, "num_requests": 3})
    >>> table.trace(seed=1).arrival_s.round(1)
    array([0. , 0.3, 0.9])
    >>> WorkloadTable.from_table({"nam": "azure-conv"})
    Traceback (most recent call last):
    ValueError: [workload] nam: unknown; did you mean name?
    """

    name: Label | None = None
    path: str | None = None
    num_requests: PositiveInt | None = None
    request_rate: PositiveFloat | None = None
    time_scale: PositiveFloat | None = None
    timeout_s: Seconds | None = None
    max_output_tokens: PositiveInt | None = None
    seed: NonNegativeInt | None = None
    laws: Annotated[dict[str, Any], Field(default_factory=dict)]

    @classmethod
    def from_table(
        cls, table: Mapping[str, Any], folder: str | Path = ".", *, exists: bool = True
    ) -> WorkloadTable:
        """Build it from a TOML table.

        Parameters
        ----------
        table : mapping
            The table.
        folder : str or Path
            Where a relative `path` starts.
        exists : bool
            Whether a trace file must be there; not in a table whose workload a flag replaces.
        """
        own = {key: value for key, value in table.items() if key in _OWN}
        laws = {key: value for key, value in table.items() if key not in _OWN}
        options = set() if "path" in own else set(READ_OPTIONS) - set(_law_names())
        if of_files := [key for key in laws if key in options]:
            raise ValueError(
                f"[workload] {of_files[0]}: only for a trace file (path), not for a profile or laws"
            )
        reject_unknown(
            "[workload]", laws, (*_OWN, *(READ_OPTIONS if "path" in own else _law_names()))
        )
        if isinstance(own.get("path"), str):
            own["path"] = str(Path(folder) / Path(own["path"]).expanduser())
        made = checked(cls, {**own, "laws": laws}, "[workload]")
        made.check(exists)
        return made

    def check(self, exists: bool = True) -> None:
        """Raise ValueError if keys contradict each other, or name what does not exist."""
        if self.request_rate is not None and self.time_scale is not None:
            raise ValueError(
                "[workload] request_rate and time_scale both set the rate; give one of them"
            )
        if self.path is None:
            _ = self.workload
        elif exists and not Path(self.path).exists():
            raise ValueError(f"[workload] path: there is no file {self.path}")

    @cached_property
    def workload(self) -> workloads.Workload:
        """The laws (not for a file)."""
        named = (
            {"name": self.name or "workload"}
            if self._is_label
            else {"base": self.name or DEFAULT_WORKLOAD}
        )
        table: dict[str, Any] = {**named, **self.laws}
        table |= {
            key: value
            for key in ("timeout_s", "max_output_tokens")
            if (value := getattr(self, key)) is not None
        }
        if table.get("base", DEFAULT_WORKLOAD) not in workloads.workload_names():
            raise ValueError(
                "[workload] name: "
                f"{unknown('a profile or preset', table['base'], workloads.workload_names())}"
            )
        try:
            return workloads.workload_from_table(table)
        except ValueError as error:
            raise ValueError(f"[workload] {str(error).removeprefix('Workload, ')}") from error

    @property
    def _is_label(self) -> bool:
        """Whether the laws are complete without a profile."""
        return (
            "base" in self.laws
            or "lengths" in self.laws
            or {"input_tokens", "output_tokens"} <= set(self.laws)
        )

    @cached_property
    def _file(self) -> Trace:
        assert self.path is not None
        options = {
            "time_scale": self.time_scale or 1.0,
            "name": self.name,
            "seed": self.seed or 0,
            **self.laws,
        }
        return self.apply(read_trace(self.path, max_requests=self.num_requests, **options))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader of the file did that the file does not say; nothing for laws."""
        return () if self.path is None else self._file.notes

    def apply(self, trace: Trace) -> Trace:
        """Return a finished trace with this table's rate, timeout and cap."""
        if self.num_requests is not None and self.num_requests < len(trace):
            trace = trace.select(np.arange(self.num_requests))
        if self.request_rate is not None:
            trace = at_rate(trace, self.request_rate, self.seed or 0)
        if self.timeout_s is not None:
            trace = replace(trace, timeout_s=np.full(len(trace), self.timeout_s))
        if self.max_output_tokens is not None:
            cap = np.full(len(trace), self.max_output_tokens)
            trace = replace(
                trace, output_tokens=np.minimum(trace.output_tokens, cap), max_output_tokens=cap
            )
        return trace

    def trace(self, seed: int = 0, replication: int = 0) -> Trace:
        """Draw one replication; the same arguments give the same trace.

        Parameters
        ----------
        seed : int
            Unless the table has its own.
        replication : int
            0 is the run itself. Of a file, which is one draw of its traffic, further replications
            keep the arrivals and draw the other columns anew from the file's rows, with
            replacement.
        """
        own = seed if self.seed is None else self.seed
        if self.path is not None:
            return resampled(self._file, own, replication)
        trace = self.workload.generate(
            replication_seed(own, replication),
            num_requests=self.num_requests,
            request_rate=self.request_rate,
        )
        return trace if self.time_scale is None else trace.scale_time(self.time_scale)

    def to_dict(self) -> dict[str, Any]:
        """Return the table as TOML or JSON would hold it."""
        own = {key: value for key in _OWN if (value := getattr(self, key)) is not None}
        return own | {key: to_table(value) for key, value in self.laws.items()}


def kept_keys(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stays of a table over which changes are put.

    Where another profile or file takes its place, that is what goes with any workload; and of the
    two keys that set the rate, only one can stay.

    >>> kept_keys({"path": "mine.csv", "time_scale": 2.0, "seed": 1}, {"request_rate": 4.0})
    {'path': 'mine.csv', 'seed': 1}
    """
    dropped = {_RATES[key] for key in _RATES.keys() & changes.keys()}
    kept = set(table)
    if "name" in changes or "path" in changes:
        kept = set(_OWN) - {"name", "path"} | (set(READ_OPTIONS) if "path" in changes else set())
    return {key: value for key, value in table.items() if key in kept - dropped}


def _law_names() -> list[str]:
    return ["base", *workloads.Workload.__dataclass_fields__]
