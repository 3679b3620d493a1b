"""Memory that is kept."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

COUNT_FAULTS = """
import ctypes, resource, sys
from mlhooks.fast.memory import keep_freed
assert sys.argv[1] == "given back" or keep_freed()
libc, size = ctypes.CDLL(None), 20_000_000
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
for repeated in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    places = [libc.malloc(size) for _ in range(6)]
    for place in places:
        ctypes.memset(place, 1, size)
    for place in places:
        libc.free(place)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_what_is_freed_is_used_again_without_the_system() -> None:
    """Of 120 MB that are needed again and again no page comes from the system again."""

    def faults(kind: str) -> int:
        command = [sys.executable, "-c", COUNT_FAULTS, kind]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults("kept") < 100 < faults("given back")
