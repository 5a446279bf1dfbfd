"""`busdoor validate`: measured runs beside their simulation."""

from __future__ import annotations

from pathlib import Path

from busdoor.cli.flags import Json, Overwrite
from busdoor.cli.measured_flags import MeasuredFlags


def validate(
    *measured: Path,
    step_time: str,
    runs: MeasuredFlags = MeasuredFlags(),
    out: Path | None = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> int:
    """Replay measured runs in the simulator, and report its errors and their causes.

    For each run and load regime: the errors of the step time on the measured batches, and, with the
    simulator making its own batches, those of TTFT, TPOT, ITL, E2E and throughput; the knee; the
    gain of continuous over static batching where runs of one trace were scheduled both ways; the
    machine's own spread; which thresholds are met, and which part causes the error where one is
    not. The folder gets the tables, both sides of each run and their figures; busdoor report makes
    a page of it.

    Parameters
    ----------
    measured
        Folders of replays, logs of vLLM's engine, or files of per-request times.
    step_time
        A calibration: the file of busdoor calibrate, or the name of one that busdoor ships; or
        roofline or operators, which predict for a GPU and a model.
    out
        Folder for tables and figures; by default a new busdoor-validate-001.
    """
    from busdoor.calibration.import_logs import run_names
    from busdoor.cli.output import output
    from busdoor.cli.progress import progress_bar
    from busdoor.cli.render import print_validation
    from busdoor.core.study_folder import study_folder
    from busdoor.validation.folder import write
    from busdoor.validation.step_time import judged
    from busdoor.validation.validate import validate as hold_against

    if not measured:
        raise ValueError(
            "validate needs something measured: a replay's folder, a log, or a file of requests"
        )
    policy = runs.scheduling
    with output(json) as answer, study_folder(out, "validate", overwrite) as place:
        with progress_bar(f"simulating {len(measured)} measured runs"):
            results = runs.read(measured)
            predictor = judged(step_time, results, policy, **runs.server)
            validation = hold_against(
                results,
                predictor.step_time,
                run_names(measured),
                policy=policy,
                sent=runs.sent,
                server=predictor.server,
                about=predictor.about,
            )
        with progress_bar() as report:
            folder = write(validation, place, report)
        print_validation(validation)
        print(f"Tables and figures: {folder}; as a page: busdoor report {folder}")
        answer(validation.to_dict)
    return 0
