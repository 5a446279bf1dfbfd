"""Folders of `replay`, `profile` and `twin`, also of runs that stopped early."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from busdoor.config import Config
    from busdoor.results.result import Result
    from busdoor_gpu.replay.replay import ReplayError


def broken_off(error: ReplayError, remark: str) -> int:
    """Report what was kept of an early-stopped replay; return an interruption's exit code."""
    from busdoor.cli.output import note
    from busdoor.core.interrupt import exit_code

    sentence = f"{error}; {remark}"
    if not isinstance(error.__cause__, KeyboardInterrupt):
        raise ValueError(sentence) from error
    note(f"busdoor: {sentence}")
    return exit_code()


def places(settled: Config, part: Path) -> dict[str, Path]:
    """Return each policy's folder: the study's for one; of several, those in replay.json."""
    from busdoor.core.study_paths import folder_names

    labels = [policy.label for policy in settled.policies]
    if len(labels) == 1:
        return {labels[0]: part}
    note_done(part, settled, {})
    return {label: part / name for label, name in folder_names(labels).items()}


def note_done(part: Path, settled: Config, results: Mapping[str, Result]) -> None:
    """Write to replay.json which of several policies are done."""
    from busdoor.core.json import write_json

    if len(settled.policies) > 1:
        write_json(
            part / "replay.json",
            {"complete": len(results) == len(settled.policies), "results": list(results)},
        )
