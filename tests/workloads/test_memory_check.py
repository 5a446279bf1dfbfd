"""What this process may still allocate, and the refusal of more."""

import subprocess
import sys

import pytest

from busdoor_workloads import memory_check, resolve
from busdoor_workloads.memory_check import available_bytes, check_memory


def test_what_fits_passes():
    check_memory(1, "one byte")
    check_memory(available_bytes() / 2, "half")


def test_what_does_not_fit_is_one_sentence_with_both_figures(monkeypatch):
    monkeypatch.setattr(memory_check, "available_bytes", lambda: 16 * 2**30)
    with pytest.raises(ValueError) as error:
        check_memory(1e12, "a trace of 1,000 requests")
    assert (
        str(error.value)
        == "a trace of 1,000 requests needs 931 GiB, the machine has 16 GiB free; ask for less"
    )


@pytest.mark.parametrize(
    ("limit", "usage", "stat"),
    [
        ("memory.max", "memory.current", "inactive_file 100"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file 100"),
    ],
)
def test_a_control_group_limits_with_those_above_it(tmp_path, limit, usage, stat):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    for folder, most in ((tmp_path / "a", "1000"), (inner, "max")):
        (folder / limit).write_text(f"{most}\n")
        (folder / usage).write_text("400\n")
        (folder / "memory.stat").write_text(f"{stat}\n")
    assert list(memory_check._group(tmp_path, "/a/b", limit, usage, stat.split()[0])) == [700]


def test_within_a_container_the_mount_is_the_group(tmp_path):
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("400\n")
    assert list(
        memory_check._group(tmp_path, "/docker/1", "memory.max", "memory.current", "inactive_file")
    ) == [600]


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v works on Linux")
def test_the_limit_of_the_process_counts():
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30));"
        "from busdoor_workloads.memory_check import available_bytes; assert available_bytes() < "
        "2**30"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_system_that_tells_nothing_refuses_nothing(monkeypatch):
    for source in ("_machine", "_control_groups", "_process_limit"):
        monkeypatch.setattr(memory_check, source, lambda: iter(()))
    check_memory(1e30, "a lot")


def test_a_trace_that_does_not_fit_is_refused_before_it_is_drawn():
    workload = resolve("azure-conv")
    with pytest.raises(
        ValueError,
        match=r"^a trace of 1,000,000,000,000 requests needs [\d,.]+ GiB, the machine has",
    ):
        workload.generate(num_requests=10**12)
