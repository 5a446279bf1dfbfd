"""Which tests are fast, and which parts cannot run without torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

collect_ignore_glob = [] if find_spec("torch") else ["gpu/*"]  # the engine's doctests

# What takes seconds a test, or processes of its own. The rest is marked `fast`.
LONG = (
    "tests/gpu",
    "tests/oracle",
    "tests/sim/theory",
    "tests/test_notebooks.py",
    "gpu",
    "tests/sim/test_capacity.py",
    "tests/sim/test_capacity_interrupt.py",
    "tests/sim/test_cli.py",
    "tests/sim/test_compare.py",
    "tests/sim/test_report.py",
    "tests/sim/test_sweep_cluster.py",
    "tests/sim/test_sweep_run.py",
    "tests/sim/test_twins.py",
    "tests/sim/test_validate.py",
    "tests/sim/test_validate_bars.py",
    "tests/sim/test_saved_folders.py",
    "tests/sim/test_study_folder.py",
    "tests/sim/test_stranded.py",
    "tests/sim/test_cluster_config.py",
    "tests/sim/test_validate_spread.py",
    "tests/sim/test_frames.py",
    "tests/sim/test_plots_style.py",
    "tests/sim/test_cluster.py",
    "tests/sim/test_python_api.py",
    "tests/workloads/test_profiles.py",
    "tests/sim/test_lookahead.py",
)
LONG_MARKS = {"slow", "gpu", "oracle", "real_server", "notebook"}


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as fast what is not long."""
    root = Path(__file__).parent
    long = {root / name for name in LONG}
    if gone := [str(path) for path in long if not path.exists()]:
        raise pytest.UsageError(f"conftest.py: LONG names what is not there: {', '.join(gone)}")
    for item in items:
        if not (
            long & {item.path, *item.path.parents}
            or LONG_MARKS & {mark.name for mark in item.iter_markers()}
        ):
            item.add_marker(pytest.mark.fast)
