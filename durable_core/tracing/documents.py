"""A trace as a file, without any collector: Jaeger's own JSON, and OTLP as JSON.

Jaeger's page takes either by drag and drop. Nothing here but the standard forms; ids are hex digits in both.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from durable_core.tracing.span import SpanEvent, SpanRecord, Value

Json = dict[str, Any]


def jaeger_document(spans: Sequence[SpanRecord], *, service: str, scope: str) -> Json:
    """The trace as ``/api/traces/ID`` of Jaeger's query service tells it. Times are in whole microseconds."""
    trace_id = f"{spans[0].trace_id:032x}" if spans else ""
    return {
        "data": [
            {
                "traceID": trace_id,
                "spans": [_jaeger_span(span, scope) for span in spans],
                "processes": {"p1": {"serviceName": service, "tags": []}},
                "warnings": None,
            }
        ],
        "total": 0,
        "limit": 0,
        "offset": 0,
        "errors": None,
    }


def _jaeger_span(span: SpanRecord, scope: str) -> Json:
    start_us = span.start_ns // 1_000
    references = [] if span.parent_id is None else [_reference("CHILD_OF", span.trace_id, span.parent_id)]
    references += [_reference("FOLLOWS_FROM", link.trace_id, link.span_id) for link in span.links]
    tags = [*_tags(span.attributes), *_tags({"otel.scope.name": scope, "span.kind": "internal"})]
    if span.failed:
        tags += _tags({"error": True, "otel.status_code": "ERROR"})
    return {
        "traceID": f"{span.trace_id:032x}",
        "spanID": f"{span.span_id:016x}",
        "operationName": span.name,
        "references": references,
        "startTime": start_us,
        "duration": span.end_ns // 1_000 - start_us,
        "tags": tags,
        "logs": [_log(event) for event in span.events],
        "processID": "p1",
        "warnings": None,
    }


def _reference(kind: str, trace_id: int, span_id: int) -> Json:
    return {"refType": kind, "traceID": f"{trace_id:032x}", "spanID": f"{span_id:016x}"}


def _log(event: SpanEvent) -> Json:
    fields = [*_tags({"event": event.name}), *_tags(event.attributes)]
    return {"timestamp": event.at_ns // 1_000, "fields": fields}


def _tags(attributes: Mapping[str, Value]) -> Iterator[Json]:
    for key, value in attributes.items():
        match value:
            case bool():
                yield {"key": key, "type": "bool", "value": value}
            case int():
                yield {"key": key, "type": "int64", "value": value}
            case str():
                yield {"key": key, "type": "string", "value": value}
            case float():
                yield {"key": key, "type": "float64", "value": value}
            case _:
                yield {
                    "key": key,
                    "type": "string",
                    "value": json.dumps(value, ensure_ascii=False, separators=(",", ":")),
                }


def otlp_document(spans: Iterable[SpanRecord], *, service: str, scope: str) -> Json:
    """The trace as the body of an OTLP/HTTP request in JSON (``ExportTraceServiceRequest``)."""
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _pairs({"service.name": service})},
                "scopeSpans": [{"scope": {"name": scope}, "spans": [_otlp_span(span) for span in spans]}],
            }
        ]
    }


def _otlp_span(span: SpanRecord) -> Json:
    found: Json = {
        "traceId": f"{span.trace_id:032x}",
        "spanId": f"{span.span_id:016x}",
        "name": span.name,
        "kind": 1,
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _pairs(span.attributes),
        "events": [
            {"timeUnixNano": str(event.at_ns), "name": event.name, "attributes": _pairs(event.attributes)}
            for event in span.events
        ],
        "links": [{"traceId": f"{link.trace_id:032x}", "spanId": f"{link.span_id:016x}"} for link in span.links],
        "status": {"code": 2} if span.failed else {},
    }
    if span.parent_id is not None:
        found["parentSpanId"] = f"{span.parent_id:016x}"
    return found


def _pairs(attributes: Mapping[str, Value]) -> list[Json]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: Value) -> Json:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case str():
            return {"stringValue": value}
        case float():
            return {"doubleValue": value}
        case _:
            return {"arrayValue": {"values": [_value(part) for part in value]}}
