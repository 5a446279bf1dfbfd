"""Iterations by what follows them: where a step time errs, and how long a launch takes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from busdoor.calibration.log import touching
from busdoor.results.result import Result
from busdoor.validation.run import RunValidation

_WORK = {False: "decodes", True: "prefill"}


def followed(run: RunValidation) -> pd.DataFrame:
    """Return where the step time errs, by what an iteration is and what follows it at once.

    Returns
    -------
    DataFrame
        `iterations`; means of `measured_ms` and `predicted_ms`; `error_%`, of their sums in per
        cent of the run's.

    Examples
    --------
    >>> from busdoor.validation.validate import validate
    >>> from lessons.twins import measured_twin
    >>> twin = measured_twin("h100-llama-3.1-8b")
    >>> code = validate([twin.runs["azure-code-0.70"]], twin.calibration.step_time)
    >>> followed(code.runs[0])["error_%"].round(1).to_dict()["decodes, then prefill"]
    -4.9
    """
    table = run.measured.iterations.assign(predicted_s=run.predicted_s)
    prefill, after = (table["num_prefill_tokens"] > 0), _prefill_next(table)
    cells = table.groupby((prefill.map(_WORK) + ", then " + after.map(_WORK)).rename(None))
    off_s = cells["predicted_s"].sum() - cells["duration_s"].sum()
    return pd.DataFrame({
        "iterations": cells.size(),
        "measured_ms": 1e3 * cells["duration_s"].mean(),
        "predicted_ms": 1e3 * cells["predicted_s"].mean(),
        "error_%": 100 * off_s / table["duration_s"].sum(),
    })  # fmt: skip


def _prefill_next(table: pd.DataFrame) -> pd.Series[bool]:
    prefill = table["num_prefill_tokens"].shift(-1, fill_value=0) > 0
    return prefill & np.append(touching(table), False)


def launches(result: Result) -> pd.Series[float]:
    """Return the ms the host took to launch a prefill: in a profile, or while decodes ran.

    Examples
    --------
    >>> from lessons.twins import measured_twin
    >>> twin = measured_twin("h100-llama-3.1-8b")
    >>> own = [twin.profile, twin.runs["azure-conv-0.75"]]
    >>> [f"{launches(result).median():.1f}" for result in own]
    ['9.3', '18.6']
    """
    table = result.iterations
    prefill = table["num_prefill_tokens"] > 0
    # A profile's shapes may have hundreds of prompts.
    single = table["num_requests"] - table["num_decode_tokens"] == 1
    rows = prefill & single if result.meta["policy"] == "grid" else ~prefill & _prefill_next(table)
    return 1e3 * table.loc[rows, "host_s"]
