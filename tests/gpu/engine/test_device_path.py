"""The engine on a GPU only, with CUDA stand-ins: steps ahead, padding for graphs."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import busdoor_gpu.replay.replay  # noqa: E402
from busdoor_gpu.engine import engine as engine_module  # noqa: E402
from busdoor_gpu.engine import graphs as graphs_module  # noqa: E402
from busdoor_gpu.engine import launcher as launcher_module  # noqa: E402
from busdoor_gpu.engine.engine import Engine  # noqa: E402
from busdoor_gpu.engine.graphs import Key, StepGraphs  # noqa: E402
from busdoor_gpu.engine.upload import Upload  # noqa: E402
from busdoor_gpu.replay.replay import replay  # noqa: E402


class Event:
    """Stands for a CUDA event of a device that has always just finished."""

    def record(self):
        pass

    def synchronize(self):
        pass

    def elapsed_time(self, other):
        return 1.5


class Graphs(StepGraphs):
    """Keeps what would be captured, to call it again on what was sent."""

    def _capture(self, key, call):
        self._graphs[key] = call
        self.replayed = []

    def replay(self, key):
        self.replayed.append(key)
        self._graphs[key]()


class Counter(TorchDispatchMode):
    """Counts host-device memory operations by name; on a CPU both memories are one."""

    def __init__(self):
        super().__init__()
        self.calls, self.on = [], True

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if self.on:
            self.calls.append((func.overloadpacket.__name__, kwargs or {}))
        return func(*args, **(kwargs or {}))

    def names(self):
        return [name for name, _ in self.calls]


class LaunchesAtOnce(Engine):
    """A step runs when it is submitted, as a GPU may, not when it is waited for."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._asynchronous = True
        self.launcher.capture()
        self.graphs = self.launcher.graphs
        self.launcher.rehearse()  # whatever the policy, it must leave no trace
        self.host_launch_s = self.launcher.time_launch()
        LaunchesAtOnce.last = self


@pytest.fixture
def stand_ins(monkeypatch):
    monkeypatch.setattr(busdoor_gpu.replay.replay, "Engine", LaunchesAtOnce)
    monkeypatch.setattr(engine_module, "new_event", Event)
    monkeypatch.setattr(launcher_module, "StepGraphs", Graphs)


@pytest.mark.parametrize(
    "name",
    [
        "vllm",
        "vllm preempting",
        "vllm tight prefix cache",
        "orca fragmented",
        "static",
        "static skipping",
    ],
)
def test_steps_launched_ahead_and_padded_give_the_same_tokens(
    name, policies, models, torch_backend, new_trace, alone, stand_ins
):
    trace = new_trace(seed=3)
    result = replay(
        trace, policies[name](), models["tiny-llama"], torch_backend, clock="cpu", keep_outputs=True
    )
    for row in range(len(trace)):
        assert result.meta["outputs"][row] == alone("tiny-llama", trace, row), f"request {row}"
    assert (result.iterations["device_s"] == 0.0015).all()
    replayed = LaunchesAtOnce.last.graphs.replayed
    assert len(replayed) == len(result.iterations), "every step of this size is a graph"
    assert (Key(4) in replayed or name == "static skipping") and any(
        key.num_tokens for key in replayed
    )
    assert result.meta["graph_sizes"] == LaunchesAtOnce.last.graphs.decode_sizes
    assert 0 < result.meta["host_launch_s"] < 1
    assert result.meta["mixed_graph_sizes"] == LaunchesAtOnce.last.graphs.mixed_sizes


@pytest.mark.parametrize("sizes", [(8, 16), (32,)])
def test_a_step_above_the_largest_graph_is_launched_kernel_by_kernel(
    sizes, policies, models, torch_backend, new_trace, alone, stand_ins, monkeypatch
):
    monkeypatch.setattr(graphs_module, "_MIXED", sizes)
    trace = new_trace(num_requests=8, spread_s=0.0)
    result = replay(
        trace,
        policies["vllm"](),
        models["tiny-llama"],
        torch_backend,
        clock="cpu",
        keep_outputs=True,
    )
    assert all(result.meta["outputs"][row] == alone("tiny-llama", trace, row) for row in range(8))
    assert 0 < len(LaunchesAtOnce.last.graphs.replayed) < len(result.iterations)


def test_a_step_is_one_copy_and_allocates_nothing_on_the_host(
    policies, models, torch_backend, new_trace, stand_ins, monkeypatch
):
    """Pinned memory that is allocated, or a number that is read back, would wait for the device."""
    counter, replay_graph, launch = Counter(), Graphs.replay, LaunchesAtOnce._launch

    def replayed(self, key):  # the references that stand for the graph do read back
        counter.on = False
        replay_graph(self, key)
        counter.on = True

    def counted(self, running):
        counter.calls = []
        with counter:
            launch(self, running)
        changed = bool(running.step.entered or running.step.blocks)
        moved = len(running.step.left) + len(
            running.step.entered
        )  # tokens of preempted requests, on the device
        names = counter.names()
        assert names.count("copy_") + names.count("_to_copy") <= 1 + moved
        assert names.count("index_put_") == changed
        assert not {
            "pin_memory",
            "_pin_memory",
            "_local_scalar_dense",
            "nonzero",
            "empty",
            "zeros",
        } & set(names)
        assert not any(kwargs.get("pin_memory") for _, kwargs in counter.calls)
        steps.append(names)

    steps = []
    monkeypatch.setattr(Graphs, "replay", replayed)
    monkeypatch.setattr(LaunchesAtOnce, "_launch", counted)
    trace = new_trace(seed=3)
    replay(trace, policies["vllm preempting"](), models["tiny-llama"], torch_backend, clock="cpu")
    assert len(steps) > 20 and any("index_put_" in names for names in steps)
    assert all(names.count("copy_") >= 1 for names in steps)


def test_more_changes_than_one_copy_holds_go_before_it(
    policies, models, torch_backend, new_trace, alone, monkeypatch
):
    monkeypatch.setattr(Upload, "room", lambda self, parts: 8)
    trace = new_trace(num_requests=5)
    result = replay(
        trace,
        policies["vllm"](),
        models["tiny-llama"],
        torch_backend,
        clock="cpu",
        keep_outputs=True,
    )
    assert all(result.meta["outputs"][row] == alone("tiny-llama", trace, row) for row in range(5))


def test_the_runs_before_each_capture_leave_no_trace(policies, models, torch_backend, monkeypatch):
    """Slots, keys and values stay as they were, whatever rows the buffer would name."""

    def running(self, key, call):
        call()
        captured.append(key)

    captured = []
    monkeypatch.setattr(StepGraphs, "_capture", running)
    engine = Engine(models["tiny-llama"], policies["vllm"](), torch_backend, row_tokens=20)
    before = [part.clone() for cache in engine.caches for part in cache]
    engine.launcher.capture()
    assert captured[0] == Key(4, 256) and captured[-1] == Key(1)
    assert not engine.table.state.any()
    after = [part for cache in engine.caches for part in cache]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))
