"""Hands what an exporter sends to every Jaeger of a test, and keeps it, so that it can be sent again."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs
import httpx

from tests.real_jaeger.server import Jaeger

TOLD = ("Content-Type", "Content-Encoding")


@attrs.frozen
class Request:
    """One request, as it was sent."""

    body: bytes
    headers: dict[str, str]


@attrs.frozen
class Relay:
    """Takes OTLP at ``url``."""

    url: str
    jaegers: Sequence[Jaeger]
    kept: list[Request] = attrs.field(factory=list[Request])

    def hand(self, request: Request) -> httpx.Response:
        """Send it to each; the answer of the first one that refuses, else of the last."""
        answers = [jaeger.take(request.body, request.headers) for jaeger in self.jaegers]
        return next((answer for answer in answers if answer.is_error), answers[-1])

    def repeat(self, *jaegers: Jaeger) -> None:
        """Send once more all that was taken, in the same order: to these, else to all that have had it."""
        for request in list(self.kept):
            for jaeger in jaegers or self.jaegers:
                jaeger.take(request.body, request.headers).raise_for_status()


@contextmanager
def relay(*jaegers: Jaeger) -> Iterator[Relay]:
    """A relay that listens until the block is left."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            told = {name: self.headers[name] for name in TOLD if self.headers[name]}
            request = Request(self.rfile.read(length), told)
            answer = found.hand(request)
            if answer.is_success:
                found.kept.append(request)
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "application/x-protobuf"))
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_about: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found = Relay(f"http://127.0.0.1:{server.server_port}", jaegers)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    serving.start()
    try:
        yield found
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
