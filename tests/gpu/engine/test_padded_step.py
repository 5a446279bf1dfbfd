"""A mixed step in the padded buffers of a CUDA graph does what the eager step does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from busdoor_gpu.engine.device_step import DeviceStep  # noqa: E402
from busdoor_gpu.engine.rows import Rows, padded_arrays, row_arrays  # noqa: E402
from busdoor_gpu.engine.slots import Step  # noqa: E402
from busdoor_gpu.engine.upload import Upload  # noqa: E402
from busdoor_gpu.kernels.cache import allocate_kv_cache  # noqa: E402
from busdoor_gpu.kernels.decode_plan import DecodePlan  # noqa: E402
from busdoor_gpu.kernels.slot_table import SlotTable, StepInputs  # noqa: E402

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
