"""Kernel tests run on a GPU if there is one, else interpreted, in their own process."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HAS_TORCH = importlib.util.find_spec("torch") is not None
HAS_TRITON = importlib.util.find_spec("triton") is not None

collect_ignore_glob = [] if HAS_TORCH else ["engine/*", "kernels/*", "test_[!w]*.py"]


def _cuda() -> bool:
    if not HAS_TORCH:
        return False
    import torch

    return torch.cuda.is_available()


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests under kernels/ need a GPU, unless this process interprets."""
    here = Path(__file__).parent / "kernels"
    kernel_tests = [item for item in items if here in item.path.parents]
    for item in kernel_tests:
        if INTERPRETED and HAS_TRITON:  # its loop bounds are one-element arrays, numpy 2.3 warns
            item.add_marker(
                pytest.mark.filterwarnings(
                    "ignore:Conversion of an array with ndim:DeprecationWarning"
                )
            )
            continue
        item.add_marker(pytest.mark.gpu)
        if not (HAS_TRITON and _cuda()):
            item.add_marker(
                pytest.mark.skip(
                    reason="no GPU; test_interpreter.py runs it in Triton's interpreter"
                )
            )


@pytest.fixture(scope="session")
def device() -> str:
    """Where the kernels run."""
    return "cpu" if INTERPRETED else "cuda"


def half_types() -> list[str]:
    """A GPU sees what is shipped; the interpreter multiplies bit patterns (triton 11584)."""
    return ["float32", "float16"] if INTERPRETED else ["bfloat16", "float16"]


@pytest.fixture(params=half_types())
def dtype(request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    """The type that a test runs in."""
    import torch

    return getattr(torch, request.param)
