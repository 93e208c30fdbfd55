"""Whose connections there are, and which of them are ended. The process looks at its own sockets, since neither
transport tells of a connection before there is a call on it, or ends one for whom it is of.

    of one address     ``connections_per_address``; of IPv6, of one network of 64 bits. The youngest without a call that
                       was let in are ended first. 127.0.0.1 and ::1 are not counted: what comes from there are this
                       machine's own, or those of a proxy
    of one identity    ``connections_per_identity``: a call on one more is refused (TOO_MANY_CONNECTIONS), and its
                       connection is ended
    at one door        who has not said who he is within SILENT_S gives way, the oldest first, while over three
                       quarters of its places are taken. grpcio itself takes no more connections than the door has
                       places; of the native transport's the youngest are ended
    that say nothing   ended after ``handshake_ms``. TLS handshakes that are slow are ended by grpcio

Once a second the open files of the process are gone through, 2 µs each, and of a socket that is new both ends are
asked for, so what is too much is there for a second at most. A socket is ended by shutting it down, through a
descriptor of its own: the number of the other one may have become another file's meanwhile, which this one can't. Its
transport then finds that the other side has gone.

Where nobody proves who he is there are no identities, and only what says nothing and the native door's places are
looked after. Calls that the native front hands to grpcio name no connection, so there hot calls tell whose one is.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
import stat
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote

from simswitch.service.errors import TOO_MANY_CONNECTIONS, Refused
from simswitch.service.share import Share

FILES = "/proc/self/fd"
LOOK_EVERY_S = 1.0
SILENT_S = 15.0
"""How long a connection keeps its place at a door that is nearly full before a call on it was let in."""
FULL_PART = 0.75
SLICE = 512
"""Files that are gone through before others have their turn in the event loop."""
TELL_EVERY_S = 60.0
GREETING_BYTES = 24 + 9
"""The least that a client of HTTP/2 begins with: the preface and the header of its settings."""
_TCP_INFO_BYTES, _RECEIVED = 192, slice(128, 136)
"""Of ``struct tcp_info``, where ``tcpi_bytes_received`` stands in it."""
WHYS = ("address", "identity", "door", "silence")
NOT_COUNTED = frozenset({"127.0.0.1", "::1"})

Peer = tuple[str, int]
"""Address and port of the other side."""

log = logging.getLogger("simswitch.service")


@dataclass(frozen=True, slots=True)
class Door:
    """Where connections come in."""

    name: str
    port: int
    places: int
    proven: bool
    """Callers prove who they are, and every call tells on which connection it came."""
    bounded: bool
    """Its transport takes no more connections than there are places."""


@dataclass(slots=True)
class Connection:
    """An open file of this process; ``door`` None: it is no connection of a client's."""

    mark: tuple[int, int]
    door: Door | None = None
    peer: Peer = ("", 0)
    origin: str = ""
    """What is counted by address; empty: it is not."""
    since_s: float = 0.0
    greeted: bool = False


