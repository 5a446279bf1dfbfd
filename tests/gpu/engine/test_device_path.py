"""What the engine does on a GPU only, with stand-ins for CUDA: steps launched ahead, decodes padded for graphs."""

from __future__ import annotations

from functools import partial

import pytest

torch = pytest.importorskip("torch")

import busdoor_gpu.replay.replay  # noqa: E402
from busdoor_gpu.engine import engine as engine_module  # noqa: E402
from busdoor_gpu.engine.engine import Engine  # noqa: E402
from busdoor_gpu.engine.graphs import DecodeGraphs  # noqa: E402
from busdoor_gpu.replay.replay import replay  # noqa: E402


class Event:
    """Stands for a CUDA event of a device that has always just finished."""

    def record(self):
        pass

    def synchronize(self):
        pass

    def elapsed_time(self, other):
        return 1.5


class Graphs(DecodeGraphs):
    """Keeps what would be captured, to call it again."""

    def _capture(self, size, decode):
        self._graphs[size] = self
        self.calls = getattr(self, "calls", {})
        self.calls[size] = partial(
            decode, self._slots[:size], self._starts[: size + 1], self._inputs.narrow(size, size)
        )
        self.replayed = []

    def run(self, slots):
        size = self.size_for(slots)
        self.replay = self.calls[size]
        self.replayed.append((len(slots), size))
        super().run(slots)


class LaunchesAtOnce(Engine):
    """A step runs when it is submitted, as a GPU may, not when it is waited for."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._asynchronous = True
        self._graphs = self.graphs = Graphs(self.table, self.policy.num_slots, self.decode)
        self._rehearse()  # whatever the policy, it must leave no trace
        LaunchesAtOnce.last = self


@pytest.fixture
def stand_ins(monkeypatch):
    monkeypatch.setattr(busdoor_gpu.replay.replay, "Engine", LaunchesAtOnce)
    monkeypatch.setattr(engine_module, "new_event", Event)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)


@pytest.mark.parametrize("name", ["vllm preempting", "vllm tight prefix cache", "orca fragmented", "static skipping"])
def test_steps_launched_ahead_and_padded_give_the_same_tokens(
    name, policies, models, torch_backend, new_trace, alone, stand_ins
):
    trace = new_trace(seed=3)
    result = replay(trace, policies[name](), models["tiny-llama"], torch_backend, clock="cpu", keep_outputs=True)
    for row in range(len(trace)):
        assert result.meta["outputs"][row] == alone("tiny-llama", trace, row), f"request {row}"
    assert (result.iterations["device_s"] == 0.0015).all()
    replayed = LaunchesAtOnce.last.graphs.replayed
    assert (3, 4) in replayed or name == "static skipping"
    assert all(rows <= size for rows, size in replayed)
