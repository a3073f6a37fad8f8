"""Freed buffers stay with the process: the kernel need not clear their memory again for the next message."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tests.e2e.world import ROOT

ROUNDS = 50
BUFFER_BYTES = 3 * 1024 * 1024
PAGE_BYTES = 4096
COUNT = f"""
import resource
{{before}}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def message():
    return bytes({BUFFER_BYTES}).replace(b"x", b"y"), bytearray({BUFFER_BYTES})
message()
before = faults()
for _ in range({ROUNDS}):
    message()
print(faults() - before)
"""


def faults(before: str) -> int:
    code = COUNT.format(before=before)
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return int(said.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_buffers_that_come_and_go_are_not_asked_from_the_kernel_each_time() -> None:
    of_one_message = BUFFER_BYTES // PAGE_BYTES
    assert faults("") > ROUNDS * of_one_message / 2, "otherwise there is nothing to save"
    kept = faults("from actors import freed_memory; freed_memory.keep_some()")
    assert kept < 2 * of_one_message, "all rounds together cost no more than two messages did"
