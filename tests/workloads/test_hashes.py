"""Block ids held as runs are the ids themselves."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from busdoor_workloads import resolve
from busdoor_workloads.hashes import HashIds, as_arrays

# ids that go on by one, stay, jump, and begin near each end of 64 bits
steps = st.lists(st.integers(0, 2), max_size=5)
begins = st.one_of(st.integers(-3, 3), st.sampled_from([-(2**63), 2**63 - 9, 2**64]))
ROWS = st.lists(
    st.builds(lambda b, s: tuple(b + sum(s[:i]) for i in range(len(s))), begins, steps), max_size=6
)


def renumbered(rows):
    known = {}
    return [[known.setdefault(name, len(known)) for name in row] for row in rows]


@given(ROWS, st.data())
def test_runs_are_the_ids_that_they_stand_for(rows, data):
    """Ids beyond 64 bits are only names: equal ones stay equal."""
    ids = HashIds.of(rows)
    assert len(ids) == len(rows)
    assert ids == rows or renumbered(ids) == renumbered(rows)
    assert ids.num_blocks.tolist() == [len(row) for row in rows]
    assert ids.flat().tolist() == [name for row in ids for name in row]
    chosen = data.draw(st.lists(st.sampled_from(range(len(rows))), max_size=4)) if rows else []
    assert ids.take(chosen) == [ids[row] for row in chosen]
    assert HashIds.of(list(ids)) == ids == HashIds.of(as_arrays([list(row) for row in ids]))


def test_a_session_costs_two_runs_a_prompt_however_long_it_is():
    ids = resolve("agentic").generate(seed=0, num_requests=200).hash_ids
    assert ids.num_blocks.mean() > 300
    assert len(ids.offsets) <= 2 * len(ids)
    assert np.array_equal(HashIds.of(list(ids)).flat(), ids.flat())
