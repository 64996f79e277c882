"""A Jaeger of the tests' own, in memory and on the loopback only, and what its query API says.

Invariant: it is stopped by its own pid, and ends with this process however that ends.
"""

import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx

from tests.postgres_server import end_with_parent

READY_S = 60.0
MANY = 100_000
"""More traces than any test sends; the memory of the server is made for as many."""

NOT_FOUND = 404
WARNINGS = "@jaeger@warnings"


@attrs.frozen
class Span:
    """A span as Jaeger tells it. Times are in whole microseconds."""

    id: str
    parent_id: str | None
    name: str
    service: str
    scope: str
    start_us: int
    duration_us: int
    tags: dict[str, Any]
    events: tuple[dict[str, Any], ...]
    warnings: tuple[str, ...]

    @property
    def failed(self) -> bool:
        """Whether the page shows it as an error."""
        return self.tags.get("error") is True

    def fits(self, service: str, operation: str, since_us: int, tags: Mapping[str, str]) -> bool:
        """Whether a search finds this span, by the rules of Jaeger's memory."""
        told = [self.tags, *self.events]
        return (
            self.service == service
            and operation in ("", self.name)
            and self.start_us >= since_us
            and all(any(str(one.get(key)) == value for one in told) for key, value in tags.items())
        )


@attrs.frozen
class Jaeger:
    """A Jaeger that runs."""

    otlp: str
    """Where it takes OTLP over HTTP."""
    page: str
    """Its page and query API."""
    _http: httpx.Client

    def trace(self, trace_id: str) -> list[Span]:
        """The spans of a trace, as its page gets them; empty where it knows none."""
        answer = self._http.get(f"{self.page}/api/traces/{trace_id}")
        if answer.status_code == NOT_FOUND:
            return []
        return _spans(*answer.raise_for_status().json()["data"])

    def raw(self, trace_id: str) -> dict[str, Any]:
        """A trace just as the query API tells it."""
        (found,) = self._http.get(f"{self.page}/api/traces/{trace_id}").raise_for_status().json()["data"]
        return found

    def warnings_of_v3(self, trace_id: str) -> list[str]:
        """What the query API of version 3 notes on the trace's spans, with their names."""
        answer = self._http.get(f"{self.page}/api/v3/traces/{trace_id}").raise_for_status().json()["result"]
        spans = [
            span for resource in answer["resourceSpans"] for scope in resource["scopeSpans"] for span in scope["spans"]
        ]
        return [
            f"{span['name']}: {pair['value']}"
            for span in spans
            for pair in span.get("attributes", ())
            if pair["key"] == WARNINGS
        ]

    def search(
        self, service: str, operation: str = "", tags: Mapping[str, str] | None = None, *, since_us: int = 0
    ) -> dict[str, list[Span]]:
        """The traces that a search finds, by id: those with a span, begun since then, for which all of it holds.

        ``error`` is looked at here: the memory of Jaeger 1.76 takes the page's ``error=true`` for a false
        (jaegertracing/jaeger#8217), and finds nothing.
        """
        tags = dict(tags or {})
        error = tags.pop("error", None)
        query = {"service": service, "operation": operation, "tags": json.dumps(tags)}
        times = {"start": since_us, "end": time.time_ns() // 1000, "limit": MANY}
        answer = self._http.get(f"{self.page}/api/traces", params={**query, **times}).raise_for_status().json()
        found = {trace["traceID"]: _spans(trace) for trace in answer["data"]}
        if error is None:
            return found
        assert error == "true", "what is no error is not searched for"
        return {
            id: spans
            for id, spans in found.items()
            if any(span.failed and span.fits(service, operation, since_us, tags) for span in spans)
        }

    def take(self, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        """A request of OTLP, as some exporter has made it."""
        return self._http.post(f"{self.otlp}/v1/traces", content=body, headers=dict(headers))


def _spans(trace: dict[str, Any]) -> list[Span]:
    services = {key: process["serviceName"] for key, process in trace["processes"].items()}
    return [_span(span, services[span["processID"]]) for span in trace["spans"]]


def _span(span: dict[str, Any], service: str) -> Span:
    tags = {tag["key"]: tag["value"] for tag in span["tags"]}
    parents = [one["spanID"] for one in span["references"] if one["refType"] == "CHILD_OF"]
    return Span(
        span["spanID"],
        parents[0] if parents else None,
        span["operationName"],
        service,
        tags.get("otel.scope.name", ""),
        span["startTime"],
        span["duration"],
        tags,
        tuple({field["key"]: field["value"] for field in log["fields"]} for log in span["logs"]),
        tuple(span["warnings"] or ()),
    )


def _settings(otlp: int, page: int, grpc: int, skew_s: int) -> dict[str, Any]:
    """All that listens is named here, and on the loopback."""
    return {
        "service": {
            "extensions": ["jaeger_storage", "jaeger_query"],
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}},
            "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
        },
        "extensions": {
            "jaeger_storage": {"backends": {"memory": {"memory": {"max_traces": MANY}}}},
            "jaeger_query": {
                "storage": {"traces": "memory"},
                "max_clock_skew_adjust": f"{skew_s}s",
                "http": {"endpoint": f"127.0.0.1:{page}"},
                "grpc": {"endpoint": f"127.0.0.1:{grpc}"},
            },
        },
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{otlp}"}}}},
        "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
    }


@contextmanager
def jaeger(program: Path, *, skew_s: int = 0) -> Iterator[Jaeger]:
    """Run it; ``skew_s`` is its ``max_clock_skew_adjust``, of which 0 is its default."""
    with tempfile.TemporaryDirectory(prefix="sagas-jaeger-") as name, httpx.Client(trust_env=False, timeout=60) as http:
        otlp, page, grpc = _free_ports(3)
        settings, log = Path(name, "config.yaml"), Path(name, "log")
        settings.write_text(json.dumps(_settings(otlp, page, grpc, skew_s)))  # JSON is YAML too
        with log.open("wb") as output:
            process = subprocess.Popen(
                [program, "--config", settings],
                stdout=output,
                stderr=output,
                preexec_fn=end_with_parent,  # noqa: PLW1509 - it calls nothing that a thread could hold a lock of
            )
        try:
            running = Jaeger(f"http://127.0.0.1:{otlp}", f"http://127.0.0.1:{page}", http)
            _await_answer(running, process, log)
            yield running
        finally:
            process.terminate()
            process.wait(60)


def _free_ports(number: int) -> list[int]:
    held = [socket.socket() for _ in range(number)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


def _await_answer(running: Jaeger, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + READY_S
    while True:
        assert process.poll() is None, log.read_text()
        try:
            httpx.get(f"{running.page}/api/services", trust_env=False).raise_for_status()
            running.take(b"", {"Content-Type": "application/x-protobuf"}).raise_for_status()
        except (httpx.TransportError, httpx.HTTPStatusError):
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)  # another process makes it true
        else:
            return
