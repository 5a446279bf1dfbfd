"""MFU and MBU: shares of what the GPU could do, never over 1 with the durations of a roofline."""

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from busdoor.catalog import gpu_names, model, model_names
from busdoor.catalog.dtypes import BYTES_PER_VALUE
from busdoor.core.batch import Batch
from busdoor.core.request import Request
from busdoor.step_time import make_step_time
from busdoor.step_time.mfu import batch_utilisation, iteration_utilisation, run_utilisation

LLAMA = make_step_time("roofline", gpu="h100", model="llama-3.1-8b")


@st.composite
def rooflines(draw):
    """Any model on any GPU in any format, with nothing lost: efficiencies of 1 and no overhead."""
    name, tp = draw(st.sampled_from(model_names())), draw(st.sampled_from([1, 2, 8]))
    shape = model(name)
    if shape.num_attention_heads % tp or (
        shape.num_key_value_heads % tp and tp % shape.num_key_value_heads
    ):
        tp = 1
    table = {"gpu": draw(st.sampled_from(gpu_names())), "model": name, "tp": tp}
    table |= {
        key: draw(st.sampled_from(list(BYTES_PER_VALUE))) for key in ("weight_dtype", "kv_dtype")
    }
    ideal = dict.fromkeys(
        ("memory_efficiency", "kv_efficiency", "gemm_efficiency", "attention_efficiency"), 1.0
    )
    none = dict.fromkeys(
        (
            "step_overhead_s",
            "layer_overhead_s",
            "experts_overhead_s",
            "request_overhead_s",
            "all_reduce_latency_s",
        ),
        0.0,
    )
    table["gpu"] = {"name": table["gpu"], "memory_gib": 1e4}  # so that everything fits
    return make_step_time("roofline", **table, **ideal, **none)


@st.composite
def batches(draw):
    batch = Batch()
    for n, c in draw(st.lists(st.tuples(st.integers(1, 8192), st.integers(0, 8192)), max_size=4)):
        batch.add_chunk(Request(0, 0.0, n, 1), n, c)
    batch.num_decode_tokens = draw(st.integers(0 if batch.chunks else 1, 512))
    batch.num_idle_rows = draw(st.integers(0, 20))
    batch.num_padded_tokens = batch.num_idle_rows + draw(st.integers(0, 1000))
    batch.decode_context_tokens = batch.num_decode_rows * draw(st.integers(1, 50_000))
    return batch


def row(batch, step_time, repeat=1):
    """The row of a result's iterations that a stretch of a batch gives."""
    grown = batch.decode_context_tokens + (repeat - 1) * batch.num_decode_rows
    return {
        "duration_s": step_time.durations_s(batch, repeat).sum(),
        "repeat": repeat,
        "context_tokens": batch.decode_context_tokens,
        "context_tokens_last": grown,
        **{name: getattr(batch, name) for name in COUNTS},
    }


COUNTS = (
    "num_prefill_tokens",
    "num_decode_tokens",
    "num_idle_rows",
    "num_requests",
    "prefill_attention",
    "prefill_context_tokens",
)


@given(rooflines(), batches())
def test_no_share_passes_one_even_where_nothing_is_lost(step_time, batch):
    shares = batch_utilisation(step_time, batch)
    assert 0 < shares.mfu <= 1
    assert 0 < shares.mbu <= 1


def test_a_decode_of_one_is_the_weights_over_the_bandwidth():
    batch = Batch(num_decode_tokens=1, decode_context_tokens=0)
    read_bytes = 2 * (model("llama-3.1-8b").num_parameters - 128256 * 4096) + 131072
    assert batch_utilisation(LLAMA, batch, duration_s=0.01).mbu == pytest.approx(
        read_bytes / 3.35e12 / 0.01
    )


def test_a_prefill_is_two_flop_a_parameter_and_the_pairs():
    batch = Batch()
    batch.add_chunk(Request(0, 0.0, 2048, 1), 2048, 0)
    shape = model("llama-3.1-8b")
    flop = (
        2 * 2048 * shape.dense_parameters + 2 * 128256 * 4096 + 4 * 32 * 32 * 128 * 2048 * 2049 / 2
    )
    assert batch_utilisation(LLAMA, batch, duration_s=0.1).mfu == pytest.approx(
        flop / 989.4e12 / 0.1
    )


def test_padding_is_no_use():
    batch = Batch(num_decode_tokens=8, decode_context_tokens=8000)
    padded = Batch(num_decode_tokens=8, decode_context_tokens=8000, num_padded_tokens=100)
    assert batch_utilisation(LLAMA, padded).mfu < batch_utilisation(LLAMA, batch).mfu


@given(batches(), batches(), st.integers(1, 50))
def test_a_table_of_iterations_gives_the_shares_of_its_batches(one, other, repeat):
    table = pd.DataFrame([row(one, LLAMA), row(other, LLAMA, repeat)])
    shares = iteration_utilisation(LLAMA, table)
    single = batch_utilisation(LLAMA, one)
    assert shares.loc[0].tolist() == pytest.approx(list(single))
    run = run_utilisation(LLAMA, table)
    weights = table["duration_s"] / table["duration_s"].sum()
    assert list(run) == pytest.approx([(weights * shares[name]).sum() for name in ("mfu", "mbu")])
    assert max(run) <= 1


def test_a_stretch_counts_every_repetition():
    batch = Batch(num_decode_tokens=4, decode_context_tokens=400)
    steps = [
        row(Batch(num_decode_tokens=4, decode_context_tokens=400 + 4 * step), LLAMA)
        for step in range(10)
    ]
    stretched = run_utilisation(LLAMA, pd.DataFrame([row(batch, LLAMA, 10)]))
    assert list(stretched) == pytest.approx(list(run_utilisation(LLAMA, pd.DataFrame(steps))))


def test_idle_time_lowers_the_shares_of_a_span():
    table = pd.DataFrame([row(Batch(num_decode_tokens=1, decode_context_tokens=10), LLAMA)])
    busy = run_utilisation(LLAMA, table)
    half = run_utilisation(LLAMA, table, span_s=2 * table["duration_s"].sum())
    assert half.mbu == pytest.approx(busy.mbu / 2)


def test_nothing_run_has_no_share():
    empty = pd.DataFrame([row(Batch(num_decode_tokens=1), LLAMA)]).iloc[:0]
    assert all(math.isnan(share) for share in run_utilisation(LLAMA, empty))
