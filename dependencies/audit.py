"""Known vulnerabilities in the releases of development.txt: ``python -m dependencies.audit`` (``make audit``).

pip-audit asks the package index, or with ``--advisories FILE`` nobody: then this process answers it on loopback, from a
file that was fetched elsewhere. That is an export of OSV records for PyPI: a zip of JSON files, or one JSON file with a
list of them.

Exit codes: 0 nothing is known, 1 something is, 2 nobody could be asked, so that nothing is known of it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from dependencies.lock import DEVELOPMENT

SOUND, VULNERABLE, NOT_ASKED = 0, 1, 2
ECOSYSTEM = "PyPI"
ELSEWHERE = (
    "Nothing was audited, which says nothing of the releases. The index that pip uses here has files and no "
    'advisories, or can\'t be reached. Either ask another database, ARGS="--vulnerability-service osv", or fetch the '
    'export of OSV records for PyPI (all.zip) where there is a network, and ARGS="--advisories all.zip".'
)

Record = Mapping[str, Any]


class Advisories:
    """OSV records by the package that they are of."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records: dict[str, list[Record]] = {}
        for record in records:
            names = {canonicalize_name(of["package"]["name"]) for of in _affected(record)}
            for name in names:
                self._records.setdefault(name, []).append(record)
        self.count = len(records)
        self.newest = max((str(record.get("modified", "")) for record in records), default="")

    @classmethod
    def read(cls, path: Path) -> Advisories:
        """Raises ``ValueError`` where the file holds no such records."""
        try:
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as file:
                    records = [json.loads(file.read(name)) for name in file.namelist() if name.endswith(".json")]
            else:
                records = json.loads(path.read_bytes())
            found = cls(records)
        except (ValueError, TypeError, KeyError, AttributeError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is no zip or list of OSV records: {error!r}") from error
        if not found.count:
            raise ValueError(f"{path} has no records")
        return found

    def of(self, name: str, version: str) -> list[Record]:
        """What is known of a release."""
        return [record for record in self._records.get(canonicalize_name(name), ()) if _is_of(record, name, version)]


def _affected(record: Record) -> list[Record]:
    return [of for of in record.get("affected", ()) if of.get("package", {}).get("ecosystem") == ECOSYSTEM]


def _is_of(record: Record, name: str, version: str) -> bool:
    for of in _affected(record):
        if canonicalize_name(of["package"]["name"]) != canonicalize_name(name):
            continue
        if version in of.get("versions", ()):
            return True
        if any(_reaches(each["events"], version) for each in of.get("ranges", ()) if each["type"] == "ECOSYSTEM"):
            return True
    return False


def _reaches(events: Sequence[Mapping[str, str]], version: str) -> bool:
    """Whether a version lies in a range, which is told by the versions at which it begins and ends."""
    ours = Version(version)
    inside = False
    for kind, at in sorted(((kind, at) for event in events for kind, at in event.items()), key=_place):
        try:
            there = Version(at)
        except InvalidVersion:
            continue
        if kind == "introduced" and there <= ours:
            inside = True
        elif (kind == "fixed" and there <= ours) or (kind == "last_affected" and there < ours):
            inside = False
    return inside


def _place(event: tuple[str, str]) -> Version:
    try:
        return Version(event[1])
    except InvalidVersion:
        return Version("0")


@contextmanager
def answering(advisories: Advisories) -> Iterator[str]:
    """Answers pip-audit as the database would; gives the address to ask."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            records = advisories.of(asked["package"]["name"], asked["version"])
            body = json.dumps({"vulns": records} if records else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
            """Nobody wants a line for each release."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/query"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(lock: Path, words: Sequence[str] = ()) -> int:
    """Has pip-audit look at a lock, prints what it found, and gives the exit code."""
    command = [sys.executable, "-m", "pip_audit", "--strict", "--disable-pip", "--require-hashes"]
    command += ["--requirement", str(lock), "--progress-spinner", "off", "--format", "json", *words]
    # The address on loopback is asked itself, whatever proxy there is.
    asked = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "NO_PROXY": "127.0.0.1"}
    )
    try:
        releases = json.loads(asked.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        why = asked.stderr.strip().splitlines() or [f"it ended with {asked.returncode} and said nothing"]
        print(f"pip-audit: {why[-1]}\n{ELSEWHERE}", file=sys.stderr)
        return NOT_ASKED
    found = [(release, each) for release in releases for each in release.get("vulns", ())]
    for release, each in found:
        mended = ", ".join(each["fix_versions"]) or "nothing yet"
        print(f"{release['name']} {release['version']}: {each['id']}, mended by {mended}: {each['description'][:200]}")
    print(f"{len(found)} known vulnerabilities in {len(releases)} releases of {lock.name}")
    return VULNERABLE if found else SOUND


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dependencies.audit", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--advisories", type=Path, metavar="FILE", help="OSV records; nobody is asked then")
    options, words = parser.parse_known_args(arguments)
    if options.advisories is None:
        return ask(DEVELOPMENT, words)
    try:
        advisories = Advisories.read(options.advisories)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return NOT_ASKED
    print(f"{advisories.count:,} advisories, the newest of {advisories.newest or 'nobody knows when'}")
    with answering(advisories) as address:
        return ask(DEVELOPMENT, [*words, "--vulnerability-service", "osv", "--osv-url", address])


if __name__ == "__main__":
    sys.exit(main())
