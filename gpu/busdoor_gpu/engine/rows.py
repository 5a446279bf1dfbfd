"""The rows of a pass as arrays for the device: exact for an eager pass, padded for a CUDA graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from busdoor_gpu.engine.slots import Step
from busdoor_gpu.engine.upload import Ints
from busdoor_gpu.kernels.paged_prefill import max_programs, prefill_programs


class Rows(NamedTuple):
    """The rows of a pass, on the device: int32.

    `slots`: of each row; -1 for padding. `query_starts`, `wanted_starts`: one more than rows, where
    each row's tokens start, and where they would without padding. `last`: the index of each row's
    last wanted token, after which a token is picked. `plan`: [num_programs, 2], see `plan_prefill`.
    """

    slots: torch.Tensor
    query_starts: torch.Tensor
    wanted_starts: torch.Tensor
    last: torch.Tensor
    plan: torch.Tensor

    @classmethod
    def of(cls, sent: Sequence[torch.Tensor]) -> Rows:
        """Return the rows of the arrays that were sent."""
        slots, query_starts, wanted_starts, last, plan = sent
        return cls(slots, query_starts, wanted_starts, last, plan.view(-1, 2))


def row_arrays(step: Step, low: int, high: int, group: int) -> list[Ints]:
    """Return rows `low` to `high` of a step as the arrays of `Rows`, the plan flat.

    >>> [array.tolist() for array in row_arrays(Step.of_padding(2, 3), 0, 2, group=4)]
    [[-1, -1], [0, 3, 6], [0, 3, 6], [2, 5], [0, 0, 1, 0]]
    """
    lens, wanted = step.num_tokens[low:high], step.num_wanted[low:high]
    starts, wanted_starts = _starts(lens, high - low), _starts(wanted, high - low)
    last = starts[:-1] + np.array(wanted, dtype=np.int32) - 1
    seq_lens = np.array(step.contexts[low:high]) + lens
    plan = prefill_programs(lens, seq_lens, group)
    return [
        np.array(step.slots[low:high], dtype=np.int32),
        starts,
        wanted_starts,
        last,
        plan.reshape(-1),
    ]


def padded_arrays(step: Step, num_rows: int, num_tokens: int, group: int) -> list[Ints]:
    """Return a whole step as the arrays of `Rows`, padded to `num_rows` and `num_tokens`.

    Behind the rows there is one more, which owns the tokens that are left over; it has slot -1 and
    writes nothing. Programs of the plan that have nothing to do begin at that row's end.

    >>> slots, starts, wanted, last, plan = padded_arrays(Step.of_padding(1, 3), 2, 32, group=4)
    >>> slots.tolist(), starts.tolist(), wanted.tolist(), last.tolist()
    ([-1, -1, -1], [0, 3, 3, 32], [0, 3, 3], [2, 0])
    >>> plan.reshape(-1, 2).tolist()                        # row 0, the 29 tokens of padding, and nothing
    [[0, 0], [2, 0], [2, 29], [2, 29]]
    """
    count = len(step.slots)
    slots, last = np.full(num_rows + 1, -1, dtype=np.int32), np.zeros(num_rows, dtype=np.int32)
    slots[:count] = step.slots
    starts = _starts(step.num_tokens, num_rows + 1)
    wanted_starts = _starts(step.num_wanted, num_rows)
    spare = num_tokens - int(starts[-1])
    starts[-1] = num_tokens
    last[:count] = starts[:count] + np.array(step.num_wanted, dtype=np.int32) - 1
    seq_lens = np.zeros(num_rows + 1, dtype=np.int64)
    seq_lens[:count] = np.array(step.contexts) + step.num_tokens
    plan = np.full(
        (max_programs(num_tokens, num_rows + 1, group), 2), (num_rows, spare), dtype=np.int32
    )
    real = prefill_programs(np.diff(starts), seq_lens, group)
    plan[: len(real)] = real
    return [slots, starts, wanted_starts, last, plan.reshape(-1)]


def padded_lengths(num_rows: int, num_tokens: int, group: int) -> list[int]:
    """Return the lengths of the arrays of `padded_arrays`.

    >>> padded_lengths(2, 32, group=4)
    [3, 4, 3, 2, 8]
    """
    return [
        num_rows + 1,
        num_rows + 2,
        num_rows + 1,
        num_rows,
        2 * max_programs(num_tokens, num_rows + 1, group),
    ]


def _starts(counts: Sequence[int], num_rows: int) -> Ints:
    """Return where each of `num_rows` rows starts; rows beyond the counts are empty."""
    starts = np.zeros(num_rows + 1, dtype=np.int32)
    np.cumsum(counts, out=starts[1 : len(counts) + 1])
    starts[len(counts) + 1 :] = starts[len(counts)]
    return starts
