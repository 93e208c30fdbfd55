"""A stand-in for ``systemctl`` and ``journalctl``: runs the unit of the guide in a ``World``, as systemd would.

    python -m tests.operating.service_manager systemctl start|stop|is-active simswitch
    python -m tests.operating.service_manager journalctl -u simswitch -n COUNT

Like systemd with a simple service, ``start`` does not wait until it answers.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

LOG, PID, UNIT = "simswitch.log", "simswitch.pid", "simswitch.service"


def running(world: Path) -> int | None:
    """The service's process; None: there is none."""
    if not (world / PID).exists():
        return None
    process = int((world / PID).read_text())
    return process if group_of(Path(f"/proc/{process}/stat")) is not None else None


def group_of(stat: Path) -> int | None:
    """The process group; None: the process has ended."""
    try:
        state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return None
    return None if state == "Z" else int(group)


def systemctl(world: Path, verb: str) -> int:
    process = running(world)
    if verb == "is-active":
        print("active" if process else "inactive")
        return 0 if process else 3
    if verb == "stop" and process:
        # All processes of the unit at once, and it waits for the last.
        os.killpg(process, signal.SIGTERM)
        while any(group_of(stat) == process for stat in Path("/proc").glob("[0-9]*/stat")):
            time.sleep(0.02)
    elif verb == "start" and not process:
        found = re.search(r"^ExecStart=(.*)$", (world / UNIT).read_text(encoding="utf-8"), re.MULTILINE)
        assert found, "the unit has no ExecStart"
        with (world / LOG).open("ab") as log:
            begun = subprocess.Popen(
                found[1].split(), cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        (world / PID).write_text(str(begun.pid))
    return 0


def main() -> int:
    world = Path(os.environ["WORLD"])
    program, *words = sys.argv[1:]
    if program == "systemctl":
        verb, unit = words
        assert unit == "simswitch"
        return systemctl(world, verb)
    assert words[:3] == ["-u", "simswitch", "-n"], words
    print("\n".join((world / LOG).read_text(encoding="utf-8").splitlines()[-int(words[3]) :]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
