"""The step time of measured operators: batches to look-ups, on recorded, real tables."""

import json
import pickle
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busdoor.cli import main
from busdoor.config import Config
from busdoor.core.batch import Batch
from busdoor.core.request import Request
from busdoor.kv.paged import PagedKV
from busdoor.policies.vllm import VllmPolicy
from busdoor.simulator.simulate import simulate
from busdoor.simulator.stretch import make_stretch
from busdoor.step_time import OperatorStepTime, make_step_time
from busdoor.step_time.base import StepTime
from busdoor.step_time.operator_catalog import check_backend
from busdoor.step_time.operator_loading import load_tables
from busdoor.step_time.operator_tables import MOST_ROWS, MOST_TOKENS, PADDED, OperatorTables
from busdoor.step_time.operator_times import CONTEXTS, OperatorTimes
from busdoor_workloads import Trace

installed = pytest.mark.skipif(
    find_spec("aiconfigurator_core") is None,
    reason="needs aiconfigurator-core: pip install 'busdoor[operators]'",
)


class Recorded:
    """operators.json in place of the package's evaluator; what was not recorded is a KeyError."""

    def __init__(self):
        record = json.loads(Path(__file__).with_name("operators.json").read_text(encoding="utf-8"))
        self.names, self.steps = record["names"], record["milliseconds"]

    def evaluate_context_ops(self, indices, batch, s, prefix=0, /):
        return self.at("context", indices, batch, s, prefix)

    def evaluate_generation_ops(self, indices, batch, s, /):
        return self.at("generation", indices, batch, s)

    def at(self, kind, indices, *step):
        names = self.names[kind]
        if max(indices) >= len(names):
            raise ValueError(f"index {max(indices)} out of range")
        ms = self.steps[kind][" ".join(map(str, step))]
        return [(names[index], ms[index]) for index in indices]

    def seconds(self, kind, wanted, *step):
        """Seconds of the operators whose names fulfil `wanted`."""
        return 1e-3 * sum(ms for name, ms in self.at(kind, range(14), *step) if wanted(name))

    def padded_s(self, kind, wanted, size):
        """The same at the size from `size` on where each takes least, of those that were recorded."""
        most = MOST_TOKENS if kind == "context" else MOST_ROWS
        steps = [
            (1, tokens, 0) if kind == "context" else (tokens, 1)
            for tokens in (size, *PADDED)
            if size <= tokens <= most
        ]
        each = zip(*(self.at(kind, range(14), *step) for step in steps), strict=True)
        return 1e-3 * sum(min(ms for _, ms in of) for of in each if wanted(of[0][0]))


class Bent:
    """A made-up evaluator whose attention bends at every power of two."""

    def evaluate_context_ops(self, indices, batch, s, prefix=0, /):
        return self.pick(indices, batch * s, batch * s * (prefix + s / 2))

    def evaluate_generation_ops(self, indices, batch, s, /):
        return self.pick(indices, batch, batch * s * (1 + 0.1 * s.bit_length()))

    def pick(self, indices, tokens, pairs):
        if max(indices) > 1:
            raise ValueError("index 2 out of range")
        operators = [("gemm", 5.0 + 0.01 * tokens), ("attention", 0.02 + 1e-5 * pairs)]
        return [operators[index] for index in indices]


class Times(StepTime):
    """Step times of given tables, without the package."""

    def __init__(self, times):
        self.pieces = times.pieces

    def durations_s(self, batch, repeat):
        lines = self.pieces(batch, repeat)
        return np.concatenate(
            [first_s + growth_s * np.arange(count) for count, first_s, growth_s in lines]
        )


def times(evaluator, **host):
    return Times(OperatorTimes(OperatorTables(evaluator), **host))


def step(chunks=(), rows=0, context=0):
    batch = Batch(num_decode_tokens=rows, decode_context_tokens=rows * context)
    for tokens, cached in chunks:
        batch.add_chunk(Request(0, 0.0, 10_000, 1), tokens, cached)
    return batch


def attention(name):
    return name.endswith("_attention")


def head(name):
    return "logits" in name


def by_tokens(name):
    return not attention(name) and not head(name)


# -- recorded tables
# -------------------------------------------------------------------------------------------------


def test_a_decode_is_its_rows_and_their_attention():
    record = Recorded()
    assert times(record).duration_s(step(rows=64, context=1023)) == pytest.approx(
        record.padded_s("generation", lambda name: not attention(name), 64)
        + record.seconds("generation", attention, 64, 1024)
    )


