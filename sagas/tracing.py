"""Traces: ``configure`` sends them, called first in a program; ``document`` writes one, ``send`` sends one again.

Sending needs the extra ``otlp`` (``pip install 'durable-sagas[otlp]'``). Jaeger takes what is sent, at port 4318.

Invariant: what is sent says nothing of the process that sends it, so that every worker sends the same.
"""

import asyncio
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit, urlunsplit

import attrs

from durable_core import DefinitionError, RunNotFound
from durable_core.layer import (
    CURRENT,
    AtExit,
    JournalEntry,
    Posting,
    RunRecord,
    bring_spans,
    collector_at,
    export_directly,
    export_failures,
    jaeger_document,
    otlp_document,
    spans_of,
    whole_spans,
)
from sagas.model.spans import VOCABULARY

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    from sagas.orchestrator import Orchestrator

__all__ = ["StepLogs", "configure", "document", "finish", "flush", "is_set", "send", "wanted"]

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
QUEUE = 20_000
"""Spans that steps' own instrumentation may have waiting; the sagas' own wait in the journal."""
DELAY_MS = 500
"""For how long such spans may wait: so much of them is lost at kill -9, where the library's own 5 s would lose most."""
TRACES = "/v1/traces"
SERVICE = "sagas"
NOT_INSTALLED = "traces need the exporter of OTLP to be sent; install it: pip install 'durable-sagas[otlp]'"
STEP_FIELDS = ("saga_id", "saga_step", "saga_attempt", "trace_id", "span_id")
WRITERS = {"jaeger": jaeger_document, "otlp": otlp_document}

EXIT_S = 1.0
"""How long the end of a process waits for spans of steps' own instrumentation to be taken."""


@attrs.frozen
class _Settings:
    """What ``configure`` was asked for, with what the environment says put in."""

    endpoint: str
    service_name: str
    failures: bool


@attrs.frozen(eq=False)
class _Configured:
    """What this process sends traces with."""

    settings: _Settings
    provider: "TracerProvider"
    ending: AtExit


_configured: list[_Configured] = []
"""At most one: a program has one global provider, for good."""


def wanted() -> bool:
    """Whether the environment says where to send traces."""
    return any(os.environ.get(name) for name in ENDPOINTS) and not _disabled()


def is_set() -> bool:
    """Whether the program has a tracer provider already, be it by ``configure`` or by its own means."""
    if "opentelemetry.sdk.trace" not in sys.modules:
        return False
    from opentelemetry import trace  # noqa: PLC0415 - whoever has set one has loaded it
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415

    return isinstance(trace.get_tracer_provider(), TracerProvider)


def configure(endpoint: str | None = None, service_name: str = SERVICE, *, failures: bool = False) -> "TracerProvider":
    """Send traces by OTLP over HTTP, and install the provider as the program's own.

    The spans of sagas, and those that instrumented code makes within their steps, arrive as one trace for each saga.
    The standard ``OTEL_*`` variables are honoured: endpoint, headers, timeout, sampler, resource attributes, and
    ``OTEL_SERVICE_NAME`` before ``service_name``. With ``OTEL_SDK_DISABLED=true`` nothing is sent.

    It may be called again with the same settings, as when a notebook's cell is run again: then nothing changes. Other
    settings are refused, for a process has one provider from its first call to its end.

    Args:
        endpoint: where the collector is, such as ``http://localhost:4318``; with a path of its own it is used as it
            stands. Default: as the environment says, else ``http://localhost:4318``.
        service_name: what Jaeger lists the sagas under.
        failures: whether a saga that the sampler left out is exported in full once it fails or is stuck.

    Returns:
        The provider, also for other spans; a second call with the same settings gives the first one's.

    Raises:
        DefinitionError: the extra is not installed, the endpoint is no address, the program has set a provider of its
            own, or has called this with other settings.
    """
    url = _checked(endpoint)
    from opentelemetry import trace  # noqa: PLC0415 - only for those who want spans
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    except ImportError as error:
        raise DefinitionError(NOT_INSTALLED) from error
    resource = _resource(service_name)
    settings = _Settings(_collector(url).url, str(resource.attributes["service.name"]), failures)
    if _configured:
        return _same(settings, _configured[0])
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        raise DefinitionError(
            "this program has set a tracer provider already, so sagas.tracing.configure() would not be heard",
            "Call it once and first, or leave it out: an Orchestrator uses the program's own provider",
        )
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)  # a library's hook may wait for half a minute
    if not _disabled():
        size = None if os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE") else QUEUE
        delay_ms = None if os.environ.get("OTEL_BSP_SCHEDULE_DELAY") else DELAY_MS
        exporter = OTLPSpanExporter(url)
        provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=size, schedule_delay_millis=delay_ms))
        _direct(provider, url)
    if failures:
        export_failures(provider)
    trace.set_tracer_provider(provider)
    _configured.append(_Configured(settings, provider, AtExit(provider.shutdown, within_s=EXIT_S)))
    return provider


