"""Process-wide switches."""

import os
import subprocess
import sys

import pytest

CHILD = """
import sys
from graphdyn.machine import reuse_memory
import torch
if {reuse}:
    print(reuse_memory())
import resource
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(12 << 20)
start = faults()
for _ in range(10):
    torch.ones(12 << 20)
print(faults() - start)
"""

CLEAN = {n: v for n, v in os.environ.items() if not n.startswith("MALLOC_")}


def faults(reuse, **environment):
    """What it said, if it was called, and page faults of ten allocations of 48 MiB, after a few."""
    run = subprocess.run(
        [sys.executable, "-c", CHILD.format(reuse=reuse)],
        capture_output=True,
        text=True,
        check=True,
        env={**CLEAN, **environment},
    )
    *said, count = run.stdout.split()
    return said, int(count)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone")
def test_freed_memory_is_used_again_unless_the_environment_says_otherwise():
    said, with_it = faults(True)
    _, without = faults(False)
    assert said == ["True"]
    assert 4 * with_it < without
    said, told = faults(True, MALLOC_MMAP_THRESHOLD_=str(1 << 20))
    assert said == ["False"]
    assert 4 * with_it < told


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="Linux alone can forget")
def test_the_peak_of_a_run_is_not_that_of_the_runs_before():
    code = """
import torch
from graphdyn.machine import forget_peak_memory, peak_memory
cpu = torch.device("cpu")
torch.ones(1 << 28).sum()  # 1 GiB, given back at once
before = peak_memory(cpu)
forget_peak_memory(cpu)
after = peak_memory(cpu)
kept = torch.ones(1 << 26)
print(before, after, peak_memory(cpu))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after, then = map(int, out.stdout.split())
    assert before - after > 0.9 * 2**30
    assert 0.9 * 2**28 < then - after < 1.1 * 2**28
