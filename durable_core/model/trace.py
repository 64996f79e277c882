"""The identities of a run's trace: derived from its uid, so that every worker and every replay has the same.

Invariant: no clock and no chance. What the journal says of an attempt when it begins is enough for its span's id, so
that the id is known while the attempt runs.
"""

import hashlib
import re
from typing import Literal, NamedTuple

Mode = Literal["link", "join", "self"]

_STORED = re.compile(r"(link|join|self):00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SAMPLED = 1
ATTEMPT = "attempt"
"""The kind of a span that is an attempt."""


class Origin(NamedTuple):
    """What was decided about a run's trace at its start, once and for all."""

    mode: Mode
    """``link`` and ``join``: how it relates to its caller's span. ``self``: it has no caller."""
    trace_id: int
    span_id: int
    """The caller's trace and span; for ``self`` the run's own, which say nothing new."""
    sampled: bool
    """Whether the run's spans are exported."""

    def stored(self) -> str:
        """As the run's row keeps it: ``link:00-...``."""
        return f"{self.mode}:{traceparent(self.trace_id, self.span_id, sampled=self.sampled)}"


def origin_of(stored: str | None) -> Origin | None:
    """What the run's row says of its trace; None where there was no caller and nothing to decide: it is sampled."""
    found = None if stored is None else _STORED.fullmatch(stored)
    if found is None:
        return None
    mode, trace_id, span_id, flags = found.groups()
    return Origin(mode, int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & _SAMPLED))  # type: ignore[arg-type]


def asked_by(caller: str | None, mode: Literal["link", "join"]) -> str | None:
    """What the run's row keeps of the caller's ``traceparent`` where this process traces nothing; None for none."""
    origin = origin_of(f"{mode}:{caller}")
    return None if origin is None else origin.stored()


def traceparent(trace_id: int, span_id: int, *, sampled: bool) -> str:
    """A W3C trace context, as the header ``traceparent`` holds it."""
    return f"00-{trace_id:032x}-{span_id:016x}-{int(sampled):02x}"


def trace_id_of(uid: bytes, origin: Origin | None = None) -> int:
    """The trace of the run with this uid: its own, or its caller's where it joins that."""
    if origin is not None and origin.mode == "join":
        return origin.trace_id
    return int.from_bytes(hashlib.blake2b(uid, digest_size=16).digest(), "big") or 1


def span_id_of(uid: bytes, kind: str, key: str = "", attempt: int = 0, seq: int = 0) -> int:
    """The id of a span.

    Args:
        uid: the run's.
        kind: what the span is: ``run``, ``attempt``, ``wait`` ...
        key: the step, wait or mark that it is about.
        attempt: its attempt, where it has one.
        seq: the journal entry that tells it from others like it; for an attempt, its step's intent.
    """
    return SpanIds(uid).of(kind, key, attempt, seq)


def attempt_span_id(uid: bytes, key: str, attempt: int, intent: int) -> int:
    """The id of the span of one attempt; ``intent`` is the seq of its step's ``started`` entry."""
    return span_id_of(uid, ATTEMPT, key, attempt, intent)


class SpanIds:
    """The ids of one run's spans; see ``span_id_of``. For many of them: the key is taken in once."""

    __slots__ = ("_keyed",)

    def __init__(self, uid: bytes) -> None:
        self._keyed = hashlib.blake2b(key=uid, digest_size=8)

    def of(self, kind: str, key: str, attempt: int, seq: int) -> int:
        """The id of a span."""
        found = self._keyed.copy()
        found.update(f"{kind}\0{key}\0{attempt}\0{seq}".encode())
        return int.from_bytes(found.digest(), "big") or 1
