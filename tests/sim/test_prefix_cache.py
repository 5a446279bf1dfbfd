"""The prefix cache of runs decides as the one of single blocks does, after every operation."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sim.per_block_cache import PerBlockKV

from busdoor.core.decodes import Decodes
from busdoor.core.request import Request
from busdoor.kv.prefix_cache import _OWN, _OWN_BITS, PrefixCachedKV

BLOCK = 4


def line_of_blocks(kv):
    """Return the contents of the free blocks, the next to be taken first; None is no content."""
    return [kv.key_of[block] for block in kv.line]


def line_of_runs(kv):
    contents = [None] * kv._num_empty
    run = kv._line.after
    while run is not kv._line:
        assert not run.holders
        prefix, keys = run.prefix, [None]
        for i in range(prefix.stop):
            block = prefix.ids[i]
            own = divmod(block - _OWN, 1 << _OWN_BITS)
            keys.append((keys[-1], own if block >= _OWN else block))
        contents += reversed(keys[prefix.start + 1 :])
        run = run.after
    return contents


class Server:
    """One cache and its requests; the methods are operations, which return what the cache said."""

    def __init__(self, kv):
        self.kv, self.decodes, self.made = kv, Decodes(BLOCK), []
        self.admitted = 0

    def new(self, family, num_tokens, answer_named, piece):
        """Admit a prompt of a family: families agree for some blocks, part, and agree in ids again."""
        ids = [100 * min(family, i // 2) * (i < 5) + i for i in range(num_tokens // BLOCK + 8)]
        named = tuple(ids[: -(-num_tokens // BLOCK)]) if family < 4 else ()
        request = Request(len(self.made), 0.0, num_tokens, 10**6, hash_ids=named)
        request.context_ids = tuple(ids) if answer_named else ()
        self.made.append(request)
        return self._admit(request, piece)

    def again(self, which, piece):
        """Admit a request again, as after a preemption."""
        request = self._one(which, running=False)
        return request and self._admit(request, piece)

    def _admit(self, request, piece):
        cached = self.kv.lookup(request)
        until = min(request.known_tokens, cached + piece)
        needed = self.kv.needed(request, until, cached)
        if needed <= self.kv.num_free_blocks:
            self.kv.grow(request, until, cached)
            self.admitted = request.admission_index = self.admitted + 1
            self._computed(request, until)
        return cached, needed

    def prefill(self, which, piece):
        request = self._one(which)
        if request is None or request.decode_clock >= 0:
            return None
        until = min(request.known_tokens, request.computed_tokens + piece)
        needed = self.kv.needed(request, until)
        if needed <= self.kv.num_free_blocks:
            self.kv.grow(request, until)
            self._computed(request, until)
        return needed

    def _computed(self, request, until):
        request.computed_tokens = until
        if until == request.known_tokens:
            request.generated_tokens += 1
            self.decodes.join(request)

    def decode(self, repeat):
        needed = self.decodes.new_blocks(repeat)
        if needed <= self.kv.num_free_blocks:
            self.kv.grow_decodes(self.decodes, repeat)
            self.decodes.advance(repeat)
        return needed

    def settle(self, which):
        request = self._one(which)
        if request is not None and request.decode_clock >= 0:
            self.kv.settle(request, self.decodes.context_of(request))

    def free(self, which):
        request = self._one(which)
        if request is not None:
            if request.decode_clock >= 0:
                self.decodes.leave(request)
            self.kv.settle(request, request.computed_tokens)
            self.kv.free(request)
            request.computed_tokens = 0

    def _one(self, which, running=True):
        some = [request for request in self.made if (request.kv is not None) == running]
        return some[which % len(some)] if some else None


def check_tables(server, seen):
    """Blocks have one id for each content, another for each other, and keep it while held."""
    contents = {}
    for request in server.made:
        if request.kv is None:
            continue
        tokens = request.computed_tokens
        if request.decode_clock >= 0:
            tokens = server.decodes.context_of(request)
        table = list(server.kv.block_table(request, tokens))
        assert len(table) >= -(-tokens // BLOCK)
        before = seen.setdefault(request.admission_index, table)
        assert table[: len(before)] == before
        for run in request.kv.pieces():
            assert table[run.prefix.start : run.prefix.stop] == run.block_ids
            for i, block in enumerate(run.block_ids):
                assert contents.setdefault(block, (id(run), i)) == (id(run), i)
        for block in table[request.kv.num_cached :]:
            assert contents.setdefault(block, request) is request
    assert all(0 <= block < server.kv.num_blocks for block in contents)


few, which = st.integers(1, 30), st.integers(0, 9)
OPERATIONS = st.one_of(
    st.tuples(st.just("new"), st.integers(0, 4), few, st.booleans(), few),
    st.tuples(st.just("again"), which, few),
    st.tuples(st.just("prefill"), which, few),
    st.tuples(st.just("decode"), st.integers(1, 9)),
    st.tuples(st.just("settle"), which),
    st.tuples(st.just("free"), which),
    st.tuples(st.just("tables")),
)


@settings(max_examples=300, deadline=None)
@given(st.integers(4, 40), st.lists(OPERATIONS, min_size=5, max_size=60))
def test_runs_equal_single_blocks(num_blocks, operations):
    """Hits, needs, free blocks and the order of eviction are the same at every step."""
    runs, blocks = Server(PrefixCachedKV(num_blocks, BLOCK)), Server(PerBlockKV(num_blocks, BLOCK))
    seen = {}
    for kind, *args in operations:
        if kind == "tables":
            check_tables(runs, seen)
            continue
        assert str(getattr(runs, kind)(*args)) == str(getattr(blocks, kind)(*args))
        assert runs.kv.num_free_blocks == blocks.kv.num_free_blocks
        assert line_of_runs(runs.kv) == line_of_blocks(blocks.kv)
        for one, other in zip(runs.made, blocks.made, strict=True):
            if one.kv is None:
                assert runs.kv.lookup(one) == blocks.kv.lookup(other)
