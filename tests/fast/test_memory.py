"""Memory that is kept, and memory in huge pages."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from mlhooks.fast.switch import VARIABLE, native

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

    def faults(kind: str, plain: str) -> int:
        command, environment = [sys.executable, "-c", COUNT_FAULTS, kind], {**os.environ, VARIABLE: plain}
        return int(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)

    assert faults("kept", "") < 100 < faults("given back", "1")


ADVISED = """
import ctypes, json, os, re, sys
import mlhooks.fast
open("/proc/self/smaps", encoding="utf-8").read()  # What this frees must not let the reserve of the heap go.
kept = [bytearray(600) for _ in range(5 * 10**4)]  # Python takes more than 512 bytes from the C library's heap.
advised, places = set(), [id(kept[-1]), ctypes.addressof(ctypes.c_char.from_buffer(kept[-1]))]
for line in open("/proc/self/smaps", encoding="utf-8"):
    if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
        first, last = (int(number, 16) for number in found.groups())
    elif line.startswith("VmFlags:") and " hg" in line:
        advised.update(place for place in places if first <= place < last)
print(json.dumps([place in advised for place in places]))
"""


def advised(**environment: str) -> str:
    """Return whether small objects, and the heap of the C library, lie where huge pages were asked for."""
    command = [sys.executable, "-c", ADVISED]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment})
    return ran.stdout.strip()


USED_AGAIN = """
import resource
import mlhooks.fast
import numpy as np
array, counts = np.ones(2**18), []
for _ in range(2):
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    for _ in range(100):
        array + 1
print(counts[1] - counts[0])
"""


@pytest.mark.skipif(native("pages") is None, reason="the native extension asks for huge pages")
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc returns memory by thresholds")
def test_arrays_take_no_pages_again_where_the_heap_has_huge_ones() -> None:
    """Arrays of 2 MiB have 512 pages each time where glibc returns them when they are freed."""
    ran = subprocess.run([sys.executable, "-c", USED_AGAIN], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 5000


@pytest.mark.skipif(native("pages") is None, reason="the native extension asks for them")
@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="the system has none")
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc says how its heap grows")
def test_huge_pages_are_asked_for_unless_everything_is_plain() -> None:
    """Both small objects and the heap lie in such memory; in a plain process neither does."""
    assert advised(**{VARIABLE: ""}) == "[true, true]"
    assert advised(**{VARIABLE: "1"}) == "[false, false]"
