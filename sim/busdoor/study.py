"""From a workload and the names of policies to a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from busdoor.comparison import Comparison
from busdoor.config import DEFAULT_POLICIES, Config
from busdoor.config.workload import resampled
from busdoor.experiment import Draw, Experiment, Report
from busdoor_workloads import Trace

Load = Trace | pd.DataFrame | Mapping[str, Any] | str | Path  # what Python may give as a workload

# The built-in job: below what one GPU carries with continuous batching, above what it carries with static batching.
DEFAULT_JOB: Mapping[str, Any] = {"workload": {"name": "azure-conv", "request_rate": 12.0, "num_requests": 2000}}


def compare(
    workload: Load | None = None,
    policies: Sequence[str | Mapping[str, Any]] = DEFAULT_POLICIES,
    *,
    gpu: str | Mapping[str, Any] = "h100",
    model: str | Mapping[str, Any] = "llama-3.1-8b",
    gpu_options: Mapping[str, Any] = MappingProxyType({}),
    request_rate: float | None = None,
    num_requests: int | None = None,
    replications: int = 5,
    seed: int = 0,
    report: Report | None = None,
    **tables: Any,
) -> Comparison:
    """Run policies side by side on the same draws of a workload.

    Parameters
    ----------
    workload : Trace, DataFrame, str, Path or mapping, optional
        A trace; a data frame with a row per request, see `Trace.from_frame`; the name of a profile or preset; a trace
        file; or the table [workload] of a configuration. By default 2,000 requests of the profile `azure-conv` at 12
        requests/s.
    policies : sequence of str or mapping
        Names, or tables such as `{"name": "static", "batch_size": 16}`. The others are measured against the first.
    gpu, model : str or mapping
        From the catalogue, or tables of your own.
    gpu_options : mapping
        More of the table [gpu], such as `{"tp": 2, "weight_dtype": "fp8"}`.
    request_rate : float, optional
        Requests per second, in place of the workload's own arrivals.
    num_requests : int, optional
        Of each replication.
    replications : int
        Draws. All policies have the same ones (common random numbers).
    seed : int
        Of every random stream; the same seed gives the same numbers.
    report : callable, optional
        Told about progress: the share that is done, and what is being done.
    **tables
        Further tables and keys of a configuration: `kv`, `step_time`, `slo`, `lookahead`.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        One sentence that names what is wrong and what would be right.

    Examples
    --------
    >>> comparison = compare("azure-conv", ["static", "vllm"], request_rate=12, num_requests=300, replications=2)
    >>> bool(comparison.gain.loc["vllm", "over_static"] > 4)
    True

    Requests in a data frame of your own:

    >>> import pandas as pd
    >>> log = pd.DataFrame({"arrival_s": [0.0, 0.5], "input_tokens": [100, 200], "output_tokens": [10, 20]})
    >>> compare(log, ["static", "vllm"], replications=1).summaries["completed"].tolist()
    [2, 2, 2]
    """
    own, trace = workload_table(DEFAULT_JOB["workload"] if workload is None else workload)
    changes = {"request_rate": request_rate, "num_requests": num_requests}
    table = {
        "workload": own | {key: value for key, value in changes.items() if value is not None},
        "policy": [{"name": policy} if isinstance(policy, str) else policy for policy in policies],
        "gpu": {"name": gpu, "model": model, **gpu_options},
        "replications": replications,
        "seed": seed,
        **tables,
    }
    config = Config.from_table(table)
    experiment = Experiment(config, draws(config, trace), report)
    experiment.run()
    return Comparison.of(experiment)


def workload_table(workload: Load) -> tuple[dict[str, Any], Trace | None]:
    """Return a workload as the table [workload] of a configuration, and the trace that takes its place, if it is one.

    Raises
    ------
    ValueError
        If it is nothing of the kind; for a data frame as `Trace.from_frame` says.

    Examples
    --------
    >>> workload_table("azure-conv")
    ({'name': 'azure-conv'}, None)
    >>> workload_table([1, 2])
    Traceback (most recent call last):
    ValueError: workload is of type list; it has to be a Trace, a data frame, a name, a file or a table [workload]
    """
    if isinstance(workload, str | Path):
        return {workload_key(workload): str(workload)}, None
    if isinstance(workload, Mapping):
        return dict(workload), None
    if isinstance(workload, Trace | pd.DataFrame):
        return {}, workload if isinstance(workload, Trace) else Trace.from_frame(workload)
    raise ValueError(
        f"workload is of type {type(workload).__name__}; it has to be a Trace, a data frame, a name, a file or a table "
        "[workload]"
    )


def workload_key(workload: str | Path) -> str:
    """Say whether a word names a file ("path") or a profile ("name").

    Examples
    --------
    >>> workload_key("azure-conv"), workload_key("traces/mine.csv")
    ('name', 'path')
    """
    looks_like_file = isinstance(workload, Path) or "/" in workload or "." in workload or Path(workload).exists()
    return "path" if looks_like_file else "name"


def draws(config: Config, recorded: Trace | None = None) -> Draw:
    """Return what draws the replications of a configuration's workload, or of a recorded trace in its place."""
    if recorded is None:
        return lambda replication: config.workload.trace(config.seed, replication)
    trace = config.workload.apply(recorded)
    return lambda replication: resampled(trace, config.seed, replication)
