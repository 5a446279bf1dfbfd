"""Ids of prompt blocks: names that are only compared, stored as integers of 64 bits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, chain, pairwise
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from busdoor_workloads.columns import IntArray

Rows = Sequence[tuple[int, ...]]
INT64 = np.dtype(np.int64)
_ROWS_AT_ONCE = 1 << 14  # prompts turned into runs at a time: their ids, in one array, stay few
_LEAST = np.iinfo(np.int64).min + 2**40  # an id less its place in the prompt fits into 64 bits too


class HashIds(Sequence[tuple[int, ...]]):
    """The ids of all prompts' blocks, held as runs of consecutive numbers: a column of a trace.

    Block i of a prompt has the id `offsets[k] + i`, k the first of its runs with `ends[k]` > i; its
    runs are those from `first[row]` to `first[row + 1]`. Prompts whose blocks were numbered in order
    have a run for each prompt that they go on from, however long they are.

    >>> ids = HashIds.of([(7, 8, 9), (7, 8, 20), ()])
    >>> ids, ids.runs(1), ids.num_blocks
    ([(7, 8, 9), (7, 8, 20), ()], ([7, 18], [2, 3]), array([3, 3, 0]))
    """

    def __init__(self, offsets: IntArray, ends: IntArray, first: IntArray) -> None:
        self.offsets, self.ends, self.first = offsets, ends, first

    @classmethod
    def of(cls, rows: Rows) -> HashIds:
        """Return any ids as runs; numbers of more than 64 bits are numbered anew.

        >>> HashIds.of([(7, 8), (7,)]).flat(), HashIds.of([(2**64 - 1, 8), (2**64 - 1,)]).flat()
        (array([7, 8, 7]), array([0, 1, 0]))
        """
        if isinstance(rows, cls):
            return rows
        parts = []
        for begin in range(0, max(1, len(rows)), _ROWS_AT_ONCE):
            some = rows[begin : begin + _ROWS_AT_ONCE]
            flat = _flat(some)
            if flat is None:
                return cls.of(_numbered(rows))
            parts.append(cls.of_flat(flat, np.fromiter(map(len, some), np.int64, len(some))))
        num_runs = np.concatenate([np.diff(part.first) for part in parts])
        return cls(
            np.concatenate([part.offsets for part in parts]),
            np.concatenate([part.ends for part in parts]),
            np.append(0, np.cumsum(num_runs)),
        )

    @classmethod
    def of_flat(cls, flat: IntArray, num_blocks: IntArray) -> HashIds:
        """Return the ids of all prompts, one after another, as runs."""
        last = np.cumsum(num_blocks)
        place = np.arange(len(flat)) - np.repeat(last - num_blocks, num_blocks)
        offsets = flat - place
        begins = np.empty(len(flat), dtype=bool)
        begins[:1] = True
        np.not_equal(offsets[1:], offsets[:-1], out=begins[1:])
        begins |= place == 0
        ends = np.append(begins[1:], True)[: len(flat)]
        first = np.append(0, np.cumsum(begins))[np.append(0, last)]
        return cls(offsets[begins], place[ends] + 1, first)

    @property
    def num_blocks(self) -> IntArray:
        """Number of ids of each prompt, shape (n,)."""
        last = np.append(0, self.ends)[self.first[1:]]
        return np.where(self.first[1:] > self.first[:-1], last, 0)

    def runs(self, row: int) -> tuple[list[int], list[int]]:
        """Return the offsets and ends of a prompt's runs."""
        some = slice(self.first[row], self.first[row + 1])
        return self.offsets[some].tolist(), self.ends[some].tolist()

    def take(self, rows: Iterable[int]) -> HashIds:
        """Return the ids of some prompts."""
        chosen = np.fromiter(rows, np.int64) % max(1, len(self))
        counts = self.first[chosen + 1] - self.first[chosen]
        first = np.append(0, np.cumsum(counts))
        runs = np.arange(first[-1]) + np.repeat(self.first[chosen] - first[:-1], counts)
        return HashIds(self.offsets[runs], self.ends[runs], first)

    def flat(self) -> IntArray:
        """Return all ids in one array."""
        begins = np.append(0, self.ends)[:-1]
        begins[self.first[:-1][self.first[1:] > self.first[:-1]]] = 0
        counts = self.ends - begins
        begun = np.cumsum(counts) - counts
        flat: IntArray = np.arange(counts.sum()) + np.repeat(begins - begun + self.offsets, counts)
        return flat

    def __len__(self) -> int:
        return len(self.first) - 1

    @overload
    def __getitem__(self, row: int) -> tuple[int, ...]: ...
    @overload
    def __getitem__(self, row: slice) -> HashIds: ...
    def __getitem__(self, row: int | slice) -> tuple[int, ...] | HashIds:
        rows = range(len(self))[row]
        if isinstance(rows, range):
            return self.take(rows)
        begin, ids = 0, list[int]()
        for offset, end in zip(*self.runs(rows), strict=True):
            ids += range(offset + begin, offset + end)
            begin = end
        return tuple(ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(list(self))


def _flat(hash_ids: Rows) -> IntArray | None:
    """Return all ids in one array; None if some are larger than 64 bits, or no numbers."""
    if len(hash_ids) and all(isinstance(row, np.ndarray) for row in hash_ids):
        flat = np.concatenate(hash_ids)
    else:
        try:
            num_blocks = sum(map(len, hash_ids))
            flat = np.fromiter(chain.from_iterable(hash_ids), np.int64, num_blocks)
        except (OverflowError, ValueError, TypeError):
            return None
    return flat if flat.min(initial=0) >= _LEAST else None


def as_arrays(rows: list[Any]) -> list[Any]:
    """Return lists of whole numbers as arrays, a fifth of the memory; other rows unchanged.

    >>> as_arrays([[7, 8], [9]]), as_arrays([[7], "8"])
    ([array([7, 8]), array([9])], [[7], '8'])
    """
    if set(map(type, rows)) != {list} or not set(map(type, chain.from_iterable(rows))) <= {int}:
        return rows
    try:
        flat = np.fromiter(chain.from_iterable(rows), np.int64, sum(map(len, rows)))
    except OverflowError:
        return rows
    return [flat[start:end] for start, end in pairwise(accumulate(map(len, rows), initial=0))]


def within_int64(hash_ids: Rows) -> Rows:
    """Return the ids unchanged if all fit into int64; else renumbered, equal ids alike.

    >>> within_int64([(2**63, 5), (2**63, 6)])
    [(0, 1), (0, 2)]
    """
    return hash_ids if _flat(hash_ids) is not None else _numbered(hash_ids)


def _numbered(hash_ids: Rows) -> Rows:
    known: dict[int, int] = {}
    return [tuple(known.setdefault(name, len(known)) for name in ids) for ids in hash_ids]


def fitting_block_size(num_ids: NDArray[np.int64], input_tokens: NDArray[np.int64]) -> int | None:
    """Return the tokens per block with as many blocks as ids per prompt: a power of 2 if any.

    Prompts without ids are ignored; None if no size fits.

    >>> fitting_block_size(np.array([10, 3]), np.array([160, 40]))
    16
    """
    named = num_ids > 0
    if not named.any():
        return None
    ids, tokens = num_ids[named], input_tokens[named]
    several = ids > 1
    least = int((-(-tokens // ids)).max())  # k blocks hold the prompt, k - 1 do not
    most = int(((tokens[several] - 1) // (ids[several] - 1)).min()) if several.any() else least
    power = 1 << max(0, least - 1).bit_length()
    return None if least > most else power if power <= most else least
