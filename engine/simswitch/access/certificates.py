"""The server's certificate, read anew when its files change, and the access server that a client's certificate names.

gRPC asks for the certificate before every handshake. Then the files are looked at: when they changed since, the new
ones count from that handshake on; connections that stand go on with what they began with. While key and certificate do
not fit together (the key was replaced, its certificate not yet), or the new certificate is over or does not count yet
and the old one does, the old pair stays, and the log says so once. Otherwise it is taken as it is, as at a start: there
is nothing better. The CA of access servers is no part of that: one that was given up counts no more, whatever the state
of the service's own pair.

A client's certificate names its access server in one of two ways:

    a URI among its alternative names      simswitch:access-server:as-01     (counts alone, if there is one of this
    scheme) its common name                        as-01

The CA that signs them is for access servers alone: whoever it signs for is one; its file may hold several, of which all
count while one takes the other's place. The file of revoked certificates has one SHA-256 fingerprint a line (``openssl
x509 -fingerprint -sha256``), and is read anew like the others.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import re
import ssl
import stat
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc

log = logging.getLogger("simswitch.service")

SCHEME = "simswitch:"
_PREFIX = f"{SCHEME}access-server:"
REVOKED_MAX = 65_536
_VERSION, _YEAR_OF_TWO_DIGITS = 0xA0, 0x17
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")

Stamp = tuple[tuple[int, int, int], ...]


class CertificateRefused(ValueError):
    """The files of a certificate can't be used, or a client's certificate names nobody."""


def stamp(paths: Sequence[Path]) -> Stamp:
    """Changes when one of the files does. Raises ``OSError`` when one is not there."""
    found = [os.stat(path) for path in paths]
    return tuple((status.st_ino, status.st_size, status.st_mtime_ns) for status in found)


@dataclass(frozen=True, slots=True)
class Pair:
    """In PEM, as they were read."""

    key: bytes = field(repr=False)
    certificate: bytes


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Files in PEM."""

    certificate: Path
    """The server's, with those of the CAs between it and the root."""
    key: Path
    client_ca: Path
    """Who signs the access servers' certificates."""

    def paths(self) -> tuple[Path, ...]:
        return self.certificate, self.key, self.client_ca

    def read_pair(self, in_use: Pair | None = None) -> Pair:
        """Raises ``CertificateRefused`` naming the file; so it does for a certificate that does not count now, where
        another one is in use that does."""
        (key, mode), (certificate, _) = _read(self.key), _read(self.certificate)
        pair = Pair(key, certificate)
        if mode & stat.S_IRWXO:
            raise CertificateRefused(f"everybody may read the key {self.key}: chmod o= {self.key}")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key, password=_no_password)
        except (OSError, ValueError) as error:
            raise CertificateRefused(f"{self.certificate} and {self.key} don't fit together: {error}") from error
        if pair != in_use and not _counts(certificate):
            begins, ends = _validity(certificate)
            text = f"{self.certificate} counts from {begins} to {ends}, and not now: renew it"
            if in_use is not None and _counts(in_use.certificate):
                raise CertificateRefused(text)
            log.warning("clients that look at it will not connect: %s", text)
        return pair

    def read_client_ca(self) -> bytes:
        """Raises ``CertificateRefused`` naming the file."""
        contents, _ = _read(self.client_ca)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(self.client_ca)
        except OSError as error:
            raise CertificateRefused(f"{self.client_ca} holds no certificate in PEM: {error}") from error
        return contents


def _read(path: Path) -> tuple[bytes, int]:
    """What stands in a file, and its mode."""
    try:
        with path.open("rb") as file:
            return file.read(), os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise CertificateRefused(f"{path} can't be read: {error.strerror}") from error


def _no_password() -> str:
    raise ValueError("the key has a password; give one without, that only the service can read")


