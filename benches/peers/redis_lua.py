"""Redis: a list of free SIMs a class, a hash from terminal to SIM, a set of unhealthy SIMs, and Lua.

A list gives the SIM that has rested longest at the price of one pop. With ``appendfsync always`` Redis answers the
commands of a turn of its event loop after one fsync of its log.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benches.peers import servers
from benches.peers.client import Driven, batches
from benches.peers.contest import U64, UNHEALTHY_EVERY, Contender, Pairs, Plan
from benches.peers.install import redis_server

FREE, LEASE, UNHEALTHY = "free:0", "lease", "unhealthy"
FILL_ITEMS = 5_000
SETTINGS = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    # A rewrite of the log or a snapshot in the middle would only slow it.
    "auto-aof-rewrite-percentage": "0",
    "save": "",
}

# Asking again gives the same SIM.
ALLOCATE_ONE = """
local held = redis.call('HGET', KEYS[2], ARGV[1])
if held then return held end
local sim = redis.call('LPOP', KEYS[1])
if sim then redis.call('HSET', KEYS[2], ARGV[1], sim) end
return sim
"""
ALLOCATE_MANY = """
local answer = redis.call('HMGET', KEYS[2], unpack(ARGV))
local places = {}
for place = 1, #ARGV do
  if not answer[place] then places[#places + 1] = place end
end
if #places == 0 then return answer end
local sims = redis.call('LPOP', KEYS[1], #places)
if not sims then return answer end
local pairs = {}
for number = 1, #sims do
  local place = places[number]
  answer[place] = sims[number]
  pairs[2 * number - 1] = ARGV[place]
  pairs[2 * number] = sims[number]
end
redis.call('HSET', KEYS[2], unpack(pairs))
return answer
"""
RELEASE_ONE = """
local sim = redis.call('HGET', KEYS[2], ARGV[1])
if not sim then return 0 end
redis.call('HDEL', KEYS[2], ARGV[1])
if redis.call('SISMEMBER', KEYS[3], sim) == 0 then redis.call('RPUSH', KEYS[1], sim) end
return 1
"""
RELEASE_MANY = """
local held = redis.call('HMGET', KEYS[2], unpack(ARGV))
local sims = {}
for place = 1, #ARGV do
  if held[place] then sims[#sims + 1] = held[place] end
end
if #sims == 0 then return 0 end
redis.call('HDEL', KEYS[2], unpack(ARGV))
local bad = redis.call('SMISMEMBER', KEYS[3], unpack(sims))
local fit = {}
for number = 1, #sims do
  if bad[number] == 0 then fit[#fit + 1] = sims[number] end
end
if #fit > 0 then redis.call('RPUSH', KEYS[1], unpack(fit)) end
return #sims
"""


@contextmanager
def contenders(folder: Path, plan: Plan) -> Iterator[list[Contender]]:
    """A filled Redis of its own, and what runs on it."""
    import redis

    program = redis_server()
    assert program is not None
    data = servers.own_folder(folder / "redis")
    port = servers.free_port()
    words = [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(data), "--daemonize", "no"]
    for name, value in SETTINGS.items():
        words += [f"--{name}", value]
    connection = redis.Redis(port=port, decode_responses=False)

    def answers() -> bool:
        try:
            return bool(connection.ping())
        except redis.ConnectionError:
            return False

    def books() -> Pairs:
        held = connection.hgetall(LEASE)
        return Pairs(_numbers(held.keys()), _numbers(held.values()))

    with ExitStack() as stack:
        stack.enter_context(servers.running(words, data, answers))
        stack.callback(connection.close)
        stated = {name: str(connection.config_get(name)[name]) for name in SETTINGS}
        if stated != SETTINGS:
            raise servers.NotStarted(f"Redis runs with {stated}, not with {SETTINGS}")
        _fill(connection, plan.pool)
        version = connection.info("server")["redis_version"]
        yield [
            stack.enter_context(
                Driven(
                    name,
                    batch_items,
                    folder,
                    {
                        "port": port,
                        "scripts": [connection.script_load(allocate), connection.script_load(release)],
                    },
                    client="Python, packed beforehand, a connection each",
                    durability="log fsynced before the answers",
                    settings=f"Redis {version}, TCP, appendfsync {stated['appendfsync']}, no rewrite, no snapshot",
                    books=books,
                )
            )
            for name, batch_items, allocate, release in (
                ("redis.lua_1000", 1000, ALLOCATE_MANY, RELEASE_MANY),
                ("redis.lua_1", 1, ALLOCATE_ONE, RELEASE_ONE),
            )
        ]


def _fill(connection: Any, pool: int) -> None:
    sims = np.arange(1, pool + 1)
    for key, chosen in ((FREE, sims[sims % UNHEALTHY_EVERY != 0]), (UNHEALTHY, sims[sims % UNHEALTHY_EVERY == 0])):
        for start in range(0, len(chosen), FILL_ITEMS):
            add = connection.rpush if key == FREE else connection.sadd
            add(key, *chosen[start : start + FILL_ITEMS].tolist())


def _numbers(texts: Any) -> U64:
    return np.fromiter((int(text) for text in texts), np.uint64)


class Connections:
    """One request at a time on each connection, all watched by one epoll."""

    def __init__(self, port: int, scripts: list[str], number: int, batch_items: int, in_flight: int) -> None:
        import hiredis

        self._scripts = scripts
        self._number = number
        self._batch_items = batch_items
        self._asked: list[U64] = []
        self._sockets = {}
        self._readers = {}
        self._epoll = select.epoll()
        for _ in range(in_flight):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets[connection.fileno()] = connection
            self._readers[connection.fileno()] = hiredis.Reader()
            self._epoll.register(connection, select.EPOLLIN)

    def allocations(self, terminals: U64) -> list[bytes]:
        self._asked = batches(terminals, self._batch_items)
        return [self._packed(self._scripts[0], batch) for batch in self._asked]

    def releases(self, terminals: U64) -> list[bytes]:
        return [self._packed(self._scripts[1], batch) for batch in batches(terminals, self._batch_items)]

    def exchange(self, requests: list[bytes]) -> list[Any]:
        answers: list[Any] = [None] * len(requests)
        waiting = iter(enumerate(requests))
        under_way = {}
        for file, connection in self._sockets.items():
            if (following := next(waiting, None)) is not None:
                under_way[file] = following[0]
                connection.sendall(following[1])
        while under_way:
            for file, _ in self._epoll.poll():
                reader = self._readers[file]
                connection = self._sockets[file]
                received = connection.recv(1 << 16)
                if not received:
                    raise ConnectionError("Redis closed the connection")
                reader.feed(received)
                answer = reader.gets()
                if answer is False:
                    continue
                answers[under_way.pop(file)] = answer
                if (following := next(waiting, None)) is not None:
                    under_way[file] = following[0]
                    connection.sendall(following[1])
        return answers

    def granted(self, answers: list[Any]) -> Pairs:
        texts = answers if self._batch_items == 1 else [text for answer in answers for text in answer]
        terminals = np.concatenate(self._asked)
        sims = np.fromiter((int(text or 0) for text in texts), np.uint64)
        return Pairs(terminals[sims != 0], sims[sims != 0])

    def released(self, answers: list[Any]) -> int:
        return sum(answers)

    @staticmethod
    def _packed(script: str, terminals: U64) -> bytes:
        import hiredis

        packed: bytes = hiredis.pack_command(
            ("EVALSHA", script, 3, FREE, LEASE, UNHEALTHY, *(str(terminal) for terminal in terminals.tolist()))
        )
        return packed
