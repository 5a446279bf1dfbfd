"""Orca's latency over load: which shapes of it come out."""

import pytest
from published.orca import orca_knees, orca_rates, plot_orca

RATES = (1.0, 2.0, 4.0, 6.0, 10.0, 14.0)


@pytest.fixture(scope="module")
def table():
    return orca_rates(RATES, num_requests=400)


@pytest.fixture(scope="module")
def control():
    return orca_rates(RATES, num_requests=400, equal_lengths=True)


def test_iteration_level_scheduling_moves_the_hockey_stick_far_to_the_right(table):
    knees = orca_knees(table)
    assert knees["orca"] > 2.5 * knees[["static 1", "static 8", "static 16"]].max()


def test_a_larger_static_batch_buys_less_than_its_size(table):
    knees = orca_knees(table)
    assert knees["static 1"] <= knees["static 8"] < knees["static 16"] < 2 * knees["static 8"]


def test_equal_lengths_nearly_close_the_gap(table, control):
    apart, together = (
        knees["orca"] / knees["static 16"] for knees in map(orca_knees, (table, control))
    )
    assert together < 0.6 * apart
    assert together < 2


def test_at_low_load_equal_lengths_leave_static_no_worse(control):
    p50 = control[control["request_rate"] == 1.0].set_index("policy")["p50"]
    assert p50["static 16"] < 1.6 * p50["orca"]


def test_latency_rises_with_the_rate_and_saturation_is_flagged(table):
    for _, own in table.groupby("policy"):
        assert (own["p50"].diff().dropna() > -1e-3).all()
    flagged = table.set_index(["policy", "request_rate"])["saturated"]
    assert flagged["static 1", 6.0] and not flagged["orca", 6.0]


def test_it_can_be_drawn(table):
    assert len(plot_orca(table).get_lines()) == 4
