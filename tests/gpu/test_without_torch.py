"""Without torch the error is one sentence."""

from importlib.util import find_spec

import pytest

from busdoor.cli import main


@pytest.mark.skipif(find_spec("torch") is not None, reason="torch is installed")
def test_replay_says_what_it_needs(capsys):
    assert main(["replay", "trace.csv"]) == 2
    assert (
        capsys.readouterr().err
        == "busdoor: this needs torch, which is not installed: pip install 'busdoor[gpu]'\n"
    )
