"""Builds the Cython extensions; everything else about the package stands in pyproject.toml.

Every ``.pyx`` below ``engine/simswitch`` is one extension module of the same name. The generated C goes to ``build/``,
never beside the sources. Compiler directives stand here and nowhere else, so that one environment variable can turn the
whole core into another build:

    SIMSWITCH_DEBUG=1       index and None checks, line tracing (``CYTHON_TRACE_NOGIL``), C assertions, ``-O1 -g``
    SIMSWITCH_SANITIZE=1    the fast build's code under AddressSanitizer and UBSan, which end the process at a fault

Each build keeps its generated C and its objects apart from the others': going from one to the other rebuilds nothing
that is current.
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
SOURCE = "engine"
DEBUG = os.environ.get("SIMSWITCH_DEBUG", "") not in ("", "0")
SANITIZE = os.environ.get("SIMSWITCH_SANITIZE", "") not in ("", "0")
JOBS = min(4, os.cpu_count() or 1)
BUILD = Path("build") / ("sanitized" if SANITIZE else "checked" if DEBUG else "release")

DIRECTIVES = {
    "language_level": 3,
    "embedsignature": False,
    "freethreading_compatible": False,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "nonecheck": DEBUG,
    "cdivision": not DEBUG,
    "linetrace": DEBUG,
    "profile": False,
}

# Columns of a command run and fields of a message are read in place out of byte buffers, which the strict aliasing rule
# of C forbids: hence -fno-strict-aliasing. No -march: a wheel has to run on every machine of its architecture, and the
# core's cost is cache misses, not arithmetic.
# What is done for each item of a run is many small functions, which gcc is to make one: --param. A constant that is cut
# off where it is used is a bound that never holds: hence -Werror=overflow.
# Cython compares loop counters with enums, which -Wsign-compare of Python's own flags would print pages about.
RELEASE_FLAGS = [
    "-O3",
    "-g0",
    "-fno-strict-aliasing",
    "-fvisibility=hidden",
    "--param=max-inline-insns-single=1000",
    "-Wno-sign-compare",
    "-Werror=overflow",
]
# -UNDEBUG undoes the -DNDEBUG that Python's own build flags bring.
DEBUG_FLAGS = ["-O1", "-g", "-UNDEBUG", "-fno-strict-aliasing", "-fno-omit-frame-pointer", "-Wno-sign-compare"]
SANITIZE_FLAGS = [
    "-O1",
    "-g",
    "-fno-strict-aliasing",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-Wno-sign-compare",
]
# Line tracing through sys.monitoring cannot see lines that run without the GIL; the older mechanism can.
DEBUG_MACROS: list[tuple[str, str | None]] = [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]


def extension(path: Path) -> Extension:
    """The extension module that one .pyx becomes."""
    import numpy

    name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    return Extension(
        name,
        [str(path)],
        include_dirs=[numpy.get_include()] if "numpy" in path.read_text(encoding="utf-8") else [],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), *(DEBUG_MACROS if DEBUG else [])],
        extra_compile_args=SANITIZE_FLAGS if SANITIZE else DEBUG_FLAGS if DEBUG else RELEASE_FLAGS,
        extra_link_args=["-fsanitize=address,undefined"] if SANITIZE else [],
    )


class BuildExtensions(build_ext):
    """Compiles in parallel, and keeps the objects of the two builds apart."""

    def initialize_options(self) -> None:
        super().initialize_options()
        self.parallel = JOBS
        self.build_temp = str(BUILD / "objects")


def extensions(paths: list[Path]) -> list[Extension]:
    """Translates to C what is not current; Cython follows the .pxd files that each .pyx depends on."""
    return cythonize(
        [extension(path) for path in paths],
        build_dir=str(BUILD / "cython"),
        include_path=[SOURCE],
        compiler_directives=DIRECTIVES,
        nthreads=JOBS,
        show_all_warnings=False,
        quiet="build_ext" not in sys.argv,
    )


if __name__ == "__main__":
    os.chdir(ROOT)
    setup(
        ext_modules=extensions(sorted(Path(SOURCE).glob("simswitch/**/*.pyx"))),
        cmdclass={"build_ext": BuildExtensions},
    )