@dataclass(slots=True)
class Connections:
    """``made`` may be called from any thread, all else in the event loop."""

    per_address: int
    per_identity: int
    """0: any number."""
    handshake_s: float
    doors: list[Door] = field(default_factory=list)
    ended: dict[str, int] = field(default_factory=lambda: dict.fromkeys(WHYS, 0))
    """By why."""
    counts: dict[str, int] = field(default_factory=dict)
    """By door, at the last look."""
    _files: dict[int, Connection] = field(default_factory=dict)
    _shares: set[Share] = field(default_factory=set)
    """Those that have connections."""
    _unwanted: set[Peer] = field(default_factory=set)
    _told_s: float = -TELL_EVERY_S
    _told: Counter[str] = field(default_factory=Counter)

    def made(self, source: str, share: Share) -> None:
        """A call of an identity has come, from a peer as the transport names it. Raises ``Refused``."""
        if source in share.connections or not self.per_identity:
            return
        peer = _peer(source)
        if peer is None:
            return
        if len(share.connections) >= self.per_identity:
            self._unwanted.add(peer)
            raise Refused(TOO_MANY_CONNECTIONS, f"{self.per_identity:,}")
        share.connections[source] = peer
        self._shares.add(share)

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Goes through all connections once, and ends those that are too many."""
        files: dict[int, Connection] = {}
        for index, name in enumerate(os.listdir(FILES)):
            if index % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            number = int(name)
            try:
                found = os.fstat(number)
            except OSError:
                continue
            mark = found.st_dev, found.st_ino
            before = self._files.get(number)
            if before is not None and before.mark == mark:
                files[number] = before
            else:
                files[number] = self._met(number, mark) if stat.S_ISSOCK(found.st_mode) else Connection(mark)
        self._files = files
        self._judge({number: each for number, each in files.items() if each.door is not None})

    def _met(self, number: int, mark: tuple[int, int]) -> Connection:
        try:
            with socket.socket(fileno=os.dup(number)) as other:
                if other.family not in (socket.AF_INET, socket.AF_INET6):
                    return Connection(mark)
                port = other.getsockname()[1]
                door = next((each for each in self.doors if each.port == port), None)
                if door is None:
                    return Connection(mark)
                host, port = other.getpeername()[:2]
        except OSError:
            # One that listens has no other side, and one that was closed meanwhile is none.
            return Connection(mark)
        address = _plain(host)
        origin = _origin(address) if door.proven else ""
        return Connection(mark, door, (str(address), port), origin, time.monotonic())

    def _judge(self, here: dict[int, Connection]) -> None:
        told = self._told_whose({each.peer for each in here.values()})
        unwanted, self._unwanted = self._unwanted, set()
        ending: dict[int, str] = {}
        now_s = time.monotonic()
        origins: Counter[str] = Counter()
        for number, each in here.items():
            if each.peer in unwanted:
                ending[number] = "identity"
            elif not each.greeted and now_s - each.since_s > self.handshake_s and self._says_nothing(number, each):
                ending[number] = "silence"
            else:
                origins[each.origin] += 1
        del origins[""]

        def first(numbers: Iterable[int]) -> list[int]:
            """Who goes first: who has made no call that was let in, and of those the youngest."""
            left = (number for number in numbers if number not in ending)
            return sorted(left, key=lambda number: (here[number].peer in told, -here[number].since_s))

        for origin, count in origins.items():
            if self.per_address and count > self.per_address:
                numbers = first(number for number, each in here.items() if each.origin == origin)
                ending.update(dict.fromkeys(numbers[: count - self.per_address], "address"))
        by_door = Counter(each.door for each in here.values())
        for door in self.doors:
            self.counts[door.name] = by_door[door]
            if by_door[door] <= door.places * FULL_PART:
                continue
            numbers = first(number for number, each in here.items() if each.door is door)
            if not door.bounded:
                ending.update(dict.fromkeys(numbers[: max(len(numbers) - door.places, 0)], "door"))
            if door.proven:
                excess = max(len(numbers) - int(door.places * FULL_PART), 0)
                silent = [n for n in numbers if here[n].peer not in told and now_s - here[n].since_s > SILENT_S]
                ending.update(dict.fromkeys(silent[::-1][:excess], "door"))
        for number, why in ending.items():
            if _end(number, here[number].mark):
                self.ended[why] += 1
                self._told[why] += 1
        self._tell(now_s)

    def _told_whose(self, peers: set[Peer]) -> set[Peer]:
        """Those whose identity is known; what has been closed is taken from its identity."""
        told: set[Peer] = set()
        for share in list(self._shares):
            for source, peer in list(share.connections.items()):
                if peer not in peers:
                    share.connections.pop(source, None)
            told.update(share.connections.values())
            if not share.connections:
                self._shares.discard(share)
        return told

    def _says_nothing(self, number: int, each: Connection) -> bool:
        """Asked once, when its time for a greeting is over."""
        try:
            with socket.socket(fileno=os.dup(number)) as other:
                info = other.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        except OSError:
            return False
        each.greeted = int.from_bytes(info[_RECEIVED], "little") >= GREETING_BYTES
        return not each.greeted

    def _tell(self, now_s: float) -> None:
        if self._told and now_s - self._told_s >= TELL_EVERY_S:
            counts = ", ".join(f"{count:,} for {why}" for why, count in sorted(self._told.items()))
            log.warning("connections were ended: %s (section doors of the settings has the bounds)", counts)
            self._told.clear()
            self._told_s = now_s


def _end(number: int, mark: tuple[int, int]) -> bool:
    try:
        with socket.socket(fileno=os.dup(number)) as other:
            found = os.fstat(other.fileno())
            if (found.st_dev, found.st_ino) != mark:
                return False
            other.shutdown(socket.SHUT_RDWR)
    except OSError:
        return False
    return True


def _plain(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address of IPv4 as such, whatever socket it came to."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped) or address


def _origin(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    if str(address) in NOT_COUNTED:
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.IPv6Address(int(address) >> 64 << 64))


def _peer(source: str) -> Peer | None:
    """Of a name such as ``ipv4:192.0.2.1:50000`` or ``ipv6:%5B2001:db8::1%5D:50000``; None: it is no such."""
    kind, _, rest = unquote(source).partition(":")
    host, _, port = rest.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdigit():
        return None
    try:
        return str(_plain(host.strip("[]"))), int(port)
    except ValueError:
        return None
