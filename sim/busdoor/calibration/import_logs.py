"""Read what was measured, by us or by others, into our schema."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from busdoor.calibration.formats import MEASURED_FORMATS, measured_format
from busdoor.calibration.requests_table import from_requests_table
from busdoor.calibration.vllm_log import KEYS, read_vllm_log
from busdoor.results.result import Result
from busdoor_workloads.reading.sniff import sniff

# In the folder of an observation: what the server's engine recorded itself.
ENGINE_FOLDER = "engine"
_SUFFIXES = re.compile(r"(\.(json|jsonl|csv|gz|zst))+$")


def load_measured(
    path: str | Path, about: Mapping[str, Any] | None = None, run: int | None = None
) -> Result:
    """Read a measured run, whatever wrote it.

    Parameters
    ----------
    path : str or Path
        A folder of ours (replay, profile, simulate, observe: there the iterations that the engine
        recorded, if it has them, else what the client saw); a vLLM engine log (`read_vllm_log`); or
        a file of one of the `MEASURED_FORMATS`: `vllm bench serve`, SGLang, guidellm, AIPerf,
        inference-perf, BLIS's TraceV2, LLMServingSim, or a CSV with arrival_s, input_tokens,
        output_tokens, first_token_s (or ttft_s) and finish_s (or e2e_s).
    about : mapping, optional
        Further entries of its meta: gpu, model, policy_config, num_blocks ...
    run : int, optional
        Which run to take (1 first) of a file that holds several.

    Returns
    -------
    Result
        Its tables of iterations and stays are empty where only requests were measured; its meta has
        "notes" on what the reader left out or assumed.

    Raises
    ------
    ValueError
        If it is none of these, or does not hold together, in one sentence.
    """
    path = Path(path)
    holds, keys = sniff(path)
    is_log = set(keys) >= KEYS
    form = None if path.is_dir() or is_log else measured_format(path, holds, keys)
    if run is not None and (form is None or not form.has_runs):
        files = ", ".join(known.title for known in MEASURED_FORMATS if known.has_runs)
        raise ValueError(
            f"run (--run) applies only to a file that may hold several runs ({files}), which "
            f"{path.name} is not; leave it out"
        )
    if form is not None:
        measured = form.read(path, run)
        return from_requests_table(measured.table, path.stem, measured.meta() | {**(about or {})})
    if is_log:
        return read_vllm_log(path, about)
    recorded = path / ENGINE_FOLDER
    result = Result.load(recorded if recorded.is_dir() else path)
    return Result(
        result.requests, result.iterations, result.stays, {**result.meta, **(about or {})}
    )


def run_names(paths: Sequence[Path]) -> list[str]:
    """Name measured runs by folders or files; where two clash, with the folder above.

    >>> run_names([Path("a/vllm"), Path("b/vllm"), Path("rate_0.5"), Path("rate_4.json.gz")])
    ['a-vllm', 'b-vllm', 'rate_0.5', 'rate_4']
    """
    whole = [path.resolve() for path in paths]
    names = [_SUFFIXES.sub("", path.name) for path in whole]
    return [
        f"{path.parent.name}-{name}" if names.count(name) > 1 else name
        for path, name in zip(whole, names, strict=True)
    ]
