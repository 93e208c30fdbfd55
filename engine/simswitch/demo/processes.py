"""The processes of the demonstration: a server on a data folder, and fleets of access servers."""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import IO, Any

from simswitch.demo.plan import Plan

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0


class DemonstrationFailed(Exception):
    """A process of the demonstration did not do what the story needs."""


class Server:
    """``simswitch serve`` as a process of its own."""

    def __init__(self, folder: Path, config: Path, log: Path) -> None:
        self.folder = folder
        self.address = "127.0.0.1:0"
        self._config = config
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Starts it and waits until it listens; gives how long that took. Later starts use the same port."""
        begun_s = time.monotonic()
        address_file = self.folder / "address"
        address_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "simswitch", "serve", str(self.folder)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--config", str(self._config), "--address", self.address],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C at the terminal is for the demonstration, which then ends the server itself.
                start_new_session=True,
            )
        while not address_file.exists():
            if self._process.poll() is not None:
                raise DemonstrationFailed(f"the server ended with {self._process.returncode}; its log: {self._log}")
            if time.monotonic() - begun_s > START_TIMEOUT_S:
                raise DemonstrationFailed(f"the server does not listen after {START_TIMEOUT_S} s; its log: {self._log}")
            time.sleep(0.02)
        self.address = address_file.read_text(encoding="ascii").strip()
        return time.monotonic() - begun_s

    @property
    def process_id(self) -> int:
        if self._process is None:
            raise DemonstrationFailed("the server was not started")
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is flushed, no snapshot is written."""
        os.kill(self.process_id, signal.SIGKILL)
        assert self._process is not None
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """The clean way."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class FleetProcess:
    """Some access servers in a process of their own (fleet.py)."""

    def __init__(self, address: str, names: list[tuple[int, str]], plan: Plan, log: Path) -> None:
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self.progress: dict[str, Any] = {}
        self._waits_s: deque[float] = deque()
        self.reconciled: list[dict[str, Any]] = []
        words = ",".join(f"{number}={name}" for number, name in names)
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "simswitch.demo.fleet", address, words, json.dumps(dataclasses.asdict(plan))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._commands: IO[bytes] = self._process.stdin
        self._lines: IO[bytes] = self._process.stdout
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._lines:
            event = json.loads(line)
            if event["event"] == "progress":
                self.progress = event
                if event["wait_s"] is not None:
                    self._waits_s.append(event["wait_s"])
            elif event["event"] == "reconciled":
                self.reconciled.append(event)
            else:
                self.events.put(event)
        self.events.put({"event": "ended"})

    def take_longest_wait_s(self) -> float | None:
        """The longest wait for a SIM that was counted since this was last asked. None: there was none."""
        waits_s = [self._waits_s.popleft() for _ in range(len(self._waits_s))]
        return max(waits_s, default=None)

    def tell(self, do: str, **words: object) -> None:
        self._commands.write(json.dumps({"do": do, **words}).encode() + b"\n")
        self._commands.flush()

    def expect(self, event: str) -> dict[str, Any]:
        """The next event, which must be of this kind."""
        try:
            found = self.events.get(timeout=START_TIMEOUT_S)
        except queue.Empty:
            raise DemonstrationFailed(f"the access servers do not say {event!r}; their log: {self._log}") from None
        if found["event"] != event:
            raise DemonstrationFailed(f"the access servers say {found['event']!r}; their log: {self._log}")
        return found

    def stop(self) -> None:
        self._commands.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._lines.close()
