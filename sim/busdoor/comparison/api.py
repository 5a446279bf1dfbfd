"""`compare`: from a workload and the names of policies to a comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from busdoor.comparison.comparison import Comparison
from busdoor.comparison.experiment import Draw, Experiment
from busdoor.config import DEFAULT_POLICIES, Config
from busdoor.config.from_calibration import refuse_other_hardware
from busdoor.config.merge import workload_key
from busdoor.config.policy import policy_tables
from busdoor.config.recorded import resampled
from busdoor.config.scaled import is_scaled
from busdoor.config.tables import PLAIN_KEYS, TABLES
from busdoor.core.progress import Report
from busdoor.core.units import reject_unknown
from busdoor.html.notebook import notebook_progress
from busdoor.metrics.slo import as_slo_table
from busdoor.validation.validation import Validation
from busdoor_workloads import Trace, given

Load = Trace | pd.DataFrame | Mapping[str, Any] | str | Path  # a workload as Python gives it

DEFAULT_SERVER = {"gpu": "h100", "model": "llama-3.1-8b"}
# The built-in job: below the throughput of one GPU with continuous batching, above that with static
# batching.
DEFAULT_JOB: Mapping[str, Any] = {
    "workload": {"name": "azure-conv", "request_rate": 12.0, "num_requests": 2000}
}


def compare(
    workload: Load | None = None,
    policies: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] = DEFAULT_POLICIES,
    *,
    gpu: str | Mapping[str, Any] = "h100",
    model: str | Mapping[str, Any] = "llama-3.1-8b",
    gpu_options: Mapping[str, Any] = MappingProxyType({}),
    request_rate: float | None = None,
    rate: float | None = None,
    num_requests: int | None = None,
    replications: int = 5,
    seed: int = 0,
    validation: str | Path | None = None,
    report: Report | None = None,
    **tables: Any,
) -> Comparison:
    """Run policies side by side on the same draws of a workload.

    Parameters
    ----------
    workload : Trace, DataFrame, str, Path or mapping, optional
        A trace; a data frame with a row per request, see `Trace.from_frame`; the name of a profile
        or preset; a trace file; or the table [workload] of a configuration. By default 2,000
        requests of the profile `azure-conv` at 12 requests/s.
    policies : str, mapping or sequence of them
        Names, also with fields as in "static,batch_size=16", or tables such as
        `{"name": "static", "batch_size": 16}`. The first is the baseline of the others.
    gpu : str or mapping
        From the catalogue, or a table of your own.
    model : str or mapping
        From the catalogue, a table of your own, or a Hugging Face config.json or the folder that
        holds it.
    gpu_options : mapping
        Further keys of the table [gpu], such as `{"tp": 2, "weight_dtype": "fp8"}`.
    request_rate : float, optional
        Requests per second, in place of the workload's own arrivals.
    rate : float, optional
        Another name for `request_rate`, as `--rate` of the command.
    num_requests : int, optional
        Requests of each replication.
    replications : int
        Number of draws. All policies run on the same ones (common random numbers).
    seed : int
        Seed of every random stream; the same seed gives the same numbers.
    validation : str or Path, optional
        Folder of a validation, which has how far the model is off: how sure an SLO is met rests on
        it.
    report : callable, optional
        Called with progress: the share that is done, and what is being done.
    **tables
        Further tables and keys of a configuration: `kv`, `step_time` (or a calibration's name or
        file), `slo`, `lookahead`.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If an argument is wrong; one sentence names it and the remedy.

    Examples
    --------
    >>> size = {"num_requests": 300, "replications": 2}
    >>> comparison = compare("azure-conv", ["static", "vllm"], request_rate=12, **size)
    >>> bool(comparison.gain.loc["vllm", "over_static"] > 4)
    True

    Requests in a data frame of your own:

    >>> import pandas as pd
    >>> lengths = {"input_tokens": [100, 200], "output_tokens": [10, 20]}
    >>> log = pd.DataFrame({"arrival_s": [0.0, 0.5], **lengths})
    >>> compare(log, ["static", "vllm"], replications=1).summaries["completed"].tolist()
    [2, 2, 2]
    """
    own, trace = workload_table(DEFAULT_JOB["workload"] if workload is None else workload)
    reject_unknown_keywords(compare, tables)
    report = given.function("report", report)
    changes = {"request_rate": only_rate(request_rate, rate), "num_requests": num_requests}
    table = {
        "workload": own | {key: value for key, value in changes.items() if value is not None},
        "policy": policy_tables(policies),
        "gpu": server_table(gpu, model, gpu_options, tables.get("step_time")),
        "replications": replications,
        "seed": seed,
        **tables,
        "slo": as_slo_table(tables.get("slo")),
    }
    config = Config.from_table(table)
    with notebook_progress(report) as shown:
        checked = None if validation is None else Validation.load(validation)
        experiment = Experiment(config, draws(config, trace), shown, checked)
        experiment.run()
    return Comparison.of(experiment)


def server_table(
    gpu: Any, model: Any, options: Mapping[str, Any], step_time: Any
) -> dict[str, Any]:
    """Return the table [gpu] of Python's arguments, if the step time was measured with these.

    Raises ValueError if the step time was measured with another GPU or model.
    """
    given_as = {"gpu": ("name", gpu), "model": ("model", model)}
    refuse_other_hardware(
        {key: pair for key, pair in given_as.items() if pair[1] != DEFAULT_SERVER[key]}, step_time
    )
    table = {"name": gpu, "model": model}
    # which knows its own server: only what differs from the defaults was asked for
    if is_scaled(step_time):
        table = {
            key: value for key, value in given_as.values() if value not in DEFAULT_SERVER.values()
        }
    return {**table, **given.table("gpu_options", options)}


def reject_unknown_keywords(function: Callable[..., Any], keywords: Iterable[str]) -> None:
    """Raise ValueError, with the nearest right name, for a keyword that no configuration has.

    >>> reject_unknown_keywords(compare, {"num_request": 3})
    Traceback (most recent call last):
    ValueError: compare() num_request: unknown; did you mean num_requests?
    """
    # which have names of their own among the parameters
    further = {*TABLES, *PLAIN_KEYS} - {"workload", "policy"}
    own = [
        name
        for name, one in signature(function).parameters.items()
        if one.kind is not one.VAR_KEYWORD
    ]
    reject_unknown(f"{function.__name__}()", keywords, {*own, *further})


def only_rate(request_rate: float | None, rate: float | None) -> float | None:
    """Return the rate given under either name.

    Raises ValueError if both are given.
    """
    if request_rate is not None and rate is not None:
        raise ValueError(
            f"request_rate = {request_rate!r} and rate = {rate!r} both set the rate; give one of "
            f"them"
        )
    return rate if request_rate is None else request_rate


def workload_table(workload: Load) -> tuple[dict[str, Any], Trace | None]:
    """Return a workload as a table [workload], and as a trace where it is one.

    Raises ValueError if it is of another type, or a data frame that `Trace.from_frame` refuses.

    >>> workload_table("azure-conv")
    ({'name': 'azure-conv'}, None)
    >>> workload_table([1, 2])
    Traceback (most recent call last):
    ValueError: workload is of type list; it must be a Trace, a data frame, a name, ...
    """
    if isinstance(workload, str | Path):
        return {workload_key(workload): str(workload)}, None
    if isinstance(workload, Mapping):
        return dict(workload), None
    if isinstance(workload, Trace | pd.DataFrame):
        return {}, workload if isinstance(workload, Trace) else Trace.from_frame(workload)
    raise ValueError(
        f"workload is of type {type(workload).__name__}; it must be a Trace, a data frame, a "
        "name, a file or a table [workload]"
    )


def draws(config: Config, recorded: Trace | None = None) -> Draw:
    """Return a function that draws the replications of a workload or of a recorded trace."""
    if recorded is None:
        return lambda replication: config.workload.trace(config.seed, replication)
    trace = config.workload.apply(recorded)
    return lambda replication: resampled(trace, config.seed, replication)
