"""The ring of pinned memory: a place is written again only after it was copied."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from busdoor_gpu.engine.upload import _PLACES, Upload  # noqa: E402


class Late:
    """A device that copies when it likes: a buffer, and the events of its stream."""

    def __init__(self):
        self.pending, self.done, self.asked, self.waits = deque(), 0, 0, 0

    def __getitem__(self, places):
        return self

    def copy_(self, source, non_blocking):
        assert non_blocking
        self.asked += 1
        self.pending.append((source, source.clone()))

    def copy_next(self):
        source, meant = self.pending.popleft()
        assert torch.equal(source, meant), "the place was written before it was copied"
        self.done += 1


class Event:
    """Of a device that is late."""

    def __init__(self, device):
        self.device, self.at = device, 0

    def record(self):
        self.at = self.device.asked

    def synchronize(self):
        self.device.waits += self.at > self.device.done
        while self.device.done < self.at:
            self.device.copy_next()


@given(
    steps=st.lists(
        st.tuples(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(0, 3)),
        min_size=1,
        max_size=30,
    )
)
@settings(max_examples=50, deadline=None)
def test_no_place_is_written_before_it_was_copied_however_late_the_device_is(steps):
    upload, device = Upload(torch.device("cpu")), Late()
    upload._copied = [Event(device) for _ in range(_PLACES)]
    upload._buffer = device
    for number, (lengths, copied) in enumerate(steps):
        upload.send([np.full(length, number, dtype=np.int32) for length in lengths])
        assert len(device.pending) <= _PLACES
        for _ in range(min(copied, len(device.pending))):
            device.copy_next()
    never_late = all(copied for _, copied in steps)
    assert not (never_late and device.waits), "the host waits only for a place that is not copied"
