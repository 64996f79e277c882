"""One trace for an order: the saga, each call as the shop made it, and each call as the service saw it.

Sent where ``OTEL_EXPORTER_OTLP_ENDPOINT`` says. By hand, to show all there is to it; the packages
``opentelemetry-instrumentation-httpx`` and ``-starlette`` do the same.
"""

import asyncio
import logging
import os
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
from opentelemetry import propagate, trace
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sagas import Orchestrator, tracing

NO_ANSWER = 500
log = logging.getLogger(__name__)
_too_slow = threading.Event()
"""Set once a call has waited too long for the collector."""


def begin(service: str) -> None:
    """Have this process send its spans as those of ``service``, if somebody wants them."""
    if tracing.wanted():
        os.environ.setdefault("OTEL_BSP_SCHEDULE_DELAY", "50")  # milliseconds: some of these processes are killed soon
        tracing.configure(service_name=service)


@asynccontextmanager
async def calling(operation: str) -> AsyncGenerator[dict[str, str]]:
    """A call to a service: yields the headers that carry the trace to it.

    Its span has been sent when the block is left, so before the journal has the outcome of the step that makes it:
    kill -9 takes the spans of calls under way, and no others.
    """
    tracer = trace.get_tracer("examples.participants.calls")
    try:
        with tracer.start_as_current_span(f"POST /{operation}", kind=trace.SpanKind.CLIENT):
            headers: dict[str, str] = {}
            propagate.inject(headers)
            yield headers
    finally:
        await _sent()


async def _sent() -> None:
    """Have the spans that have ended sent; a collector that once takes too long is not waited for any more."""
    if not _too_slow.is_set() and not await asyncio.to_thread(tracing.flush):
        _too_slow.set()
        log.warning("the collector does not take spans in time; the calls do not wait for it any more")


def answered(response: httpx.Response) -> None:
    """Note the answer on the call's span."""
    trace.get_current_span().set_attribute("http.response.status_code", response.status_code)


class Traced:
    """A service whose requests are spans, in the trace of whoever calls."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._tracer = trace.get_tracer("examples.participants")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, _flushing(send))
            return
        if scope["type"] != "http" or scope["path"].startswith("/admin"):
            await self._app(scope, receive, send)
            return
        caller = propagate.extract({name.decode(): value.decode("latin-1") for name, value in scope["headers"]})
        name = f"{scope['method']} {scope['path']}"
        with self._tracer.start_as_current_span(name, caller, kind=trace.SpanKind.SERVER, end_on_exit=False) as span:

            async def noting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= NO_ANSWER:
                        span.set_status(trace.StatusCode.ERROR)
                if message["type"] == "http.response.body" and not message.get("more_body"):
                    span.end()  # before the answer is out: it cannot outlast the caller's span, as if clocks differed
                await send(message)

            try:
                await self._app(scope, receive, noting)
            finally:
                if span.is_recording():
                    span.end()


def _flushing(send: Send) -> Send:
    """Before the server says that it is down, and its process is ended, send what is left."""

    async def sending(message: Message) -> None:
        if message["type"].startswith("lifespan.shutdown"):
            await asyncio.to_thread(tracing.flush)
        await send(message)

    return sending


async def write(orchestrator: Orchestrator, order_id: str, directory: Path) -> Path:
    """Write the trace of an order's saga to a file that Jaeger's page opens."""
    file = directory / f"{order_id}.json"
    trace_of_it = await tracing.document(orchestrator, order_id, service_name="shop")
    await asyncio.to_thread(_keep, file, msgspec.json.encode(trace_of_it))
    return file


def _keep(file: Path, written: bytes) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(written)
