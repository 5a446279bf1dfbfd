"""Operator tables of LLMServingSim: folders as its profiler writes them, on times that are known."""

import numpy as np
import pytest

from busdoor.catalog import model
from busdoor.config import Config
from busdoor.core.batch import Batch
from busdoor.core.request import Request
from busdoor.step_time import make_step_time
from busdoor.step_time.operator_profile import Grid

LLAMA = model("llama-3.1-8b")
DENSE = {
    "embedding": (3, 0.01),
    "layernorm": (2, 0.02),
    "qkv_proj": (20, 0.1),
    "final_layernorm": (1, 0.01),
}
EACH = {"lm_head": (1000, 2.0), "sampler": (25, 1.0)}
CHUNKS, HISTORIES, ROWS, KEYS = (16, 64, 256), (0, 256, 1024), (1, 8, 64), (16, 1024, 16384)


def attention_us(chunk, history, rows, context):
    """Linear in each of them alone, as the look-ups between the points of a grid are."""
    return 8 + 0.05 * chunk + 0.002 * chunk * history + 0.1 * rows + 0.003 * rows * context


def write(folder, old=True, chunks=CHUNKS):
    folder.mkdir(parents=True)
    for name, axis, layers in (("dense", "tokens", DENSE), ("per_sequence", "sequences", EACH)):
        rows = [
            f"{layer},{n},{a + b * n}" for layer, (a, b) in layers.items() for n in (1, 64, 2048)
        ]
        (folder / f"{name}.csv").write_text(f"layer,{axis},time_us\n" + "\n".join(rows) + "\n")
    points = [(0, 0, n, kv) for n in ROWS for kv in KEYS] + [
        (c, h, 0, 0) for c in chunks for h in HISTORIES
    ]
    points += [
        (c, h, n, kv) for c in chunks for h in HISTORIES for n in ROWS for kv in KEYS if c + n < 300
    ]
    head = "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us"
    if not old:
        head = "layer,prefill_chunk,prefill_key,n_decode,kv_decode,decode_q_len,time_us"
    lines = []
    for c, h, n, kv in points:
        us = attention_us(c, h, n, kv)
        lines.append(
            f"{c},{h},{n},{kv},{us}" if old else f"attention,{c},{h + c / 2},{n},{kv},1,{us}"
        )
        if not old:
            lines.append(f"attention,{c},{h + c / 2},{n},{kv},2,{3 * us}")  # speculation: not this
    (folder / "attention.csv").write_text(head + "\n" + "\n".join(lines) + "\n")
    return folder


def step_time(folder, **fields):
    host = {"step_overhead_s": 0.0, "request_overhead_s": 0.0}
    return make_step_time(
        "operators", gpu="h100", model="llama-3.1-8b", profile=str(folder), **host, **fields
    )


def batch(chunks=(), rows=0, context=0):
    made = Batch(num_decode_tokens=rows, decode_context_tokens=rows * context)
    for tokens, cached in chunks:
        made.add_chunk(Request(0, 0.0, 10_000, 1), tokens, cached)
    return made


def tokens_us(tokens):
    calls = {"embedding": 1, "layernorm": 2 * 32, "qkv_proj": 32, "final_layernorm": 1}
    return sum(calls[name] * (a + b * tokens) for name, (a, b) in DENSE.items())


def heads_us(requests):
    return sum(a + b * requests for a, b in EACH.values())


@pytest.mark.parametrize("old", [True, False])
def test_a_step_is_its_operators_in_every_layer(tmp_path, old):
    model = step_time(write(tmp_path / "bf16" / "tp1", old))
    decode = tokens_us(20) + heads_us(20) + 32 * attention_us(0, 0, 20, 700)
    assert model.duration_s(batch(rows=20, context=700)) == pytest.approx(1e-6 * decode)
    prefill = tokens_us(100) + heads_us(1) + 32 * attention_us(100, 500, 0, 0)
    assert model.duration_s(batch([(100, 500)])) == pytest.approx(1e-6 * prefill)
    mixed = tokens_us(120) + heads_us(21) + 32 * attention_us(100, 500, 20, 700)
    assert model.duration_s(batch([(100, 500)], rows=20, context=700)) == pytest.approx(
        1e-6 * mixed
    )
    two = (
        tokens_us(140)
        + heads_us(22)
        + 32 * (attention_us(60, 9, 20, 700) + attention_us(60, 9, 0, 0))
    )
    assert model.duration_s(batch([(60, 9), (60, 9)], rows=20, context=700)) == pytest.approx(
        1e-6 * two
    )


