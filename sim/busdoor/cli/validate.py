"""`busdoor validate`: measured runs beside their simulation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from busdoor.calibration import Validation

Flag = Parameter(negative="")


def validate(
    *measured: Path,
    step_time: str,
    policy: str | None = None,
    out: Path | None = None,
    json: Annotated[bool, Flag] = False,
) -> int:
    """Replay measured runs in the simulator, and say how far off it is and why.

    For each run and load regime: the errors of the step time on the measured batches; then with the simulator deciding
    for itself those of TTFT, TPOT, ITL, E2E and throughput; where the knee is; and which part is to blame. Writes the
    tables, both runs and a page of figures for each into a folder.

    Parameters
    ----------
    measured
        Folders of replays, logs of vLLM's engine, or files of per-request times.
    step_time
        A calibration: the file of busdoor calibrate, or the name of one that was measured here.
    policy
        How the runs were scheduled, where they do not say: vllm,max_num_seqs=64,num_blocks=4096,block_size=16,
        max_model_len=8192.
    out
        Folder for tables and figures; by default a fresh busdoor-validate-001.
    json
        Print the numbers once more, as one line of JSON, last.
    """
    from busdoor.calibration import load_measured
    from busdoor.calibration import validate as run
    from busdoor.cli.calibration_tables import print_validation
    from busdoor.cli.flags import fresh_folder
    from busdoor.config import parse_policy
    from busdoor.step_time import make_step_time

    if not measured:
        raise ValueError("validate needs something measured: a replay's folder, a log, or a file of requests")
    model = make_step_time("calibrated", path=step_time)
    results = [load_measured(path) for path in measured]
    names = [path.name.split(".")[0] for path in measured]
    validation = run(results, model, names, policy=parse_policy(policy) if policy else None)
    print_validation(validation)
    folder = fresh_folder("validate", out)
    _save(validation, folder)
    print(f"Tables and figures: {folder}")
    if json:
        print(_line(validation))
    return 0


def _save(validation: Validation, folder: Path) -> None:
    from busdoor.cli.progress import progress_bar
    from busdoor.plots import save_figure

    (folder / "validation.json").write_text(f"{_line(validation)}\n", encoding="utf-8")
    with progress_bar() as report:
        for done, run in enumerate(validation.runs):
            report(done / len(validation.runs), f"drawing {run.name}")
            run.table.to_csv(folder / f"{run.name}.csv")
            run.simulated.save(folder / f"{run.name}_simulated")
            save_figure(validation.plot(run), folder / f"{run.name}")
    validation.by_regime.to_csv(folder / "regimes.csv")
    if len(validation.gain):
        validation.gain.to_csv(folder / "gain.csv", index=False)
        save_figure(validation.plot_gain(), folder / "gain")


def _line(validation: Validation) -> str:
    import json

    return json.dumps(validation.to_dict(), allow_nan=False)
