"""The clocks of a replay: what lengthens their seconds, and what does not."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("torch")

from busdoor_gpu.replay import clocks
from busdoor_gpu.replay.clocks import CpuClock, PacedClock


def work():
    end_s = time.process_time() + 0.1
    while time.process_time() < end_s:
        pass


@pytest.mark.parametrize("make", [CpuClock, PacedClock])
def test_processor_clocks_skip_what_is_slept(make):
    clock = make()
    time.sleep(0.2)
    assert clock.since_s(0.0) < 0.1


def paced_seconds(monkeypatch, processor_times):
    """Paced seconds of an iteration, given the processor clock before and after each piece."""
    readings = iter(processor_times)
    monkeypatch.setattr(clocks.time, "process_time", lambda: next(readings))
    clock = PacedClock()
    return clock.since_s(0.0), clock.pace


def test_a_processor_at_the_references_speed_counts_as_it_is(monkeypatch):
    ref_s = clocks.REFERENCE_S
    seconds, pace = paced_seconds(
        monkeypatch, [0.0, ref_s, ref_s + 0.01, ref_s + 0.01, 2 * ref_s + 0.01]
    )
    assert seconds == pytest.approx(0.01)
    assert pace == pytest.approx(1.0)


def test_a_neighbour_that_halves_the_speed_changes_nothing(monkeypatch):
    ref_s = 2 * clocks.REFERENCE_S
    seconds, pace = paced_seconds(
        monkeypatch, [0.0, ref_s, ref_s + 0.02, ref_s + 0.02, 2 * ref_s + 0.02]
    )
    assert seconds == pytest.approx(0.01)
    assert pace == pytest.approx(0.5)


def test_one_that_comes_in_between_counts_half(monkeypatch):
    fast_s, slow_s = clocks.REFERENCE_S, 2 * clocks.REFERENCE_S
    times = [0.0, fast_s, fast_s + 0.02, fast_s + 0.02, fast_s + 0.02 + slow_s]
    seconds, pace = paced_seconds(monkeypatch, times)
    assert pace == pytest.approx(0.75)
    assert seconds == pytest.approx(0.015)


def test_work_between_iterations_is_forgotten_when_nobody_was_there():
    clock = PacedClock()
    work()
    clock.wait_until(5.0)
    assert clock.since_s(5.0) < 0.01
