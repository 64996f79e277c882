"""Spans as the protobuf that OTLP sends, written by hand: a fifth of the time that the library's messages take.

A request is ``ExportTraceServiceRequest`` of opentelemetry-proto 1.x, whose field numbers are fixed for good. A test
holds every byte's meaning against the library's own encoder.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from struct import Struct

from durable_core.tracing.export_thread import breathing
from durable_core.tracing.span import SpanEvent, SpanLink, SpanRecord, Value

_FIXED64 = Struct("<Q").pack
_DOUBLE = Struct("<d").pack
_TIMES = Struct("<2scQcQ").pack
_IDS, _OWN_ID = b"\x0a\x10", b"\x12\x08"
_SPAN, _ATTRIBUTE, _EVENT, _LINK = b"\x12", b"\x4a", b"\x5a", b"\x6a"
_KIND_INTERNAL = b"\x30\x01"
_OK, _ERROR = b"\x7a\x00", b"\x7a\x02\x18\x02"
_FLAGS_LOCAL, _FLAGS_REMOTE = b"\x85\x01\x00\x01\x00\x00", b"\x85\x01\x00\x03\x00\x00"
"""Whether the parent is remote is known, and whether it is."""
_LINK_FLAGS = b"\x35\x00\x01\x00\x00"
_ONE_BYTE = 0x80
_BRIEF = 64
"""Texts up to this length have a head that is kept for each length."""
_MASK = (1 << 64) - 1


class Encoder:
    """Writes requests about one resource and one instrumentation."""

    def __init__(self, resource: Mapping[str, Value], *, scope: str, version: str, schema_url: str = "") -> None:
        about = b"".join(_part(b"\x0a", _pair(key, value)) for key, value in resource.items())
        named = _text(b"\x0a", scope) + (_text(b"\x12", version) if version else b"")
        self._resource = _part(b"\x0a", about)
        self._schema = _text(b"\x1a", schema_url) if schema_url else b""
        self._scope = _part(b"\x0a", named)

    def __call__(self, spans: Sequence[SpanRecord]) -> bytes:
        """One request.

        Raises:
            TypeError: a time is not a whole number.
        """
        scoped = self._scope + b"".join([_span(span) for span in breathing(spans)])
        return _part(b"\x0a", self._resource + _part(b"\x12", scoped) + self._schema)


def _span(span: SpanRecord) -> bytes:
    if type(span.start_ns) is not int or type(span.end_ns) is not int:
        raise TypeError(f"span {span.name!r}: its times must be whole nanoseconds")
    parts = [
        _IDS + span.trace_id.to_bytes(16, "big") + _OWN_ID + span.span_id.to_bytes(8, "big"),
        b"" if span.parent_id is None else b"\x22\x08" + span.parent_id.to_bytes(8, "big"),
        _known_text(b"\x2a", span.name),
        _TIMES(_KIND_INTERNAL, b"\x39", span.start_ns, b"\x41", span.end_ns),
    ]
    kept = _KEPT
    for key, value in span.attributes.items():
        kind = type(value)
        known = kept.get(key) if kind is str or kind is int else None  # True is 1, and is written otherwise
        if known is not None:
            written = known.get(value)
            parts.append(written if written is not None else _keep(known, key, value))
        elif kind is str and len(value) < _BRIEF and value.isascii():  # type: ignore[arg-type, union-attr]
            parts += (_head(key, len(value)), value.encode())  # type: ignore[arg-type, union-attr]
        else:
            parts.append(_attribute(key, value))
    if span.events:
        parts += [_part(_EVENT, _event(event)) for event in span.events]
    if span.links:
        parts += [_part(_LINK, _link(link)) for link in span.links]
    parts += (_ERROR if span.failed else _OK, _FLAGS_REMOTE if span.remote_parent else _FLAGS_LOCAL)
    return _part(_SPAN, b"".join(parts))


def _event(event: SpanEvent) -> bytes:
    attributes = b"".join(_part(b"\x1a", _pair(key, value)) for key, value in event.attributes.items())
    return b"\x09" + _FIXED64(event.at_ns) + _text(b"\x12", event.name) + attributes


def _link(link: SpanLink) -> bytes:
    return b"\x0a\x10" + link.trace_id.to_bytes(16, "big") + b"\x12\x08" + link.span_id.to_bytes(8, "big") + _LINK_FLAGS


def _pair(key: str, value: Value) -> bytes:
    """A ``KeyValue``."""
    return _known_text(b"\x0a", key) + _part(b"\x12", _value(value))


def _value(value: Value) -> bytes:
    """An ``AnyValue``."""
    match value:
        case str():
            return _text(b"\x0a", value)
        case bool():
            return b"\x10\x01" if value else b"\x10\x00"
        case int():
            return b"\x18" + _varint(value & _MASK)
        case float():
            return b"\x21" + _DOUBLE(value)
        case _:
            return _part(b"\x2a", b"".join(_part(b"\x0a", _value(part)) for part in value))


def _text(tag: bytes, text: str) -> bytes:
    return _part(tag, text.encode("utf-8", "replace"))


def _part(tag: bytes, data: bytes) -> bytes:
    """A field whose length comes first."""
    return tag + _length(len(data)) + data


def _length(number: int) -> bytes:
    return _SHORT[number] if number < _ONE_BYTE else _varint(number)


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    found = bytearray()
    while number >= _ONE_BYTE:
        found.append(number & 0x7F | _ONE_BYTE)
        number >>= 7
    found.append(number)
    return bytes(found)


_SHORT = tuple(bytes((number,)) for number in range(_ONE_BYTE))
_known_text = lru_cache(1_000)(_text)


def _attribute(key: str, value: Value) -> bytes:
    """A span's attribute, as a field of the span."""
    return _part(_ATTRIBUTE, _pair(key, value))


@lru_cache(1_000)
def _head(key: str, size: int) -> bytes:
    """What comes before the value of an attribute that is a brief text of so many bytes."""
    written = _attribute(key, "x" * size)
    return written[: len(written) - size]


_MOST_KEPT = 1_000
"""Values of one attribute."""
_KEPT: dict[str, dict[Value, bytes]] = {}
"""Attributes that have few values: what was written for each is kept. By the attribute's name."""


def _keep(known: dict[Value, bytes], key: str, value: Value) -> bytes:
    if len(known) >= _MOST_KEPT:
        known.clear()  # they are not so few after all
    written = known[value] = _attribute(key, value)
    return written


def keep(names: Sequence[str]) -> None:
    """Note that these attributes have few values."""
    for name in names:
        _KEPT.setdefault(name, {})
