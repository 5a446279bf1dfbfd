"""`busdoor demo`: the introductory scenario."""

from __future__ import annotations

from pathlib import Path

from busdoor.cli.flags import Overwrite


def demo(*, out: Path | None = None, overwrite: Overwrite = False) -> int:
    """Show the difference on five requests: in words, and as a picture of bus and door.

    Parameters
    ----------
    out
        Folder for the picture; by default a new busdoor-demo-001.
    """
    from busdoor.comparison.demo import describe, introductory_scenario
    from busdoor.core.study_folder import study_folder
    from busdoor.plots import plot_bus_and_door, save_figure

    with study_folder(out, "demo", overwrite) as place:
        scenario = introductory_scenario()
        files = save_figure(
            plot_bus_and_door(scenario.static, scenario.continuous), place.part / "bus-and-door"
        )
        folder = place.publish()
    print(describe(scenario))
    print("\nPicture: " + ", ".join(str(folder / file.name) for file in files))
    return 0
