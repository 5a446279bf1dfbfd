"""`recommend`: from a workload, a rate and an SLO to servers, settings and a price."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from busdoor.comparison.api import Load, workload_table
from busdoor.core.progress import Report
from busdoor.core.toml import Document
from busdoor.html.notebook import notebook_progress
from busdoor.metrics.slo import as_slo_table
from busdoor.recommend.recommender import Recommender
from busdoor.recommend.result import Recommendation
from busdoor.validation.validation import Validation


def recommend(
    workload: Load = "azure-conv",
    slo: str | Sequence[str] | Mapping[str, Any] | None = None,
    *,
    request_rate: float,
    model: str | Mapping[str, Any] = "llama-3.1-8b",
    gpus: Sequence[str | Mapping[str, Any]] = (),
    budget: float | str | None = None,
    num_requests: int | None = None,
    confidence: float | None = None,
    validation: str | Path | None = None,
    ladder: bool = True,
    jobs: int = 1,
    cluster: str | None = None,
    out: str | Path | None = None,
    report: Report | None = None,
    **tables: Any,
) -> Recommendation:
    """Find the servers and settings that serve a rate within an SLO at the least cost.

    Numbers of servers are tried from the cheapest on, behind what closed forms allow; among the
    settings of each, short runs on the same draws choose those that get more.

    Parameters
    ----------
    workload
        As in `busdoor.compare`, but for a trace or a data frame.
    model
        As in `busdoor.compare`.
    slo
        As in `busdoor.capacity`.
    request_rate : float
        Requests per second to serve.
    gpus : sequence of str or mapping
        Names, or tables [gpu] with `name`, `price_per_hour` and others; all of the catalogue with a
        price by default.
    budget : float or str
        Seconds, or a time as in "2min", after which the search ends with what it knows.
    num_requests : int, optional
        Of the first runs; by default those of a minute, but 1,000 to 10,000.
    confidence : float, optional
        Probability of meeting the SLO that the servers are sized for, as in 0.95: sampling, the
        calibration and the model's error counted together.
    validation : str or Path, optional
        Folder of a validation, which has how far the model is off at each load.
    ladder : bool
        Also find what the SLO costs with other policies, static batching among them: half a minute.
    jobs
        Processes; -1 for one per core.
    cluster
        A Dask cluster in place of processes: "local", or a scheduler's address.
    out : str or Path, optional
        Folder of the answer and its runs; a search that was ended goes on there.
    report : callable, optional
        Called with progress; in a notebook it is a bar unless given.
    **tables
        Further tables of a configuration, and `recommend` with fields of
        `busdoor.config.recommend.RecommendTable`.

    Returns
    -------
    Recommendation

    Raises
    ------
    ValueError
        If an argument is wrong, or no server can hold the model.

    Examples
    --------
    >>> axes = {"tp": [1], "max_num_seqs": [64], "max_num_batched_tokens": [8192], "chunked_prefill": [True]}
    >>> found = recommend("azure-conv", "ttft_p99=2s", request_rate=6.0, gpus=["l4", "l40s"], recommend=axes)
    >>> found.table.loc[found.table["outcome"] == "meets", "servers"].iloc[0]
    '2 × l40s'
    """
    own, recorded = workload_table(workload)
    if recorded is not None:
        raise ValueError("workload: recommend takes a name, a file or a table, not a trace")
    table = {"workload": own, "slo": as_slo_table(slo), "gpu": {"model": model}, **tables}
    checked = None if validation is None else Validation.load(validation)
    rate = request_rate
    study = Recommender(Document(table), gpus, rate, budget, num_requests, confidence, checked)
    with tempfile.TemporaryDirectory() as made, notebook_progress(report) as shown:
        place = Path(out or made)
        return study.run(place, jobs, cluster, shown, overwrite=False, with_ladder=ladder)
