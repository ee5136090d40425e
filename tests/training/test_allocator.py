"""What is freed while a training runs stays with the process, and goes back afterwards."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import re
import numpy as np
from hashlgn.training.allocator import kept_memory

def held():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

def freed():
    block = np.ones(100 * 2**20, np.uint8)
    del block

before = held()
with kept_memory():
    freed()
    within = held()
print(within - before, held() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's allocator that is told what to keep")
def test_freed_memory_is_kept_and_then_given_back() -> None:
    printed = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    within, after = map(float, printed.split())
    assert within > 90 and after < 20  # MiB