def _same(asked: _Settings, known: _Configured) -> "TracerProvider":
    """The provider that there is, where it is what is asked for."""
    differing = [
        f"{name}={_plain(value)!r} is asked for, and {_plain(getattr(known.settings, name))!r} is in use"
        for name, value in attrs.asdict(asked).items()
        if value != getattr(known.settings, name)
    ]
    if differing:
        raise DefinitionError(
            f"sagas.tracing.configure() was called before with other settings: {'; '.join(differing)}. Nothing was "
            "changed: a process has one tracer provider from its first call to its end. Restart the process (in a "
            "notebook: its kernel) for the new settings, or give an Orchestrator a tracer_provider of its own"
        )
    return known.provider


def _plain(value: object) -> object:
    """A setting without a password and without what may be a key."""
    if not isinstance(value, str) or "://" not in value:
        return value
    parts = urlsplit(value)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


async def document(
    orchestrator: "Orchestrator", id: str, *, form: Literal["jaeger", "otlp"] = "jaeger", service_name: str = SERVICE
) -> dict[str, Any]:
    """A saga's whole trace as far as it is durable, as plain JSON: Jaeger's own, or OTLP's. Jaeger's page opens either.

    It is made from the journal, so it needs no collector, and neither tracing nor a worker here. Its ids are those of
    the spans that workers send. But each part that has ended is one span with its true times and status, where workers
    send two: a short one at its start, and one that tells the whole at its end. Attempts under way last up to now.
    The trace of a child saga is that of its root.

    Args:
        orchestrator: on the saga's store.
        id: the saga's.
        form: ``jaeger`` or ``otlp``.
        service_name: what Jaeger lists the trace under.

    Raises:
        SagaNotFound: no saga has this id.
    """
    record, entries = await _journal(orchestrator, id)
    spans = whole_spans(record, entries, now_ns=orchestrator.engine.clock.now_ns(), vocabulary=VOCABULARY)
    return WRITERS[form](spans, service=service_name, scope=VOCABULARY.scope)


async def send(
    orchestrator: "Orchestrator",
    id: str,
    *,
    endpoint: str | None = None,
    service_name: str = SERVICE,
    within_s: float = 30.0,
) -> tuple[int, int]:
    """Send a saga's whole trace once more, as far as it is durable: the same spans, to the byte, as its workers send.

    For what a collector has lost or has refused, and for sagas that ran untraced or unsampled.

    Args:
        orchestrator: on the saga's store; it needs neither tracing nor a worker.
        id: the saga's; of a child the whole trace of its root is sent.
        endpoint: where to, as for ``configure``.
        service_name: as for ``configure``.
        within_s: how long to offer them to a collector that does not take them.

    Returns:
        How many spans were taken, and how many were refused for good.

    Raises:
        SagaNotFound: no saga has this id.
        TimeoutError: not all of them were settled in time; they may be sent again.
        DefinitionError: the extra is not installed, or the endpoint is no address.
    """
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - only for those who send spans

    provider = TracerProvider(resource=_resource(service_name), shutdown_on_exit=False)
    _direct(provider, None if endpoint is None else _url(endpoint))
    record, entries = await _journal(orchestrator, id)
    spans = spans_of(record, entries, vocabulary=VOCABULARY)
    async with asyncio.timeout(within_s):
        tally = await bring_spans(spans, provider, VOCABULARY)
    return tally.sent, tally.dropped


