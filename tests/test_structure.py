"""DESIGN §1's arrow: workloads ← sim ← gpu; no import against it, no torch unasked."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "workloads/busdoor_workloads": {"busdoor", "busdoor_gpu", "simpy", "torch", "triton"},
    "sim/busdoor": {"busdoor_gpu", "torch", "triton"},
}


def imported(path):
    """Top-level names of all modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_nobody_imports_against_the_arrow(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    wrong = [(str(path.relative_to(ROOT)), name) for path in files for name in imported(path)]
    assert [pair for pair in wrong if pair[1] in FORBIDDEN[package]] == []


def test_importing_busdoor_is_light():
    """No torch, and nothing that `busdoor --help` would have to wait for."""
    code = "import sys, busdoor, busdoor.cli; print(*sys.modules)"
    paths = f"import sys; sys.path[:0] = {[str(ROOT / 'sim'), str(ROOT / 'workloads')]!r}; "
    loaded = subprocess.run(
        [sys.executable, "-c", paths + code], check=True, capture_output=True, text=True
    ).stdout
    heavy = {"torch", "triton", "pandas", "scipy", "matplotlib", "simpy"}
    assert heavy.isdisjoint(loaded.split())
