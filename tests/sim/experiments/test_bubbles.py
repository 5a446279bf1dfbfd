"""The survey's static efficiency (§1.3), from shipped profiles and a trace if at hand."""

from pathlib import Path

import pytest
from published.bubbles import bubble_table, plot_bubbles

# b = 2, 4, 8, 16, 32, 64; prompts at b = 16; padded to the longest of all.
SURVEY = {
    "azure-conv": (0.71, 0.55, 0.46, 0.42, 0.38, 0.34, 0.30, 0.211),
    "azure-code": (0.63, 0.41, 0.27, 0.18, 0.12, 0.08, 0.32, 0.015),
    "mooncake-conversation": (0.72, 0.58, 0.48, 0.40, 0.33, 0.27, 0.23, 0.171),
    "mooncake-synthetic": (0.62, 0.43, 0.33, 0.27, 0.23, 0.21, 0.28, 0.167),
    "arxiv-summarization": (0.66, 0.43, 0.27, 0.18, 0.13, 0.10, 0.68, 0.072),
    "sharegpt-llama31": (0.92, 0.87, 0.84, 0.83, 0.81, 0.78, 0.41, 0.639),
    "weka-agentic": (0.65, 0.42, 0.28, 0.20, 0.14, 0.11, 0.34, 0.024),
    "servegen-m-large": (0.60, 0.39, 0.29, 0.23, 0.19, 0.15, 0.26, 0.019),
    "servegen-deepseek-r1": (0.63, 0.42, 0.29, 0.20, 0.15, 0.12, 0.11, 0.050),
}
AZURE = Path(__file__).parents[3].parent / "shared" / "traces" / "azure_llm_2023_conv.csv.gz"


@pytest.fixture(scope="module")
def table():
    return bubble_table()


@pytest.mark.parametrize("name", SURVEY)
def test_profiles_have_the_efficiencies_of_their_traces(table, name):
    *shares, dataset = SURVEY[name]
    assert table.loc[name].tolist()[:-1] == pytest.approx(shares, abs=0.025)
    assert table.loc[name, "dataset"] == pytest.approx(
        dataset, abs=0.08
    )  # one request, the longest, decides it


def test_larger_batches_waste_more(table):
    assert (table[[2, 4, 8, 16, 32, 64]].diff(axis=1).iloc[:, 1:] < 0).all(axis=None)


def test_the_filtered_sharegpt_makes_static_look_good(table):
    assert table[16].idxmax() == "sharegpt-llama31"
    assert table[16].drop("sharegpt-llama31").max() < 0.5


@pytest.mark.skipif(not AZURE.exists(), reason="the Azure trace is not at hand")
def test_azures_own_trace_gives_the_surveys_row():
    from busdoor_workloads.formats import read_trace

    row = bubble_table({"azure": read_trace(AZURE)}).loc["azure"]
    assert row.tolist() == pytest.approx(SURVEY["azure-conv"], abs=0.011)


def test_it_can_be_drawn(table):
    assert len(plot_bubbles(table).get_lines()) == len(SURVEY)
