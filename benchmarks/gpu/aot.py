"""Compile recorded launches ahead without a GPU; read resources from the machine code.

`triton.compile` makes a cubin for a named target. `cuobjdump`, which the Triton wheel ships, prints
its registers, stack and shared memory and disassembles it. A launch is specialised as by Triton's
own launcher: a tensor or integer divisible by 16 is marked so, None and 1 are compile-time
constants.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from busdoor_gpu.kernels._launch import VARYING, Launch

_OPTIONS = ("num_warps", "num_stages", "maxnreg")
# With 16-byte alignment a thread loads 16 bytes at once; Triton marks only arguments divisible by
# 16.
_DIVISOR = 16
# CUDA programming guide, technical specifications by compute capability: equal for A100 and H100
# except shared memory.
_REGISTERS_PER_SM = 65536
_WARPS_PER_SM = 64
SHARED_PER_SM = {(8, 0): 164 * 1024, (9, 0): 228 * 1024}
_POINTERS = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float8_e4m3fn: "*fp8e4nv",
    torch.int32: "*i32",
    torch.int64: "*i64",
}


@dataclass(frozen=True)
class Resources:
    """Resources of one compiled kernel.

    Attributes
    ----------
    registers : int
        Per thread, at most 255.
    stack_bytes, local_bytes : int
        Per thread in local memory, which is device memory; 0 unless registers are spilled.
    shared_bytes : int
        Per program, static and dynamic.
    num_warps : int
        Warps of a program.
    capability : tuple of int
        Compute capability of the target.
    opcodes : Counter
        Instructions in the code by name without modifiers: HMMA, HGMMA, LDGSTS, STL, ...
    """

    registers: int
    stack_bytes: int
    local_bytes: int
    shared_bytes: int
    num_warps: int
    capability: tuple[int, int]
    opcodes: Counter[str]

    @property
    def programs_per_sm(self) -> int:
        """Programs that fit one multiprocessor together, by registers, shared memory and warps.

        Examples
        --------
        >>> Resources(104, 0, 0, 40_000, 4, (9, 0), Counter()).programs_per_sm
        4
        """
        # Registers are allocated in units of 8 per thread; the system takes 1 KiB of shared memory
        # per program.
        by_registers = _REGISTERS_PER_SM // (-(-self.registers // 8) * 8 * 32 * self.num_warps)
        by_shared = SHARED_PER_SM[self.capability] // (self.shared_bytes + 1024)
        return min(by_registers, by_shared, _WARPS_PER_SM // self.num_warps)


def compile_launch(launch: Launch, capability: tuple[int, int]) -> Resources:
    """Compile one recorded launch for a GPU of that compute capability.

    Raises
    ------
    RuntimeError
        From the compiler or `cuobjdump`, with its message.
    """
    import triton  # type: ignore[import-untyped, import-not-found, unused-ignore]
    from triton.backends.compiler import GPUTarget  # type: ignore[import-untyped, import-not-found, unused-ignore]
    from triton.compiler import ASTSource  # type: ignore[import-untyped, import-not-found, unused-ignore]

    signature, constants, attrs = _specialise(launch)
    source = ASTSource(launch.kernel, signature, constants, attrs)
    options = {name: launch.meta[name] for name in _OPTIONS if name in launch.meta}
    target = GPUTarget("cuda", capability[0] * 10 + capability[1], 32)
    compiled = triton.compile(source, target=target, options=options)
    return _read_cubin(
        compiled.asm["cubin"], compiled.metadata.shared, compiled.metadata.num_warps, capability
    )


def _specialise(
    launch: Launch,
) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int], list[list[Any]]]]:
    """Return argument types, constants and divisibility marks, as the launcher does."""
    names = launch.kernel.arg_names
    values = dict(zip(names, launch.args, strict=False))
    constants = {name: value for name, value in launch.meta.items() if name not in _OPTIONS}
    signature, attrs = {}, {}
    for index, name in enumerate(names):
        value = values.get(name)
        special = isinstance(value, int) and name not in VARYING
        if name in constants or value is None or (special and value == 1):
            signature[name] = "constexpr"
            constants.setdefault(name, value)
            continue
        signature[name] = _type_of(value)
        if isinstance(value, torch.Tensor) or (special and value % _DIVISOR == 0):
            attrs[(index,)] = [["tt.divisibility", _DIVISOR]]
    return signature, constants, attrs


def _type_of(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return _POINTERS[value.dtype]
    if isinstance(value, float):
        return "fp32"
    return "i32" if -(2**31) <= value < 2**31 else "i64"


def _read_cubin(
    cubin: bytes, dynamic_shared: int, num_warps: int, capability: tuple[int, int]
) -> Resources:
    from triton import knobs  # type: ignore[import-untyped, import-not-found, unused-ignore]

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        dump = subprocess.run(
            [knobs.nvidia.cuobjdump.path, "-res-usage", "-sass", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
    if dump.returncode:
        raise RuntimeError(f"cuobjdump could not read the cubin: {dump.stderr.strip()}")
    used = {
        key: int(value)
        for key, value in re.findall(r"\b(REG|STACK|SHARED|LOCAL):(\d+)", dump.stdout)
    }
    # "/*0070*/  @!P0 LDGSTS.E.BYPASS.128 [R3], ...": a predicate may precede the opcode, modifiers
    # follow it.
    opcodes = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]+)", dump.stdout)
    shared = used["SHARED"] + dynamic_shared
    return Resources(
        used["REG"], used["STACK"], used["LOCAL"], shared, num_warps, capability, Counter(opcodes)
    )
