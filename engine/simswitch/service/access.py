"""Who makes a call: the one way from what came with it to an ``Actor``, for both transports.

    a client certificate    names an access server (``access.certificates``); a token beside it is refused
    a token                 ``authorization: Bearer ss_…``: whoever it was made for (``access.tokens``); that is never
                            an access server
    neither                 where authentication is required, refused; else the name claimed in ``simswitch-actor``,
                            such as ``operator:alice``; without one ``operator:local``

Authentication is required wherever there is TLS or the address is more than loopback, or where the settings say so.
What is claimed must then be what is proven, or be left out. On loopback without it everybody on the machine may claim
what he likes.

Bounds: an actor that is met for the first time is defined in the engine: of people at most 1,024, 64 of them by claims
(all that claim are one identity: whoever reaches loopback); of access servers and suppliers as many as are defined.
Certificates that are remembered: 8,192. Calls a second by identity: ``AccessSettings``.

Tokens and revoked certificates are read anew within a second of their change; the streams of a credential that is
revoked or expires then end. What can't be read stays as it was, and is tried again every second. At the start nothing
was: without the list of revoked certificates the service does not begin. Of a list of tokens that is damaged none
counts, at the start or later: what was damaged may be a revocation.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from simswitch.access.certificates import (
    CertificateRefused,
    Stamp,
    TlsFiles,
    ends_s,
    fingerprint,
    named_in,
    read_revoked,
    stamp,
)
from simswitch.access.tokens import FILE, Token, find, id_of, read_tokens
from simswitch.audit.attempts import FILE as ATTEMPTS
from simswitch.audit.attempts import Attempts
from simswitch.audit.chain import ChainDamaged, ChainInUse
from simswitch.core import layout
from simswitch.core.roles import ROLE_WORDS
from simswitch.service.call import SERVER_STREAMS_MAX, STREAMS_MAX, Actor, Call
from simswitch.service.directory import Directory
from simswitch.service.errors import (
    CERTIFICATE_REFUSED,
    INVALID_ACTOR,
    NO_CREDENTIALS,
    NOT_PERMITTED,
    TOKEN_REFUSED,
    TOO_MANY_ACTORS,
    TOO_MANY_STREAMS,
    TWO_CREDENTIALS,
    Reason,
    Refused,
)
from simswitch.service.share import Share

ACTOR_KEY = "simswitch-actor"
ACTOR_DEFAULT = "operator:local"
TOKEN_KEY = "authorization"
BEARER = "Bearer "
PEOPLE_MAX = 1_024
CLAIMED_MAX = 64
CERTIFICATES_MAX = 8_192
LOOK_EVERY_S = 1.0
_DEFINED: Mapping[int, int] = {layout.ROLE_ACCESS_SERVER: layout.ACCESS_SERVER, layout.ROLE_SUPPLIER: layout.SUPPLIER}
"""Roles of which each has to be defined before it comes, and as what."""
EXPIRED, REVOKED, GONE = "it is expired", "it is revoked", "the list of tokens does not have it any more"

log = logging.getLogger("simswitch.service")

Auth = Mapping[str, Sequence[bytes]]
_Contents = TypeVar("_Contents")


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """How callers prove who they are."""

    tls: TlsFiles | None = None
    revoked: Path | None = None
    """Fingerprints of client certificates that count no more."""
    required: bool = False
    """Nobody is believed without proof; always so where there is TLS."""
    people_calls_per_s: int = 200
    server_calls_per_s: int = 20_000
    """Of each identity that has proven itself; 0: any number."""
    calls_max: int = 1_024
    held_bytes_max: int = 32 << 20
    """Of each identity at a time (``share``)."""


class Proof(NamedTuple):
    """What came with a call."""

    claimed: str | None
    token: str | None
    auth: Auth | None
    source: str

    @property
    def certificate(self) -> bytes | None:
        found = None if self.auth is None else self.auth.get("x509_pem_cert")
        return found[0] if found else None


def proof(metadata: Iterable[tuple[str, str | bytes]] | None, auth: Auth | None, source: str) -> Proof:
    """Of several values of a key the last counts."""
    claimed = token = None
    for key, value in metadata or ():
        if key == ACTOR_KEY:
            claimed = value if isinstance(value, str) else value.decode(errors="replace")
        elif key == TOKEN_KEY:
            text = value if isinstance(value, str) else value.decode(errors="replace")
            token = text.removeprefix(BEARER)
    return Proof(claimed, token, auth, source)


class Access:
    """All identities that are known. ``known`` may be called from any thread."""

    def __init__(self, directory: Directory, settings: AccessSettings, folder: Path | None) -> None:
        self._directory = directory
        self._settings = settings
        self._folder = folder
        self.required = settings.required or settings.tls is not None
        if settings.revoked is not None:
            begin_with(settings.revoked)
        self.attempts = Attempts(folder)
        self._lock = asyncio.Lock()
        self._claimed: dict[str, Actor] = {}
        self._tokens: Mapping[str, Token] = {}
        self._by_token: dict[str, Actor] = {}
        self._by_certificate: dict[bytes, Actor] = {}
        self._revoked: frozenset[str] = frozenset()
        self._shares: dict[int, Share] = {}
        self._stamps: dict[Path, Stamp] = {}
        # What the log was told of a file that can't be read or written.
        self._troubles: dict[Path, str] = {}
        self._look()

    # -------------------------------------------------------------------------------------------- who it is

    def known(self, given: Proof) -> Actor | None:
        """Without waiting: all calls but an actor's first one. None: ``meet`` has to decide. Raises ``Refused``."""
        certificate = given.certificate
        if certificate is not None:
            if given.token is not None:
                raise self._failed(TWO_CREDENTIALS, given, "a certificate", "a token came beside it")
            actor = self._by_certificate.get(certificate)
        elif given.token is not None:
            token = find(self._tokens, given.token)
            if token is None:
                shown = id_of(given.token)
                raise self._failed(TOKEN_REFUSED, given, f"token {shown or 'without form'}", "it is not known")
            actor = self._by_token.get(token.id)
            state = token.state(time.time_ns() // 1_000_000)
            if state != "valid":
                raise self._failed(TOKEN_REFUSED, given, f"{token.actor}, token {token.id}", f"it is {state}")
        elif self.required:
            raise self._failed(NO_CREDENTIALS, given, given.claimed or "nobody", "")
        else:
            return self._claimed.get(given.claimed or ACTOR_DEFAULT)
        if actor is None:
            return None
        if actor.withdrawn:
            raise self._failed(CERTIFICATE_REFUSED, given, actor.name, actor.withdrawn)
        if given.claimed is not None and given.claimed != actor.name:
            what = f"it claims to be {given.claimed[:80]!r}, its {actor.credential} is of {actor.name}"
            raise self._failed(NOT_PERMITTED, given, actor.name, what)
        return actor

    async def meet(self, given: Proof) -> Actor:
        """The first call of an actor: it has to be made known, durably, before the call itself."""
        async with self._lock:
            actor = self.known(given)
            if actor is None:
                await self._meet(given)
                actor = self.known(given)
            assert actor is not None
            return actor

    async def _meet(self, given: Proof) -> None:
        certificate = given.certificate
        if certificate is not None and given.auth is not None:
            try:
                name = named_in(given.auth)
                digest, ends = fingerprint(certificate), ends_s(certificate)
            except (CertificateRefused, ValueError) as error:
                raise self._failed(CERTIFICATE_REFUSED, given, "a certificate", str(error)) from error
            who = f"access-server:{name}"
            if digest in self._revoked:
                raise self._failed(CERTIFICATE_REFUSED, given, who, REVOKED)
            actor = await self._actor(who, f"certificate {digest}", given)
            actor.ends_s = ends
            if digest in self._revoked:
                # While it was made known.
                actor.withdrawn = REVOKED
            elif ends <= time.time():
                actor.withdrawn = EXPIRED
            if len(self._by_certificate) >= CERTIFICATES_MAX:
                # Streams go on, and are still ended when their certificate is revoked.
                self._by_certificate = {pem: actor for pem, actor in self._by_certificate.items() if actor.streams}
            self._by_certificate[certificate] = actor
        elif given.token is not None:
            token = find(self._tokens, given.token)
            assert token is not None
            actor = await self._actor(token.actor, f"token {token.id}", given)
            actor.ends_s = token.expires_ms / 1000
            self._by_token[token.id] = actor
        else:
            name = given.claimed or ACTOR_DEFAULT
            self._claimed[name] = await self._actor(name, "claimed", given)

    async def _actor(self, name: str, credential: str, given: Proof) -> Actor:
        word, _, person = name.partition(":")
        role = ROLE_WORDS.get(word)
        if role is None or not person or len(name.encode()) > layout.NAME_BYTES:
            raise Refused(INVALID_ACTOR, repr(name[:80]))
        subject = -1
        if role in _DEFINED:
            try:
                subject = self._directory.get(_DEFINED[role], person).index
            except Refused as error:
                # A credential of one that is not known here may have been stolen where it is.
                raise self._failed(error.reason, given, name, error.what) from None
        entity = self._directory.find(layout.ACTOR, name)
        if entity is None:
            if subject < 0:
                self._room_for_a_person(credential == "claimed")
            numbers = {layout.ACTOR_ROLE: role, layout.ACTOR_SUBJECT: subject}
            # The system vouches for a new actor: nobody else may exist before it does.
            _, entity = await self._directory.define(layout.ACTOR, name, numbers, b"", actor=0)
        proven = credential != "claimed"
        share = self._shares.get(entity.index)
        if share is None:
            settings = self._settings
            server = role == layout.ROLE_ACCESS_SERVER
            calls_per_s = (settings.server_calls_per_s if server else settings.people_calls_per_s) if proven else 0
            share = Share(calls_per_s, settings.calls_max, settings.held_bytes_max)
            self._shares[entity.index] = share
        return Actor(entity.index, name, role, subject, share, self.attempts, credential)

    def _room_for_a_person(self, claiming: bool) -> None:
        people = sum(entity.numbers[layout.ACTOR_SUBJECT] < 0 for entity in self._directory.all(layout.ACTOR))
        most = CLAIMED_MAX if claiming else PEOPLE_MAX
        if people >= most:
            raise Refused(TOO_MANY_ACTORS, f"{most:,}")

    def _failed(self, reason: Reason, given: Proof, who: str, what: str) -> Refused:
        self.attempts.note(reason.name, who, given.source, what)
        return Refused(reason, what)

    # -------------------------------------------------------------------------------------------- while it lasts

    def enter(self, call: Call, stream: asyncio.Task[object]) -> None:
        """A stream begins; ``leave`` when it has ended."""
        proven = call.actor.credential != "claimed"
        most = SERVER_STREAMS_MAX if proven and call.actor.role == layout.ROLE_ACCESS_SERVER else STREAMS_MAX
        if len(call.actor.streams) >= most:
            raise Refused(TOO_MANY_STREAMS, f"{most}")
        call.actor.streams.add(stream)

    def leave(self, call: Call, stream: asyncio.Task[object]) -> None:
        call.actor.streams.discard(stream)

    async def watch(self) -> None:
        """Until cancelled: sees what was revoked or has expired, and writes down who was refused.

        It looks whatever becomes of the writing, which may wait for a disk, in a thread that nothing else needs.
        """
        thread = ThreadPoolExecutor(1, "attempts")
        writing = thread.submit(self.attempts.write)
        try:
            while True:
                await asyncio.sleep(LOOK_EVERY_S)
                self._look()
                self._end_expired()
                if writing.done():
                    self._written(writing.exception())
                    writing = thread.submit(self.attempts.write)
        finally:
            try:
                self.attempts.close()
            except (OSError, ChainInUse) as error:
                log.error("refused attempts are not written: %s", error)
            thread.shutdown()

    def _written(self, error: BaseException | None) -> None:
        if error is None:
            self._troubles.pop(Path(ATTEMPTS), None)
        elif isinstance(error, (OSError, ChainInUse)):
            self._trouble(Path(ATTEMPTS), f"refused attempts are not written: {error}")
        else:
            raise error

    def _end_expired(self) -> None:
        now_s = time.time()
        for actor in (*self._by_token.values(), *self._by_certificate.values()):
            if actor.ends_s is not None and actor.ends_s <= now_s:
                if not actor.withdrawn:
                    _withdraw(actor, EXPIRED)
            elif actor.withdrawn == EXPIRED:
                # The clock was wrong.
                actor.withdrawn = ""

    def _look(self) -> None:
        """Reads tokens and revoked certificates when their files changed. What can't be read stays as it was; of tokens
        that are damaged none counts."""
        folder, revoked = self._folder, self._settings.revoked
        if folder is not None:
            tokens = self._changed(folder / FILE, lambda: _counting(folder))
            if tokens is not None:
                self._tokens = tokens
                self._revoke_tokens()
        if revoked is not None:
            fingerprints = self._changed(revoked, lambda: read_revoked(revoked))
            if fingerprints is not None:
                self._revoked = fingerprints
                self._revoke_certificates()

    def _revoke_tokens(self) -> None:
        for id_, actor in list(self._by_token.items()):
            token = self._tokens.get(id_)
            if token is None or token.revoked_ms is not None:
                _withdraw(actor, GONE if token is None else REVOKED)
                # Where the list is put right again it is met anew.
                del self._by_token[id_]

    def _revoke_certificates(self) -> None:
        for pem, actor in list(self._by_certificate.items()):
            if actor.credential.partition(" ")[2] in self._revoked:
                _withdraw(actor, REVOKED)
            elif actor.withdrawn == REVOKED:
                # It was taken off the list: met anew.
                del self._by_certificate[pem]

    def _changed(self, path: Path, read: Callable[[], _Contents]) -> _Contents | None:
        """What stands in a file that has changed; None: it has not, or it can't be read, and is looked at again."""
        try:
            now = stamp([path])
            if now == self._stamps.get(path):
                self._troubles.pop(path, None)
                return None
            found = read()
        except FileNotFoundError as error:
            # Before the first token is made there is no file of them.
            if path == self._settings.revoked or path in self._stamps:
                self._trouble(path, f"who may come in stays as it was: {error}")
            return None
        except (CertificateRefused, OSError) as error:
            self._trouble(path, f"who may come in stays as it was: {error}")
            return None
        self._stamps[path] = now
        self._troubles.pop(path, None)
        return found

    def _trouble(self, path: Path, text: str) -> None:
        """Tells the log, once."""
        if self._troubles.get(path) != text:
            self._troubles[path] = text
            log.error("%s", text)


def begin_with(revoked: Path) -> None:
    """Raises ``CertificateRefused``: all that were revoked would come in again, and nobody would know."""
    try:
        read_revoked(revoked)
    except CertificateRefused as error:
        text = f"the list of revoked certificates (tls.revoked): {error}; where none is revoked it is an empty file"
        raise CertificateRefused(text) from error


def _counting(folder: Path) -> Mapping[str, Token]:
    """The tokens of a folder; none where their list is damaged."""
    try:
        return read_tokens(folder)
    except ChainDamaged as error:
        log.error("%s", error)
        return {}


def _withdraw(actor: Actor, why: str) -> None:
    actor.withdrawn = why
    for stream in list(actor.streams):
        stream.cancel()
