"""The policy `transformers` agrees with transformers' own scheduler on random cases (README.md beside it)."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("transformers") is None,
        reason="needs transformers==5.19.0 (tests/oracle/README.md)",
    ),
]


def test_random_cases_agree(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    from fuzz_transformers import fuzz

    counts = fuzz(seed=0, cpu_seconds=10)
    sys.modules.pop("fuzz_transformers")
    assert counts["differ"] == 0
    assert counts["agree"] > 20
    assert counts["preempting"] > 5
