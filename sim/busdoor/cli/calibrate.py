"""`busdoor calibrate`: from measurements to a step time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from busdoor.cli.flags import Json
from busdoor.cli.measured_flags import MeasuredFlags

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from busdoor.calibration import Calibration
    from busdoor.results.result import Result


def calibrate(
    *measured: Path,
    out: Path,
    name: str | None = None,
    without: list[str] | None = None,
    graph_sizes: str | None = None,
    mixed_graph_sizes: str | None = None,
    from_requests: bool = False,
    runs: MeasuredFlags = MeasuredFlags(),
    transfer: str | None = None,
    force: bool = False,
    json: Json = False,
) -> int:
    """Fit a step time to measured runs, and write it as a file that --step-time takes.

    The file also keeps the fit's errors and intervals, and the measured server's memory and limits.
    Figures beside it show the residuals: predicted against measured, over size, context and time.

    Parameters
    ----------
    measured
        Folders of replays, profiles or observations, logs of vLLM's engine, vllm bench serve's
        JSON, LLMServingSim's requests.jsonl, CSV files of per-request times. With --transfer, a
        calibration's file or name.
    out
        The file to write: mine.toml.
    name
        Name of the calibration; by default the file's name.
    without
        Leave a term at 0, because the log cannot identify it: --without per_chunk_s.
    graph_sizes
        Batch sizes of the CUDA graphs of decodes, where the runs do not contain them: 1,2,4,8,16.
    mixed_graph_sizes
        Token counts of the CUDA graphs of batches with prefill, where the runs do not contain them:
        128,256,512.
    from_requests
        Fit to requests though there are iterations; without iterations that is so by itself. The
        requests are simulated: with --gpu and --model two efficiencies of their roofline
        and the host's time per request, else base, per token, prefill pair and key. A fit that is
        more than 5 % off in sample, or whose terms these requests cannot tell apart, is refused.
    transfer
        Re-scale to another GPU of the catalogue, by memory bandwidth and matrix throughput: h200.
    force
        Of a fit to requests: write the file even if the fit is refused.
    """
    if not measured:
        raise ValueError(
            "calibrate needs something measured: a replay's folder, a log, or a file of requests"
        )
    from busdoor.calibration.import_logs import run_names
    from busdoor.cli.output import output
    from busdoor.cli.progress import progress_bar
    from busdoor.core.study_paths import check_file

    check_file(out, "--out", made=out.parent)
    title = name or out.stem
    moved = transfer is not None and len(measured) == 1 and _is_calibration(measured[0])
    given = {
        "--without": without,
        "--graph-sizes": graph_sizes,
        "--mixed-graph-sizes": mixed_graph_sizes,
        "--policy": runs.policy,
        "--from-requests": from_requests,
        "--force": force,
        "--run": runs.run,
        **{f"--{key}": value for key, value in runs.server.items()},
        "--lookahead": runs.lookahead is not None,
        "--max-in-flight": runs.max_in_flight,
        "--shared-prefix": runs.shared_prefix,
    }
    _check_file(out)
    if moved:
        from busdoor.calibration import Calibration

        _refuse_idle(given, moved, from_requests)
        calibration, results = Calibration.load(str(measured[0])), []
    else:
        sizes = (
            _sizes("--graph-sizes", graph_sizes),
            _sizes("--mixed-graph-sizes", mixed_graph_sizes),
        )
        with progress_bar("reading and fitting"):
            results = runs.read(measured)
            from_requests |= not any(len(result.iterations) for result in results)
            _refuse_idle(given, moved, from_requests)
            if from_requests:
                calibration = _fit_requests(results, measured, title, runs)
            else:
                calibration = _fit(results, measured, title, without or [], sizes, runs)
        _refuse_doubtful(calibration, results, force)
    if transfer is not None:
        from busdoor.calibration import transfer as move

        calibration = move(calibration, transfer)
    with output(json) as answer:
        _deliver(calibration, results, run_names(measured), out)
        answer(calibration.to_dict)
    return 0


def _refuse_idle(given: Mapping[str, Any], moved: bool, from_requests: bool) -> None:
    """Raise ValueError for a flag that would change nothing."""
    if moved:
        idle, what = list(given), "--transfer of a calibration's file"
    elif from_requests:
        idle, what = ["--without", "--graph-sizes", "--mixed-graph-sizes"], "a fit to requests"
    else:
        idle = [
            "--force",
            "--gpu",
            "--model",
            "--tp",
            "--engine",
            "--lookahead",
            "--max-in-flight",
            "--shared-prefix",
        ]
        what = "a fit to iterations"
    for flag in idle:
        if given.get(flag):
            raise ValueError(f"{flag} does not apply to {what}; leave it out")


def _check_file(out: Path) -> None:
    """Raise ValueError if a file cannot be written there, before anything is fitted."""
    import os

    if out.is_dir():
        raise ValueError(f"--out {out} is a folder; give a file, as in mine.toml")
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ValueError(
            f"--out {out}: nothing can be written into {above}; give a file in a folder of yours"
        )


def _refuse_doubtful(calibration: Calibration, results: Sequence[Result], force: bool) -> None:
    """Raise ValueError if the fit or the client that measured has doubts, unless --force is given."""
    from busdoor.calibration.request_load import doubts_of

    doubts = doubts_of(calibration.about, results)
    if doubts and not force:
        raise ValueError(
            f"the fit is not written, because {'; '.join(doubts)}; --force writes it all the same"
        )


def _is_calibration(path: Path) -> bool:
    from busdoor.step_time.calibration_files import calibration_names

    return path.suffix == ".toml" or str(path) in calibration_names()


def _fit(
    results: Sequence[Result],
    measured: Sequence[Path],
    name: str,
    without: Sequence[str],
    sizes: tuple[Sequence[int] | None, Sequence[int] | None],
    runs: MeasuredFlags,
) -> Calibration:
    from busdoor.calibration import calibrate as fit
    from busdoor.calibration.import_logs import run_names

    names = run_names(measured)
    decodes, mixed = sizes
    return fit(
        results,
        names,
        name=name,
        without=without,
        graph_sizes=decodes,
        mixed_graph_sizes=mixed,
        policy=runs.scheduling,
    )


def _fit_requests(
    results: Sequence[Result], measured: Sequence[Path], name: str, runs: MeasuredFlags
) -> Calibration:
    """Fit to requests alone: the roofline of a server that is named, else a reduced step time."""
    from busdoor.calibration import calibrate_from_requests, calibrate_scaled
    from busdoor.calibration.import_logs import run_names

    shared: dict[str, Any] = {"name": name, "policy": runs.scheduling, "sent": runs.sent}
    given = runs.server
    if {"gpu", "model"} <= given.keys():
        return calibrate_scaled(results, run_names(measured), **given, **shared)
    if given:
        missing = " and ".join(f"--{key}" for key in ("gpu", "model") if key not in given)
        raise ValueError(
            f"--{next(iter(given))} is given without {missing}: a roofline needs "
            f"both; give {missing}"
        )
    return calibrate_from_requests(results, run_names(measured), **shared)


def _sizes(flag: str, text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(size) for size in text.split(",")]
    except ValueError:
        raise ValueError(
            f"{flag} {text}: it must be whole numbers with commas, as in 1,2,4,8"
        ) from None


def _deliver(
    calibration: Calibration, results: Sequence[Result], names: Sequence[str], out: Path
) -> None:
    """Write the file and the figure, and then print the fit."""
    from busdoor.cli.render import print_calibration

    said = [f"Calibration: {calibration.save(out)}"]
    if results and all(len(result.iterations) for result in results):
        from busdoor.calibration.figures import plot_residuals
        from busdoor.plots import save_figure

        figure = plot_residuals(results, names, calibration.step_time)
        said.append(f"Residuals: {save_figure(figure, out.with_name(f'{out.stem}_residuals'))[0]}")
    print_calibration(calibration)
    print("\n".join(said))
