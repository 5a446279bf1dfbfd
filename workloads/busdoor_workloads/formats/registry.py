"""The known formats by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from busdoor_workloads.formats.azure import AZURE
from busdoor_workloads.formats.bailian import BAILIAN
from busdoor_workloads.formats.base import Format
from busdoor_workloads.formats.burstgpt import BURSTGPT
from busdoor_workloads.formats.llmservingsim import LLMSERVINGSIM
from busdoor_workloads.formats.mooncake import MOONCAKE
from busdoor_workloads.formats.otel import OTEL
from busdoor_workloads.formats.own import CSV, JSONL
from busdoor_workloads.formats.servegen import SERVEGEN
from busdoor_workloads.formats.splitwise import SPLITWISE
from busdoor_workloads.formats.tracev2 import TRACEV2
from busdoor_workloads.formats.vidur import VIDUR
from busdoor_workloads.formats.vllm_bench import VLLM_BENCH
from busdoor_workloads.formats.weka import WEKA
from busdoor_workloads.nearest import did_you_mean
from busdoor_workloads.reading.draft import ReadOptions

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
        WEKA,
        OTEL,
        TRACEV2,
    )
}


def known_format(format: str) -> Format:
    """Return the format of a name.

    Raises ValueError: the name is unknown; the message has the nearest one.
    """
    if format not in FORMATS:
        raise ValueError(f"the format {format!r} is unknown; {did_you_mean(format, FORMATS)}")
    return FORMATS[format]


_DEFAULTS = ReadOptions()
_SPECIAL = ("columns", "model", "normalize_duration", "run")


def refuse_unused(kind: Format, path: Path, options: ReadOptions) -> None:
    """Refuse options that do not apply to files of a format.

    Raises ValueError: the first such option, and the formats to which it applies.
    """
    for option in _SPECIAL:
        if getattr(options, option) != getattr(_DEFAULTS, option) and option not in kind.uses:
            users = ", ".join(name for name, format in FORMATS.items() if option in format.uses)
            raise ValueError(
                f"{option} (--{option.replace('_', '-')}) applies only to {users}; {path.name} is "
                f"{kind.name}"
            )
    if options.time_unit is not None and kind.time_unit is None:
        raise ValueError(
            f"time_unit (--time-unit) does not apply to {path.name}: times in {kind.name} are "
            f"seconds"
        )
    if options.too_long != _DEFAULTS.too_long and options.max_total_tokens is None:
        raise ValueError(
            "too_long (--too-long) applies only with max_total_tokens (--max-total-tokens)"
        )
