"""SLOs that benchmarks and papers use, by name."""

from __future__ import annotations

from collections.abc import Mapping

DEFAULT_SLO = "mlperf-llama3.1-8b-server"  # for a model that MLPerf does not have
_MLPERF = "mlcommons/inference, llm server and interactive scenarios; 99th percentiles"
_DISTSERVE = "LLMServe/DistServe; 90 % of the requests within both limits"
_SARATHI = "microsoft/sarathi-serve; 99th percentile of the time between tokens"


def _mlperf(ttft: str, tpot: str) -> dict[str, str | float]:
    return {"ttft_p99": ttft, "tpot_p99": tpot, "source": _MLPERF}


def _distserve(ttft: str, tpot: str) -> dict[str, str | float]:
    return {"ttft": ttft, "tpot": tpot, "goodput": 0.9, "source": _DISTSERVE}


# Each is a table [slo], and where it comes from.
PRESETS: Mapping[str, Mapping[str, str | float]] = {
    "mlperf-llama3.1-8b-server": _mlperf("2s", "100ms"),
    "mlperf-llama3.1-8b-interactive": _mlperf("0.5s", "30ms"),
    "mlperf-llama2-70b-server": _mlperf("2s", "200ms"),
    "mlperf-llama2-70b-interactive": _mlperf("0.45s", "40ms"),
    "mlperf-llama3.1-405b-server": _mlperf("6s", "175ms"),
    "mlperf-llama3.1-405b-interactive": _mlperf("4.5s", "80ms"),
    "mlperf-mixtral-8x7b-server": _mlperf("2s", "200ms"),
    "mlperf-deepseek-r1-server": _mlperf("2s", "80ms"),
    "mlperf-deepseek-r1-interactive": _mlperf("1.5s", "15ms"),
    "mlperf-gpt-oss-120b-server": _mlperf("3s", "80ms"),
    "mlperf-gpt-oss-120b-interactive": _mlperf("2s", "15ms"),
    "distserve-chat-13b": _distserve("0.25s", "100ms"),
    "distserve-chat-66b": _distserve("0.4s", "100ms"),
    "distserve-chat-175b": _distserve("4s", "200ms"),
    "distserve-code-66b": _distserve("0.125s", "200ms"),
    "distserve-summarize-66b": _distserve("15s", "150ms"),
    "sarathi-mistral-7b-strict": {"itl_p99": "100ms", "source": _SARATHI},
    "sarathi-mistral-7b-relaxed": {"itl_p99": "500ms", "source": _SARATHI},
}


def default_slo(model: str) -> str:
    """Return MLPerf's server preset for a model; llama-3.1-8b's where there is none.

    >>> default_slo("mixtral-8x7b"), default_slo("qwen3-14b")
    ('mlperf-mixtral-8x7b-server', 'mlperf-llama3.1-8b-server')
    """
    return own_slo(model) if own_slo(model) in PRESETS else DEFAULT_SLO


def own_slo(model: str) -> str:
    """Return the name that MLPerf's server preset for a model has, if there is one."""
    return f"mlperf-{model.replace('llama-', 'llama')}-server"
