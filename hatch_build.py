"""Build hook: `BUSDOOR_COMPILE=1 pip install .` compiles the simulator's inner loop with mypyc.

Without the variable nothing is compiled, and the wheel is pure Python. The sources stay beside the
compiled modules, which Python prefers.

A compiled module keeps to what mypyc knows. Every attribute stands in its class or is set in
`__init__`; none is set on an instance from outside. A class has one base class, and none of
Python's own or pydantic's (`deque`, `ABC`): abstract methods are listed in `REQUIRED` instead.
There is no `vars(self)`, and an `int` is an int wherever it is declared. Classes that users may
subclass are marked with `busdoor.core.compiled.mypyc_attr`. A module that keeps to none of this
stays out of `MODULES`. CI compiles them: mypyc names the line, tests compare both builds' tables
(tests/sim/test_compiled.py), and subclass every public base (tests/sim/test_subclasses.py).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
SOURCES = ("sim/busdoor", "workloads/busdoor_workloads")
# What runs at every event. Not compiled: pydantic's classes; step times' bases, for all that derive
# from them are Python; `queues`, for mypyc has no subclass of a deque; `trtllm`, for it has no
# second base class.
MODULES = {
    "core": "prefixes request batch decodes",
    "kv": "paged cached_run prefix_cache contiguous",
    "policies": "base continuous preempting reserving vllm prefill_first transformers orca tgi "
    "static static_batch dynamic multi_bin",
    "step_time": "linear_cost roofline_costs",
    "simulator": "stamps stretch standstill server recorder clients",
}


class CompiledBuild(BuildHookInterface[Any]):
    """Compile `MODULES` into the wheel, where the environment asks for it."""

    def dependencies(self) -> list[str]:
        """Return what a compiled build needs besides hatchling."""
        return ["mypy==2.4.*", "setuptools>=77"] if _asked() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and add the results to the wheel."""
        if version != "standard" or not _asked():
            return
        self._folder = Path(mkdtemp())
        for source in SOURCES:
            shutil.copytree(ROOT / source, self._folder / Path(source).name)
        subprocess.run([sys.executable, ROOT / "hatch_build.py"], cwd=self._folder, check=True)
        built = self._folder / "built"
        for library in built.rglob("*.*"):
            build_data["force_include"][str(library)] = str(library.relative_to(built))
        build_data.update(pure_python=False, infer_tag=True)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was built in between."""
        if folder := getattr(self, "_folder", None):
            shutil.rmtree(folder)


def _asked() -> bool:
    return os.environ.get("BUSDOOR_COMPILE", "0") not in ("", "0")


def _compile() -> None:
    """Compile the copy in the working directory into its folder `built`."""
    from mypyc.build import mypycify
    from setuptools import setup

    paths = [
        f"busdoor/{room}/{name}.py" for room, names in MODULES.items() for name in names.split()
    ]
    flags = ["--explicit-package-bases", "--ignore-missing-imports", "--follow-imports=silent"]
    setup(
        name="busdoor",
        script_args=["--quiet", "build_ext", "--build-lib", "built"],
        ext_modules=mypycify(
            [*flags, *paths], opt_level="3", debug_level="0", group_name="busdoor"
        ),
    )


if __name__ == "__main__":
    _compile()
