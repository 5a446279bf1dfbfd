"""`busdoor recommend`: the servers and settings that meet an SLO at the least cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from busdoor.cli.flags import ClientFlags, EngineFlags, Json, Overwrite

if TYPE_CHECKING:
    from busdoor.core.toml import Document
    from busdoor.recommend.recommender import Recommender


def recommend(
    *,
    workload: str | None = None,
    rate: Annotated[float | None, Parameter(name=("--rate", "--request-rate"))] = None,
    slo: list[str] | None = None,
    goodput: float | None = None,
    gpu: list[str] | None = None,
    tp: list[int] | None = None,
    budget: str | None = None,
    confidence: float | None = None,
    validation: Path | None = None,
    no_ladder: bool = False,
    server: EngineFlags = EngineFlags(),
    client: ClientFlags = ClientFlags(),
    jobs: int = -1,
    cluster: str | None = None,
    out: Path | None = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> int:
    """Find the GPUs, settings and router that serve a rate within an SLO at the least cost.

    Numbers of servers are tried from the cheapest on, behind what closed forms allow. Among the
    scheduler's settings of each, short runs on the same draws choose those that get more runs.
    Finished runs stay in the folder: the same command goes on after an interruption.

    Parameters
    ----------
    workload
        A profile (azure-conv, the default, azure-code ...) or a trace file.
    rate
        Requests per second to serve; by default [workload] request_rate.
    slo
        An SLO, as for busdoor capacity: --slo ttft_p99=2s, or a preset.
    goodput
        Share of requests that must meet all plain limits; by default 0.99.
    gpu
        A GPU to choose from, with its price: --gpu h100,price_per_hour=2.5 --gpu l40s. By default
        all of the catalogue with a price.
    tp
        GPUs that share each layer, to choose from; by default 1, 2, 4 and 8.
    budget
        Time after which the search answers with what it knows: 2min; no limit unless given.
    confidence
        Choose and size servers to meet the SLO with this probability, as in 0.95: sampling, the
        calibration and the model's error counted together.
    validation
        Folder that busdoor validate wrote, which says how far the model is off at each load.
    no_ladder
        Do not say what the SLO costs with other policies, and how sure the answer is if the model
        may be off: the search ends half a minute sooner.
    jobs
        Number of processes; -1 starts one per core.
    cluster
        Run on Dask: the scheduler's address, or local. By default processes of this machine.
    out
        Folder for the answer and the runs; by default busdoor-recommend- and the study's name.
    """
    from busdoor.cli.output import output
    from busdoor.cli.progress import progress_bar
    from busdoor.cli.render import print_recommendation
    from busdoor.core.interrupt import exit_code

    own = {"slo": slo or [], "goodput": goodput, "workload": workload}
    sure = {"confidence": confidence, "validation": validation}
    study = _study(_document(server, client, own, tp), rate, gpu, budget, sure)
    folder = out or Path(f"busdoor-recommend-{study.key[:8]}")
    with output(json) as answer:
        with progress_bar("drawing requests") as report:
            found = study.run(folder, jobs, cluster, report, overwrite, not no_ladder)
        print_recommendation(found)
        print(f"Tables and runs: {folder}; busdoor report {folder} makes a page")
        answer(found.to_dict)
    return exit_code() if study.interrupted else 0


def _document(
    server: EngineFlags, client: ClientFlags, own: dict[str, Any], tp: list[int] | None
) -> Document:
    """Return the tables of the file and the flags."""
    from busdoor.cli.from_flags import overrides, read_document
    from busdoor.config import override
    from busdoor.metrics.slo import slo_table

    tables = overrides(server, client, workload=own["workload"])
    if limits := slo_table(own["slo"], own["goodput"]):
        tables["slo"] = limits
    document = read_document(server.config)
    searched = document.data.pop("recommend", {})
    if tp:
        searched = {**searched, "tp": tp}
    merged = override(document, tables)
    merged.data["recommend"] = searched
    return merged


def _study(
    document: Document,
    rate: float | None,
    gpus: list[str] | None,
    budget: str | None,
    sure: dict[str, Any],
) -> Recommender:
    from busdoor.cli.from_flags import servers
    from busdoor.core.units import number_or_text
    from busdoor.recommend.recommender import Recommender
    from busdoor.validation.validation import Validation

    wanted = rate or document.data.get("workload", {}).get("request_rate")
    if wanted is None:
        raise ValueError("--rate is missing: the requests per second to serve, as in --rate 40")
    document.data.setdefault("workload", {}).pop("request_rate", None)
    cards = [card for card in servers(gpus, None) if card]
    if sure["validation"]:
        sure["validation"] = Validation.load(sure["validation"])
    most = None if budget is None else number_or_text(budget)
    return Recommender(document, cards, wanted, most, **sure)