class Certificates:
    """The files as they stand; for gRPC's threads."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._mutex = threading.Lock()
        self._stamp = self._look()
        self._pair, self._client_ca = files.read_pair(), files.read_client_ca()
        self._troubles: list[str] = []
        self.reloads_count = 0

    def _look(self) -> Stamp | None:
        try:
            return stamp(self._files.paths())
        except OSError:
            return None  # whoever reads it says so

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        pair = (self._pair.key, self._pair.certificate)
        return grpc.ssl_server_certificate_configuration([pair], self._client_ca)

    def credentials(self, *, clients_certificate: bool) -> grpc.ServerCredentials:
        """For one port. ``clients_certificate``: nobody comes in without one of ours."""
        made: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            self._configuration(), _Fetcher(self).fetch, clients_certificate
        )
        return made

    def newest(self, seen: int | None) -> tuple[int, Any]:
        """How often what counts has changed, and what counts; None: nothing else since ``seen``."""
        with self._mutex:
            now = self._look()
            if now is None or now != self._stamp:
                before, troubles = (self._pair, self._client_ca), []
                try:
                    self._pair = self._files.read_pair(self._pair)
                except CertificateRefused as error:
                    troubles.append(f"the certificate stays as it is: {error}")
                try:
                    self._client_ca = self._files.read_client_ca()
                except CertificateRefused as error:
                    troubles.append(f"who signs for access servers stays as it is: {error}")
                self.reloads_count += (self._pair, self._client_ca) != before
                self._tell(troubles)
                # Where a part was refused what counts is of no one look: the files may become what they were again.
                self._stamp = None if troubles else now
            return self.reloads_count, None if seen == self.reloads_count else self._configuration()

    def _tell(self, troubles: list[str]) -> None:
        """Each once, while it lasts."""
        for text in troubles:
            if text not in self._troubles:
                log.error("%s", text)
        self._troubles = troubles

    def ends_s(self) -> float:
        """Unix seconds at which the certificate ends that counts from the next handshake on."""
        self.newest(None)
        return ends_s(self._pair.certificate)


class _Fetcher:
    """Each port is told once of each change."""

    def __init__(self, certificates: Certificates) -> None:
        self._certificates = certificates
        self._seen: int | None = None

    def fetch(self) -> Any:
        self._seen, found = self._certificates.newest(self._seen)
        return found


def fingerprint(pem: bytes) -> str:
    """SHA-256 of a certificate, as openssl prints it, without colons and in small letters."""
    text = pem.partition(b"-----BEGIN CERTIFICATE-----")[2].partition(b"-----END CERTIFICATE-----")[0]
    return hashlib.sha256(base64.b64decode(text)).hexdigest()


def ends_s(pem: bytes) -> float:
    """Unix seconds at which a certificate ends. Raises ``CertificateRefused``.

    Nobody looks at it when a client resumes a TLS session, for days: so whether it still counts is for us to see.
    """
    return _validity(pem)[1].timestamp()


def _counts(pem: bytes) -> bool:
    begins, ends = _validity(pem)
    return begins <= datetime.now(UTC) < ends


def _validity(pem: bytes) -> tuple[datetime, datetime]:
    """From when to when a certificate counts: the first one of a file."""
    text = pem.partition(b"-----BEGIN CERTIFICATE-----")[2].partition(b"-----END CERTIFICATE-----")[0]
    try:
        ((_, signed),) = _values(base64.b64decode(text))
        _, content = next(_values(signed))
        # Serial number, algorithm, issuer, validity: a version may stand before them.
        fields = [field for tag, field in _values(content) if tag != _VERSION]
        begins, ends = (_instant(tag, digits.decode("ascii")) for tag, digits in _values(fields[3]))
        return begins, ends
    except (ValueError, IndexError, StopIteration) as error:
        raise CertificateRefused(f"when it ends can't be read: {error}") from error


def _instant(tag: int, digits: str) -> datetime:
    form = "%y%m%d%H%M%SZ" if tag == _YEAR_OF_TWO_DIGITS else "%Y%m%d%H%M%SZ"
    return datetime.strptime(digits, form).replace(tzinfo=UTC)


def _values(der: bytes) -> Iterator[tuple[int, bytes]]:
    """The values of DER that stand one behind the other, each with its tag."""
    place = 0
    while place < len(der):
        tag, length = der[place], der[place + 1]
        place += 2
        if length & 0x80:
            digits = length & 0x7F
            length = int.from_bytes(der[place : place + digits], "big")
            place += digits
        yield tag, der[place : place + length]
        place += length


def named_in(auth: Mapping[str, Sequence[bytes]]) -> str:
    """The access server that a verified certificate names. Raises ``CertificateRefused``."""
    uris = [uri.decode(errors="replace") for uri in auth.get("peer_uri", ())]
    # A scheme is the same in capitals, but a name that we don't write ourselves counts for nobody.
    ours = [uri for uri in uris if uri[: len(SCHEME)].lower() == SCHEME]
    if ours:
        if len(ours) > 1 or not ours[0].startswith(_PREFIX):
            raise CertificateRefused(f"of the scheme {SCHEME} it has {ours!r}; one {_PREFIX}NAME belongs there")
        return ours[0].removeprefix(_PREFIX)
    names = [name.decode(errors="replace") for name in auth.get("x509_common_name", ())]
    if len(names) != 1 or not names[0]:
        raise CertificateRefused(f"it has neither a URI {_PREFIX}NAME nor one common name")
    return names[0]


def read_revoked(path: Path) -> frozenset[str]:
    """Fingerprints, with or without colons; lines that begin with # are for people. Raises ``CertificateRefused``."""
    found = set()
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CertificateRefused(f"{path} can't be read: {error}") from error
    for index, line in enumerate(lines, 1):
        text = line.rpartition("=")[2].replace(":", "").strip().lower()
        if not text or line.startswith("#"):
            continue
        if not _FINGERPRINT.fullmatch(text):
            raise CertificateRefused(f"{path}:{index}: no SHA-256 fingerprint: 64 hexadecimal digits belong here")
        found.add(text)
    if len(found) > REVOKED_MAX:
        raise CertificateRefused(f"{path} names {len(found):,} certificates, more than {REVOKED_MAX:,}")
    return frozenset(found)
