"""A collector for tests: takes OTLP over HTTP on the loopback, decodes it, and keeps it in the order of its arrival."""

import gzip
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@attrs.frozen
class Taken:
    """One span as it arrived."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    scope: str
    attributes: dict[str, str]
    data: bytes
    """The span itself with its scope and resource, as it was sent."""


@attrs.define
class Collector:
    """What has arrived, and how the next requests are answered."""

    url: str
    spans: list[Taken] = attrs.field(factory=list[Taken])
    requests: int = 0
    answers: list[int] = attrs.field(factory=list[int])
    """Statuses of the next requests; 200 after them."""
    headers: dict[str, str] = attrs.field(factory=dict[str, str])
    """Sent with every answer that is no success."""
    body: bytes = b""
    """What it says with a success."""
    minds: Callable[[Taken], bool] | None = None
    """A request with such a span is refused with 400."""
    asked: list[dict[str, str]] = attrs.field(factory=list[dict[str, str]])
    """The headers of each request."""
    hold: threading.Event = attrs.field(factory=threading.Event)
    """Unset while requests are not answered at all."""

    def of(self, scope: str) -> list[Taken]:
        """The spans of one instrumentation."""
        return [span for span in self.spans if span.scope == scope]


def _decoded(body: bytes) -> Iterator[Taken]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        about = resource.resource.SerializeToString(deterministic=True)
        for scope in resource.scope_spans:
            named = scope.scope.SerializeToString(deterministic=True)
            for span in scope.spans:
                yield Taken(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    scope.scope.name,
                    {pair.key: pair.value.string_value for pair in span.attributes},
                    about + named + span.SerializeToString(deterministic=True),
                )


def _unpacked(body: bytes, how: str | None) -> bytes:
    return {"gzip": gzip.decompress, "deflate": zlib.decompress}.get(how or "", bytes)(body)


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector that listens until the block is left."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.requests += 1
            found.hold.wait()
            status = found.answers.pop(0) if found.answers else 200
            spans = list(_decoded(_unpacked(body, self.headers["Content-Encoding"])))
            found.asked.append(dict(self.headers.items()))
            if found.minds is not None and any(map(found.minds, spans)):
                status = 400
            if status == 200:
                found.spans += spans
            self.send_response(status)
            told = found.body if status == 200 else b"no"
            for name, value in ({} if status == 200 else found.headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(told)))
            with suppress(ConnectionError):  # a process that leaves waits for no answer
                self.end_headers()
                self.wfile.write(told)

        def log_message(self, *_about: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found = Collector(f"http://127.0.0.1:{server.server_port}")
    found.hold.set()
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    serving.start()
    try:
        yield found
    finally:
        found.hold.set()
        server.shutdown()
        serving.join()
        server.server_close()
