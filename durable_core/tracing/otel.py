"""To and from OpenTelemetry: the one place of the core that imports it, and only where spans are wanted.

Invariant: ids and times are ours. A span is handed over as one that has ended, so that no sampler, clock or id
generator of the library has a say in it.
"""

import logging
import struct
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextvars import Token
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, cast

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, Tracer, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace.status import Status, StatusCode

from durable_core.model.failure import capture, describe
from durable_core.model.said import STACK, Saying
from durable_core.model.trace import Mode, Origin, span_id_of, trace_id_of
from durable_core.tracing.answers import Accepted, Answer, Later, Posting
from durable_core.tracing.export_thread import breathing
from durable_core.tracing.otlp import Encoder, keep
from durable_core.tracing.span import SpanRecord, Value

log = logging.getLogger("durable_core.tracing")

PER_PROCESS = ("process.", "host.", "os.", "container.", "thread.", "k8s.pod.", "service.instance.id")
"""Parts of a resource that would differ between the workers which export one saga."""
FLUSH_MS = 30_000
FEW_VALUES = (
    "step.name",
    "step.kind",
    "step.attempt",
    "step.outcome",
    "worker.id",
    "worker.host",
    "worker.pid",
    "name",
    "version",
    "status",
    "cause",
)

_SAMPLED, _DROPPED = trace.TraceFlags(trace.TraceFlags.SAMPLED), trace.TraceFlags(trace.TraceFlags.DEFAULT)
_NOWHERE = otel_context.Context()
_ERROR, _UNSET = Status(StatusCode.ERROR), Status(StatusCode.UNSET)
_SAYING = threading.Lock()
"""A step's code may be on several threads."""
_DIRECT: "weakref.WeakKeyDictionary[TracerProvider, SpanExporter | Posting]" = weakref.WeakKeyDictionary()
_FAILURES: "weakref.WeakSet[TracerProvider]" = weakref.WeakSet()


def export_directly(provider: TracerProvider, exporter: "SpanExporter | Posting") -> None:
    """Have the spans of runs go to ``exporter`` where ``provider`` is in use.

    An exporter says what was taken, and so nothing is lost; a provider's queue does not.
    """
    _DIRECT[provider] = exporter


def export_failures(provider: TracerProvider) -> None:
    """Where ``provider`` is in use, export a run in full that was not sampled and fails."""
    _FAILURES.add(provider)


def exports_failures(provider: TracerProvider) -> bool:
    """Whether runs that were not sampled are exported once they fail."""
    return provider in _FAILURES


def provider_of(given: object) -> TracerProvider | None:
    """The provider to use: the one given, else the global one where it is one of the SDK; None: no spans.

    Raises:
        TypeError: what was given is no provider.
    """
    found = trace.get_tracer_provider() if given is None else given
    if isinstance(found, TracerProvider):
        return found
    if not isinstance(found, trace.TracerProvider):
        raise TypeError(f"tracer_provider={given!r} is no provider of opentelemetry")
    return None  # of the API alone: it drops what it is given


class Converter:
    """Makes the library's spans of ours."""

    def __init__(self, resource: Resource, scope: str) -> None:
        kept = {name: value for name, value in resource.attributes.items() if not name.startswith(PER_PROCESS)}
        self._resource = Resource(kept, resource.schema_url)
        self._scope = InstrumentationScope(scope, version_here())

    def encoder(self) -> Encoder:
        """Writes the same spans as bytes of OTLP."""
        about = {name: _plain(value) for name, value in self._resource.attributes.items()}
        scope = self._scope
        return Encoder(about, scope=scope.name, version=scope.version or "", schema_url=self._resource.schema_url)

    def __call__(self, span: SpanRecord) -> ReadableSpan:
        """One span.

        Raises:
            TypeError: a time is not a whole number; an exporter would drop the whole batch for it.
        """
        if type(span.start_ns) is not int or type(span.end_ns) is not int:
            raise TypeError(f"span {span.name!r}: its times must be whole nanoseconds")
        parent = None
        if span.parent_id is not None:
            parent = trace.SpanContext(span.trace_id, span.parent_id, span.remote_parent, _SAMPLED)
        return ReadableSpan(
            span.name,
            context=trace.SpanContext(span.trace_id, span.span_id, is_remote=False, trace_flags=_SAMPLED),
            parent=parent,
            resource=self._resource,
            attributes=span.attributes,
            events=[Event(event.name, event.attributes, event.at_ns) for event in span.events],
            links=[
                trace.Link(trace.SpanContext(link.trace_id, link.span_id, is_remote=False, trace_flags=_SAMPLED))
                for link in span.links
            ],
            status=_ERROR if span.failed else _UNSET,
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=self._scope,
        )


def _plain(value: Any) -> Value:
    """An attribute of a resource in our own terms."""
    if isinstance(value, str | int | bool):
        return value
    return tuple(str(part) for part in cast("Sequence[object]", value))


def version_here() -> str:
    """The release of this package; empty where it is not installed."""
    try:
        return version("durable-sagas")
    except PackageNotFoundError:
        return ""


