"""KV memory without pages: every reservation is one unbroken range of token slots."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable

from busdoor.core.compiled import mypyc_attr


@mypyc_attr(allow_interpreted_subclasses=True)
class ContiguousKV:
    """One range of token slots, cut first fit; what is freed joins the range beside it.

    What it cannot hand out although it is free is external fragmentation: the free slots outside
    the largest hole. Tables count `block_size` slots as a block, so that they compare with paged
    memory.

    >>> kv = ContiguousKV(num_tokens=100)
    >>> [kv.reserve(key, 30) for key in ("a", "b", "c")]     # the offsets
    [0, 30, 60]
    >>> kv.free("b")
    >>> kv.num_free_tokens, kv.largest_hole, kv.fragmented_tokens, kv.reserve("d", 31)
    (40, 30, 10, None)
    >>> kv.free("a")
    >>> kv.reserve("d", 31)
    0
    """

    def __init__(self, num_tokens: int, block_size: int = 1) -> None:
        if num_tokens < 1:
            raise ValueError(f"a cache of {num_tokens} tokens holds nothing; it must be 1 or more")
        self.num_tokens = num_tokens
        self.block_size = block_size
        self.num_blocks = num_tokens // block_size
        self.num_free_tokens = num_tokens
        self.largest_hole = num_tokens
        self._offsets = [0]  # of the holes, in order; no two of them touch
        self._sizes = [num_tokens]
        self._taken: dict[Hashable, tuple[int, int]] = {}

    @property
    def num_reserved_tokens(self) -> int:
        """Slots that are held."""
        return self.num_tokens - self.num_free_tokens

    @property
    def fragmented_tokens(self) -> int:
        """Free slots outside the largest hole."""
        return self.num_free_tokens - self.largest_hole

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that so many tokens fill, the last perhaps partly."""
        return -(-num_tokens // self.block_size)

    def fits(self, num_tokens: int) -> bool:
        """Whether so many slots are free in one piece."""
        return num_tokens <= self.largest_hole

    def reserve(self, key: Hashable, num_tokens: int) -> int | None:
        """Reserve the first hole that is large enough; return its offset, or None if none is.

        Raises ValueError if the key holds a range already, or wants none.
        """
        if key in self._taken or num_tokens < 1:
            raise ValueError(
                f"{key} wants {num_tokens} token slots; it must want 1 or more, and hold none"
            )
        if num_tokens > self.largest_hole:
            return None
        i = next(i for i, size in enumerate(self._sizes) if size >= num_tokens)
        offset, size = self._offsets[i], self._sizes[i]
        self._taken[key] = offset, num_tokens
        self._replace(i, i + 1, offset + num_tokens, size - num_tokens)
        self.num_free_tokens -= num_tokens
        return offset

    def free(self, key: Hashable) -> None:
        """Free a range; the holes on both its sides become one with it."""
        offset, size = self._taken.pop(key)
        self.num_free_tokens += size
        low = high = bisect_left(self._offsets, offset)
        end = offset + size
        if low and self._offsets[low - 1] + self._sizes[low - 1] == offset:
            low -= 1
            offset = self._offsets[low]
        if high < len(self._offsets) and self._offsets[high] == end:
            end += self._sizes[high]
            high += 1
        self._replace(low, high, offset, end - offset)

    def reserved(self, key: Hashable) -> tuple[int, int]:
        """Offset and length of what a holder has."""
        return self._taken[key]

    def holes(self) -> list[tuple[int, int]]:
        """Offset and length of every free range, in order."""
        return list(zip(self._offsets, self._sizes, strict=True))

    def _replace(self, low: int, high: int, offset: int, size: int) -> None:
        """Put one hole, or none if its size is 0, in place of those from `low` to `high`."""
        largest_goes = self.largest_hole in self._sizes[low:high]
        self._offsets[low:high] = [offset] if size else []
        self._sizes[low:high] = [size] if size else []
        if size >= self.largest_hole:
            self.largest_hole = size
        elif largest_goes:
            self.largest_hole = max(self._sizes, default=0)