def test_between_two_contexts_a_step_is_within_a_percent_of_a_direct_look_up():
    record = Recorded()
    direct = record.padded_s("generation", lambda name: not attention(name), 64)
    direct += record.seconds("generation", attention, 64, 1056)
    assert {1024, 1088} <= set(CONTEXTS) and 1056 not in CONTEXTS
    assert times(record).duration_s(step(rows=64, context=1055)) == pytest.approx(direct, rel=0.01)


@pytest.mark.parametrize(
    ("chunks", "alike"),
    [
        ([(512, 0)], (1, 512, 0)),
        ([(512, 1024)], (1, 512, 1024)),
        ([(256, 128), (256, 128)], (2, 256, 128)),
        ([(128, 192), (384, 64)], (2, 256, 128)),  # as many tokens and query-key pairs
    ],
)
def test_a_mixed_step_is_its_positions_heads_chunks_and_the_attention_of_its_decodes(chunks, alike):
    record = Recorded()
    expected = (
        record.padded_s("context", by_tokens, 512 + 64)
        + record.seconds("context", head, len(chunks) + 64, 1, 0)
        + record.seconds("context", attention, *alike)
        + record.seconds("generation", attention, 64, 1088)
    )
    assert times(record).duration_s(step(chunks, rows=64, context=1087)) == pytest.approx(expected)


def test_padding_and_finished_rows_are_computed_too():
    record = Recorded()
    padded = step([(480, 0)], rows=60, context=1087)
    padded.num_idle_rows, padded.num_padded_tokens = 4, 4 + 32
    padded.decode_context_tokens = 64 * 1087
    padded.prefill_attention = 512 * 513 / 2
    assert times(record).duration_s(padded) == pytest.approx(
        times(record).duration_s(step([(512, 0)], rows=64, context=1087))
    )


def test_the_host_adds_a_step_and_its_requests():
    batch = step([(512, 0)], rows=64, context=1087)
    alone, with_host = (
        times(Recorded(), **host).duration_s(batch)
        for host in ({}, {"step_s": 1.0, "request_s": 0.1})
    )
    assert with_host - alone == pytest.approx(1.0 + 65 * 0.1)


def test_groups_that_share_the_requests_take_as_long_as_the_largest_share():
    record = Recorded()
    assert times(record, dp=2).duration_s(step(rows=63, context=511)) == pytest.approx(
        record.padded_s("generation", lambda name: not attention(name), 32)
        + record.seconds("generation", attention, 32, 512)
    )


class Uneven(Bent):
    """One whose kernel for 96 rows was never tuned."""

    def pick(self, indices, tokens, pairs):
        slow = 3.0 if tokens == 96 else 1.0
        return [(name, slow * ms) for name, ms in super().pick(indices, tokens, pairs)]


def test_no_step_takes_longer_than_one_of_more_rows():
    tables = OperatorTables(Uneven())
    assert tables.rows_s(96) == pytest.approx(tables.rows_s(112))
    assert tables.tokens_s(96) == pytest.approx(tables.tokens_s(112))
    rows = [tables.rows_s(size) for size in PADDED if size <= MOST_ROWS]
    assert rows == sorted(rows)
    assert tables.rows_s(200) == pytest.approx(5e-3 + 200e-5)  # what is tuned is as measured


# -- stretches
# -------------------------------------------------------------------------------------------------------


@settings(deadline=None)  # a busy machine is no fault of the stretch
@given(st.integers(1, 50), st.integers(1, 3000), st.integers(1, 700), st.floats(0, 1))
def test_a_stretch_over_several_lines_is_the_sum_of_its_steps(rows, context, repeat, share):
    model = times(Bent(), step_s=1e-3)
    batch = step(rows=rows, context=context)
    alone = [model.duration_s(step(rows=rows, context=context + k)) for k in range(repeat)]
    stretch = make_stretch(model, model.line(batch), batch, 7.0, repeat)
    ends = 7.0 + np.cumsum(alone)
    at = 1 + int(share * (repeat - 1))
    assert stretch.end_s(repeat) == pytest.approx(ends[-1], rel=1e-12)
    assert stretch.end_s(at) == pytest.approx(ends[at - 1], rel=1e-12)
    assert stretch.last_s(at) == pytest.approx(alone[at - 1], rel=1e-9)
    between = (stretch.end_s(at) + stretch.end_s(at - 1)) / 2
    assert stretch.repeats_until(between, repeat) == at


