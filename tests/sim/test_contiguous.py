"""ContiguousKV against the plainest model there is: a list that says who holds each slot."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from busdoor.kv.config import KVConfig
from busdoor.kv.contiguous import ContiguousKV


def test_takes_the_first_hole_that_is_large_enough():
    kv = ContiguousKV(100)
    assert [
        kv.reserve(key, size) for key, size in (("a", 10), ("b", 30), ("c", 20), ("d", 40))
    ] == [0, 10, 40, 60]
    kv.free("b")
    kv.free("d")
    assert kv.holes() == [(10, 30), (60, 40)]
    assert kv.reserve("e", 25) == 10
    assert kv.reserve("f", 6) == 60
    assert kv.holes() == [(35, 5), (66, 34)]


def test_free_slots_that_lie_apart_are_fragmentation():
    kv = ContiguousKV(100)
    for key in "abcd":
        kv.reserve(key, 25)
    kv.free("a")
    kv.free("c")
    assert (kv.num_free_tokens, kv.largest_hole, kv.fragmented_tokens) == (50, 25, 25)
    assert not kv.fits(26)
    assert kv.reserve("e", 26) is None
    kv.free("b")  # joins both
    assert kv.holes() == [(0, 75)]
    assert kv.fragmented_tokens == 0


def test_says_what_is_wrong():
    kv = ContiguousKV(10)
    kv.reserve("a", 5)
    with pytest.raises(
        ValueError, match="a wants 2 token slots; it must want 1 or more, and hold none"
    ):
        kv.reserve("a", 2)
    with pytest.raises(ValueError, match="b wants 0 token slots"):
        kv.reserve("b", 0)
    with pytest.raises(ValueError, match="a cache of 0 tokens holds nothing"):
        ContiguousKV(0)


def test_counts_in_blocks_for_tables():
    kv = KVConfig(num_blocks=10, block_size=16, max_model_len=100).contiguous()
    assert (kv.num_tokens, kv.num_blocks, kv.blocks_for(17)) == (160, 10, 2)


class Slots(RuleBasedStateMachine):
    """The slots one by one; a hole is a longest run of free ones."""

    @initialize(num_tokens=st.integers(1, 60))
    def build(self, num_tokens):
        self.kv = ContiguousKV(num_tokens)
        self.slots = [None] * num_tokens
        self.next_key = 0

    @property
    def holders(self):
        return sorted({key for key in self.slots if key is not None})

    def runs(self):
        runs = []
        for i, key in enumerate(self.slots):
            if key is None and i and self.slots[i - 1] is None:
                runs[-1] = (runs[-1][0], runs[-1][1] + 1)
            elif key is None:
                runs.append((i, 1))
        return runs

    @rule(num_tokens=st.integers(1, 25))
    def reserve(self, num_tokens):
        first = next((offset for offset, size in self.runs() if size >= num_tokens), None)
        assert self.kv.fits(num_tokens) == (first is not None)
        assert self.kv.reserve(self.next_key, num_tokens) == first
        if first is not None:
            assert self.kv.reserved(self.next_key) == (first, num_tokens)
            assert set(self.slots[first : first + num_tokens]) == {None}  # no overlap
            self.slots[first : first + num_tokens] = [self.next_key] * num_tokens
            self.next_key += 1

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def free(self, data):
        key = data.draw(st.sampled_from(self.holders))
        self.kv.free(key)
        self.slots = [None if holder == key else holder for holder in self.slots]

    @invariant()
    def agrees(self):
        runs = self.runs()
        assert self.kv.holes() == runs
        assert self.kv.num_free_tokens == self.slots.count(None)
        assert self.kv.num_reserved_tokens == len(self.slots) - self.slots.count(None)
        assert self.kv.largest_hole == max((size for _, size in runs), default=0)


TestSlots = Slots.TestCase
TestSlots.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
