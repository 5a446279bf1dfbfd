"""The compiled build gives the tables of the pure one, bit for bit. CI builds it (`.ci/run`)."""

import ast
import importlib
import json
import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from busdoor.core.compiled import is_compiled
from busdoor.kv.config import KVConfig
from busdoor.policies import POLICIES, Policy, policy_config
from busdoor.policies.continuous import ContinuousPolicy
from busdoor.simulator.simulate import simulate
from busdoor.step_time import make_step_time
from busdoor_workloads import preset, profile

ROOT = Path(__file__).parents[2]
STEP_TIMES = (
    make_step_time("roofline", gpu="h100", model="llama-3.1-8b"),
    make_step_time("roofline", gpu="h100", model="mixtral-8x7b", tp=2),
    make_step_time("linear", base_s=0.005, per_token_s=2e-5, per_context_s=5e-8),
)


def digest(result):
    tables = (result.requests, result.iterations, result.stays)
    hashes = [pd.util.hash_pandas_object(table, index=False).to_numpy() for table in tables]
    return [f"{int(np.bitwise_xor.reduce(rows * np.arange(1, len(rows) + 1, dtype=np.uint64))):x}"
            for rows in hashes]  # fmt: skip


def digests():
    """Return digests of runs of every policy, with and without preemption and lookahead."""
    trace = profile("azure-conv").generate(seed=3, num_requests=200, request_rate=6.0)
    turns = preset("agentic").generate(seed=1, num_requests=40)
    found = {}
    for name in POLICIES:
        for blocks, lookahead in ((1_000, 0), (20_000, 1)):
            kv = KVConfig(block_size=16, num_blocks=blocks, max_model_len=14_000)
            for number, step_time in enumerate(STEP_TIMES):
                run = simulate(
                    trace, policy_config(name).build(kv, trace), step_time, lookahead=lookahead
                )
                found[f"{name} {blocks} {number}"] = digest(run)
    kv = KVConfig(block_size=16, num_blocks=20_000, max_model_len=200_000)
    cached = policy_config("vllm", prefix_caching=True).build(kv, turns)
    found["prefix cache"] = digest(simulate(turns, cached, STEP_TIMES[0]))
    return found


def classes(path):
    """Return the classes of a file."""
    return [
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)
    ]


def test_no_python_class_has_a_compiled_base_that_is_not_marked_for_it():
    compiled = {ROOT / f"sim/busdoor/{name.replace('.', '/')}.py" for name in listed()}
    closed = {
        node.name for path in compiled for node in classes(path)
        if "allow_interpreted_subclasses" not in "".join(map(ast.unparse, node.decorator_list))
    }  # fmt: skip
    python = {
        path for package in ("sim", "gpu", "workloads") for path in (ROOT / package).rglob("*.py")
    }
    assert compiled < python
    assert not [
        (path.name, node.name) for path in python - compiled for node in classes(path)
        if closed & {ast.unparse(base) for base in node.bases}
    ]  # fmt: skip


@pytest.mark.skipif(is_compiled(), reason="a compiled class keeps no list of abstract methods")
@pytest.mark.parametrize("kind", [Policy, ContinuousPolicy])
def test_a_policy_lists_what_it_requires(kind):
    abstract = {
        name
        for name, part in vars(kind).items()
        if hasattr(part, "__isabstractmethod__") and part.__isabstractmethod__
    }
    assert set(kind.REQUIRED) == abstract


def listed():
    """Return the modules that `hatch_build.py` compiles; it imports a package that is not here."""
    for node in ast.parse((ROOT / "hatch_build.py").read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "MODULES":
            rooms = ast.literal_eval(node.value)
            return [f"{room}.{name}" for room, names in rooms.items() for name in names.split()]
    raise AssertionError


@pytest.mark.parametrize("name", listed())
def test_a_listed_module_is_compiled_where_others_are(name):
    file = importlib.import_module(f"busdoor.{name}").__file__
    assert file.endswith(tuple(EXTENSION_SUFFIXES) if is_compiled() else ".py")


@pytest.mark.skipif(not is_compiled(), reason="the pure build, which is the reference itself")
def test_both_builds_give_the_same_tables():
    pure = subprocess.run(
        [sys.executable, __file__],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'sim'}{os.pathsep}{ROOT / 'workloads'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    compiled, reference = json.loads(pure.stdout)
    assert not compiled
    assert digests() == reference


if __name__ == "__main__":
    print(json.dumps([is_compiled(), digests()]))