def test_jumps_equal_steps():
    rng = np.random.default_rng(0)
    inputs, outputs = rng.integers(1, 2000, 60), rng.integers(2, 900, 60)
    trace = Trace(
        arrival_s=np.cumsum(rng.exponential(0.8, 60)), input_tokens=inputs, output_tokens=outputs
    )
    runs = []
    for step_by_step in (False, True):
        policy = VllmPolicy(
            PagedKV(2000, 16), max_num_seqs=16, max_num_batched_tokens=512, max_model_len=4096
        )
        runs.append(simulate(trace, policy, times(Bent()), step_by_step=step_by_step).requests)
    np.testing.assert_allclose(runs[0]["finish_s"], runs[1]["finish_s"], rtol=1e-9)


def test_beyond_the_longest_context_the_last_line_goes_on():
    model = times(Bent())
    far = [model.duration_s(step(rows=1, context=context)) for context in (2**21, 2**22, 3 * 2**21)]
    assert far[2] - far[1] == pytest.approx(far[1] - far[0])


def test_a_table_that_is_missing_is_no_last_operator():
    class Lacking(Bent):
        def evaluate_context_ops(self, indices, batch, s, prefix=0, /):
            raise ValueError("no such data")

    with pytest.raises(ValueError, match="no such data"):
        OperatorTables(Lacking())


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr("busdoor.step_time.operator_catalog.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"not installed; run pip install 'busdoor\[operators\]'"):
        check_backend("vllm")


# -- the package's tables
# --------------------------------------------------------------------------------------------


@installed
@pytest.mark.parametrize(
    "fields",
    [
        {"gpu": "h200", "model": "Qwen/Qwen3-32B", "tp": 2},
        {
            "gpu": "h100",
            "model": "llama-3.1-8b",
            "engine": {"name": "trtllm"},
            "weight_dtype": "fp8",
        },
        {
            "gpu": "b200",
            "model": "llama-3.1-70b",
            "engine": {"name": "sglang"},
            "quant_mode": "nvfp4",
            "tp": 4,
        },
        {"gpu": "h200", "model": "deepseek-v3", "tp": 8, "ep": 8},
        {"gpu": "h100", "model": "gpt-oss-120b", "tp": 4},
    ],
)
def test_lines_are_within_a_percent_of_direct_look_ups(fields):
    model = make_step_time("operators", **fields)
    tables = load_tables(model.deployment)
    rng = np.random.default_rng(1)
    for _ in range(500):
        rows, context = (int(2 ** rng.uniform(0, top)) for top in (9, 17))
        direct_s = tables.rows_s(rows) + tables.contexts_s(rows, context + 1)
        step_s, request_s = model.host_s
        direct_s += step_s + rows * request_s
        assert model.duration_s(step(rows=rows, context=context)) == pytest.approx(
            direct_s, rel=0.01
        )


@installed
@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"gpu": "rtx-4090", "model": "qwen3-32b"},
            "no operator tables of rtx-4090; there are of a100_sxm, ",
        ),
        ({"gpu": "h100", "model": "yi-34b"}, "'yi-34b' is not a model with operator tables"),
        (
            {"gpu": "h100", "model": "qwen3-32b", "version": "0.1"},
            "there are tables of 0.24.0 and 0.27.0",
        ),
        (
            {"gpu": "h100", "model": "qwen3-32b", "engine": {"name": "mine"}},
            "backend = 'mine': there are operator",
        ),
        ({"gpu": "h100", "model": "qwen3-32b", "ep": 3}, "ep = 3 must divide tp · dp = 1"),
        (
            {"gpu": "a100-80gb", "model": "qwen3-32b", "quant_mode": "fp8_block"},
            "vllm on a100_sxm do not serve Qwen",
        ),
        (
            {"gpu": "h100", "model": "qwen3-32b", "system": "b60", "backend": "trtllm"},
            "trtllm on b60, which has",
        ),
        (
            {"gpu": "h100", "model": "qwen3-32b", "configuration": "Qwen/Qwen3-32"},
            "'Qwen/Qwen3-32' is not a conf",
        ),
    ],
)
def test_what_the_tables_lack_is_refused_in_one_sentence(fields, sentence):
    with pytest.raises(ValueError) as error:
        make_step_time("operators", **fields)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@installed
