"""Runs of cached KV blocks, and the line in which those that no request holds are evicted."""

from __future__ import annotations

from busdoor.core.prefixes import NO_IDS, BlockIds, Prefix
from busdoor.core.request import Request


class CachedPrefix(Prefix):
    """Blocks of one content, and their copies in memory, first cached first."""

    __slots__ = ("copies",)

    def __init__(self, ids: BlockIds, start: int, stop: int, parent: Prefix | None) -> None:
        super().__init__(ids, start, stop, parent)
        self.copies: list[CachedRun] = []


class CachedRun:
    """One copy of a prefix's blocks: all held by as many requests, or side by side in the line.

    Attributes
    ----------
    prefix : CachedPrefix
        Which blocks.
    holders : int
        Requests that hold them.
    head : CachedRun or None
        Where the run was split while it was held: the blocks before it, which its holders hold too.
    before, after : CachedRun
        Its neighbours in the line of free runs; itself outside.
    block_ids : list of int
        Ids of its first blocks, as far as an engine has asked for them.
    """

    __slots__ = ("after", "before", "block_ids", "head", "holders", "prefix")

    def __init__(self, prefix: CachedPrefix, holders: int, block_ids: list[int]) -> None:
        self.prefix = prefix
        self.holders = holders
        self.head: CachedRun | None = None
        self.before = self.after = self
        self.block_ids = block_ids
        prefix.copies.append(self)

    @property
    def num_blocks(self) -> int:
        """Number of blocks."""
        return self.prefix.stop - self.prefix.start

    def enter_line(self, after: CachedRun) -> None:
        """Enter the line of free runs behind another."""
        self.before, self.after = after, after.after
        after.after.before = self
        after.after = self

    def leave_line(self) -> None:
        """Leave the line of free runs."""
        self.before.after, self.after.before = self.after, self.before
        self.before = self.after = self


class CachedPages:
    """What a request holds.

    Attributes
    ----------
    ids : BlockIds
        The names of its blocks, endless.
    num_blocks : int
        Blocks that it holds.
    num_cached : int
        How many of them, from the first, are full and can be found.
    runs : list of (CachedRun, int)
        The runs of these, and the first block of each when the request took it.
    block_ids : list of int
        Ids of its blocks, as far as an engine has asked for them.
    """

    __slots__ = ("block_ids", "ids", "num_blocks", "num_cached", "runs")

    def __init__(self, ids: BlockIds) -> None:
        self.ids = ids
        self.num_blocks = 0
        self.num_cached = 0
        self.runs: list[tuple[CachedRun, int]] = []
        self.block_ids: list[int] = []

    def pieces(self) -> list[CachedRun]:
        """Return the runs as they are split now, the last blocks first."""
        pieces = []
        for run, start in reversed(self.runs):
            piece: CachedRun | None = run
            while piece is not None:
                pieces.append(piece)
                piece = piece.head if piece.prefix.start > start else None
        return pieces


class Found:
    """What a request's beginning has in the cache, until the cache changes."""

    __slots__ = ("ids", "limit", "num_blocks", "path", "request")

    def __init__(self, request: Request, ids: BlockIds, root: CachedPrefix, limit: int) -> None:
        self.request = request
        self.ids = ids
        self.limit = limit
        self.path, self.num_blocks = root.find(ids, limit)

    def num_idle(self, num_blocks: int) -> int:
        """Count those of the first `num_blocks` found blocks that no request holds."""
        idle = 0
        for prefix in self.path:
            if prefix.start >= num_blocks:
                break
            if not prefix.copies[0].holders:
                idle += min(prefix.stop, self.num_blocks, num_blocks) - prefix.start
        return idle


def split(prefix: CachedPrefix, at: int) -> CachedPrefix:
    """Split a prefix before block `at`; return the new node of its beginning.

    Each copy is split: a free one's beginning stands in the line behind its rest.
    """
    length = at - prefix.start
    beginning = CachedPrefix(NO_IDS, 0, 0, None)
    prefix.split(at, beginning)
    for run in prefix.copies:
        head = CachedRun(beginning, run.holders, run.block_ids[:length])
        run.block_ids = run.block_ids[length:]
        if run.holders:
            head.head, run.head = run.head, head
        else:
            head.enter_line(run)
    return beginning


def joined(head: CachedRun, rest: CachedRun, ids: BlockIds) -> bool:
    """Join a run that has just become free with the one freed before, if these are its only rest.

    The rest stands last in the line; `ids` name the blocks of both.
    """
    first, second = head.prefix, rest.prefix
    if (
        second.parent is not first
        or len(first.children) > 1
        or len(first.copies) > 1
        or len(second.copies) > 1
    ):
        return False
    assert first.parent is not None
    rest.block_ids = head.block_ids + rest.block_ids
    second.ids, second.start, second.parent = ids, first.start, first.parent
    first.parent.children[ids[first.start]] = second
    return True
