"""A trace: arrivals and lengths of requests, which every part reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from busdoor_workloads.columns import FloatArray, IntArray, chosen_rows, floats, integers
from busdoor_workloads.given import instance, positive, whole_number
from busdoor_workloads.hashes import HashIds
from busdoor_workloads.reading.frame import frame_fields
from busdoor_workloads.trace_check import INTEGER_COLUMNS, SECONDS_COLUMNS, check_columns

_COUNTED = (
    "rows_dropped",
    "rows_clipped",
)  # keys of the metadata: requests that the reader left out or cut


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """Arrivals and lengths of requests, one array per column, in order of arrival.

    Parameters
    ----------
    arrival_s : array of float, shape (n,)
        Seconds from the trace's start. In a closed loop and for later turns of a session this is a
        lower bound: the request arrives when the previous one has been answered and `think_time_s`
        has passed.
    input_tokens, output_tokens : array of int, shape (n,)
        Prompt length, and the number of tokens that the request generates (both at least 1).
    max_output_tokens : array of int, shape (n,), optional
        The client's cap, which a reserving policy sees. At least `output_tokens`.
    priority : array of int, shape (n,), optional
        Smaller is served first.
    session_id, turn : array of int, shape (n,), optional
        Conversation, and place in it (0 first). Turn k arrives after turn k-1 has been answered.
    think_time_s : array of float, shape (n,), optional
        Seconds between the previous answer (of the session, or of the closed loop's user) and this
        request.
    timeout_s : array of float, shape (n,), optional
        The client gives up this long after arrival; with NaN or infinity never.
    hash_ids : sequence of tuples of int, length n, optional
        Equal ids are equal prompt blocks of `block_size` tokens; the last block may be partly
        filled. An empty tuple shares nothing with any other request.
    block_size : int, optional
        Tokens per hash id.
    concurrency : int, optional
        Closed loop: number of users, each of which sends its next request (in trace order) after
        the answer.
    name : str
        Name in tables and plots.
    metadata : dict
        Source of the trace and changes by the reader (rows dropped, jitter, seed).

    Raises
    ------
    ValueError
        One sentence that names the column, the row and the value.

    Examples
    --------
    >>> trace = Trace(arrival_s=[0.0, 0.5], input_tokens=[100, 200], output_tokens=[10, 20])
    >>> len(trace), trace.output_tokens.sum().item()
    (2, 30)
    """

    arrival_s: FloatArray
    input_tokens: IntArray
    output_tokens: IntArray
    max_output_tokens: IntArray | None = None
    priority: IntArray | None = None
    session_id: IntArray | None = None
    turn: IntArray | None = None
    think_time_s: FloatArray | None = None
    timeout_s: FloatArray | None = None
    hash_ids: Sequence[tuple[int, ...]] | None = None
    block_size: int | None = None
    concurrency: int | None = None
    name: str = "trace"
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        set_field = object.__setattr__
        set_field(self, "arrival_s", floats("arrival_s", self.arrival_s))
        for column in ("input_tokens", "output_tokens", *INTEGER_COLUMNS):
            if (values := getattr(self, column)) is not None:
                set_field(self, column, integers(column, values))
        for column in SECONDS_COLUMNS:
            if (values := getattr(self, column)) is not None:
                set_field(self, column, floats(column, values))
        self._check_plain()
        check_columns(vars(self))

    def __len__(self) -> int:
        return len(self.arrival_s)

    def _check_plain(self) -> None:
        """Check the fields that are not columns of numbers."""
        for name in ("block_size", "concurrency"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, whole_number(name, value, at_least=1))
        if not instance("name", self.name, str, "a string").isprintable():
            raise ValueError(
                f"the trace's name {self.name!r} has a character that cannot be shown; use "
                f"another name"
            )
        instance("metadata", self.metadata, Mapping, "a mapping")
        if self.hash_ids is not None:
            instance(
                "hash_ids", self.hash_ids, Sized, "a list of lists of block ids, one per request"
            )
            for row in () if isinstance(self.hash_ids, HashIds) else self.hash_ids:
                instance("a row of hash_ids", row, Sized, "a list of block ids")
            if not self.block_size:
                raise ValueError(
                    "hash_ids are given without block_size, the tokens that one id stands for"
                )

    @property
    def notes(self) -> tuple[str, ...]:
        """Changes and assumptions of the reader, one sentence each."""
        counts = {
            key: number
            for key, number in self.metadata.items()
            if key.startswith(_COUNTED) and number
        }
        return (
            *self.metadata.get("notes", ()),
            *(f"{key.replace('_', ' ')}: {n:,}" for key, n in counts.items()),
        )

    @property
    def duration_s(self) -> float:
        """Seconds from the first arrival to the last."""
        return float(self.arrival_s[-1] - self.arrival_s[0]) if len(self) else 0.0

    @property
    def request_rate(self) -> float:
        """Requests per second over the trace's duration; infinity for a burst."""
        return (len(self) - 1) / self.duration_s if self.duration_s > 0 else float("inf")

    def select(self, rows: ArrayLike) -> Trace:
        """Return a new trace of some rows, given as indices or a mask.

        Examples
        --------
        >>> Trace(arrival_s=[0, 1, 2], input_tokens=[5, 6, 7], output_tokens=[1, 1, 1]).select([0, 2]).input_tokens
        array([5, 7])
        """
        columns = ("arrival_s", "input_tokens", "output_tokens", *INTEGER_COLUMNS, *SECONDS_COLUMNS)
        chosen = chosen_rows(rows, len(self))
        taken = {c: getattr(self, c)[chosen] for c in columns if getattr(self, c) is not None}
        if self.hash_ids is not None:
            ids = self.hash_ids
            taken["hash_ids"] = (
                ids.take(chosen) if isinstance(ids, HashIds) else [ids[row] for row in chosen]
            )
        return replace(self, **taken)

    def with_arrivals(self, arrival_s: ArrayLike) -> Trace:
        """Return the same requests at other times."""
        return replace(self, arrival_s=floats("arrival_s", arrival_s))

    def scale_time(self, time_scale: float) -> Trace:
        """Return the trace with arrivals at `time_scale` times the distance: 2 halves the rate."""
        return self.with_arrivals(self.arrival_s * positive("time_scale", time_scale))

    def at_rate(self, request_rate: float) -> Trace:
        """Return the trace with time scaled to `request_rate` requests per second on average."""
        request_rate = positive("request_rate", request_rate)
        if not np.isfinite(self.request_rate):
            raise ValueError(
                f"{self.name} is a burst, which has no rate to scale; give it an arrival process"
            )
        return self.scale_time(self.request_rate / request_rate)

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        columns: Mapping[str, str] | None = None,
        *,
        time_unit: Literal["s", "ms", "us", "ns", "datetime"] = "s",
        skip_bad: bool = False,
        name: str = "frame",
    ) -> Trace:
        """Read a trace from a data frame, with the same checks as for a file.

        Parameters
        ----------
        frame : DataFrame
            One row per request.
        columns : mapping, optional
            From our column name to the frame's, as in ``{"input_tokens": "prompt_len"}``; by
            default ours.
        time_unit : {"s", "ms", "us", "ns", "datetime"}
            Unit of the arrival times; a column of datetimes needs none.
        skip_bad : bool
            Leave bad rows out and count them instead of raising an error.
        name : str
            Name in tables and plots.

        Raises
        ------
        ValueError
            A bad row (row, column, value, wanted value), or a missing column.

        Examples
        --------
        >>> log = pd.DataFrame({"sent": [60, 90], "prompt": [5, 6], "answer": [2, 3]})
        >>> names = {"arrival_s": "sent", "input_tokens": "prompt", "output_tokens": "answer"}
        >>> Trace.from_frame(log, columns=names).arrival_s
        array([ 0., 30.])
        """
        return cls(
            **frame_fields(frame, columns, time_unit=time_unit, skip_bad=skip_bad, name=name)
        )

    def _repr_html_(self) -> str:
        lengths = self.to_frame()[["input_tokens", "output_tokens"]].describe(
            percentiles=[0.5, 0.99]
        )
        over = f"{len(self):,} requests over {self.duration_s:,.0f} s"
        return f"<p>{escape(self.name)}: {over}</p>{lengths.drop('count').round(0).T.to_html()}"

    def to_frame(self) -> pd.DataFrame:
        """Return the table as a data frame of the columns that are present."""
        columns = (
            "arrival_s",
            "input_tokens",
            "output_tokens",
            *INTEGER_COLUMNS,
            *SECONDS_COLUMNS,
            "hash_ids",
        )
        return pd.DataFrame({c: getattr(self, c) for c in columns if getattr(self, c) is not None})
