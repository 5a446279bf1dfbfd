"""Fit profiles: `python -m busdoor_workloads.write_profiles TRACE_DIR [OUT_DIR]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from busdoor_workloads import fit
from busdoor_workloads.sources import SOURCES


def main(arguments: list[str]) -> None:
    """Write every profile whose trace is in the folder.

    Parameters
    ----------
    arguments : list of str
        The traces' folder, and optionally the target folder (by default the package's data folder).
    """
    if not 1 <= len(arguments) <= 2:
        raise SystemExit("usage: python -m busdoor_workloads.write_profiles TRACE_DIR [OUT_DIR]")
    traces = Path(arguments[0])
    out = Path(arguments[1]) if arguments[1:] else Path(__file__).parent / "data" / "profiles"
    for source in SOURCES:
        table: dict[str, Any] = {"name": source.name, "lengths": source.fit_lengths(traces)}
        if (arrival := source.fit_arrivals(traces)) is not None:
            table["arrival"] = {"process": "measured", "fit": arrival}
        table |= {"source": source.attribution, "licence": source.licence, "note": source.note}
        fit.write_profile(out / f"{source.name}.json", table)
        print(f"{source.name}: {(out / f'{source.name}.json').stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
