"""Paged KV that remembers: equal prefixes share blocks; freed ones stay until needed."""

from __future__ import annotations

from busdoor.core.compiled import mypyc_attr
from busdoor.core.decodes import Decodes
from busdoor.core.prefixes import NO_IDS, BlockIds
from busdoor.core.request import Request
from busdoor.kv.cached_run import CachedPages, CachedPrefix, CachedRun, Found, joined, split
from busdoor.kv.paged import PagedKV

# Ids from here on name the blocks of one request alone: beyond all ids of a trace (64 bits), even
# where one stands for many blocks.
_OWN = 1 << 96
_OWN_BITS = 40  # blocks of one request: a trace's lengths are below 2**32 tokens
_ENDLESS = 1 << 62


@mypyc_attr(allow_interpreted_subclasses=True)
class PrefixCachedKV(PagedKV):
    """A pool of KV blocks with a prefix cache, as vLLM keeps it.

    A full block is found by its content and all content before. A request that begins with known
    content shares those blocks. A block that no request holds stays findable in a line of free
    blocks until it comes to the head; a request gives its blocks back tail first, so that
    beginnings live longest.

    Blocks are kept as runs that have one fate: a tree of prefixes, split where prompts part, where
    a request shares less, and where an eviction ends. A call costs what it meets of runs, not of
    blocks.

    >>> kv = PrefixCachedKV(num_blocks=8, block_size=16)
    >>> a, b = (Request(i, 0.0, input_tokens=40, output_tokens=2, hash_ids=(7, 8, 100 + i)) for i in range(2))
    >>> kv.lookup(a)
    0
    >>> kv.grow(a, 40)
    >>> kv.lookup(b), kv.needed(b, 40, cached_tokens=32)
    (32, 1)
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        super().__init__(num_blocks, block_size)
        self._num_empty = num_blocks  # free blocks without content: taken first
        self._root = CachedPrefix(NO_IDS, 0, 0, None)
        # the line of free runs, a ring: the next to be evicted is after it, the last before it
        self._line = CachedRun(CachedPrefix(NO_IDS, 0, 0, None), 0, [])
        self._found: Found | None = None

    def lookup(self, request: Request) -> int:
        """Tokens at its beginning in the cache or brought; at least the last is computed."""
        return max(request.computed_tokens, self._find(request).num_blocks * self.block_size)

    def needed(self, request: Request, num_tokens: int, cached_tokens: int = 0) -> int:
        """Free blocks needed to hold `num_tokens`, found blocks that no request holds included."""
        pages = request.kv
        missing = -(-num_tokens // self.block_size)
        if isinstance(pages, CachedPages):
            missing -= pages.num_blocks
        shared = cached_tokens // self.block_size
        if not shared:
            return max(0, missing)
        found = self._find(request)
        return max(0, missing - min(shared, found.num_blocks)) + found.num_idle(shared)

    def grow(self, request: Request, num_tokens: int, cached_tokens: int = 0) -> None:
        """Allocate blocks a request lacks for `num_tokens`; `cached_tokens` are from the cache."""
        pages = request.kv
        if not isinstance(pages, CachedPages):
            found = self._find(request)
            request.kv = pages = CachedPages(found.ids)
            self._share(pages, found, cached_tokens // self.block_size)
        more = -(-num_tokens // self.block_size) - pages.num_blocks
        if more > 0:
            pages.num_blocks += more
            self._take(more)
        self._remember(pages, num_tokens // self.block_size)

    def grow_decodes(self, decodes: Decodes, repeat: int, ahead: int = 0) -> int:
        """Allocate the blocks that `repeat` decode iterations begin, `ahead` of the next on."""
        num_blocks = decodes.new_blocks(repeat, ahead)
        self._take(num_blocks)
        return num_blocks

    def settle(self, request: Request, num_tokens: int) -> None:
        """Put the blocks that a request filled while it decoded into the cache."""
        pages = request.kv
        if isinstance(pages, CachedPages):
            pages.num_blocks = max(pages.num_blocks, -(-num_tokens // self.block_size))
            self._remember(pages, num_tokens // self.block_size)

    def free(self, request: Request) -> None:
        """Free a (settled) request's blocks, tail first."""
        pages = request.kv
        if not isinstance(pages, CachedPages):
            return
        self._found = None
        empty = pages.num_blocks - pages.num_cached
        self._num_empty += empty
        self.num_free_blocks += empty
        self._free_ids += pages.block_ids[pages.num_cached :]
        rest: CachedRun | None = None  # freed just before
        for run in pages.pieces():
            run.holders -= 1
            if run.holders:
                rest = None
                continue
            run.head = None
            self.num_free_blocks += run.num_blocks
            if rest is None or not joined(run, rest, pages.ids):
                run.enter_line(self._line.before)
                rest = run
        request.kv = None

    def block_table(self, request: Request, num_tokens: int) -> list[int]:
        """Ids of the blocks of the first `num_tokens` tokens, in order; the request's own list."""
        pages = request.kv
        if not isinstance(pages, CachedPages):
            return []
        ids = pages.block_ids
        if len(ids) < pages.num_cached:
            ids.clear()
            for run in reversed(pages.pieces()):
                self._name(run.block_ids, run.num_blocks)
                ids += run.block_ids
        self._name(ids, self.blocks_for(num_tokens))
        return ids

    def _name(self, block_ids: list[int], num_blocks: int) -> None:
        while len(block_ids) < num_blocks:
            block_ids.append(self._take_id())

    def _find(self, request: Request) -> Found:
        limit = (request.known_tokens - 1) // self.block_size
        found = self._found
        if found is None or found.request is not request or found.limit != limit:
            self._found = found = Found(request, self._ids(request), self._root, limit)
        return found

    def _ids(self, request: Request) -> BlockIds:
        """Name the content of a request's blocks: shared by its ids, else its own.

        vLLM caches a block when it is full, of generated tokens too; the next turn of a session
        looks for those.
        """
        if request.context_ids:
            ids = BlockIds.of(request.context_ids)
        else:
            ids = BlockIds.of(request.hash_ids).cut(request.input_tokens // self.block_size)
        own = _OWN + (request.request_id << _OWN_BITS)
        return BlockIds([*ids.offsets, own], [*ids.ends, _ENDLESS])

    def _share(self, pages: CachedPages, found: Found, limit: int) -> None:
        """Add what was found to what a request holds, at most `limit` blocks."""
        limit = min(limit, found.num_blocks)
        for prefix in found.path:
            if prefix.start >= limit:
                break
            shared = split(prefix, limit) if prefix.stop > limit else prefix
            run = shared.copies[0]
            if not run.holders:
                run.leave_line()
                self.num_free_blocks -= run.num_blocks
            run.holders += 1
            pages.runs.append((run, shared.start))
        pages.num_blocks = pages.num_cached = limit
        self._found = None

    def _remember(self, pages: CachedPages, num_full: int) -> None:
        """Put a request's blocks before `num_full` into the cache."""
        if num_full <= pages.num_cached:
            return
        self._found = None
        last = pages.runs[-1][0].prefix if pages.runs else self._root
        path, known = last.find(pages.ids, num_full)
        for prefix in path:  # another request has computed these blocks too
            last = split(prefix, known) if prefix.stop > known else prefix
            self._hold(pages, last)
        if known < num_full:
            self._append(pages, last, num_full)
        pages.num_cached = num_full

    def _append(self, pages: CachedPages, last: CachedPrefix, stop: int) -> None:
        """Put blocks that no other request has into the cache, after the `last` of this one's."""
        run = last.copies[0] if len(last.copies) == 1 else None
        if run is None or run.holders > 1 or last.children:
            self._hold(pages, CachedPrefix(pages.ids, last.stop, stop, last))
            return
        if block_ids := pages.block_ids[last.stop : stop]:
            self._name(run.block_ids, run.num_blocks)
            run.block_ids += block_ids
        last.ids, last.stop = pages.ids, stop

    def _hold(self, pages: CachedPages, prefix: CachedPrefix) -> None:
        """Make a request's blocks a copy of a prefix."""
        run = CachedRun(prefix, 1, pages.block_ids[prefix.start : prefix.stop])
        pages.runs.append((run, prefix.start))

    def _take(self, num_blocks: int) -> None:
        """Use free blocks: first empty ones, then those that have been free longest."""
        self.num_free_blocks -= num_blocks
        empty = min(num_blocks, self._num_empty)
        self._num_empty -= empty
        if num_blocks > empty:
            self._evict(num_blocks - empty)

    def _evict(self, num_blocks: int) -> None:
        self._found = None
        while num_blocks:
            run = self._line.after
            assert run is not self._line, "no free block is left; the caller has not asked `needed`"
            prefix, num_kept = run.prefix, run.num_blocks - num_blocks
            if num_kept > 0 and len(prefix.copies) == 1:
                self._free_ids += run.block_ids[num_kept:]
                del run.block_ids[num_kept:]
                prefix.stop -= num_blocks
                return
            if num_kept > 0:
                split(prefix, prefix.start + num_kept)
            num_blocks -= run.num_blocks
            self._free_ids += run.block_ids
            run.leave_line()
            prefix.copies.remove(run)
            if not prefix.copies:
                prefix.remove()
