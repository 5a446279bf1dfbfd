"""Dynamic batching, as inference servers call it: a short window, then like lengths together."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from busdoor.core.compiled import mypyc_attr
from busdoor.core.request import Request
from busdoor.kv.contiguous import ContiguousKV
from busdoor.policies.static import StaticPolicy
from busdoor.policies.whole_batch_config import DynamicConfig
from busdoor_workloads import Trace


@mypyc_attr(allow_interpreted_subclasses=True)
class DynamicPolicy(StaticPolicy):
    """Static batches of requests of like length.

    The oldest request always goes along, so that none starves; with it go, of the first
    `sort_window` that wait, those whose lengths are nearest to its own.

    Parameters
    ----------
    kv, batch_size, max_model_len
        As `StaticPolicy`.
    **settings
        Fields of `DynamicConfig`; `max_wait_s` is infinite unless given.

    Examples
    --------
    >>> policy = DynamicPolicy(ContiguousKV(6400), batch_size=2, max_model_len=512, sort_window=3)
    >>> for i, n in enumerate((20, 300, 30)):
    ...     policy.add(Request(i, 0.0, input_tokens=n, output_tokens=3))
    >>> [request.request_id for request in policy.schedule(0.0).admitted]
    [0, 2]
    """

    settings_class = DynamicConfig
    settings: DynamicConfig

    def __init__(
        self, kv: ContiguousKV, batch_size: int, max_model_len: int, **settings: Any
    ) -> None:
        super().__init__(kv, batch_size, max_model_len, **{"max_wait_s": inf, **settings})
        self.sort_window = self.settings.sort_window
        self.sort_by = self.settings.sort_by
        self._length = _output_tokens if self.sort_by == "output" else _input_tokens

    def _candidates(self) -> Iterable[Request]:
        """Return the oldest request, then those of like length; of equals the first to arrive."""
        length, line = self._length, iter(self._waiting)
        seen = list(islice(line, self.sort_window))
        if seen:
            mine = length(seen[0])
            seen.sort(key=lambda request: abs(length(request) - mine))
        return islice(chain(seen, line), self.num_slots)

    def admission_order(self, trace: Trace) -> NDArray[np.int64]:
        """Return a trace's rows in order of admission: by length in a full window; shape (n,)."""
        rows = np.arange(len(trace))
        if self.sort_window <= self.num_slots:
            return rows
        lengths = trace.output_tokens if self.sort_by == "output" else trace.input_tokens
        order: NDArray[np.int64] = np.lexsort((lengths, rows // self.sort_window))
        return order


def _input_tokens(request: Request) -> int:
    return request.input_tokens


def _output_tokens(request: Request) -> int:
    return request.output_tokens
