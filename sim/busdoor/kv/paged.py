"""Paged KV memory: blocks of a fixed size, any free one fits any request."""

from __future__ import annotations

from busdoor.core.compiled import mypyc_attr
from busdoor.core.decodes import Decodes
from busdoor.core.request import Request


class Pages:
    """What a request holds: `num_blocks`, of which those in `block_ids` are named so far."""

    __slots__ = ("block_ids", "num_blocks")

    def __init__(self) -> None:
        self.num_blocks = 0
        self.block_ids: list[int] = []


@mypyc_attr(allow_interpreted_subclasses=True)
class PagedKV:
    """A pool of KV blocks (`block_size` tokens), handed out singly and given back all at once.

    Only the number of free blocks steers a policy; which block a request gets is decided when the
    engine asks for its block table (the engine does, the simulator does not), so that a block costs
    the simulator nothing.

    >>> kv = PagedKV(num_blocks=10, block_size=16)
    >>> r = Request(0, 0.0, input_tokens=40, output_tokens=5)
    >>> kv.grow(r, 40)
    >>> kv.num_free_blocks, kv.block_table(r, 40)
    (7, [0, 1, 2])
    >>> kv.free(r)
    >>> kv.num_free_blocks
    10
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        if num_blocks < 1 or block_size < 1:
            raise ValueError(
                f"a cache of {num_blocks} blocks of {block_size} tokens holds nothing; both must "
                f"be 1 or more"
            )
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.num_free_blocks = num_blocks
        self._free_ids: list[int] = []
        self._next_id = 0

    @property
    def num_tokens(self) -> int:
        """Tokens that the cache holds."""
        return self.num_blocks * self.block_size

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that so many tokens fill, the last perhaps partly."""
        return -(-num_tokens // self.block_size)

    def lookup(self, request: Request) -> int:
        """A request's tokens not to be computed: without a prefix cache only those it brings."""
        return request.computed_tokens

    def needed(self, request: Request, num_tokens: int, cached_tokens: int = 0) -> int:
        """Free blocks that it takes for a request to hold `num_tokens` tokens."""
        pages = request.kv
        held = pages.num_blocks if isinstance(pages, Pages) else 0
        return -(-num_tokens // self.block_size) - held

    def grow(self, request: Request, num_tokens: int, cached_tokens: int = 0) -> None:
        """Allocate the blocks a request lacks for `num_tokens`; the caller has asked `needed`."""
        pages = request.kv
        if not isinstance(pages, Pages):
            request.kv = pages = Pages()
        more = -(-num_tokens // self.block_size) - pages.num_blocks
        if more > 0:
            pages.num_blocks += more
            self.num_free_blocks -= more

    def grow_decodes(self, decodes: Decodes, repeat: int, ahead: int = 0) -> int:
        """Allocate the blocks that `repeat` decode iterations begin, from `ahead` of the next on.

        Returns how many. They are counted for all together; `settle` writes its share into a
        request that stops.
        """
        num_blocks = decodes.new_blocks(repeat, ahead)
        self.num_free_blocks -= num_blocks
        return num_blocks

    def settle(self, request: Request, num_tokens: int) -> None:
        """Write into a request the blocks it holds after decoding up to `num_tokens` tokens."""
        pages = request.kv
        if isinstance(pages, Pages):
            pages.num_blocks = max(pages.num_blocks, -(-num_tokens // self.block_size))

    def free(self, request: Request) -> None:
        """Free all blocks of a (settled) request."""
        pages = request.kv
        if isinstance(pages, Pages):
            self.num_free_blocks += pages.num_blocks
            self._free_ids += reversed(pages.block_ids)
            request.kv = None

    def block_table(self, request: Request, num_tokens: int) -> list[int]:
        """Ids of the blocks of the first `num_tokens` tokens, in order; the request's own list."""
        pages = request.kv
        if not isinstance(pages, Pages):
            return []
        while len(pages.block_ids) < self.blocks_for(num_tokens):
            pages.block_ids.append(self._take_id())
        return pages.block_ids

    def _take_id(self) -> int:
        if self._free_ids:
            return self._free_ids.pop()
        self._next_id += 1
        return self._next_id - 1
