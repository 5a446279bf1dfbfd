"""What the engine answers is what each request would be answered alone, whatever the policy does with it."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from busdoor_gpu.engine import Engine  # noqa: E402
from busdoor_gpu.replay import replay  # noqa: E402

from .conftest import POLICIES  # noqa: E402


def outputs_of(trace, policy, model, backend, lookahead=1):
    result = replay(trace, policy, model, backend, lookahead=lookahead, clock="cpu", keep_outputs=True)
    assert (result.requests["status"] == "finished").all()
    return result, result.meta["outputs"]


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_answers_each_request_as_if_it_were_alone(name, lookahead, policies, models, torch_backend, new_trace, alone):
    trace = new_trace()
    _, outputs = outputs_of(trace, policies[name](), models["tiny-llama"], torch_backend, lookahead)
    for row in range(len(trace)):
        assert outputs[row] == alone("tiny-llama", trace, row), f"request {row}"
