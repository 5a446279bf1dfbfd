"""What is shipped compiles for A100 and H100 without a GPU, to the code we count on."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter replaces the compiler", allow_module_level=True)

from benchmarks.gpu.aot import SHARED_PER_SM
from benchmarks.gpu.resources import LLAMA_8B, _decode, _recorded, compile_all, variants

from busdoor_gpu.kernels._launch import recording
from busdoor_gpu.kernels.decode_plan import _PROGRAMS_PER_SM


def attention(name):
    return name.startswith(("decode", "prefill"))


def compiled(capability, wanted):
    return {
        variant.name: used
        for variant, used in compile_all(v for v in variants(capability) if wanted(v.name))
    }


@pytest.fixture(scope="module")
def hopper():
    return compiled((9, 0), lambda name: True)


@pytest.fixture(scope="module")
def ampere():
    return compiled((8, 0), lambda name: attention(name) and "block 16" in name)


def check(kernels):
    """No register is spilled, nothing is in local memory, shared memory can be had."""
    assert kernels
    for name, used in kernels.items():
        assert used.opcodes["EXIT"] >= 1, f"{name}: the disassembly was not understood"
        assert used.stack_bytes == 0 and used.local_bytes == 0, f"{name} has a stack: {used}"
        assert used.opcodes["STL"] == used.opcodes["LDL"] == 0, f"{name} spills: {used}"
        assert used.shared_bytes <= SHARED_PER_SM[used.capability] - 1024, f"{name}: {used}"


def test_nothing_spills_on_hopper(hopper):
    check(hopper)


def test_nothing_spills_on_ampere(ampere):
    check(ampere)


@pytest.mark.slow
def test_nothing_spills_in_the_rest_on_ampere():
    check(compiled((8, 0), lambda name: not (attention(name) and "block 16" in name)))


def test_prefill_on_hopper_multiplies_by_warpgroups(hopper):
    prefill = [used for name, used in hopper.items() if name.startswith("prefill")]
    assert len(prefill) >= 6
    assert all(used.opcodes["HGMMA"] > 0 and used.opcodes["HMMA"] == 0 for used in prefill)


def test_attention_copies_keys_and_values_asynchronously(hopper, ampere):
    for name, used in [*hopper.items(), *ampere.items()]:
        assert not attention(name) or used.opcodes["LDGSTS"] > 0, name


def test_as_many_decode_programs_fit_a_multiprocessor_as_the_plan_counts_on(hopper, ampere):
    for name, used in [*hopper.items(), *ampere.items()]:
        assert not name.startswith("decode") or used.programs_per_sm >= _PROGRAMS_PER_SM, (
            name,
            used,
        )


def test_a_process_finds_the_variant_that_it_is_to_compile():
    """Launches cannot be sent; the process records them again and takes the same number."""
    recorded = list(variants((9, 0)))
    assert [variant.number for variant in recorded] == list(range(len(recorded)))
    assert [variant.name for variant in _recorded((9, 0))] == [variant.name for variant in recorded]


def test_a_decode_step_of_any_batch_launches_the_same_grids():
    grids = []
    for page in (16, 64):
        with recording() as launches:
            _decode(LLAMA_8B, page)
        grids.append([launch.grid for launch in launches])
    assert grids[0] == grids[1] == [(34,), (132 * _PROGRAMS_PER_SM,), (132 * _PROGRAMS_PER_SM, 4)]
