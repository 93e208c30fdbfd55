"""The way out of figures (``metrics``): one thread that listens, and answers one request after the other.

A request has two seconds, reading and writing included; meanwhile 16 may wait. So whoever holds a connection open, or
asks without end, costs the process one thread that is mostly asleep. It is imported only where figures are wanted.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from simswitch.metrics import Collect, shown

PATH = "/metrics"
REQUEST_S = 2.0
WAITING_MAX = 16

log = logging.getLogger("simswitch.metrics")


class Listener:
    """Listens from its making on; ended by ``close``. ``port`` 0: any free one."""

    def __init__(self, host: str, port: int, collect: Collect) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(collect))
        # Memory, open files, processor time and start of this process.
        ProcessCollector(registry=registry)
        self._server = _Server(host, port, registry)
        self.address = shown(host, self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="simswitch-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Collector:
    """What a registry asks; it knows nothing beforehand, and keeps nothing."""

    def __init__(self, collect: Collect) -> None:
        self._collect = collect

    def collect(self) -> Iterator[Any]:
        yield from self._collect()


class _Server(TCPServer):
    """Not ``HTTPServer``, which asks for the name of its address: where no name server answers nothing would begin."""

    allow_reuse_address = True
    request_queue_size = WAITING_MAX

    def __init__(self, host: str, port: int, registry: Any) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.registry = registry
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        # A timeout for each read would let a client drip; this one is for all of them together.
        ending = threading.Timer(REQUEST_S, _end, (request,))
        ending.daemon = True
        ending.start()
        try:
            super().process_request(request, client_address)
        finally:
            ending.cancel()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        if isinstance(sys.exception(), OSError):
            # Whoever asked has gone, or his time was over.
            return
        log.warning("a request for figures failed", exc_info=True)


def _end(request: socket.socket) -> None:
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "simswitch"
    sys_version = ""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != PATH:
            self.send_error(404, f"figures are at {PATH}")
            return
        try:
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        except (TypeError, ValueError):
            # It asks for a version that is no number.
            encode, content_type = choose_encoder("")
        body = encode(self.server.registry)
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Nobody wants a line for each time that somebody asked."""