async def _journal(orchestrator: "Orchestrator", id: str) -> tuple[RunRecord, list[JournalEntry]]:
    """The saga's row, or that of its root, and what is durable of its journal."""
    await orchestrator.get(id)
    record = await _root(orchestrator, id)
    return record, await orchestrator.engine.journal(record.num)


async def _root(orchestrator: "Orchestrator", id: str) -> RunRecord:
    """The saga of this id, or the one that the child of this id is a part of."""
    try:
        return await orchestrator.engine.find(id)
    except RunNotFound:
        around, _, _ = id.rpartition("/")
        if not around:
            raise
        return await _root(orchestrator, around)


class StepLogs(logging.Filter):
    """Tells on every record which step of which saga it comes from; to be added to a handler.

    A record that is made while a step runs gets ``saga_id``, ``saga_step`` (its key), ``saga_attempt``, ``trace_id``
    and ``span_id`` (hex digits, with and without tracing), and ``saga``: all of them in one text, for a format such as
    ``%(message)s%(saga)s``. One of a saga's own ``s.log`` gets ``saga_id``. On other records they are empty. Nothing
    is ever left out.

    Examples:
        >>> handler = logging.StreamHandler()
        >>> handler.addFilter(StepLogs())
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add what is known of its step to a record.

        Args:
            record: the record; it is always kept.
        """
        attempt = CURRENT.get(None)
        fields: dict[str, str | int] = dict.fromkeys(STEP_FIELDS, "")
        if attempt is not None:
            trace_id, span_id, _ = attempt.span()
            values = (attempt.run_id, attempt.key, attempt.attempt, f"{trace_id:032x}", f"{span_id:016x}")
            fields = dict(zip(fields, values, strict=True))
        else:
            fields["saga_id"] = getattr(record, "run_id", "")
        known = ", ".join(f"{name}={value}" for name, value in fields.items() if value)
        vars(record).update(fields, saga=f" [{known}]" if known else "")
        return True


def flush(within_s: float = 3.0) -> bool:
    """Send what steps' own instrumentation has left waiting, in a program that goes on.

    Args:
        within_s: after how many seconds it gives up.

    Returns:
        Whether it was done in time. What a collector has refused by then is lost all the same.
    """
    for each in _configured:
        sending = threading.Thread(target=each.provider.force_flush, name="last-spans", daemon=True)
        sending.start()
        sending.join(within_s)
        if sending.is_alive():
            return False
    return True


def finish() -> None:
    """Send what steps' own instrumentation has left waiting, and nothing after it; gives up after ``EXIT_S``.

    For a process that ends otherwise than Python does: it is done at the end of the interpreter, once.
    """
    for each in _configured:
        each.ending()


def _disabled() -> bool:
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _direct(provider: "TracerProvider", url: str | None) -> None:
    """Have the spans of sagas sent there, past the provider's queue."""
    export_directly(provider, _collector(url))


def _collector(url: str | None) -> Posting:
    """Where to send to; default as the environment says."""
    try:
        return collector_at(url)
    except ImportError as error:
        raise DefinitionError(NOT_INSTALLED) from error
    except ValueError as error:
        raise DefinitionError(
            f"the environment's OTEL_EXPORTER_OTLP_TIMEOUT is no number of seconds: {error}", "Set one, or unset it"
        ) from error


def _checked(endpoint: str | None) -> str | None:
    """Where to send to; None where that is for the environment to say, of which what it says is looked at too."""
    if endpoint is not None:
        return _url(endpoint)
    for name in ENDPOINTS:
        if wanted() and os.environ.get(name):
            _url(os.environ[name], said=name)
    return None


def _url(endpoint: str, *, said: str = "the endpoint given to sagas.tracing.configure()") -> str:
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise DefinitionError(
            f"{said} is no address of a collector: it wants http:// or https:// and a host, as in http://localhost:4318"
        )
    return urlunsplit(parts._replace(path=TRACES)) if parts.path in ("", "/") else endpoint


def _resource(service_name: str) -> "Resource":
    """The service, and what the environment adds; nothing that tells one process from another."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415

    environment = OTELResourceDetector().detect()
    return Resource({"telemetry.sdk.language": "python", "service.name": service_name}).merge(environment)
