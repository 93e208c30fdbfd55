"""Starting and ending the peers' servers: loopback, a free port, an own folder, an unprivileged user, never left over.

``setpriv`` (of util-linux) changes the user and has the kernel end the server when the bench dies without a word.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 60.0
USERS = ("postgres", "nobody")


class NotStarted(RuntimeError):
    """A server that is to be measured could not be started."""


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def user() -> pwd.struct_passwd | None:
    """Whom servers run as; None: whoever runs the bench, who is not root."""
    if os.geteuid() != 0:
        return None
    for name in USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NotStarted(f"servers don't run as root here, and there is no user {' or '.join(USERS)}: run the bench as one")


def unprivileged(*words: str) -> list[str]:
    """The command, run as :func:`user`, ended by the kernel when its parent dies."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise NotStarted("setpriv is not installed: it is in the package util-linux")
    who = user()
    change = [] if who is None else [f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups"]
    return [setpriv, "--pdeathsig=INT", *change, "--", *words]


def own_folder(path: Path) -> Path:
    """A new folder that belongs to :func:`user`."""
    path.mkdir(parents=True)
    if (who := user()) is not None:
        os.chown(path, who.pw_uid, who.pw_gid)
        if subprocess.run(unprivileged("test", "-w", str(path)), check=False).returncode != 0:
            raise NotStarted(
                f"the user {who.pw_name} can't enter {path}: allow it to pass the folders above "
                "(chmod o+x), or run the bench as another user than root"
            )
    return path


@contextmanager
def running(words: list[str], folder: Path, answers: Callable[[], bool]) -> Iterator[None]:
    """A server, from the moment it answers; at the end SIGINT, which is a fast shutdown to all of them."""
    log = folder.with_suffix(".log")
    # A session of its own: Ctrl-C is for the bench, which then ends its servers in order.
    with log.open("wb") as output:
        process = subprocess.Popen(
            unprivileged(*words),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + START_TIMEOUT_S
        while not answers():
            if process.poll() is not None or time.monotonic() > until:
                raise NotStarted(f"{words[0]} did not start: {log.read_text(errors='replace').strip()}")
            time.sleep(0.02)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
