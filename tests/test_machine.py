"""Process-wide switches."""

import subprocess
import sys

import pytest

CHILD = """
import sys
from graphdyn.machine import reuse_memory
import torch
if {reuse}:
    assert reuse_memory()
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


def faults(reuse):
    """Page faults of ten allocations of 48 MiB, after a few."""
    run = subprocess.run(
        [sys.executable, "-c", CHILD.format(reuse=reuse)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(run.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone")
def test_freed_memory_is_used_again():
    assert 4 * faults(True) < faults(False)
