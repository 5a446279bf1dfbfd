"""The engine on a GPU only, with CUDA stand-ins: steps ahead, padding for graphs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import busdoor_gpu.replay.replay  # noqa: E402
from busdoor_gpu.engine import engine as engine_module  # noqa: E402
from busdoor_gpu.engine import graphs as graphs_module  # noqa: E402
from busdoor_gpu.engine import launcher as launcher_module  # noqa: E402
from busdoor_gpu.engine.device_step import DeviceStep  # noqa: E402
from busdoor_gpu.engine.engine import Engine  # noqa: E402
from busdoor_gpu.engine.graphs import Key, StepGraphs  # noqa: E402
from busdoor_gpu.engine.rows import Rows, padded_arrays, row_arrays  # noqa: E402
from busdoor_gpu.engine.slots import Step  # noqa: E402
from busdoor_gpu.engine.upload import Upload  # noqa: E402
from busdoor_gpu.kernels.cache import allocate_kv_cache  # noqa: E402
from busdoor_gpu.kernels.decode_plan import DecodePlan  # noqa: E402
from busdoor_gpu.kernels.slot_table import SlotTable, StepInputs  # noqa: E402
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


lengths = st.integers(1, 40)


@given(
    rows=st.lists(st.tuples(st.integers(0, 30), lengths, st.booleans()), min_size=1, max_size=6),
    spare=st.integers(0, 3),
)
@settings(max_examples=40, deadline=None)
def test_a_padded_mixed_step_leaves_what_the_eager_one_leaves(models, torch_backend, rows, spare):
    """Random contexts, chunks, padded prompts; slots' state, keys and values are compared."""
    rows = [(context, 1 if decodes else tokens) for context, tokens, decodes in rows]
    lens = [tokens for _, tokens in rows]
    step = Step(
        slots=list(range(len(rows))), num_tokens=lens, num_wanted=[max(1, n - spare) for n in lens],
        contexts=[context for context, _ in rows],
    )  # fmt: skip
    left = []
    for padded in (False, True):
        run, upload, inputs = bare(models["tiny-llama"], torch_backend, rows)
        arrays = padded_arrays(step, 8, 320, 2) if padded else row_arrays(step, 0, len(rows), 2)
        with torch.inference_mode():
            sent = Rows.of(upload.send(arrays))
            run.mixed(
                sent, inputs.narrow(320, 9) if padded else inputs.narrow(sum(lens), len(rows))
            )
        left.append([run.table.state, *(part for cache in run.caches for part in cache)])
    for eager, static in zip(*left, strict=True):
        torch.testing.assert_close(static, eager, rtol=1e-4, atol=1e-5)
    assert torch.equal(left[0][0], left[1][0]), "the same tokens"


def bare(model, backend, rows):
    """A device with random tokens and keys in its slots, the same each time."""
    generator = torch.Generator().manual_seed(0)
    table = SlotTable.allocate(8, 100, 4, "cpu")
    table.token_ids.copy_(torch.randint(0, 257, table.token_ids.shape, generator=generator))
    table.block_table.copy_(
        torch.randperm(table.block_table.numel(), generator=generator).view(8, -1)
    )
    for slot, (context, tokens) in enumerate(rows):
        table.num_computed[slot], table.num_known[slot] = context, context + tokens
    caches = [
        allocate_kv_cache(table.block_table.numel(), 2, 4, 16, torch.float32, "cpu")
        for _ in range(2)
    ]
    for k, v in caches:
        k.copy_(torch.randn(k.shape, generator=generator))
        v.copy_(torch.randn(v.shape, generator=generator))
    plan = DecodePlan.allocate(8, 4, 2, 16, "cpu")
    return (
        DeviceStep(model, backend, table, caches, plan),
        Upload(torch.device("cpu")),
        StepInputs.allocate(320, 9, table),
    )
