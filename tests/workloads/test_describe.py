"""What `describe` says of a trace, and that it agrees with the survey of the real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from busdoor_workloads import Trace
from busdoor_workloads.describe import (
    describe,
    index_of_dispersion,
    plot_describe,
    static_efficiency,
)
from busdoor_workloads.formats import read_trace

TRACES = Path(__file__).resolve().parents[2] / "../shared/traces"
CONV, CODE = "azure_llm_2023_conv.csv.gz", "azure_llm_2023_code.csv.gz"
CHAT, SYNTHETIC = "mooncake_fast25_conversation.jsonl.gz", "mooncake_fast25_synthetic.jsonl.gz"
ARXIV, SHAREGPT = (
    "vidur_arxiv_summarization_lengths.csv.gz",
    "llmservingsim_sharegpt_llama31_8b_lengths.csv.gz",
)

LENGTHS = st.lists(st.integers(1, 1000), min_size=1, max_size=30)


def real(file: str, **options: object) -> Trace:
    if not (TRACES / file).exists():
        pytest.skip("the public traces are not at hand")
    return read_trace(TRACES / file, **options)


class TestStaticEfficiency:
    @given(LENGTHS)
    def test_a_batch_of_one_wastes_nothing(self, tokens):
        assert static_efficiency(tokens, [1])[1] == pytest.approx(1)

    @given(LENGTHS)
    def test_bigger_batches_never_waste_less_and_never_beat_the_longest(self, tokens):
        shares = static_efficiency(tokens, [1, 2, 4, 8, 16, 1000])
        assert (np.diff(shares) <= 1e-12).all()
        assert shares.iloc[-1] >= np.mean(tokens) / max(tokens) - 1e-12

    def test_equal_lengths_waste_nothing(self):
        assert static_efficiency([7, 7, 7]).eq(1).all()

    def test_it_is_the_mean_over_all_batches(self):
        tokens = np.array([1, 2, 2, 9])
        every_pair = np.maximum.outer(tokens, tokens).mean()
        assert static_efficiency(tokens, [2])[2] == pytest.approx(tokens.mean() / every_pair)

    @pytest.mark.parametrize(
        ("file", "shares"),
        [
            (CONV, (0.71, 0.55, 0.46, 0.42, 0.38, 0.34)),
            (CODE, (0.63, 0.41, 0.27, 0.18, 0.12, 0.08)),
            (CHAT, (0.72, 0.58, 0.48, 0.40, 0.33, 0.27)),
            (SYNTHETIC, (0.62, 0.43, 0.33, 0.27, 0.23, 0.21)),
            (ARXIV, (0.66, 0.43, 0.27, 0.18, 0.13, 0.10)),
            (SHAREGPT, (0.92, 0.87, 0.84, 0.83, 0.81, 0.78)),
        ],
    )
    def test_the_survey_s_table(self, file, shares):
        # The survey sampled its batches and rounded: one unit of its second decimal.
        np.testing.assert_allclose(static_efficiency(real(file).output_tokens), shares, atol=0.0101)

    @pytest.mark.parametrize(
        ("file", "share"),
        [
            (CONV, 0.30),
            (CODE, 0.32),
            (CHAT, 0.23),
            (SYNTHETIC, 0.28),
            (ARXIV, 0.68),
            (SHAREGPT, 0.41),
        ],
    )
    def test_the_survey_s_prefill_column(self, file, share):
        assert static_efficiency(real(file).input_tokens, [16])[16] == pytest.approx(
            share, abs=0.0101
        )

    @pytest.mark.parametrize("wrong", [{"tokens": []}, {"tokens": [1], "batch_sizes": [0]}])
    def test_nonsense_is_refused(self, wrong):
        with pytest.raises(ValueError, match="at least"):
            static_efficiency(**wrong)


class TestArrivals:
    def test_poisson_counts_have_an_index_of_one(self):
        arrival_s = np.cumsum(np.random.default_rng(1).exponential(0.1, 100_000))
        for window_s in (1, 10):
            num_windows = arrival_s[-1] // window_s
            # The index's standard error is sqrt(2 / windows); five of them.
            assert abs(index_of_dispersion(arrival_s, window_s) - 1) < 5 * np.sqrt(2 / num_windows)

    def test_a_clock_has_none(self):
        assert index_of_dispersion(np.arange(1000) / 8, 1) == 0

    def test_two_windows_are_needed(self):
        assert np.isnan(index_of_dispersion([0, 1.5], 1))


class TestPrefixReuse:
    def test_hits_stop_at_the_first_new_block(self):
        trace = Trace(
            arrival_s=[0, 1, 2],
            input_tokens=[40, 40, 25],
            output_tokens=[1, 1, 1],
            hash_ids=[(1, 2, 3), (1, 9, 3), (1, 2)],
            block_size=16,
        )
        summary = describe(trace)
        assert summary["prefix_block_hit_share"] == pytest.approx(3 / 8)  # 0 of 3, 1 of 3, 2 of 2
        assert summary["prefix_token_hit_share"] == pytest.approx((16 + 25) / 105)

    @pytest.mark.parametrize(
        ("file", "blocks", "tokens"), [(CHAT, 0.366, 0.374), (SYNTHETIC, 0.640, 0.651)]
    )
    def test_the_survey_s_mooncake_rows(self, file, blocks, tokens):
        summary = describe(real(file))
        assert summary["prefix_block_hit_share"] == pytest.approx(blocks, abs=0.0006)
        assert summary["prefix_token_hit_share"] == pytest.approx(tokens, abs=0.0006)


@pytest.mark.parametrize(
    ("file", "known"),
    [
        (
            CONV,
            {
                "requests": 19_366,
                "span_s": 3502,
                "request_rate": 5.53,
                "input_tokens_mean": 1155,
                "input_tokens_p50": 1020,
                "input_tokens_p90": 2734,
                "input_tokens_p99": 4142,
                "input_tokens_max": 14_050,
                "input_tokens_cv": 0.96,
                "output_tokens_mean": 211,
                "output_tokens_p50": 129,
                "output_tokens_p90": 424,
                "output_tokens_p99": 601,
                "output_tokens_max": 1000,
                "output_tokens_cv": 0.77,
                "interarrival_cv": 1.09,
                "idc_1s": 1.39,
                "idc_10s": 3.87,
                "idc_60s": 16.4,
                "correlation": -0.11,
            },
        ),
        (
            CODE,
            {
                "requests": 8819,
                "request_rate": 2.57,
                "input_tokens_mean": 2048,
                "input_tokens_p50": 1469,
                "output_tokens_mean": 27.9,
                "output_tokens_p50": 13,
                "output_tokens_p99": 251,
                "output_tokens_cv": 2.15,
                "interarrival_cv": 13.2,
                "idc_1s": 13.2,
                "idc_10s": 72,
                "idc_60s": 167,
            },
        ),
        (
            CHAT,
            {
                "requests": 12_031,
                "input_tokens_mean": 12_035,
                "output_tokens_mean": 343,
                "output_tokens_cv": 0.73,
            },
        ),
        (
            SYNTHETIC,
            {
                "request_rate": 3.91,
                "interarrival_cv": 1.01,
                "correlation": -0.37,
                "output_tokens_cv": 1.19,
            },
        ),
        (
            ARXIV,
            {
                "requests": 28_257,
                "input_tokens_mean": 2588,
                "output_tokens_p99": 3271,
                "output_tokens_cv": 1.82,
            },
        ),
    ],
)
def test_the_survey_s_statistics(file, known):
    # Rounded to the survey's digits; where its windows begin is its own choice, which moves the 60
    # s index by 2 %.
    summary = describe(real(file))
    wrong = {
        key: (summary[key], value)
        for key, value in known.items()
        if summary[key]
        != pytest.approx(value, rel=0.02 if key.startswith("idc") else 0.004, abs=0.0051)
    }
    assert not wrong


def test_mooncake_s_coarse_ticks_no_longer_look_like_bursts():
    raw, spread = real(CHAT, jitter=False), real(CHAT)
    assert describe(raw)["interarrival_cv"] == pytest.approx(3.03, abs=0.01)
    assert describe(spread)["interarrival_cv"] == pytest.approx(1, abs=0.05)
    assert describe(spread)["idc_10s"] < describe(raw)["idc_10s"] == pytest.approx(2.1, abs=0.05)


def test_an_empty_trace_is_refused():
    with pytest.raises(ValueError, match="no requests to describe"):
        describe(Trace(arrival_s=[], input_tokens=[], output_tokens=[]))


@pytest.mark.parametrize("arrival_s", [[0, 0, 0], [0, 1, 2.5], [0, 1, 1e6]])
def test_the_picture_has_its_three_panels(arrival_s):
    trace = Trace(
        arrival_s=arrival_s, input_tokens=[5, 50, 500], output_tokens=[1, 2, 3], name="mine"
    )
    figure = plot_describe(trace)
    assert [axes.get_title() for axes in figure.axes] == [
        "Lengths",
        "Arrivals",
        "Useful share of a static batch",
    ]
    figure.canvas.draw()
