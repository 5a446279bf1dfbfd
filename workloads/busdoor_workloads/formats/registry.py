"""The formats there are, by name."""

from __future__ import annotations

from collections.abc import Mapping

from busdoor_workloads.formats.azure import AZURE
from busdoor_workloads.formats.bailian import BAILIAN
from busdoor_workloads.formats.base import Format
from busdoor_workloads.formats.burstgpt import BURSTGPT
from busdoor_workloads.formats.llmservingsim import LLMSERVINGSIM
from busdoor_workloads.formats.mooncake import MOONCAKE
from busdoor_workloads.formats.own import CSV, JSONL
from busdoor_workloads.formats.servegen import SERVEGEN
from busdoor_workloads.formats.splitwise import SPLITWISE
from busdoor_workloads.formats.vidur import VIDUR
from busdoor_workloads.formats.vllm_bench import VLLM_BENCH
from busdoor_workloads.nearest import did_you_mean

FORMATS: Mapping[str, Format] = {
    format.name: format
    for format in (
        CSV,
        JSONL,
        AZURE,
        MOONCAKE,
        BURSTGPT,
        BAILIAN,
        SERVEGEN,
        VIDUR,
        SPLITWISE,
        VLLM_BENCH,
        LLMSERVINGSIM,
    )
}


def known_format(format: str) -> Format:
    """Look a format up by its name.

    Raises
    ------
    ValueError
        There is none of that name; the nearest is given.
    """
    if format not in FORMATS:
        raise ValueError(f"the format {format!r} is unknown; {did_you_mean(format, FORMATS)}")
    return FORMATS[format]
