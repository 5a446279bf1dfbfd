"""The table [slo]: what it may hold, and when a run meets it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busdoor.config import Config
from busdoor.config.limits import limits_for
from busdoor.config.run import run
from busdoor.metrics.metrics import token_gaps
from busdoor.metrics.slo import SLO
from busdoor.metrics.slo_presets import PRESETS
from busdoor.results.result import Result
from busdoor.results.slo_shares import slo_shares

EXAMPLE = Result.example()  # E2E 10, 20, 50 and 100 s, TTFT 1 s, a token a second


def kept(result=EXAMPLE, **table):
    return slo_shares(result, SLO.from_table(table))


def test_a_limit_on_the_mean_is_on_the_mean_of_the_answered():
    assert kept(e2e_mean=45.0)["slo_met"] and not kept(e2e_mean=44.9)["slo_met"]
    assert kept(e2e_mean=44.9)["slo_e2e_mean"] == 0.0


def test_goodput_counts_who_is_within_all_plain_limits_together():
    found = kept(e2e=50.0, ttft=1.0, goodput=0.75)
    assert (found["slo_goodput"], found["slo_met"]) == (0.75, True)
    assert not kept(e2e=50.0, ttft=0.9, goodput=0.75)["slo_met"]
    assert not kept(e2e=50.0, goodput=0.76)["slo_met"]
    assert (found["slo_e2e"], found["slo_ttft"]) == (0.75, 1.0)
    assert kept(e2e=100.0)["slo_met"] and not kept(e2e=50.0)["slo_met"]


def test_gaps_between_tokens_are_pooled():
    assert kept(itl_p99=1.0, itl_mean=1.0)["slo_met"]
    found = kept(itl_p99=0.99, itl_mean=0.99)
    assert (found["slo_itl_p99"], found["slo_itl_mean"], found["slo_met"]) == (0.0, 0.0, False)


@pytest.mark.parametrize(
    "promise", [{"itl_p99": 9.0}, {"itl_mean": 9.0}, {"tpot_mean": 9.0}, {"tpot_p50": 9.0}]
)
def test_an_answer_released_whole_keeps_no_promise_about_its_tokens(promise):
    config = Config.from_table(
        {"policy": "static", "workload": {"num_requests": 20, "request_rate": 5.0}}
    )
    trace = config.workload.trace(0)
    result = run(config, config.policies[0], trace, limits_for(config, [trace]))
    assert not kept(result, **promise)["slo_met"]


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_a_promise_and_is_noted_spelt_out(name):
    slo = SLO.from_table({"preset": name})
    assert slo and "preset" not in slo.to_dict()
    assert SLO.from_table(slo.to_dict()) == slo


def test_own_limits_go_before_those_of_the_preset():
    assert SLO.from_table(
        {"preset": "mlperf-llama3.1-8b-server", "tpot_p99": "80ms"}
    ).to_dict() == {
        "ttft_p99": 2.0,
        "tpot_p99": 0.08,
    }


def test_a_request_is_good_within_the_limits_on_requests_alone():
    slo = SLO.from_table({"ttft": 2, "ttft_p99": 1, "e2e_mean": 3, "itl_p99": 4, "tpot_p50": 5})
    assert slo.per_request_s == {"ttft": 1.0, "tpot": 5.0}


SENTENCES = {
    "preset": ("mlperf", r"\[slo\] preset: 'mlperf' is not a preset"),
    "goodput": (
        0.9,
        r"\[slo\] goodput = 0.9 has no limit to count by; give one for single requests, as in "
        r"ttft = '2s'",
    ),
    "itl": (
        "1s",
        r"\[slo\] itl: gaps between tokens are pooled over all requests, .* give itl_p99 or "
        r"itl_mean",
    ),
    "ttft_median": ("1s", r"\[slo\] ttft_median: unknown; did you mean ttft_mean\?"),
    "ttft_p0": ("1s", r"\[slo\] ttft_p0: unknown; did you mean ttft_p"),
    "ttft": (0, r"\[slo\] ttft = 0: it must be over 0 seconds"),
}


@pytest.mark.parametrize("key", SENTENCES)
def test_a_mistake_is_one_sentence(key):
    value, said = SENTENCES[key]
    with pytest.raises(ValueError, match=said):
        SLO.from_table({key: value})


@pytest.mark.parametrize("goodput", [0, 1.1, "most"])
def test_goodput_is_a_share(goodput):
    with pytest.raises(ValueError, match=r"it must be a share above 0, at most 1, as in 0\.99"):
        SLO.from_table({"ttft": 1, "goodput": goodput})


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 9),
    percentile=st.sampled_from([50, 90, 99]),
    scale=st.sampled_from([0.9, 1.1]),
)
def test_a_percentile_is_kept_if_the_summary_says_so(seed, percentile, scale):
    config = Config.from_table(
        {"policy": "vllm", "seed": seed, "workload": {"num_requests": 60, "request_rate": 20.0}}
    )
    trace = config.workload.trace(seed)
    result = run(config, config.policies[0], trace, limits_for(config, [trace]))
    gaps_s, counts = token_gaps(result.iterations)
    limit_s = scale * np.percentile(np.repeat(gaps_s, counts), percentile)
    within = np.average(gaps_s <= limit_s, weights=counts)
    found = kept(result, **{f"itl_p{percentile}": limit_s})
    assert found[f"slo_itl_p{percentile}"] == pytest.approx(within)
    assert found["slo_met"] == (within >= percentile / 100)
