"""OTLP over HTTP, as far as sending spans goes: the one file that imports requests, loaded only where spans are sent.

OpenTelemetry's own exporter takes its own spans only, which cost five times as much to make as the bytes do, and it
keeps to itself what a collector has answered. What it reads from the environment is read here alike.
"""

import gzip
import os
import re
import zlib
from collections.abc import Callable, Mapping

import requests
from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.util.re import parse_env_headers
from requests.utils import get_environ_proxies

from durable_core.tracing.answers import Accepted, Answer, Later, answer_to

BASE = "http://localhost:4318"
PATH = "v1/traces"
TIMEOUT_S = 10.0
PACKED: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
LONGEST_ANSWER = 64 << 10
_WHO = re.compile(r"(?<=//)[^/\s]*@|[^\s/'\"]+:[^\s/]+@")
"""A user and a password before a host: the library's own texts repeat them."""


def variable(name: str) -> str:
    """``OTEL_EXPORTER_OTLP_TRACES_<name>``, else ``OTEL_EXPORTER_OTLP_<name>``, else empty."""
    return os.environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or os.environ.get(f"OTEL_EXPORTER_OTLP_{name}") or ""


def endpoint_here() -> str:
    """Where the environment says that traces go."""
    own = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or BASE
    return own or f"{base.rstrip('/')}/{PATH}"


class Collector:
    """One endpoint for traces. Used by one thread at a time.

    Args:
        url: the whole address; default as the environment says.
        headers: besides those of the environment.
        timeout_s: for one request; default as the environment says, else 10 seconds.
    """

    def __init__(
        self, url: str | None = None, *, headers: Mapping[str, str] | None = None, timeout_s: float | None = None
    ) -> None:
        self.url = url or endpoint_here()
        self._timeout_s = timeout_s or float(variable("TIMEOUT") or TIMEOUT_S)
        self._pack = PACKED.get(variable("COMPRESSION").strip().lower())
        self._session = session = requests.Session()
        session.headers.update(parse_env_headers(variable("HEADERS"), liberal=True))
        session.headers.update(headers or {})
        session.headers["Content-Type"] = "application/x-protobuf"
        if self._pack is not None:
            session.headers["Content-Encoding"] = variable("COMPRESSION").strip().lower()
        # Proxies and certificates are looked up once, not for each request: that took four fifths of its time.
        session.trust_env = False
        session.proxies.update(get_environ_proxies(self.url, no_proxy=None))
        session.verify = variable("CERTIFICATE") or os.environ.get("REQUESTS_CA_BUNDLE") or True
        certificate, key = variable("CLIENT_CERTIFICATE"), variable("CLIENT_KEY")
        if certificate:
            session.cert = (certificate, key) if key else certificate

    def post(self, data: bytes) -> Answer:
        """Send one ``ExportTraceServiceRequest``."""
        body = data if self._pack is None else self._pack(data)
        try:
            # Not redirected: the second request would be a GET, and a collector would be happy with it.
            answer = self._session.post(self.url, body, timeout=self._timeout_s, allow_redirects=False)
        except (requests.RequestException, OSError) as error:
            return Later(_shown(f"{self.url} cannot be reached: {type(error).__name__}: {error}"))
        if answer.ok and not answer.is_redirect:
            return taken(answer.content[:LONGEST_ANSWER])
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return answer_to(answer.status_code, headers)._replace(why=_shown(f"{self.url} answered {answer.status_code}"))


def _shown(text: str) -> str:
    """What may be logged of it."""
    return _WHO.sub("***@", text)


def taken(body: bytes) -> Accepted:
    """A success, whole or partial. What is no message of OTLP is the answer of a collector that says no more than yes.

    A partial success is not sent again: OTLP forbids it, for the collector has said that it will not keep the rest.
    """
    try:
        partial = ExportTraceServiceResponse.FromString(body).partial_success
    except DecodeError:
        return Accepted()
    return Accepted(max(0, partial.rejected_spans), partial.error_message[:1_000])
