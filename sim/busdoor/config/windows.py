"""The requests of a [workload] in windows of time, for runs too long to be held whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import ceil

import numpy as np

import busdoor_workloads as workloads
from busdoor.config.config import Config
from busdoor.metrics.sketch import EXACT
from busdoor_workloads import Trace
from busdoor_workloads.columns import MAX_TOKENS, FloatArray
from busdoor_workloads.windows import (
    HOUR_S,
    Window,
    check_cut,
    expected_requests,
    windows,
    windows_of,
)

_SAMPLE = 20_000  # requests that stand for all where a closed form asks for lengths
# Requests in a window, of all servers and of each; a fuller hour is cut into several windows. A
# server's iterations take memory while they are summed.
_MOST, _MOST_EACH = 250_000, 40_000


@dataclass(frozen=True)
class Windows:
    """A configuration's requests, window by window; of a file, cut from it.

    Laws are drawn otherwise than by `WorkloadTable.trace`: every window has random streams of its
    own. Raises ValueError where requests depend on those of other windows (closed loops, gaps that
    are not exponential, sessions of a file).

    >>> table = {"name": "azure-conv", "request_rate": 2.0, "num_requests": 10_000}
    >>> drawn = Windows(Config.from_table({"workload": table, "policy": "vllm"}))
    >>> drawn.num_requests, [len(window.trace) for window in drawn]
    (10000, [7208, 2792])
    """

    config: Config

    def __iter__(self) -> Iterator[Window]:
        """Draw, or cut, the windows in order."""
        if self._file is not None:
            return windows_of(self._file, self._window_s)
        table = self.config.workload
        return windows(
            self._laws, self._seed, num_requests=table.num_requests, window_s=self._window_s
        )

    @cached_property
    def num_requests(self) -> int:
        """How many requests there are, or are expected where only their time is given."""
        return len(self._file) if self._file is not None else round(float(self._by_hour.sum()))

    @property
    def most(self) -> float:
        """Requests in the fullest window."""
        return float(self._by_hour.max(initial=0.0)) * self._window_s / HOUR_S

    @property
    def num_servers(self) -> int:
        """Servers among which they are shared."""
        return sum(pool.replicas for pool in self.config.pools)

    @cached_property
    def sample(self) -> Trace:
        """Requests that stand for all, the longest that can come among them."""
        if self._file is not None:
            return self._file
        drawn = self._laws.generate(self._seed, num_requests=_SAMPLE)
        request, answer, cap = self._longest()
        drawn.input_tokens[-1], drawn.output_tokens[-1] = request, answer
        if drawn.max_output_tokens is not None:
            drawn.max_output_tokens[-1] = cap
        return drawn

    def _longest(self) -> tuple[int, int, int]:
        """Return the longest prompt, answer and cap of the laws that the model has room for."""
        laws = self._laws
        answer = min(int(laws.pairs.outputs.longest), laws.max_output_tokens or MAX_TOKENS)
        cap = laws.max_output_tokens or ceil(answer * (laws.max_output_factor or 1))
        most = max(pool.gpu.model.max_position_embeddings for pool in self.config.pools)
        cap = max(1, min(cap, most - 1))
        return max(1, min(int(laws.pairs.inputs.longest), most - cap)), min(answer, cap), cap

    @property
    def _seed(self) -> int:
        own = self.config.workload.seed
        return self.config.seed if own is None else own

    @cached_property
    def _file(self) -> Trace | None:
        table = self.config.workload
        if table.path is None:
            return None
        trace = table.trace(self.config.seed)
        check_cut(trace)
        return trace

    @cached_property
    def _laws(self) -> workloads.Workload:
        table = self.config.workload
        if table.time_scale is not None:
            raise ValueError(
                f"[workload] time_scale = {table.time_scale}: it applies to a trace that is held "
                f"whole, and this one is drawn in windows; give request_rate"
            )
        laws = table.workload
        return laws if table.request_rate is None else laws.at_rate(table.request_rate)

    @cached_property
    def _by_hour(self) -> FloatArray:
        if self._file is not None:
            return np.array([len(window.trace) for window in windows_of(self._file)], dtype=float)
        wanted = self.config.workload.num_requests
        return expected_requests(self._laws, self._seed, num_requests=wanted)

    @cached_property
    def _window_s(self) -> float:
        hour = float(self._by_hour.max(initial=0.0))
        return HOUR_S / max(1, ceil(hour / min(_MOST, _MOST_EACH * self.num_servers)))


def is_long(config: Config) -> bool:
    """Return whether a configuration has a million requests or more, and they come in windows.

    >>> table = {"name": "azure-code", "num_requests": 2_000_000}
    >>> [is_long(Config.from_table({"policy": "vllm", "workload": {**table, **rate}}))
    ...  for rate in ({"request_rate": 4}, {})]      # the profile's own gaps are a table
    [True, False]
    """
    if config.cluster is not None and config.cluster.disaggregated:
        return False
    table = config.workload
    if table.path is None and table.workload.duration_s is None:
        wanted = table.num_requests or table.workload.num_requests
        if wanted < EXACT:
            return False
    try:
        return Windows(config).num_requests >= EXACT
    except ValueError:
        return False
