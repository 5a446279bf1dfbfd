"""Dynamic batching, as inference servers call it: a batch leaves after a short window, and likes sit together."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, NonNegativeFloat, NonNegativeInt
from pydantic.dataclasses import dataclass

from busdoor.core.request import Request
from busdoor.kv.config import KVConfig
from busdoor.policies.config import for_memory
from busdoor.policies.static import StaticPolicy
from busdoor.policies.static_config import WholeBatchConfig
from busdoor_workloads import Trace

# TorchServe's default maxBatchDelay, in seconds. Triton's dynamic batcher has 0: take what is there.
WINDOW_S = 0.1
# The window in which the workload survey measures what sorting by length is worth.
SORT_WINDOW = 128


class DynamicPolicy(StaticPolicy):
    """Static batches of requests of like length.

    The oldest request always goes along, so that none starves; with it go those among the first `sort_window` who
    wait whose lengths are nearest to its own.

    Parameters
    ----------
    *args, **options
        As `StaticPolicy`.
    sort_window : int
        How many of the line are looked at; those behind them come after them. 0: first come, first served.
    sort_by : {"input", "output"}
        Length that is compared: the prompt's, which a server sees, or the true output's, which only an oracle does.

    Examples
    --------
    >>> from busdoor.kv.contiguous import ContiguousKV
    >>> policy = DynamicPolicy(ContiguousKV(6400), batch_size=2, max_model_len=512, sort_window=3)
    >>> for i, n in enumerate((20, 300, 30)):
    ...     policy.add(Request(i, 0.0, input_tokens=n, output_tokens=3))
    >>> [request.request_id for request in policy.schedule(0.0).admitted]
    [0, 2]
    """

    def __init__(self, *args: Any, sort_window: int = SORT_WINDOW, sort_by: str = "input", **options: Any) -> None:
        super().__init__(*args, **options)
        self.sort_window = sort_window
        self.sort_by = sort_by
        self._length = _output_tokens if sort_by == "output" else _input_tokens

    def _candidates(self) -> Iterable[Request]:
        """Return the oldest, then its likes; among equals the first to arrive."""
        length, line = self._length, iter(self._waiting)
        seen = list(islice(line, self.sort_window))
        if seen:
            mine = length(seen[0])
            seen.sort(key=lambda request: abs(length(request) - mine))
        return islice(chain(seen, line), self.num_slots)

    def admission_order(self, trace: Trace) -> NDArray[np.int64]:
        """Return the rows of a trace in order of admission: by length within a full window; shape (n,)."""
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


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DynamicConfig(WholeBatchConfig):
    """Settings of the policy `dynamic`; see `WholeBatchConfig` for the other fields.

    Parameters
    ----------
    max_wait_s : float
        Seconds that the oldest request waits for others; TorchServe's default unless given.
    sort_window : int
        How many of the line are looked at; 0 for first come, first served.
    sort_by : {"input", "output"}
        Length that is compared: the prompt's, or (an oracle) the true output's.

    Examples
    --------
    >>> DynamicConfig(batch_size=8).build(KVConfig(num_blocks=100, max_model_len=1000)).max_wait_s
    0.1
    """

    name: Literal["dynamic"] = "dynamic"
    max_wait_s: NonNegativeFloat = WINDOW_S
    sort_window: NonNegativeInt = SORT_WINDOW
    sort_by: Literal["input", "output"] = "input"

    @for_memory
    def build(self, kv: KVConfig, trace: Trace | None = None) -> DynamicPolicy:
        """Make the policy for a server with this memory.

        Raises
        ------
        ValueError
            If a batch could never fill on this trace, or no lengths to pad to are known.
        """
        return DynamicPolicy(**self._options(kv, trace), sort_window=self.sort_window, sort_by=self.sort_by)
