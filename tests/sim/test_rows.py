"""Rows of a run as columns: the same values, whatever their size and however they are cut."""

from heapq import heappop, heappush

import numpy as np
import pytest

from busdoor.simulator.rows import Rows, assign_slots


@pytest.mark.parametrize("settled_every", [1, 3, 1000])
def test_columns_hold_the_values_of_the_rows(settled_every):
    draw = np.random.default_rng(0)
    table = np.column_stack(
        [
            draw.permutation(100),
            draw.random(100),
            draw.choice([0, 127, 128, -129, 2**15, 2**31, 2**53], 100),
            np.zeros(100),
        ]
    )
    rows = Rows(("request_id", "enter_s", "tokens", "replica"))
    for number, row in enumerate(table, 1):
        rows += row.tobytes()
        if number % settled_every == 0:
            rows.settle()
    assert rows.num_rows == 100
    assert rows.column("request_id").tolist() == table[:, 0].tolist()
    for by, order in (("request_id", table[:, 0]), ("enter_s", table[:, 1])):
        frame = rows.frame(by)
        assert frame.dtypes.astype(str).tolist() == ["int64", "float64", "int64", "int64"]
        np.testing.assert_array_equal(frame.to_numpy(), table[np.argsort(order)])


def test_no_rows_are_a_table_of_the_same_columns():
    frame = Rows(("request_id", "enter_s")).frame("request_id")
    assert frame.dtypes.astype(str).to_dict() == {"request_id": "int64", "enter_s": "float64"}


def slots_one_by_one(enter_s, leave_s):
    free, busy, slots = [], [], []
    for enter, leave in zip(enter_s, leave_s, strict=True):
        while busy and busy[0][0] <= enter:
            heappush(free, heappop(busy)[1])
        slots.append(heappop(free) if free else len(busy))
        heappush(busy, (leave, slots[-1]))
    return slots


@pytest.mark.parametrize("seed", range(20))
def test_each_stay_takes_the_lowest_free_slot(seed):
    draw = np.random.default_rng(seed)
    enter = np.sort(draw.integers(0, 40, 200)).astype(float)
    leave = enter + draw.integers(0, 6, 200)  # some leave as they enter, many at the same time
    assert assign_slots(enter, leave).tolist() == slots_one_by_one(enter.tolist(), leave.tolist())
