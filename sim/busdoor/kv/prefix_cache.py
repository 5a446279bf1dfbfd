"""Paged KV that remembers: equal prefixes share blocks; freed ones stay until needed."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from busdoor.core.decodes import Decodes
from busdoor.core.request import Request
from busdoor.kv.paged import PagedKV
from busdoor_workloads.memory_check import check_memory

BLOCK_BYTES = 150  # of an empty cache: measured 153
Key = int  # stands for a block's content and everything before it


@dataclass(slots=True)
class CachedPages:
    """What a request holds: its blocks in order, and the key of each full, cached one."""

    block_ids: list[int] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)


class PrefixCachedKV(PagedKV):
    """A pool of KV blocks with a prefix cache, as vLLM keeps it.

    A full block gets a key that names its content and, through the key of the block before it, all
    content before. A request that begins with known keys shares those blocks. A block that no
    request holds stays findable in a line of free blocks until it comes to the head; a request
    gives its blocks back tail first, so that beginnings live longest.

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
        check_memory(num_blocks * BLOCK_BYTES, f"a prefix cache of {num_blocks:,} blocks")
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        self._holders = [0] * num_blocks
        self._key_of: list[Key | None] = [None] * num_blocks
        # key: the blocks with that content, first cached first
        self._cached: dict[Key, dict[int, None]] = {}
        # chained content: no two prefixes share a key
        self._keys: dict[tuple[Key, int, int], Key] = {}

    def lookup(self, request: Request) -> int:
        """Tokens at its beginning in the cache or brought; at least the last is computed."""
        return max(request.computed_tokens, len(self._hits(request)) * self.block_size)

    def needed(self, request: Request, num_tokens: int, cached_tokens: int = 0) -> int:
        """Free blocks needed to hold `num_tokens`, found blocks that no request holds included."""
        pages = request.kv
        held = len(pages.block_ids) if isinstance(pages, CachedPages) else 0
        hits = self._hits(request)[: cached_tokens // self.block_size]
        idle = sum(not self._holders[block] for block in hits)
        return max(0, -(-num_tokens // self.block_size) - held - len(hits)) + idle

    def grow(self, request: Request, num_tokens: int, cached_tokens: int = 0) -> None:
        """Allocate blocks a request lacks for `num_tokens`; `cached_tokens` are from the cache."""
        pages = request.kv
        if not isinstance(pages, CachedPages):
            request.kv = pages = CachedPages()
            for block in self._hits(request)[: cached_tokens // self.block_size]:
                self._share(block)
                pages.block_ids.append(block)
                pages.keys.append(self._known_key(block))
        while len(pages.block_ids) * self.block_size < num_tokens:
            pages.block_ids.append(self._take())
        self._remember(request, pages, num_tokens // self.block_size)

    def grow_decodes(self, decodes: Decodes, repeat: int, ahead: int = 0) -> int:
        """Allocate the blocks that `repeat` decode iterations begin, `ahead` of the next on."""
        num_blocks = 0
        for i in range(ahead, ahead + repeat):
            for request in decodes.crossing(i):
                request.kv.block_ids.append(self._take())  # type: ignore[attr-defined]
                num_blocks += 1
        return num_blocks

    def settle(self, request: Request, num_tokens: int) -> None:
        """Put the blocks that a request filled while it decoded into the cache."""
        pages = request.kv
        if isinstance(pages, CachedPages):
            self._remember(request, pages, num_tokens // self.block_size)

    def free(self, request: Request) -> None:
        """Free a request's blocks, tail first."""
        pages = request.kv
        if not isinstance(pages, CachedPages):
            return
        for block in reversed(pages.block_ids):
            self._holders[block] -= 1
            if not self._holders[block]:
                self._free[block] = None
                if self._key_of[block] is None:  # nothing to find in it: used again first
                    self._free.move_to_end(block, last=False)
        self.num_free_blocks = len(self._free)
        request.kv = None

    def block_table(self, request: Request, num_tokens: int) -> list[int]:
        """Ids of the request's blocks in the order of its tokens; the list is the request's own."""
        pages = request.kv
        return pages.block_ids if isinstance(pages, CachedPages) else []

    def _hits(self, request: Request) -> list[int]:
        """Blocks at the request's beginning that are in the cache."""
        hits = []
        parent = -1
        for i in range((request.known_tokens - 1) // self.block_size):
            key = self._keys.get((parent, *self._content(request, i)))
            blocks = self._cached.get(key) if key is not None else None
            if not blocks:
                break
            hits.append(next(iter(blocks)))
            parent = key  # type: ignore[assignment]
        return hits

    def _content(self, request: Request, i: int) -> tuple[int, int]:
        """Name the content of a request's i-th block: shared by its id, else its own.

        vLLM caches a block when it is full, of generated tokens too; the next turn of a session
        looks for those.
        """
        ids = request.context_ids
        if ids or (i + 1) * self.block_size <= request.input_tokens:
            ids = ids or request.hash_ids
            if i < len(ids):
                return -1, ids[i]
        return request.request_id, i

    def _remember(self, request: Request, pages: CachedPages, num_full: int) -> None:
        for i in range(len(pages.keys), num_full):
            name = (pages.keys[-1] if i else -1, *self._content(request, i))
            key = self._keys.setdefault(name, len(self._keys))
            block = pages.block_ids[i]
            pages.keys.append(key)
            self._key_of[block] = key
            self._cached.setdefault(key, {})[block] = None

    def _known_key(self, block: int) -> Key:
        key = self._key_of[block]
        assert key is not None
        return key

    def _share(self, block: int) -> None:
        if not self._holders[block]:
            del self._free[block]
            self.num_free_blocks -= 1
        self._holders[block] += 1

    def _take(self) -> int:
        """Return the block that has been free longest, and forget what it holds."""
        block, _ = self._free.popitem(last=False)
        self.num_free_blocks -= 1
        self._holders[block] = 1
        key = self._key_of[block]
        if key is not None:
            self._key_of[block] = None
            del self._cached[key][block]
            if not self._cached[key]:
                del self._cached[key]
        return block
