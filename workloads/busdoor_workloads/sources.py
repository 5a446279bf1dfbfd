"""The profiles' public traces: reader, attribution, licence, and what is left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from busdoor_workloads import fit
from busdoor_workloads.columns import FloatArray
from busdoor_workloads.source_readers import (
    Columns,
    read_azure,
    read_mooncake,
    read_servegen,
    read_simple,
    read_vidur,
    read_weka,
    servegen_arrivals,
)

# Seconds of the ticks of Mooncake's conversation trace (its README); arrivals are spread over them.
_MOONCAKE_TICK_S = 3.0


@dataclass(frozen=True, kw_only=True)
class Source:
    """A public trace: its profile's name and metadata, and its file in the traces' folder.

    `read` takes that folder and returns arrivals (None without any), input tokens and output
    tokens; `arrivals` likewise, if they are published apart from the lengths. `bins` of the input
    for the outputs' tables; 1 if lengths were published without their correlation.
    """

    name: str
    read: Callable[[Path], Columns]
    attribution: str
    licence: str
    file: str
    note: str = ""
    arrivals: Callable[[Path], FloatArray] | None = None
    bins: int = fit.BINS

    def fit_lengths(self, traces: Path) -> dict[str, Any]:
        """Fit the lengths' tables."""
        return fit.fit_lengths(*self.read(traces / self.file)[1:], self.bins)

    def fit_arrivals(self, traces: Path) -> dict[str, Any] | None:
        """Fit the arrivals; return None if the trace has none."""
        arrival_s = self.arrivals(traces) if self.arrivals else self.read(traces / self.file)[0]
        return None if arrival_s is None else fit.fit_arrivals(arrival_s)


_AZURE = "Patel et al., Splitwise, ISCA 2024; Azure/AzurePublicDataset @ b469a113 : data/{}"
_MOONCAKE = (
    "Qin et al., Mooncake, FAST 2025; kvcache-ai/Mooncake @ 3b5a5941 : FAST25-release/traces/{}"
)
_SERVEGEN = "Xiang et al., ServeGen, arXiv 2505.09999; alibaba/ServeGen @ f891d118 : data/{}"
_NO_PREFIXES = "shared prefixes (hash_ids) are not modelled"

SOURCES = (
    Source(
        name="azure-conv",
        read=read_azure,
        file="azure_llm_2023_conv.csv.gz",
        attribution=_AZURE.format("AzureLLMInferenceTrace_conv.csv"),
        licence="CC-BY-4.0",
    ),
    Source(
        name="azure-code",
        read=read_azure,
        file="azure_llm_2023_code.csv.gz",
        attribution=_AZURE.format("AzureLLMInferenceTrace_code.csv"),
        licence="CC-BY-4.0",
    ),
    Source(
        name="mooncake-conversation",
        read=lambda path: read_mooncake(path, _MOONCAKE_TICK_S),
        file="mooncake_fast25_conversation.jsonl.gz",
        attribution=_MOONCAKE.format("conversation_trace.jsonl"),
        licence="Apache-2.0",
        note=f"arrivals fitted after spreading the trace's 3 s ticks; {_NO_PREFIXES}",
    ),
    Source(
        name="mooncake-synthetic",
        read=read_mooncake,
        file="mooncake_fast25_synthetic.jsonl.gz",
        attribution=_MOONCAKE.format("synthetic_trace.jsonl"),
        licence="Apache-2.0",
        note=_NO_PREFIXES,
    ),
    Source(
        name="arxiv-summarization",
        read=read_vidur,
        file="vidur_arxiv_summarization_lengths.csv.gz",
        attribution=(
            "Agrawal et al., Vidur, MLSys 2024 (Copyright Microsoft); microsoft/vidur @ 7d475133 : "
            "data/processed_traces/arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv"
        ),
        licence="MIT",
        note="the source has no arrivals: all at once unless a rate is given; totals are cut at "
        "4,096 tokens",
    ),
    Source(
        name="sharegpt-llama31",
        read=read_simple,
        file="llmservingsim_sharegpt_llama31_8b_lengths.csv.gz",
        attribution=(
            "LLMServingSim (Copyright 2024 CASYS Lab at KAIST); casys-kaist/LLMServingSim @ "
            "5daddb21 : workloads/sharegpt-llama-3.1-8b-300-sps10.jsonl"
        ),
        licence="MIT",
        note="300 requests filtered to answers of 512 tokens or more, so lengths hardly vary: "
        "static looks good on it",
    ),
    Source(
        name="weka-agentic",
        read=read_weka,
        file="weka_kv_cache_tester_requests.parquet",
        attribution="Weka agentic coding traces; callanjfox/kv-cache-tester @ 94f60463 : "
        "traces/trace_*.json",
        licence="Apache-2.0",
        note=(
            "lengths of single calls, from 710 of 739 sessions; sessions, pauses and prefix reuse "
            "(96 % of tokens) are "
            "not modelled (see the preset agentic); all at once unless a rate is given"
        ),
    ),
    Source(
        name="servegen-m-large",
        read=lambda path: read_servegen(path, "language/m-large"),
        file="servegen_length_hists.parquet",
        arrivals=lambda traces: servegen_arrivals(traces, "language/m-large"),
        bins=1,
        attribution=_SERVEGEN.format("language/m-large"),
        licence="Apache-2.0",
        note=(
            "lengths are PARTIAL: 15 of 162 clients with about 37 % of the requests are missing; "
            "inputs and outputs are drawn independently; arrivals are those of an hour of mean rate"
        ),
    ),
    Source(
        name="servegen-deepseek-r1",
        read=lambda path: read_servegen(path, "reason/deepseek-r1"),
        file="servegen_length_hists.parquet",
        arrivals=lambda traces: servegen_arrivals(traces, "reason/deepseek-r1"),
        bins=1,
        attribution=_SERVEGEN.format("reason/deepseek-r1"),
        licence="Apache-2.0",
        note="inputs and outputs are drawn independently; arrivals are those of an hour of mean "
        "rate",
    ),
)