def test_notes_tell_whose_tables_they_are_and_what_is_estimated():
    model = make_step_time("operators", gpu="h200", model="Qwen/Qwen3-32B", tp=2)
    assert model.notes == (
        "operators: measured on h200_sxm with vllm 0.24.0 (aiconfigurator-core 0.12.0)",
    )
    experts = make_step_time("operators", gpu="h200", model="deepseek-v3", tp=8, ep=8)
    assert any("rows of trtllm" in note and "mla" in note for note in experts.notes)
    assert any("estimated, not measured" in note for note in experts.notes)


@installed
def test_it_is_described_copied_and_configured():
    table = {"name": "operators", "gpu": "h200", "model": "qwen3-32b", "tp": 2, "version": "0.27.0"}
    model = make_step_time(**table)
    assert model.describe() == {**table, "engine": "vllm", "pp": 1, "dp": 1, "ep": 1}
    assert make_step_time(**model.describe()) == model
    batch = step([(512, 0)], rows=64, context=1087)
    assert pickle.loads(pickle.dumps(model)).duration_s(batch) == model.duration_s(batch)
    tables = {
        "gpu": {"name": "h200", "model": "qwen3-32b", "tp": 2},
        "step_time": {"name": "operators"},
    }
    config = Config.from_table({**tables, "engine": {"name": "vllm"}})
    assert isinstance(config.step_time, OperatorStepTime)
    assert (config.step_time.tp, config.step_time.deployment.system) == (2, "h200_sxm")
    assert Config.from_table(config.to_dict()) == config


@installed
def test_a_server_of_several_groups_counts_all_its_gpus():
    step_time = {"name": "operators", "ep": 4, "dp": 2}
    gpus = {"name": "h200", "model": "gpt-oss-120b", "tp": 2, "price_per_hour": 3.0}
    config = Config.from_table({"gpu": gpus, "step_time": step_time, "cluster": {"replicas": 3}})
    assert (config.num_gpus, config.price_per_hour) == (12, 36.0)


@installed
def test_the_command_takes_its_flags_and_tells_the_notes(tmp_path, capsys):
    flags = (
        "--step-time operators --gpu h200 --model Qwen/Qwen3-32B --engine vllm --tp 2 "
        "--num-requests 20 --json"
    )
    assert main(["simulate", "azure-conv", *flags.split(), "--out", str(tmp_path / "run")]) == 0
    answer, remarks = capsys.readouterr()
    assert json.loads(answer)["completed"] == 20
    assert remarks.count("operators: measured on h200_sxm with vllm 0.24.0") == 1
    meta = json.loads((tmp_path / "run" / "meta.json").read_text(encoding="utf-8"))
    assert (meta["config"]["gpu"]["tp"], meta["config"]["step_time"]["tp"]) == (2, 2)


def test_flags_that_a_step_time_has_no_use_for_are_refused(tmp_path, capsys):
    for flags, sentence in (
        (["--ep", "2"], "[step_time] ep: unknown"),
        (
            ["--step-time", "h100-llama-3.1-8b", "--tp", "2"],
            "--tp 2 does not apply: a calibrated step time",
        ),
    ):
        run = [
            "simulate",
            "azure-conv",
            *flags,
            "--num-requests",
            "5",
            "--out",
            str(tmp_path / "run"),
        ]
        assert main(run) == 2
        assert sentence in capsys.readouterr().err


@installed
@pytest.mark.slow
def test_a_run_takes_less_than_1_3_times_as_long_as_with_the_roofline():
    models = {
        name: make_step_time(name, gpu="h100", model="llama-3.1-8b")
        for name in ("roofline", "operators")
    }
    rng = np.random.default_rng(0)
    trace = Trace(
        arrival_s=np.cumsum(rng.exponential(1 / 15, 5000)),
        input_tokens=rng.integers(1, 2000, 5000),
        output_tokens=rng.integers(2, 400, 5000),
    )
    taken = {name: [] for name in models}
    for _ in range(7):
        for name, model in models.items():
            policy = VllmPolicy(PagedKV(28_000, 16), 256, 8192, max_model_len=4096)
            begin = time.process_time()
            simulate(trace, policy, model, iterations=False)
            taken[name].append(time.process_time() - begin)
    assert min(taken["operators"]) < 1.3 * min(taken["roofline"])


@installed
def test_a_model_answers_to_the_tables_name_by_its_aliases():
    model = make_step_time("operators", gpu="h200", model="llama-4-scout", tp=8, configuration=None)
    assert model.deployment.model == "meta-llama/Llama-4-Scout-17B-16E-Instruct"
