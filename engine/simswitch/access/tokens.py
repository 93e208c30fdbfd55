"""Tokens: what people prove themselves with. Made, revoked and listed on the machine of the data folder; read by the
service.

A token is ``ss_<id>_<secret>``: the id is 8 random bytes and names it in lists and logs, the secret 32 random bytes;
both in hexadecimal. Only the SHA-256 of the secret is kept. A slow hash such as scrypt makes guessing expensive where
people choose the secret; nobody guesses 256 random bits, and a hash that costs a millisecond for each call would be a
way to bring the service down.

The file is a chain (``audit.chain``): a token is made by one line and revoked by another, each with who did it (the
user of the operating system) and when, so the list of tokens is its own audit trail.

    {"what": "created", "token": id, "actor": "operator:alice", "secret_sha256": …, "expires_ms": …, "by": "root", …}
    {"what": "revoked", "token": id, "by": "root", …}

Of a file that is damaged no entry counts, those before the damage neither: what was damaged may be a revocation, also
where nothing is wrong but that the last line has no end. So a service lets nobody in with a token, when it starts or
within a second while it runs, until a person has looked and the file is replaced, by a new token or a copy. Access
servers have certificates, and go on. Only who may write the file can keep people out in this way, or a disk that fails
as it is written: one that runs reads it when it has changed.

An access server has none: it is whom its certificate names, and who has revoked that has revoked all that it has. None
is made for one, and one that was made once does not count.

Bounds: 4,096 tokens that are neither revoked nor expired; at most 400 days until a token expires.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simswitch.audit.chain import Chain, ChainDamaged, all_entries
from simswitch.core import layout
from simswitch.core.roles import ROLE_WORDS
from simswitch.owner import who_types

FILE = "access/tokens.log"
TOKENS_MAX = 4_096
DAYS_MAX = 400
DAY_MS = 86_400_000

_FORM = re.compile(r"ss_([0-9a-f]{16})_([0-9a-f]{64})")


class TokenRefused(Exception):
    """A token can't be made or revoked; the text says why."""


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of one."""

    id: str
    actor: str
    secret_sha256: str
    created_ms: int
    expires_ms: int
    created_by: str
    revoked_ms: int | None = None

    def state(self, now_ms: int) -> str:
        if self.revoked_ms is not None:
            return "revoked"
        if _is_access_server(self.actor):
            return "of an access server"
        return "expired" if now_ms >= self.expires_ms else "valid"


def id_of(token: str) -> str | None:
    """The part of a token that may be shown; None: it has not the form of one."""
    found = _FORM.fullmatch(token)
    return found and found[1]


def find(tokens: Mapping[str, Token], token: str) -> Token | None:
    """The token whose secret this is, whatever its state."""
    found = _FORM.fullmatch(token)
    known = tokens.get(found[1]) if found else None
    if found is None or known is None:
        return None
    digest = hashlib.sha256(bytes.fromhex(found[2])).hexdigest()
    return known if hmac.compare_digest(digest, known.secret_sha256) else None


def read_tokens(folder: Path) -> dict[str, Token]:
    """All that were ever made, by id. Raises ``ChainDamaged``."""
    path = folder / FILE
    tokens: dict[str, Token] = {}
    if not path.exists():
        return tokens
    try:
        for entry in all_entries(path):
            try:
                _count(tokens, entry.fields)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise ChainDamaged(f"{path}: entry {entry.number} is none of tokens: {error!r}") from error
    except ChainDamaged as error:
        raise ChainDamaged(
            f"{error}. A token may have been revoked there, so none is read: move the file away and make new tokens, "
            'or put a copy of it in its place (docs/operating.md, "A list of the audit log is damaged"). Until then no '
            "token counts, also in a service that runs"
        ) from error
    return tokens


def _opened(folder: Path) -> Chain:
    """Its writer. Raises ``ChainDamaged`` with what to do."""
    read_tokens(folder)
    return Chain(folder / FILE)


def _count(tokens: dict[str, Token], fields: Mapping[str, Any]) -> None:
    """One entry of the file."""
    if fields["what"] == "created":
        id_, actor, digest, by = (str(fields[name]) for name in ("token", "actor", "secret_sha256", "by"))
        tokens[id_] = Token(id_, actor, digest, int(fields["at_ms"]), int(fields["expires_ms"]), by)
    elif fields["what"] == "revoked":
        tokens[fields["token"]] = replace(tokens[fields["token"]], revoked_ms=int(fields["at_ms"]))


def create_token(folder: Path, actor: str, lasts_ms: int) -> tuple[Token, str]:
    """Makes a token and gives it, this once. Raises ``TokenRefused``."""
    if not 1 <= lasts_ms <= DAYS_MAX * DAY_MS:
        raise TokenRefused(f"a token lasts at most {DAYS_MAX} days, and longer than no time")
    if _is_access_server(actor):
        raise TokenRefused(
            f"{actor}: an access server has a certificate that names it, and no token; sign one with the authority for "
            "access servers ([tls] client_ca)"
        )
    _check_folder(folder)
    chain = _opened(folder)
    try:
        now_ms = time.time_ns() // 1_000_000
        valid = sum(token.state(now_ms) == "valid" for token in read_tokens(folder).values())
        if valid >= TOKENS_MAX:
            raise TokenRefused(f"there are {valid:,} valid tokens already; revoke some")
        secret = secrets.token_bytes(32)
        token = Token(
            secrets.token_hex(8), actor, hashlib.sha256(secret).hexdigest(), now_ms, now_ms + lasts_ms, who_types()
        )
        chain.append(
            {
                "at_ms": now_ms,
                "what": "created",
                "token": token.id,
                "actor": actor,
                "secret_sha256": token.secret_sha256,
                "expires_ms": token.expires_ms,
                "by": token.created_by,
            }
        )
        chain.sync()
    finally:
        chain.close()
    return token, f"ss_{token.id}_{secret.hex()}"


def revoke_token(folder: Path, token: str) -> Token:
    """Raises ``TokenRefused`` when there is none of this id; one that is revoked already stays so."""
    _check_folder(folder)
    chain = _opened(folder)
    try:
        known = read_tokens(folder).get(token)
        if known is None:
            raise TokenRefused(f"there is no token {token}; `simswitch token list` names them")
        if known.revoked_ms is None:
            now_ms = time.time_ns() // 1_000_000
            chain.append({"at_ms": now_ms, "what": "revoked", "token": token, "actor": known.actor, "by": who_types()})
            chain.sync()
            known = replace(known, revoked_ms=now_ms)
    finally:
        chain.close()
    return known


def _is_access_server(actor: str) -> bool:
    return ROLE_WORDS.get(actor.partition(":")[0]) == layout.ROLE_ACCESS_SERVER


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise TokenRefused(f"{folder} is no folder: name the data folder of the service")
