"""`busdoor demo`: the introductory scenario."""

from __future__ import annotations

from pathlib import Path


def demo(*, out: Path | None = None) -> int:
    """Show the difference on five requests: in words, and as a picture of bus and door.

    Parameters
    ----------
    out
        Folder for the picture; by default a fresh busdoor-demo-001.
    """
    from busdoor.cli.flags import fresh_folder
    from busdoor.demo import describe, introductory_scenario
    from busdoor.plots import plot_bus_and_door, save_figure

    scenario = introductory_scenario()
    print(describe(scenario))
    folder = fresh_folder("demo", out)
    files = save_figure(plot_bus_and_door(scenario.static, scenario.continuous), folder / "bus-and-door")
    print("\nPicture: " + ", ".join(map(str, files)))
    return 0
