"""The prefix cache block by block, as vLLM writes it: what the cache of runs must equal."""

from collections import OrderedDict

from busdoor.kv.paged import PagedKV


class Pages:
    def __init__(self):
        self.block_ids, self.keys = [], []


class PerBlockKV(PagedKV):
    """Keys of blocks, holders of blocks, and a line of single free blocks."""

    def __init__(self, num_blocks, block_size):
        super().__init__(num_blocks, block_size)
        self.line = OrderedDict.fromkeys(range(num_blocks))
        self.holders = [0] * num_blocks
        self.key_of = [None] * num_blocks  # the block's content and that of all before it
        self.cached = {}  # key: the blocks with it, first cached first

    def lookup(self, request):
        return max(request.computed_tokens, len(self._hits(request)) * self.block_size)

    def needed(self, request, num_tokens, cached_tokens=0):
        held = len(request.kv.block_ids) if request.kv else 0
        hits = self._hits(request)[: cached_tokens // self.block_size]
        idle = sum(not self.holders[block] for block in hits)
        return max(0, -(-num_tokens // self.block_size) - held - len(hits)) + idle

    def grow(self, request, num_tokens, cached_tokens=0):
        if request.kv is None:
            hits = self._hits(request)[: cached_tokens // self.block_size]
            request.kv = Pages()
            for block in hits:
                if not self.holders[block]:
                    del self.line[block]
                    self.num_free_blocks -= 1
                self.holders[block] += 1
                request.kv.block_ids.append(block)
                request.kv.keys.append(self.key_of[block])
        while len(request.kv.block_ids) * self.block_size < num_tokens:
            request.kv.block_ids.append(self._take())
        self._remember(request, num_tokens)

    def grow_decodes(self, decodes, repeat, ahead=0):
        begun = [r for i in range(ahead, ahead + repeat) for r in decodes.crossing(i)]
        for request in begun:
            request.kv.block_ids.append(self._take())
        return len(begun)

    def settle(self, request, num_tokens):
        if request.kv:
            self._remember(request, num_tokens)

    def free(self, request):
        if request.kv is None:
            return
        for block in reversed(request.kv.block_ids):
            self.holders[block] -= 1
            if not self.holders[block]:
                self.line[block] = None
                if self.key_of[block] is None:
                    self.line.move_to_end(block, last=False)
        self.num_free_blocks = len(self.line)
        request.kv = None

    def _hits(self, request):
        hits, key = [], None
        for i in range((request.known_tokens - 1) // self.block_size):
            key = (key, self._content(request, i))
            if key not in self.cached:
                break
            hits.append(next(iter(self.cached[key])))
        return hits

    def _content(self, request, i):
        ids = request.context_ids
        if ids or (i + 1) * self.block_size <= request.input_tokens:
            ids = ids or request.hash_ids
            if i < len(ids):
                return ids[i]
        return (request.request_id, i)

    def _remember(self, request, num_tokens):
        keys = request.kv.keys
        for i in range(len(keys), num_tokens // self.block_size):
            block = request.kv.block_ids[i]
            keys.append((keys[-1] if i else None, self._content(request, i)))
            self.key_of[block] = keys[-1]
            self.cached.setdefault(keys[-1], {})[block] = None

    def _take(self):
        block, _ = self.line.popitem(last=False)
        self.num_free_blocks -= 1
        self.holders[block] = 1
        if (key := self.key_of[block]) is not None:
            self.key_of[block] = None
            del self.cached[key][block]
            if not self.cached[key]:
                del self.cached[key]
        return block
