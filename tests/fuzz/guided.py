"""Every reader of files, led by what its code was seen to do: ``python -m tests.fuzz.guided`` (``make fuzz-guided``).

atheris counts which lines and comparisons of ours an input reaches, and goes on from those that reach something new. It
begins with sound files and what is kept in ``tests/fuzz/corpus``, and changes them as ``tests.fuzz.readers`` does, so
that forged checksums are right. What it finds is Python's to find: the sanitizers' run of the readers then begins with
what is kept here. ``--keep`` adds to the corpus some of those that reached something new.

Each reader runs in a process of its own, as libFuzzer ends the process. An input that raises anything but the reader's
refusal, takes over a minute or 2 GB ends it with an error, and is left in ``build/fuzz``.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from hashlib import sha1
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "fuzz"
INPUT_BYTES_MAX = 1 << 21


class FaultFound(Exception):
    """An input did what it must not."""


def child(name: str, words: Sequence[str]) -> None:
    """Never returns."""
    import atheris

    with atheris.instrument_imports(include=["simswitch", "tomllib"], enable_loader_override=False):
        from tests.fuzz import readers

    target = readers.TARGETS[name]

    def mutate(data: bytes, size_max: int, seed: int) -> bytes:
        random = Random(seed)
        found = bytearray(data)
        if target.forge is not None and random.random() < 0.7:
            try:
                target.forge(found, random)
            except Exception:
                # It forges what is sound; this no longer is.
                found = bytearray(readers.changed(data, random))
        else:
            found = bytearray(readers.changed(data, random))
        return bytes(found[:size_max])

    atheris.Setup([sys.argv[0], *words], lambda data: readers.tried(name, data), custom_mutator=mutate)
    atheris.Fuzz()


def run(name: str, runs: int, seed: int, *, keep: bool) -> dict[str, Any]:
    """Lets one reader be tried. Raises ``FaultFound``."""
    from tests.fuzz import readers

    folder = BUILD / name
    folder.mkdir(parents=True, exist_ok=True)
    for data in (*readers.TARGETS[name].sound(), *readers.kept(name)):
        (folder / sha1(data).hexdigest()).write_bytes(data)
    said = _child(name, runs, f"-atheris_runs={runs}", f"-seed={seed}", str(folder))
    figures = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", said)
    if keep:
        readers.keep(name, [path.read_bytes() for path in folder.glob("*")])
    covered, features, inputs = map(int, figures[-1]) if figures else (0, 0, 0)
    return {"reader": name, "runs": runs, "covered": covered, "features": features, "inputs": inputs}


def _child(name: str, runs: int, *words: str) -> str:
    command = [sys.executable, "-m", "tests.fuzz.guided", "--child", name, *words, "-timeout=60", "-rss_limit_mb=2048"]
    command += [f"-max_len={INPUT_BYTES_MAX}", f"-artifact_prefix={BUILD}/"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    # Its exit code says little: its timer may still strike while the process ends.
    if f"Done {runs} " not in done.stderr:
        print(done.stdout[-4_000:], done.stderr[-8_000:], file=sys.stderr)
        raise FaultFound(f"{name}: see above, and {BUILD}")
    return done.stderr


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3:])
    from tests.fuzz.readers import TARGETS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--reader", choices=sorted(TARGETS), action="append")
    parser.add_argument("--runs", type=int, default=100_000, help="inputs for each reader")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="write what reaches most into tests/fuzz/corpus")
    asked = parser.parse_args()
    print(f"{'reader':12}{'runs':>10}{'covered':>10}{'features':>10}{'inputs':>10}")
    for name in asked.reader or TARGETS:
        found = run(name, asked.runs, asked.seed, keep=asked.keep)
        figures = "".join(f"{found[key]:>10,}" for key in ("runs", "covered", "features", "inputs"))
        print(f"{name:12}{figures}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
