"""The small kernels equal their float64 references at odd shapes."""

from __future__ import annotations

import pytest
import torch
from benchmarks.gpu.cases import TOLERANCE, error
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from busdoor_gpu.kernels.argmax import argmax, argmax_reference
from busdoor_gpu.kernels.cache import allocate_kv_cache
from busdoor_gpu.kernels.rmsnorm import rmsnorm, rmsnorm_reference
from busdoor_gpu.kernels.rope_kv_write import (
    HeadNorm,
    rope_kv_write,
    rope_kv_write_reference,
    rope_table,
)
from busdoor_gpu.kernels.slot_table import SlotTable, StepInputs
from busdoor_gpu.kernels.step_inputs import (
    commit_step,
    commit_step_reference,
    prepare_step,
    prepare_step_reference,
)
from busdoor_gpu.kernels.swiglu import swiglu, swiglu_reference

EXAMPLES = settings(
    max_examples=15 if torch.cuda.is_available() else 8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
TOKENS, WIDTH = st.integers(1, 4), st.integers(1, 2500)


def random(*shape, dtype, device, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(
        device=device, dtype=dtype
    )


@EXAMPLES
@given(tokens=TOKENS, hidden=WIDTH)
def test_rmsnorm(device, dtype, tokens, hidden):
    x, weight = (
        random(tokens, hidden, dtype=dtype, device=device),
        random(hidden, dtype=dtype, device=device, seed=1),
    )
    wanted = rmsnorm_reference(x.double(), weight.double(), 1e-5)
    assert (
        error(rmsnorm(x, weight, 1e-5, out=torch.full_like(x, torch.nan)), wanted)
        < TOLERANCE[dtype]
    )


@EXAMPLES
@given(tokens=TOKENS, hidden=WIDTH)
def test_rmsnorm_adds_the_residual_first_and_keeps_the_rounded_sum(device, dtype, tokens, hidden):
    x, residual = (random(tokens, hidden, dtype=dtype, device=device, seed=seed) for seed in (0, 1))
    weight = random(hidden, dtype=dtype, device=device, seed=2)
    total = (x.float() + residual.float()).to(dtype)
    out = rmsnorm(x, weight, 1e-5, residual)
    assert torch.equal(residual, total)
    assert error(out, rmsnorm_reference(total.double(), weight.double(), 1e-5)) < TOLERANCE[dtype]


@EXAMPLES
@given(tokens=TOKENS, width=WIDTH)
def test_swiglu(device, dtype, tokens, width):
    gate_up = 4 * random(tokens, 2 * width, dtype=dtype, device=device)
    assert error(swiglu(gate_up), swiglu_reference(gate_up.double())) < TOLERANCE[dtype]


@EXAMPLES
@given(rows=TOKENS, vocab=st.integers(1, 20000), ties=st.booleans())
def test_argmax_takes_the_first_of_the_largest(device, dtype, rows, vocab, ties):
    logits = random(rows, vocab, dtype=dtype, device=device) - 3
    if ties:
        logits = logits.round()
    assert torch.equal(argmax(logits), argmax_reference(logits))


@pytest.mark.parametrize("norm", [False, True], ids=["llama", "qwen3"])
@pytest.mark.parametrize(
    ("heads", "head_dim", "block_size"), [((4, 2), 32, 16), ((20, 4), 64, 64), ((5, 1), 16, 16)]
)
def test_rope_rotates_and_writes_exactly_the_slots_it_is_given(
    device, dtype, norm, heads, head_dim, block_size
):
    (num_q, num_kv), num_tokens = heads, 7
    qkv = random(num_tokens, (num_q + 2 * num_kv) * head_dim, dtype=dtype, device=device)
    weights = [random(head_dim, dtype=dtype, device=device, seed=seed) for seed in (1, 2)]
    inv_freq = 10000.0 ** -(torch.arange(0, head_dim, 2, device=device) / head_dim)
    positions = torch.tensor([0, 1, 5, 63, 2, 2, 9], dtype=torch.int32, device=device)
    slots = torch.tensor(
        [block_size * 3 - 1, 0, -1, block_size, 5, -1, 8], dtype=torch.int32, device=device
    )
    results = []
    for run, to in ((rope_kv_write, dtype), (rope_kv_write_reference, torch.float64)):
        caches = allocate_kv_cache(3, num_kv, block_size, head_dim, to, device)
        for cache in caches:
            cache.fill_(torch.nan)
        head_norm = HeadNorm(weights[0].to(to), weights[1].to(to), 1e-6) if norm else None
        query = run(qkv.to(to), positions, slots, rope_table(inv_freq, 64), caches, head_norm)
        results.append((query, *caches))
    for got, wanted in zip(*results, strict=True):
        assert torch.equal(got.isnan(), wanted.isnan())
        assert error(got.nan_to_num(), wanted.nan_to_num()) < TOLERANCE[dtype]


def test_rope_turns_by_position_as_complex_numbers_do():
    head_dim = 8
    table = rope_table(torch.tensor([1.0, 0.5, 0.25, 0.125]), 10)
    caches = allocate_kv_cache(1, 1, 16, head_dim, torch.float64, "cpu")
    qkv = torch.randn(1, 3 * head_dim, dtype=torch.float64)
    slot, position = torch.zeros(1).int(), torch.tensor([7])
    query = rope_kv_write_reference(qkv, position, slot, table, caches)[0, 0]
    turned = torch.complex(qkv[0, :4], qkv[0, 4:8]) * torch.polar(
        torch.ones(4).double(), 7 * torch.tensor([1.0, 0.5, 0.25, 0.125]).double()
    )
    assert torch.allclose(torch.complex(query[:4], query[4:]), turned, atol=1e-6)


def filled_table(device, seed, num_slots=6, max_model_len=90, block_size=16):
    generator = torch.Generator().manual_seed(seed)
    table = SlotTable.allocate(num_slots, max_model_len, block_size, device)
    table.token_ids.copy_(torch.randint(1, 1000, table.token_ids.shape, generator=generator))
    table.block_table.copy_(
        torch.randperm(table.block_table.numel(), generator=generator).view(num_slots, -1)
    )
    table.num_computed.copy_(torch.randint(0, 40, (num_slots,), generator=generator))
    table.num_padding.copy_(torch.randint(0, 3, (num_slots,), generator=generator))
    table.num_known.copy_(
        table.num_computed + torch.randint(1, 40, (num_slots,), generator=generator).to(device)
    )
    return table


@EXAMPLES
@given(
    seed=st.integers(0, 9),
    slots=st.permutations(range(6)),
    padded=st.integers(0, 6),
    lens=st.lists(st.integers(0, 40)),
)
def test_step_inputs_and_feedback(device, seed, slots, padded, lens):
    lens = (lens + [1] * 6)[:6]
    rows = torch.tensor(
        [-1 if row < padded else slot for row, slot in enumerate(slots)],
        dtype=torch.int32,
        device=device,
    )
    starts = torch.tensor([0, *lens], device=device).cumsum(0).int()
    sampled = torch.arange(2000, 2006, dtype=torch.int32, device=device)
    results = []
    for prepare, commit in (
        (prepare_step, commit_step),
        (prepare_step_reference, commit_step_reference),
    ):
        table = filled_table(device, seed)
        step = StepInputs.allocate(sum(lens), 6, table)
        prepare(table, rows, starts, step)
        commit(table, rows, starts, sampled)
        results.append((*vars(step).values(), table.token_ids, table.num_computed, table.num_known))
    for got, wanted in zip(*results, strict=True):
        assert torch.equal(got, wanted)


def test_a_decoding_slot_reads_the_token_it_sampled(device):
    table = SlotTable.allocate(2, 10, 4, device)
    table.token_ids[1, :3] = torch.tensor([11, 12, 13], device=device)
    table.num_known[1] = 3
    slots = torch.tensor([1], dtype=torch.int32, device=device)
    for chunk, sampled in (
        (2, 99),
        (1, 21),
        (1, 22),
    ):  # a chunk that does not complete the prompt feeds nothing back
        starts = torch.tensor([0, chunk], dtype=torch.int32, device=device)
        step = StepInputs.allocate(chunk, 1, table)
        prepare_step(table, slots, starts, step)
        commit_step(table, slots, starts, torch.tensor([sampled], dtype=torch.int32, device=device))
    assert step.input_ids.tolist() == [21] and step.positions.tolist() == [3]
    assert table.token_ids[1, :5].tolist() == [11, 12, 13, 21, 22]
