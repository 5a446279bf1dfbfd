"""Profiles: what ships for a public trace says the same as the trace, where at hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from busdoor_workloads import (
    Trace,
    fit,
    preset,
    preset_names,
    profile,
    profile_names,
    resolve,
    workload_names,
)
from busdoor_workloads.sources import SOURCES

TRACES = Path(__file__).parents[2] / ".." / "shared" / "traces"
DATA = Path(fit.__file__).parent / "data" / "profiles"

needs_traces = pytest.mark.skipif(
    not TRACES.is_dir(), reason="the public traces are not beside the project"
)
each_source = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)


def test_every_source_has_its_profile_and_every_profile_its_source():
    assert profile_names() == sorted(source.name for source in SOURCES)


@each_source
def test_a_profile_names_its_source_and_licence(source):
    shipped = profile(source.name)
    assert (shipped.name, shipped.source, shipped.licence) == (
        source.name,
        source.attribution,
        source.licence,
    )
    assert shipped.generate(num_requests=10).metadata["licence"] == source.licence


@each_source
def test_a_profile_is_a_few_kilobytes_of_quantiles(source):
    path = DATA / f"{source.name}.json"
    assert path.stat().st_size < 8_000
    assert set(json.loads(path.read_text())) <= {
        "name",
        "lengths",
        "arrival",
        "source",
        "licence",
        "note",
    }


@needs_traces
@each_source
def test_lengths_are_those_of_the_trace(source):
    _, *columns = source.read(TRACES / source.file)
    shipped = profile(source.name)
    trace = shipped.generate(seed=0, num_requests=200_000)
    for column, law, drawn in zip(
        columns,
        (shipped.pairs.inputs, shipped.pairs.outputs),
        (trace.input_tokens, trace.output_tokens),
        strict=True,
    ):
        assert law.mean_tokens == pytest.approx(column.mean(), rel=0.03)
        assert law.quantile([0.5, 0.9, 0.99]) == pytest.approx(
            np.quantile(column, [0.5, 0.9, 0.99]), rel=0.03
        )
        assert drawn.mean() == pytest.approx(column.mean(), rel=0.03)
        assert np.quantile(drawn, [0.5, 0.9, 0.99]) == pytest.approx(
            np.quantile(column, [0.5, 0.9, 0.99]), rel=0.03
        )


@needs_traces
@each_source
def test_input_and_output_depend_on_each_other_as_in_the_trace(source):
    _, inputs, outputs = source.read(TRACES / source.file)
    trace = profile(source.name).generate(seed=0, num_requests=100_000)
    if source.bins > 1:
        assert _rank_correlation(trace) == pytest.approx(
            _rank_correlation(
                Trace(arrival_s=np.zeros(len(inputs)), input_tokens=inputs, output_tokens=outputs)
            ),
            abs=0.05,
        )


@needs_traces
@each_source
def test_a_static_batch_wastes_as_much_as_on_the_trace(source):
    _, _, outputs = source.read(TRACES / source.file)
    drawn = profile(source.name).generate(seed=0, num_requests=100_000).output_tokens
    assert _static_efficiency(drawn, 16) == pytest.approx(_static_efficiency(outputs, 16), rel=0.03)


@needs_traces
@each_source
def test_gaps_spread_as_in_the_trace(source):
    arrival_s, _, _ = source.read(TRACES / source.file)
    if arrival_s is None:
        pytest.skip("the source publishes lengths without arrivals")
    real, drawn = (
        np.diff(arrival_s),
        np.diff(profile(source.name).generate(0, num_requests=400_000).arrival_s),
    )
    assert drawn.mean() == pytest.approx(real.mean(), rel=0.05)
    assert drawn.std() / drawn.mean() == pytest.approx(real.std() / real.mean(), rel=0.1)


@needs_traces
def test_azure_conversation_bunches_up_over_a_minute_as_the_trace_does():
    real, _, _ = next(source for source in SOURCES if source.name == "azure-conv").read(
        TRACES / "azure_llm_2023_conv.csv.gz"
    )
    drawn = profile("azure-conv").generate(0, num_requests=400_000).arrival_s
    for window_s in (10.0, 60.0):
        assert fit.dispersion(drawn, window_s) == pytest.approx(
            fit.dispersion(real, window_s), rel=0.15
        )


@needs_traces
@pytest.mark.parametrize("name", ["azure-code", "mooncake-conversation"])
def test_fitting_again_gives_the_shipped_profile(name):
    source = next(source for source in SOURCES if source.name == name)
    shipped = json.loads((DATA / f"{name}.json").read_text())
    assert source.fit_lengths(TRACES) == shipped["lengths"]
    assert source.fit_arrivals(TRACES) == shipped["arrival"]["fit"]


def test_a_rate_makes_a_profile_poisson_and_keeps_its_lengths():
    own, faster = (
        profile("azure-code").generate(3, num_requests=50_000, request_rate=rate)
        for rate in (None, 20)
    )
    gaps = np.diff(faster.arrival_s)
    assert faster.request_rate == pytest.approx(20, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(1, rel=0.03)
    assert np.array_equal(own.output_tokens, faster.output_tokens)


def test_every_preset_generates():
    for name in preset_names():
        workload = preset(name)
        trace = workload.generate(seed=0)
        assert trace.name == name and len(trace) == workload.num_requests and workload.source


@pytest.mark.parametrize(
    ("name", "mean_input", "mean_output"),
    [
        ("anyscale_512", 512, 118.45),
        ("orca_u32_512x128", 272, 64.5),
        ("llmperf_550_150", 550.1, 150),
        ("inferencemax_1k8k", 921.5, 7372.5),
        ("vllm_random_1024_128", 1024, 128),
    ],
)
def test_presets_have_the_lengths_they_are_known_for(name, mean_input, mean_output):
    pairs = preset(name).pairs
    assert pairs.inputs.mean_tokens == pytest.approx(mean_input, rel=2e-3)
    assert pairs.outputs.mean_tokens == pytest.approx(mean_output, rel=2e-3)


def test_gsp_is_64_groups_of_16():
    trace = preset("gsp_2048_128_256").generate()
    assert len(trace) == 1024 and (trace.input_tokens == 2048 + 128).all()
    _, counts = np.unique([ids[0] for ids in trace.hash_ids], return_counts=True)
    assert counts.tolist() == [16] * 64


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("azure_conv", "azure-conv"),
        ("anyscale512", "anyscale_512"),
        ("mooncake-conv", "mooncake-conversation"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_nearest(name, near):
    with pytest.raises(ValueError, match=f"there is no workload '{name}'; did you mean '{near}'"):
        resolve(name)


def test_a_preset_is_no_profile():
    with pytest.raises(ValueError, match="there is no workload 'chat'"):
        profile("chat")
    assert (
        len(workload_names())
        == len(set(workload_names()))
        == len(profile_names()) + len(preset_names())
    )


def _rank_correlation(trace):
    ranks = [np.argsort(np.argsort(column)) for column in (trace.input_tokens, trace.output_tokens)]
    return np.corrcoef(ranks)[0, 1]


def _static_efficiency(outputs, b):
    """Average over random batches of the useful share of a static batch's slot-steps."""
    drawn = np.random.default_rng(0).choice(outputs, (20_000, b))
    return drawn.mean() / drawn.max(axis=1).mean()