def test_a_stretch_of_decodes_is_the_sum_of_its_steps(tmp_path):
    model = step_time(write(tmp_path / "tp1"))
    alone = [model.duration_s(batch(rows=20, context=700 + k)) for k in range(300)]
    np.testing.assert_allclose(model.durations_s(batch(rows=20, context=700), 300), alone)


def test_all_reduces_are_the_rooflines(tmp_path):
    alone = step_time(write(tmp_path / "tp1")).duration_s(batch(rows=20, context=700))
    shared = step_time(write(tmp_path / "tp2"), tp=2).duration_s(batch(rows=20, context=700))
    roofline = make_step_time("roofline", gpu="h100", model="llama-3.1-8b", tp=2)
    added = roofline.parts_s(batch(rows=20, context=700), 1)["all_reduce"][0]
    assert shared - alone == pytest.approx(added)


def test_what_was_not_measured_adds_what_its_neighbours_add():
    grid = Grid({(1.0, 1.0): 1.0, (1.0, 2.0): 2.0, (2.0, 1.0): 3.0})
    assert grid(2, 2) == 4.0
    assert (
        Grid(
            {
                (1.0, 1.0): 1.0,
                (1.0, 2.0): 2.0,
                (2.0, 2.0): 5.0,
                (2.0, 3.0): 6.0,
                (1.0, 3.0): 3.0,
                (2.0, 1.0): 4.0,
                (3.0, 1.0): 7.0,
            }
        )(3, 3)
        == 9.0
    )
    with pytest.raises(ValueError, match="no time near"):
        Grid({(1.0, 2.0): 1.0, (2.0, 1.0): 1.0})


def test_a_configuration_finds_the_folder_beside_itself_and_tells_whose_it_is(tmp_path):
    folder = write(tmp_path / "tp1")
    table = {"name": "operators", "profile": str(folder)}
    config = Config.from_table(
        {"gpu": {"name": "rtx-4090", "model": "qwen3-0.6b"}, "step_time": table}
    )
    assert config.step_time.notes == (f"operators: measured by LLMServingSim's profiler, {folder}",)
    assert Config.from_table(config.to_dict()) == config


@pytest.mark.parametrize(
    ("break_it", "fields", "sentence"),
    [
        (
            lambda folder: (folder / "dense.csv").unlink(),
            {},
            "lacks dense.csv; give a folder tp<N> of a profile",
        ),
        (
            lambda folder: (folder / "linear_attention.csv").touch(),
            {},
            "linear attention, which is not modelled",
        ),
        (
            lambda folder: (folder / "dense.csv").write_text("a,b\n"),
            {},
            "dense.csv has no column layer, time_us and",
        ),
        (lambda folder: None, {"tp": 2}, "is not of tp = 2; give its folder tp2"),
        (lambda folder: None, {"dp": 2}, "a profile is of tp alone"),
    ],
)
def test_what_is_no_profile_of_the_model_is_refused_in_one_sentence(
    tmp_path, break_it, fields, sentence
):
    folder = write(tmp_path / "tp1")
    break_it(folder)
    with pytest.raises(ValueError) as error:
        step_time(folder, **fields)
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_a_mixture_of_experts_reads_those_that_it_is_expected_to_visit(tmp_path):
    folder = write(tmp_path / "tp1")
    rows = [f"1,{tokens},{experts},{5 * experts}" for tokens in (1, 64) for experts in (1, 8)]
    (folder / "moe.csv").write_text(
        "ep,tokens,activated_experts,time_us\n" + "\n".join([*rows, "2,1,1,99"]) + "\n"
    )
    fields = {
        "gpu": "h200",
        "model": "mixtral-8x7b",
        "profile": str(folder),
        "step_overhead_s": 0.0,
    }
    mixtral = make_step_time("operators", request_overhead_s=0.0, **fields)
    distinct = 8 * (1 - (1 - 2 / 8) ** 3)
    attention = 32 * attention_us(0, 0, 3, 700)
    expected = tokens_us(3) + 32 * 5 * distinct + heads_us(3) + attention
    assert mixtral.duration_s(batch(rows=3, context=700)) == pytest.approx(1e-6 * expected)
