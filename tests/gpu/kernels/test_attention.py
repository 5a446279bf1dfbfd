"""Paged decode and prefill equal dense float64: any lengths, chunks, groups and plans."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from benchmarks.gpu.cases import TOLERANCE, error, make_case
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from busdoor_gpu.engine.rows import padded_arrays
from busdoor_gpu.engine.slots import Step
from busdoor_gpu.kernels.cache import allocate_kv_cache, identity_block_table
from busdoor_gpu.kernels.decode_plan import DecodePlan, plan_decode, plan_decode_reference
from busdoor_gpu.kernels.paged_decode import paged_decode, paged_decode_reference
from busdoor_gpu.kernels.paged_prefill import paged_prefill, paged_prefill_reference

GPU = torch.cuda.is_available()
# A GPU runs an example in a millisecond once compiled, the interpreter in up to a second.
EXAMPLES = settings(
    max_examples=60 if GPU else 8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
HEADS = st.sampled_from([(1, 1), (4, 2), (6, 2), (5, 1), (2, 2), (17, 1)])


def decode(case, plan=None, **options):
    num_seqs, num_q_heads, head_dim = case.query.shape
    plan = plan or DecodePlan.allocate(
        num_seqs, num_q_heads, case.k_cache.shape[1], head_dim, case.query.device, **options
    )
    plan_decode(plan, case.seq_lens)
    out = torch.full_like(case.query, torch.nan)  # poisoned: every element must be written
    return paged_decode(*case.decode_args, plan=plan, out=out)


def decode_error(case, **options):
    return error(
        decode(case, **options), paged_decode_reference(*case.to(torch.float64).decode_args)
    )


def prefill_error(case):
    out = paged_prefill(*case.prefill_args, out=torch.full_like(case.query, torch.nan))
    return error(out, paged_prefill_reference(*case.to(torch.float64).prefill_args))


def test_the_reference_is_dense_attention():
    # torch's own attention over the same tokens laid out densely is the outside witness; contiguous
    # blocks make the layout plain.
    case = make_case(
        [37, 37], query_lens=[37, 37], num_q_heads=6, num_kv_heads=2, dtype=torch.float64
    )
    k, v = (
        torch.stack(
            [
                cache[row.long()].transpose(0, 1).flatten(1, 2)[:, :37]
                for row in case.block_table[:, :3]
            ]
        )
        for cache in (case.k_cache, case.v_cache)
    )
    q = case.query.view(2, 37, 6, 32).transpose(1, 2)
    dense = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=True
    )
    assert (
        error(paged_prefill_reference(*case.prefill_args), dense.transpose(1, 2).reshape(74, 6, 32))
        < 1e-12
    )


@EXAMPLES
@given(
    lens=st.lists(st.integers(0, 150 if GPU else 100), min_size=1, max_size=4),
    heads=HEADS,
    block_size=st.sampled_from([16, 64]),
    num_programs=st.sampled_from([1, 3, 7]),
    tile=st.sampled_from([16, 64]),
)
def test_decode_equals_the_reference(device, dtype, lens, heads, block_size, num_programs, tile):
    case = make_case(lens, None, *heads, block_size=block_size, dtype=dtype, device=device)
    assert decode_error(case, num_programs=num_programs, tile=tile) < TOLERANCE[dtype]


@EXAMPLES
@given(
    lens=st.lists(
        st.tuples(st.integers(0, 70 if GPU else 45), st.integers(0, 90 if GPU else 70)),
        min_size=1,
        max_size=3,
    ),
    heads=HEADS,
    block_size=st.sampled_from([16, 64]),
)
def test_prefill_of_chunks_equals_the_reference(device, dtype, lens, heads, block_size):
    query_lens, seq_lens = [new for new, _ in lens], [new + cached for new, cached in lens]
    case = make_case(
        seq_lens, query_lens, *heads, block_size=block_size, dtype=dtype, device=device
    )
    assert prefill_error(case) < TOLERANCE[dtype]


def test_decodes_and_chunks_in_one_launch(device, dtype):
    case = make_case([40, 65, 1, 33], query_lens=[1, 20, 1, 33], dtype=dtype, device=device)
    assert prefill_error(case) < TOLERANCE[dtype]


@pytest.mark.parametrize("context", [30, 31, 32, 62, 63, 64])
def test_no_query_sees_the_token_after_it_at_the_border_of_a_tile(device, dtype, context):
    case = make_case([context + 2], query_lens=[2], dtype=dtype, device=device)
    assert prefill_error(case) < TOLERANCE[dtype]


@pytest.mark.parametrize("head_dim", [64, 128])
def test_shipped_head_sizes_and_tiles(device, dtype, head_dim):
    case = make_case([130, 3], query_lens=[33, 1], head_dim=head_dim, dtype=dtype, device=device)
    assert prefill_error(case) < TOLERANCE[dtype]
    assert (
        decode_error(make_case([130, 3], head_dim=head_dim, dtype=dtype, device=device))
        < TOLERANCE[dtype]
    )


def test_an_empty_sequence_gives_zeros_and_disturbs_no_other(device, dtype):
    case = make_case([0, 21, 0], dtype=dtype, device=device)
    out = decode(case, num_programs=4, tile=16)
    assert (out[0] == 0).all() and (out[2] == 0).all() and out[1].isfinite().all()


def test_padding_rows_of_several_tokens_give_zeros_and_read_nothing(device, dtype):
    """An engine rehearses with such rows; everything that they could read is NaN."""
    case = make_case([0, 21], query_lens=[200, 21], dtype=dtype, device=device)
    out = paged_prefill(*case.prefill_args)
    assert (out[:200] == 0).all() and out[200:].isfinite().all()


@pytest.mark.parametrize("spare", [0, 43])
def test_the_padded_rows_and_programs_of_a_graph_change_nothing(device, dtype, spare):
    """A mixed step in a CUDA graph: absent rows and programs, a last row of spare tokens."""
    step = Step(slots=[0, 1], num_tokens=[1, 20], num_wanted=[1, 20], contexts=[39, 45])
    case = make_case([40, 65, 0, 0, 0], query_lens=[1, 20, 0, 0, spare], dtype=dtype, device=device)
    *_, plan = padded_arrays(step, 4, 21 + spare, group=2)
    plan = torch.from_numpy(plan).view(-1, 2).to(device)
    assert (plan[:, 0] == 4).sum() >= 3, "programs that have nothing to do"
    out = paged_prefill(*case.prefill_args, plan=plan, out=torch.full_like(case.query, torch.nan))
    assert (
        error(out, paged_prefill_reference(*case.to(torch.float64).prefill_args)) < TOLERANCE[dtype]
    )


def test_one_plan_serves_batches_of_other_sizes(device):
    # As a CUDA graph does: buffers stay, lengths change, leftovers of the longer batch must not
    # matter.
    plan = DecodePlan.allocate(6, 4, 2, 32, device, num_programs=5, tile=16)
    for lens in ([150, 90, 1, 7], [3], [40] * 6):
        case = make_case(lens, dtype=torch.float16, device=device)
        assert decode_error(case, plan=plan) < TOLERANCE[torch.float16]


def test_a_plan_refuses_more_sequences_than_it_has_room_for(device):
    plan = DecodePlan.allocate(2, 4, 2, 32, device)
    with pytest.raises(ValueError, match="3 sequences do not fit a plan for 2"):
        plan_decode(plan, torch.ones(3, dtype=torch.int32, device=device))


def test_a_strided_query_and_a_token_major_cache_are_read_as_they_are(device, dtype):
    case = make_case([50, 20], dtype=dtype, device=device)
    wide = torch.full((2, 3, 4, 32), torch.nan, dtype=dtype, device=device)
    wide[:, 1] = case.query
    k, v = (
        cache.transpose(1, 2).contiguous().transpose(1, 2) for cache in (case.k_cache, case.v_cache)
    )
    out = paged_decode(wide[:, 1], k, v, case.block_table, case.seq_lens)
    assert (
        error(out, paged_decode_reference(*case.to(torch.float64).decode_args)) < TOLERANCE[dtype]
    )


def test_a_contiguous_batch_is_an_identity_block_table(device):
    k, v = allocate_kv_cache(6, 2, 16, 32, torch.float16, device)
    k.normal_(), v.normal_()
    table = identity_block_table(2, 48, 16, device)
    query = torch.randn(2, 4, 32, device=device).half()
    lens = torch.tensor([48, 30], dtype=torch.int32, device=device)
    dense = [
        cache.view(2, 3, 2, 16, 32).transpose(1, 2).flatten(2, 3)
        for cache in (k.contiguous(), v.contiguous())
    ]
    for row, length in enumerate(lens.tolist()):
        q = query[row, :, None].double()
        keys, values = (x[row, :, :length].double() for x in dense)
        wanted = torch.nn.functional.scaled_dot_product_attention(q, keys, values, enable_gqa=True)[
            :, 0
        ]
        assert error(paged_decode(query, k, v, table, lens)[row], wanted) < TOLERANCE[torch.float16]


@EXAMPLES
@given(lens=st.lists(st.integers(0, 500), min_size=1, max_size=40), num_programs=st.integers(1, 40))
def test_the_plan_made_on_the_device_is_the_reference_plan(device, lens, num_programs):
    plans = [DecodePlan.allocate(40, 4, 2, 32, device, num_programs, tile=16) for _ in range(2)]
    seq_lens = torch.tensor(lens, dtype=torch.int32, device=device)
    plan_decode(plans[0], seq_lens)
    plan_decode_reference(plans[1], seq_lens)
    for name in ("tile_starts", "first_seq", "share"):
        assert torch.equal(getattr(plans[0], name), getattr(plans[1], name)), name


@EXAMPLES
@given(
    lens=st.lists(st.integers(0, 3000), min_size=1, max_size=100), num_programs=st.integers(1, 600)
)
def test_programs_share_the_tiles_evenly(lens, num_programs):
    plan = DecodePlan.allocate(len(lens), 8, 4, 64, "cpu", num_programs)
    plan_decode_reference(plan, torch.tensor(lens, dtype=torch.int32))
    total, share = int(plan.tile_starts[len(lens)]) * 4, int(plan.share)
    assert share * num_programs >= total  # nothing is left over
    assert share <= max(
        total / num_programs + 1, 2
    )  # no program has more than a tile above the mean
    firsts = plan.first_seq.tolist()
    assert all(a <= b for a, b in pairwise(firsts)) and firsts[0] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": torch.zeros(1, 4, 48)}, "head_dim is 48"),
        ({"query": torch.zeros(1, 3, 32)}, "3 query heads do not divide"),
        ({"v_cache": torch.zeros(3, 2, 8, 32)}, "have to agree"),
        ({"query": torch.zeros(1, 4, 64)[..., ::2]}, "query has strides"),
        ({"query": torch.zeros(1, 4, 64)}, "must be 64 contiguous"),
    ],
)
def test_what_the_kernels_cannot_read_is_refused_in_one_sentence(change, message):
    args = {
        "query": torch.zeros(1, 4, 32),
        "k_cache": torch.zeros(3, 2, 16, 32),
        "v_cache": torch.zeros(3, 2, 16, 32),
    }
    with pytest.raises(ValueError, match=message):
        paged_decode(
            **args | change, block_table=torch.zeros(1, 1).int(), seq_lens=torch.ones(1).int()
        )
