"""Beginnings that prompts share, as runs of KV blocks: cost and memory follow the runs."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Self

from busdoor.core.compiled import mypyc_attr


class BlockIds:
    """Ids of a prompt's KV blocks in order, held as runs of consecutive numbers.

    Block i of the run k has the id `offsets[k] + i`; the run ends before block `ends[k]`. Two
    prompts agree where their offsets do.

    >>> ids = BlockIds.of([7, 8, 9, 20, 21])
    >>> ids.offsets, ids.ends, len(ids), ids[3], ids
    ([7, 17], [3, 5], 5, 20, (7, 8, 9, 20, 21))
    """

    __slots__ = ("ends", "offsets")

    def __init__(self, offsets: list[int], ends: list[int]) -> None:
        self.offsets = offsets
        self.ends = ends

    @staticmethod
    def of(ids: BlockIds | Iterable[int]) -> BlockIds:
        """Return any ids as runs."""
        if isinstance(ids, BlockIds):
            return ids
        offsets: list[int] = []
        ends: list[int] = []
        for i, block in enumerate(ids):
            if offsets and offsets[-1] == block - i:
                ends[-1] = i + 1
            else:
                offsets.append(block - i)
                ends.append(i + 1)
        return BlockIds(offsets, ends)

    def cut(self, count: int) -> BlockIds:
        """Return the first `count` ids, or all where there are fewer."""
        if count >= len(self):
            return self
        run = bisect_left(self.ends, count)
        return BlockIds(self.offsets[: run + 1], [*self.ends[:run], count]) if count else NO_IDS

    def agree(self, other: BlockIds, start: int, stop: int) -> int:
        """Return the first block from `start` on that differs from the other's, at most `stop`.

        >>> BlockIds.of([1, 2, 3, 9]).agree(BlockIds.of([1, 2, 3, 4, 5]), 0, 4)
        3
        """
        if self is other:
            return stop
        i, j = bisect_right(self.ends, start), bisect_right(other.ends, start)
        while start < stop and self.offsets[i] == other.offsets[j]:
            end, other_end = self.ends[i], other.ends[j]
            start = min(end, other_end)
            i += end == start
            j += other_end == start
        return min(start, stop)

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, i: int) -> int:
        return self.offsets[bisect_right(self.ends, i)] + i

    def __iter__(self) -> Iterator[int]:
        begin = 0
        for offset, end in zip(self.offsets, self.ends, strict=True):
            yield from range(offset + begin, offset + end)
            begin = end

    def __eq__(self, other: object) -> bool:
        if isinstance(other, BlockIds):
            return len(self) == len(other) == self.agree(other, 0, len(self))
        return isinstance(other, tuple) and tuple(self) == other

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))


NO_IDS = BlockIds([], [])


@mypyc_attr(allow_interpreted_subclasses=True)
class Prefix:
    """Blocks `start` to `stop` of prompts that agree up to there: a node of a radix tree.

    What a prompt goes on with is a child, found by the id of its first block. The root has no
    blocks and no parent. All nodes of a tree are of one class.

    >>> root = Prefix(NO_IDS, 0, 0, None)
    >>> old = Prefix(BlockIds.of([7, 8, 9]), 0, 3, root)
    >>> path, known = root.find(BlockIds.of([7, 8, 5]), 3)
    >>> head = Prefix(NO_IDS, 0, 0, None)
    >>> old.split(known, head)
    >>> path == [old], known, (head.start, head.stop), (old.start, old.stop), old.parent is head
    (True, 2, (0, 2), (2, 3), True)
    """

    __slots__ = ("children", "ids", "parent", "start", "stop")

    def __init__(self, ids: BlockIds, start: int, stop: int, parent: Prefix | None) -> None:
        self.ids = ids
        self.start = start
        self.stop = stop
        self.parent = parent
        self.children: dict[int, Self] = {}
        if parent is not None:
            parent.children[ids[start]] = self

    def find(self, ids: BlockIds, limit: int) -> tuple[list[Self], int]:
        """Return the nodes below this one that `ids` follow, and up to which block.

        The last node may be followed in part. At most `limit` blocks are followed.
        """
        path: list[Self] = []
        node, known = self, self.stop
        while known == node.stop and known < limit and node.children:
            child = node.children.get(ids[known])
            if child is None:
                break
            node = child
            known = ids.agree(node.ids, known, min(node.stop, limit))
            path.append(node)
        return path, known

    def split(self, at: int, head: Prefix) -> None:
        """Make `head` the node of the blocks before block `at`, and this one its only child."""
        assert self.parent is not None
        head.ids, head.start, head.stop, head.parent = self.ids, self.start, at, self.parent
        head.children[self.ids[at]] = self
        self.parent.children[self.ids[self.start]] = head
        self.start, self.parent = at, head

    def remove(self) -> None:
        """Remove this node, which has no children, from the tree."""
        assert self.parent is not None
        del self.parent.children[self.ids[self.start]]
