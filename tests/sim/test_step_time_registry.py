"""Step-time models by name: ours, and a user's own by import path."""

import json
import sys

import numpy as np
import pytest

from busdoor.core.batch import Batch
from busdoor.step_time import (
    LinearStepTime,
    LineStepTime,
    RooflineStepTime,
    StepTime,
    make_step_time,
    step_time_class,
)

ONE_DECODE = Batch(num_decode_tokens=1, decode_context_tokens=1)


class Constant(StepTime):
    def __init__(self, seconds_s: float = 1.0) -> None:
        self.seconds_s = seconds_s

    def durations_s(self, batch, repeat):
        return np.full(repeat, self.seconds_s)


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "mine_for_test.py").write_text(
        "import numpy as np\nfrom busdoor.step_time import StepTime\n"
        "class Mine(StepTime):\n"
        "    def __init__(self, seconds_s): self.seconds_s = seconds_s\n"
        "    def durations_s(self, batch, repeat): return np.full(repeat, self.seconds_s)\n"
        "class Other: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "mine_for_test"
    sys.modules.pop("mine_for_test", None)


def test_a_model_of_ones_own_is_named_by_import_path(own_module):
    model = make_step_time(f"{own_module}:Mine", seconds_s=0.25)
    assert model.duration_s(ONE_DECODE) == 0.25
    assert model.line(Batch()) is None
    assert model.describe() == {"name": f"{own_module}:Mine"}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("{module}:Mien", "did you mean 'Mine'"),
        ("{module}:Other", "is not a step-time model; subclass"),
        ("no_such_module_at_all:Mine", "cannot be imported"),
        ("liner", "did you mean 'linear'"),
    ],
)
def test_a_wrong_name_is_one_sentence(own_module, name, says):
    with pytest.raises(ValueError, match=says):
        step_time_class(name.format(module=own_module))


@pytest.mark.parametrize(
    "model",
    [
        LinearStepTime(base_s=1e-3, per_request_s=1e-5),
        make_step_time("roofline", gpu="h100", model="qwen3-4b", kv_dtype="fp8"),
        make_step_time("roofline", gpu={"name": "h100", "memory_gib": 93.0}, model="qwen3-4b"),
    ],
)
def test_a_description_makes_the_same_model_again(model):
    table = json.loads(json.dumps(model.describe()))
    assert make_step_time(**table) == model


def test_a_duration_needs_no_line():
    assert Constant(2.0).duration_s(ONE_DECODE) == 2.0
    assert issubclass(LinearStepTime, LineStepTime)
    assert issubclass(RooflineStepTime, LineStepTime)
