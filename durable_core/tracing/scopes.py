"""The parts of a run that hold others: blocks and branches by their keys, children and rollbacks by their marks.

Invariant: a part is opened by a short span, so that what is in it never waits for its end to have a parent.
"""

import attrs

from durable_core.model.entry import Entry
from durable_core.model.keys import name_of
from durable_core.tracing.builder import SpanBuilder
from durable_core.tracing.span import Holder, SpanRecord
from durable_core.tracing.vocabulary import Closes, Opens


@attrs.frozen
class Part:
    """A part that a mark has opened."""

    opens: Opens
    span: Holder
    since_ns: int
    seq: int
    """The mark's entry."""
    inner: dict[str, Holder] = attrs.field(factory=dict[str, Holder])
    """Its own parts, for what is under the prefix of a child."""


class SpanScopes:
    """Where in the run a step or wait belongs."""

    __slots__ = ("_children", "_kinds", "_marked", "_pen", "_root", "_scopes")

    def __init__(self, pen: SpanBuilder, root: Holder) -> None:
        self._pen = pen
        self._root = root
        self._scopes: dict[str, Holder] = {"": root}
        """The span that holds what is under each prefix."""
        self._children: set[str] = set()
        """The prefixes that are those of children."""
        self._kinds: dict[str, Part] = {}
        """Parts that hold some kinds of steps only, by prefix."""
        self._marked: dict[str, Part] = {}
        """Parts by the mark that opened them."""

    def of(self, key: str, kind: str) -> tuple[Holder, list[SpanRecord]]:
        """The parent of the step or wait at ``key``, and the parts around it that have no span yet."""
        if not self._kinds and "/" not in key:
            return self._root, []
        prefixes = _prefixes(key)
        for place in range(len(prefixes) - 1, -1, -1):
            part = self._kinds.get(prefixes[place])
            if part is not None and part.opens.kinds is not None and kind in part.opens.kinds:
                return self._within(part, prefixes[place + 1 :])
        found: list[SpanRecord] = []
        holder = self._root
        for prefix in prefixes:
            known = self._scopes.get(prefix)
            if known is None:
                key = prefix[:-1]
                span_id = self._pen.id("block", prefix)
                known = self._scopes[prefix] = holder.holding(span_id)
                attributes = self._pen.attributes(step__name=name_of(key), step__key=key, step__kind="block")
                found.append(self._pen.span(name_of(key), span_id, holder, attributes, holds=True))
            holder = known
        return holder, found

    def _within(self, part: Part, prefixes: list[str]) -> tuple[Holder, list[SpanRecord]]:
        """Where in ``part`` that is which is under these prefixes: one part more for each of them that is a child's."""
        holder, name = part.span, part.opens.inner
        found: list[SpanRecord] = []
        if name is None or not self._children:
            return holder, found
        for prefix in prefixes:
            if prefix not in self._children:
                continue
            known = part.inner.get(prefix)
            if known is None:
                key = prefix[:-1]
                span_id = self._pen.id("inner", prefix, 0, part.seq)
                known = part.inner[prefix] = holder.holding(span_id)
                attributes = self._pen.attributes(step__key=key)
                found.append(self._pen.span(name.format(child=name_of(key)), span_id, holder, attributes, holds=True))
            holder = known
        return holder, found

    def open(self, entry: Entry, opens: Opens) -> list[SpanRecord]:
        """A mark begins a part."""
        parent, found = self.of(opens.scope[:-1] if opens.kinds is None else opens.scope, "")
        span_id = self._pen.id("part", entry.key, 0, entry.seq)
        part = self._marked[entry.key] = Part(opens, parent.holding(span_id), self._pen.now_ns, entry.seq)
        if opens.kinds is None:
            self._scopes[opens.scope] = part.span
        else:
            self._kinds = {prefix: old for prefix, old in self._kinds.items() if not prefix.startswith(opens.scope)}
            self._kinds[opens.scope] = part
        if opens.child:
            self._children.add(opens.scope)
        attributes = self._pen.attributes(entry.worker, **opens.attributes)
        found.append(self._pen.span(opens.name, span_id, parent, attributes, holds=True))
        return found

    def close(self, entry: Entry, closes: Closes) -> list[SpanRecord]:
        """A mark ends a part that another has begun."""
        part = self._marked.pop(closes.opened, None)
        if part is None:
            return []
        begun = part.opens
        if self._kinds.get(begun.scope) is part:
            del self._kinds[begun.scope]
        name = begun.done or f"{begun.name} done"
        if closes.name is not None:
            name = closes.name.format_map(begun.attributes)
        return [
            self._pen.span(
                name,
                self._pen.id("part done", closes.opened, 0, entry.seq),
                part.span,
                self._pen.attributes(entry.worker, **{**begun.attributes, **closes.attributes}),
                start_ns=part.since_ns,
                end_ns=self._pen.now_ns,
                failed=closes.failed,
                tells=(part.span.span_id,),
            )
        ]

    def close_all(self, entry: Entry) -> list[SpanRecord]:
        """The run ends, and with it what has a name for its end."""
        open_still = [mark for mark, part in self._marked.items() if part.opens.done is not None]
        return [span for mark in reversed(open_still) for span in self.close(entry, Closes(opened=mark))]

    def under_way(self) -> set[int]:
        """The spans of parts that have not been closed."""
        return {part.span.span_id for part in self._marked.values()}


def _prefixes(key: str) -> list[str]:
    """The prefixes of ``key``, the outermost first: ``a/b/c`` has none, ``a/`` and ``a/b/``."""
    found = [""]
    place = key.find("/")
    while place >= 0:
        found.append(key[: place + 1])
        place = key.find("/", place + 1)
    return found
