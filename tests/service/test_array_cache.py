"""That numpy's memory for small arrays is full from the start. A process of its own: other tests filled it here."""

import subprocess
import sys

PROGRAM = """
import ctypes
import sys

import numpy as np
from simswitch.array_cache import fill_array_cache

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("a", "b", "c", "d", "mapped", "e", "f", "used", "g", "h")]

info = ctypes.CDLL(None).mallinfo2
info.restype = Info

def used():
    found = info()
    return found.used + found.mapped

def arrays_come_and_go():
    for size in range(1, 1_024):
        kept = [np.empty(size, np.uint8) for _ in range(7)]
        del kept

used()
if sys.argv[1] == "filled":
    fill_array_cache()
before = used()
arrays_come_and_go()
print(used() - before)
"""


def grown(how: str) -> int:
    ran = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(ran.stdout)


def test_small_arrays_of_new_sizes_take_no_more_memory_once_it_is_full() -> None:
    assert grown("filled") < 100_000
    assert grown("not filled") > 3_000_000
