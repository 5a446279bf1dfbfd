"""The known formats of measured runs, and which of them a file has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from busdoor.calibration.formats.aiperf import AIPERF
from busdoor.calibration.formats.base import MeasuredFormat
from busdoor.calibration.formats.bench_serving import SGLANG, VLLM_BENCH
from busdoor.calibration.formats.guidellm import GUIDELLM
from busdoor.calibration.formats.inference_perf import INFERENCE_PERF
from busdoor.calibration.formats.llmservingsim import LLMSERVINGSIM
from busdoor.calibration.formats.own_csv import OWN_CSV
from busdoor.calibration.formats.tracev2 import TRACEV2

MEASURED_FORMATS: Sequence[MeasuredFormat] = (
    VLLM_BENCH,
    SGLANG,
    GUIDELLM,
    AIPERF,
    INFERENCE_PERF,
    TRACEV2,
    LLMSERVINGSIM,
    OWN_CSV,
)


def measured_format(path: Path, holds: str, keys: Sequence[str]) -> MeasuredFormat:
    """Return the format of a file, by its container and the keys of its first record.

    Raises
    ------
    ValueError
        If it is none that is known; the sentence lists them.
    """
    kin = [form for form in MEASURED_FORMATS if form.holds == holds]
    best = max(kin, key=lambda form: form.num_marks(set(keys)), default=None)
    if best is not None and best.num_marks(set(keys)) >= 0:
        return best
    known = ", ".join(form.title for form in MEASURED_FORMATS)
    has = ", ".join(map(str, keys))[:200] or "nothing"
    raise ValueError(
        f"{path.name} is no measured run that is known (it has {has}); known are a folder of ours, "
        f"a log of vLLM's engine (config, requests, iterations), {known}"
    )