class OtelSink:
    """Sends spans by a provider's own processors, or by what was named for it: a collector, or an exporter."""

    def __init__(self, provider: TracerProvider, scope: str, prefix: str) -> None:
        self._convert = Converter(provider.resource, scope)
        tracer = provider.get_tracer(scope)
        self._processor = tracer.span_processor if isinstance(tracer, Tracer) else None
        self._direct = _DIRECT.get(provider)
        self._encode = self._convert.encoder()
        keep([f"{prefix}.{name}" for name in FEW_VALUES])

    def send(self, spans: Sequence[SpanRecord]) -> Answer:
        """Send them; see ``SpanSink.send``."""
        try:
            return self._sent(spans)
        except Exception as error:
            log.exception("%d spans could not be exported; they are offered again", len(spans))
            return Later(f"{type(error).__name__}: {error}")

    def _sent(self, spans: Sequence[SpanRecord]) -> Answer:
        direct = self._direct
        if direct is not None and not isinstance(direct, SpanExporter):
            return direct.post(self._written(spans))
        converted = [self._convert(span) for span in breathing(spans)]
        if direct is not None:
            took = direct.export(converted) is SpanExportResult.SUCCESS
            return Accepted() if took else Later(f"{type(direct).__name__} has failed")
        if self._processor is None:
            return Accepted()  # the provider has been switched off
        for span in converted:
            self._processor.on_end(span)
        return (
            Accepted()
            if self._processor.force_flush(FLUSH_MS)
            else Later("the provider's processors have not sent them")
        )

    def _written(self, spans: Sequence[SpanRecord]) -> bytes:
        """One request. A span that cannot be written must not keep the others from it."""
        try:
            return self._encode(spans)
        except (TypeError, ValueError, OverflowError, struct.error):
            return self._encode([span for span in spans if self._writable(span)])

    def _writable(self, span: SpanRecord) -> bool:
        try:
            self._encode([span])
        except (TypeError, ValueError, OverflowError, struct.error):
            log.exception("span %r cannot be written, and is left out", span.name)
            return False
        return True


class _AttemptSpan(trace.NonRecordingSpan):
    """The span of an attempt for the code that runs in it; recorded it is elsewhere, from the journal.

    Attributes and events that the code sets are kept, bounded, until the attempt is over; the journal has them then.
    Name, status and end are the attempt's own.
    """

    def __init__(
        self, identify: Callable[[], tuple[int, int, bool]], now_ns: Callable[[], int], *, unsampled_too: bool
    ) -> None:
        super().__init__(trace.INVALID_SPAN_CONTEXT)
        self._identify: Callable[[], tuple[int, int, bool]] | None = identify
        self._now_ns = now_ns
        self._unsampled_too = unsampled_too
        self._saying: Saying | None = None
        self._over = False

    def get_span_context(self) -> trace.SpanContext:
        """Its ids; worked out when they are first asked for."""
        if self._identify is not None:
            trace_id, span_id, sampled = self._identify()
            self._identify = None
            self._context = trace.SpanContext(trace_id, span_id, False, _SAMPLED if sampled else _DROPPED)  # noqa: FBT003
        return self._context

    def is_recording(self) -> bool:
        """Whether what is set on it is kept: until the attempt is over, where its run is exported, or may be."""
        return not self._over and (self._unsampled_too or self.get_span_context().trace_flags.sampled)

    def set_attribute(self, key: str, value: object) -> None:
        """Keep an attribute."""
        self.set_attributes({key: value})

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Keep attributes."""
        if self.is_recording():
            with _SAYING:
                saying = self._said()
                for name, value in attributes.items():
                    saying.attribute(str(name), value)

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None) -> None:
        """Keep an event."""
        if self.is_recording():
            at_ns = self._now_ns() if timestamp is None else int(timestamp)
            with _SAYING:
                self._said().event(str(name), at_ns, attributes or {})

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,  # noqa: FBT001, FBT002, ARG002 - the library's signature
    ) -> None:
        """Keep an exception as the event that OpenTelemetry has for it."""
        text = describe(capture(exception))
        texts = {"exception.type": text.type_name, "exception.message": text.message, STACK: text.traceback}
        self.add_event("exception", {**texts, **(attributes or {})}, timestamp)

    def _said(self) -> Saying:
        if self._saying is None:
            self._saying = Saying()
        return self._saying

    def over(self) -> bytes | None:
        """The attempt is over: what was said in it, for the journal."""
        self._over = True
        return None if self._saying is None else self._saying.stored()

    def __repr__(self) -> str:
        return f"<the span of an attempt, {self.get_span_context()!r}>"


_Entered = tuple[Token[otel_context.Context], _AttemptSpan]


class OtelContext:
    """What runs and the code of their steps know of tracing."""

    def __init__(self, provider: TracerProvider) -> None:
        self._sampler = provider.sampler
        self._failures = exports_failures(provider)

    def origin(self, uid: bytes, name: str, mode: Literal["link", "join"]) -> str | None:
        """What is to be stored of the trace of a run that begins here: its caller, and whether it is sampled."""
        caller = trace.get_current_span().get_span_context()
        joins = mode == "join" and caller.is_valid
        around = trace.set_span_in_context(trace.NonRecordingSpan(caller)) if joins else otel_context.Context()
        trace_id = caller.trace_id if joins else trace_id_of(uid)
        decision = self._sampler.should_sample(around, trace_id, name).decision
        sampled = decision is Decision.RECORD_AND_SAMPLE
        if caller.is_valid:
            return Origin(mode, caller.trace_id, caller.span_id, sampled).stored()
        own: Mode = "self"
        return None if sampled else Origin(own, trace_id, span_id_of(uid, "run"), sampled).stored()

    def enter(self, identify: Callable[[], tuple[int, int, bool]], now_ns: Callable[[], int]) -> _Entered:
        """Make an attempt's span the current one: what its code begins is under it."""
        span = _AttemptSpan(identify, now_ns, unsampled_too=self._failures)
        return otel_context.attach(trace.set_span_in_context(span, _NOWHERE)), span

    def leave(self, token: _Entered) -> bytes | None:
        """The attempt is over; what its code has said."""
        attached, span = token
        otel_context.detach(attached)
        return span.over()
