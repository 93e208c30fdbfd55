"""Reads ``docs/operating.md`` and runs what it says, word by word, on a machine that is made up in a folder.

The folder stands for the root: the guide's paths and addresses are put in it and on free ports, and what commands print
is put back, before it is compared line by line. ``systemctl`` and ``journalctl`` are a stand-in
(``service_manager``) that runs the guide's own unit; everything else is the real program.

    ```console            each line that begins with `$ ` is run by bash; the lines after it must be among what it
                          prints, in this order, `…` being anything; `# exit code N` after a command: it ends with it
    ```console repeat     the same, again and again until it is so, at most a minute
    ```ini, ```toml       a file, whose path stands in the first line
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "operating.md"
ASSUMED = "What this assumes"
REPEAT_S = 60.0


@dataclass
class Command:
    """One line to type, and what is then to be seen."""

    line: int
    text: str
    exit_code: int
    repeat: bool
    expected: list[str] = field(default_factory=list)


@dataclass
class Guide:
    """The document."""

    files: dict[str, str] = field(default_factory=dict)
    sections: dict[str, list[Command]] = field(default_factory=dict)


def read_guide() -> Guide:
    guide = Guide()
    section, kind, block = "", "", list[str]()
    for number, line in enumerate(GUIDE.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            if kind in ("ini", "toml"):
                guide.files[block[0].removeprefix("# ")] = "\n".join(block) + "\n"
            kind, block = line[3:] if not kind else "", []
        elif kind.startswith("console"):
            commands = guide.sections.setdefault(section, [])
            if commands and commands[-1].text.endswith("\\"):
                commands[-1].text = commands[-1].text[:-1] + line.strip()
            elif line.startswith("$ "):
                text, _, code = line[2:].partition("  # exit code ")
                commands.append(Command(number, text, int(code or 0), kind.endswith("repeat")))
            elif line.strip():
                commands[-1].expected.append(line)
        elif kind:
            block.append(line)
        elif line.startswith("## "):
            section = line[3:]
    return guide


def missing(expected: list[str], printed: str) -> str | None:
    """The first line of the guide that was not printed after those before it."""
    lines = iter(printed.splitlines())
    for wanted in expected:
        pattern = re.compile(".*".join(re.escape(part) for part in re.split(" ?… ?", plain(wanted))))
        if not any(pattern.fullmatch(plain(line)) for line in lines):
            return wanted
    return None


def plain(line: str) -> str:
    return " ".join(line.split())


class World:
    """A machine in a folder."""

    def __init__(self, root: Path, ports: tuple[int, int], guide: Guide) -> None:
        self.root = root
        self.guide = guide
        self.outside = {
            **{f"{path}": f"{root}{path}" for path in ("/var/lib/simswitch", "/var/backups/simswitch")},
            **{f"{path}": f"{root}{path}" for path in ("/etc/simswitch", "/opt/simswitch")},
            "127.0.0.1:7467": f"127.0.0.1:{ports[0]}",
            "127.0.0.1:7468": f"127.0.0.1:{ports[1]}",
        }
        self.assumed = [command.text for command in guide.sections[ASSUMED]]

    def path(self, text: str) -> Path:
        return Path(self.put(text))

    def put(self, text: str) -> str:
        for ours, theirs in self.outside.items():
            text = text.replace(ours, theirs)
        return text

    def back(self, text: str) -> str:
        for ours, theirs in self.outside.items():
            text = text.replace(theirs, ours)
        return text

    def bash(self, command: str) -> tuple[int, str]:
        # What a command sets, the next one has.
        keep = f"{self.root}/variables"
        script = "\n".join(
            [
                *self.assumed,
                f"[ ! -e {keep} ] || . {keep}",
                "set -a",
                command,
                f"code=$?; export -p > {keep}; exit $code",
            ]
        )
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SIMSWITCH_")}
        environment |= {
            "PATH": f"{self.root}/bin:{environment['PATH']}",
            "COLUMNS": "220",
            "WORLD": str(self.root),
        }
        found = subprocess.run(
            ["bash", "-c", self.put(script)],
            cwd=self.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )
        return found.returncode, self.back(found.stdout)

    def follow(self, section: str) -> Iterator[tuple[Command, str]]:
        """Types what a section says. Raises ``AssertionError`` at the first command that does not do what it says."""
        for command in self.guide.sections[section]:
            end_s = time.monotonic() + REPEAT_S
            while True:
                code, printed = self.bash(command.text)
                gone = missing(command.expected, printed)
                if (code == command.exit_code and gone is None) or not command.repeat or time.monotonic() > end_s:
                    break
            where = f"{GUIDE.name}:{command.line}: {command.text}\n{printed}"
            assert code == command.exit_code, f"{where}exit code {code}, not {command.exit_code}"
            assert gone is None, f"{where}does not print {gone!r}"
            yield command, printed
