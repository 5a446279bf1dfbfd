"""Import paths run code: only classes of the right kind are made, and nothing else is called."""

import pytest

from busdoor.cli import main
from busdoor.cluster.registry import make_router
from busdoor.kv.config import KVConfig
from busdoor.policies import policy_config
from busdoor.step_time import make_step_time

KV = KVConfig(num_blocks=400, max_model_len=2048)
MAKE = {
    "a policy": lambda path, **fields: policy_config(path, **fields).build(KV),
    "a step-time model": make_step_time,
    "a router": make_router,
}
HALF = {"a policy": "HalfPolicy", "a step-time model": "HalfStepTime", "a router": "HalfRouter"}
CODE = """
from pathlib import Path
from busdoor import Policy, StepTime
from busdoor.cluster import Router
def leave_trace(*arguments, **fields):
    Path("trace").touch()
class Anything:
    def __init__(self, *arguments, **fields):
        leave_trace()
class HalfPolicy(Policy): pass
class HalfStepTime(StepTime): pass
class HalfRouter(Router): pass
instance = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "mine_for_import_paths.py").write_text(CODE)
    (tmp_path / "broken_for_import_paths.py").write_text("def f(:\n")
    (tmp_path / "raising_for_import_paths.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return "mine_for_import_paths"


@pytest.mark.parametrize("what", MAKE)
@pytest.mark.parametrize("name", ["leave_trace", "Anything", "instance", "Path"])
def test_what_is_no_class_of_the_right_kind_is_refused_and_not_called(module, what, name, tmp_path):
    with pytest.raises(ValueError, match=f"^'{module}:{name}' is not {what}; subclass busdoor"):
        MAKE[what](f"{module}:{name}")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(("what", "name"), HALF.items())
def test_a_class_without_its_abstract_methods_is_named_with_them(module, what, name):
    with pytest.raises(
        ValueError,
        match=f"^'{module}:{name}' has no .*(schedule|durations_s|choose).*, which {what} need",
    ):
        MAKE[what](f"{module}:{name}")


@pytest.mark.parametrize("what", MAKE)
@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("a:b:c", "'a:b:c' is no import path; write it as package.module:Name"),
        (":x", "':x' is no import path"),
        ("../x:Y", "is no import path"),
        (".x:Y", "is no import path"),
        ("x y:Z", "is no import path"),
        ("broken_for_import_paths:X", "cannot be imported: SyntaxError: "),
        ("raising_for_import_paths:X", "cannot be imported: ZeroDivisionError: division by zero"),
        ("nowhere_for_import_paths:X", "cannot be imported: No module named"),
    ],
)
def test_a_path_that_leads_nowhere_is_one_sentence(module, what, path, sentence):
    with pytest.raises(ValueError) as error:
        MAKE[what](path)
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_a_command_refuses_what_a_configuration_names(module, tmp_path, capsys):
    (tmp_path / "a.toml").write_text(
        '[policy]\nname = "subprocess:Popen"\nargs = ["touch", "trace"]\n'
    )
    assert main(["simulate", "azure-conv", "--num-requests", "3", "--config", "a.toml"]) == 2
    assert (
        "'subprocess:Popen' is not a policy; subclass busdoor.policies.base.Policy"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "trace").exists()
