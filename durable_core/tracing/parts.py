"""The parts of a run that hold others: blocks and branches by their keys, children and rollbacks by their marks.

Invariant: a part is opened by a short span, so that what is in it never waits for its end to have a parent.
"""

import attrs

from durable_core.model.entry import Entry
from durable_core.model.keys import name_of
from durable_core.tracing.pen import Pen
from durable_core.tracing.span import SpanRecord
from durable_core.tracing.vocabulary import Closes, Opens


@attrs.frozen
class Part:
    """A part that a mark has opened."""

    opens: Opens
    span_id: int
    parent_id: int
    since_ns: int


class Parts:
    """Where in the run a step or wait belongs."""

    __slots__ = ("_kinds", "_marked", "_pen", "_root", "_scopes")

    def __init__(self, pen: Pen, root: int) -> None:
        self._pen = pen
        self._root = root
        self._scopes: dict[str, int] = {"": root}
        """The span that holds what is under each prefix."""
        self._kinds: dict[str, Part] = {}
        """Parts that hold some kinds of steps only, by prefix."""
        self._marked: dict[str, Part] = {}
        """Parts by the mark that opened them."""

    def of(self, key: str, kind: str) -> tuple[int, list[SpanRecord]]:
        """The parent of the step or wait at ``key``, and the blocks around it that have no span yet."""
        if not self._kinds and "/" not in key:
            return self._root, []
        prefixes = _prefixes(key)
        for prefix in reversed(prefixes):
            part = self._kinds.get(prefix)
            if part is not None and part.opens.kinds is not None and kind in part.opens.kinds:
                return part.span_id, []
        found: list[SpanRecord] = []
        holder = self._root
        for prefix in prefixes:
            known = self._scopes.get(prefix)
            if known is None:
                known = self._scopes[prefix] = self._pen.id("block", prefix)
                attributes = self._pen.attributes(
                    step__name=name_of(prefix[:-1]), step__key=prefix[:-1], step__kind="block"
                )
                found.append(self._pen.span(name_of(prefix[:-1]), known, holder, attributes))
            holder = known
        return holder, found

    def open(self, entry: Entry, opens: Opens) -> list[SpanRecord]:
        """A mark begins a part."""
        if opens.kinds is None:
            outside = opens.scope[:-1]
            parent, found = self.of(outside, "")
        else:
            parent, found = self.of(opens.scope, "")
        span_id = self._pen.id("part", entry.key, 0, entry.seq)
        part = self._marked[entry.key] = Part(opens, span_id, parent, self._pen.now_ns)
        if opens.kinds is None:
            self._scopes[opens.scope] = span_id
        else:
            self._kinds = {prefix: old for prefix, old in self._kinds.items() if not prefix.startswith(opens.scope)}
            self._kinds[opens.scope] = part
        attributes = self._pen.attributes(worker__id=entry.worker, **opens.attributes)
        found.append(self._pen.span(opens.name, span_id, parent, attributes))
        return found

    def close(self, entry: Entry, closes: Closes) -> list[SpanRecord]:
        """A mark ends a part that another has begun."""
        part = self._marked.pop(closes.opened, None)
        if part is None:
            return []
        if self._kinds.get(part.opens.scope) is part:
            del self._kinds[part.opens.scope]
        name = closes.name or part.opens.done or f"{part.opens.name} done"
        attributes = self._pen.attributes(worker__id=entry.worker, **closes.attributes)
        span_id = self._pen.id("part done", closes.opened, 0, entry.seq)
        end_ns = self._pen.now_ns
        return [
            self._pen.span(
                name, span_id, part.span_id, attributes, start_ns=part.since_ns, end_ns=end_ns, failed=closes.failed
            )
        ]

    def close_all(self, entry: Entry) -> list[SpanRecord]:
        """The run ends, and with it what has a name for its end."""
        open_still = [mark for mark, part in self._marked.items() if part.opens.done is not None]
        return [span for mark in reversed(open_still) for span in self.close(entry, Closes(opened=mark))]


def _prefixes(key: str) -> list[str]:
    """The prefixes of ``key``, the outermost first: ``a/b/c`` has none, ``a/`` and ``a/b/``."""
    found = [""]
    place = key.find("/")
    while place >= 0:
        found.append(key[: place + 1])
        place = key.find("/", place + 1)
    return found
