"""The picture of a saga that is written as code, as far as its source shows it.

Invariant: every act of the outline is one node, and what the source does not show is a node that says so.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, assert_never

from sagas.check.outline import (
    NOTHING,
    Act,
    Attempt,
    Block,
    Chain,
    Choice,
    Each,
    Inner,
    Leave,
    Loop,
    Part,
    Save,
    Unreadable,
    is_begun,
    outline,
)
from sagas.diagram.graphs import END, START
from sagas.diagram.picture import ACTIVITIES, Edge, Frame, Kind, Mark, Picture
from sagas.diagram.undoing import Children
from sagas.model.definition import SagaDef


class End(NamedTuple):
    """Where the flow has come to: what comes next is drawn after it."""

    key: str
    label: str = ""
    kind: Literal["flow", "when", "except", "back"] = "flow"


Ends = Sequence[End]


def coded_picture(definition: SagaDef[..., Any]) -> Picture:
    """The picture of a coded saga."""
    builder = _Builder()
    builder.gate("start", "start", [], key=START)
    last = builder.part(outline(definition), [End(START)])
    builder.gate("end", "end", [*last, *builder.returns[0]], key=END)
    return Picture(
        title=definition.name,
        subtitle=f"version {definition.version}",
        nodes=tuple(builder.nodes),
        edges=tuple(_merged(builder.edges)),
        undos=tuple(builder.undos),
        frames=tuple(builder.frames),
    )


class _Builder:
    """Lays the parts of an outline one after the other, and joins them by edges."""

    def __init__(self) -> None:
        self.nodes: list[Mark] = []
        self.edges: list[Edge] = []
        self.undos: list[Mark] = []
        self.frames: list[Frame] = []
        self.returns: list[list[End]] = [[]]
        """The returns of each function that is being followed."""
        self._breaks: list[list[End]] = []
        self._rounds: list[list[End]] = []
        """What each loop around goes on from, by ``continue``."""
        self._repeats = False
        self._children = Children()

    def gate(self, kind: Kind, label: str, ends: Ends, *, key: str = "") -> Ends:
        """Add a node that no run has in its journal."""
        return self._add(Mark(key=key or f"{kind}/{len(self.nodes)}/", label=label, kind=kind), ends)

    def part(self, part: Part, ends: Ends) -> Ends:  # noqa: PLR0911 - an answer for each kind
        """Add a part after these ends; returns the ends behind it."""
        match part:
            case Act():
                return self._act(part, ends)
            case Unreadable(label=label):
                return self.gate("unreadable", label, ends)
            case Choice():
                return self._choice(part, ends)
            case Attempt():
                return self._attempt(part, ends)
            case Loop():
                return self._loop(part, ends)
            case Block(part=inner):
                return self._block(inner, ends)
            case Leave():
                return self._leave(part, ends)
            case Chain() | Each() | Save() | Inner():
                return self._around(part, ends)
            case _:
                assert_never(part)

    def _around(self, part: Chain | Each | Save | Inner, ends: Ends) -> Ends:
        """What is within something that is no node itself."""
        match part:
            case Chain(parts=parts):
                for each in parts:
                    ends = self.part(each, ends) if ends else ends
            case Each(part=inner):
                outer, self._repeats = self._repeats, True
                ends = self.part(inner, ends)
                self._repeats = outer
            case Save(label=label, part=inner):
                first = len(self.nodes)
                ends = self.part(inner, ends)
                members = frozenset(node.key for node in self.nodes[first:])
                self.frames += [Frame(label=f"savepoint {label}".strip(), members=members)] if members else []
            case Inner(part=inner):
                self.returns.append([])
                ends = [*self.part(inner, ends), *self.returns.pop()]
            case _:
                assert_never(part)
        return ends

    def _add(self, mark: Mark, ends: Ends) -> Ends:
        self.nodes.append(mark)
        self.edges += [Edge(source=end.key, target=mark.key, label=end.label, kind=end.kind) for end in ends]
        return [End(mark.key)]

    def _act(self, act: Act, ends: Ends) -> Ends:
        is_pivot = act.kind == "pivot" or (isinstance(act.what, SagaDef) and self._children.has_pivot(act.what))
        mark = Mark(
            key=act.key,
            label=act.name,
            kind=act.kind,
            note="point of no return" if is_pivot else "for each" if self._repeats else act.said,
            repeats=self._repeats,
            scope=act.scope,
        )
        undo = self._children.undo_mark(act.key, act.name, act.what, scope=act.scope)
        self.undos += [] if undo is None or is_pivot else [undo]
        return self._add(mark, ends)

    def _choice(self, choice: Choice, ends: Ends) -> Ends:
        gate = self.gate("choice", choice.label, ends)[0].key
        return [end for arm in choice.arms for end in self.part(arm.part, [End(gate, arm.label)])]

    def _attempt(self, attempt: Attempt, ends: Ends) -> Ends:
        first = len(self.nodes)
        after = [*self.part(attempt.body, ends)]
        inside = self.nodes[first:]
        tried = [node.key for node in inside if node.kind in ACTIVITIES - {"sleep"} or node.kind == "unreadable"]
        tried = tried or [node.key for node in inside[:1]]
        for arm in attempt.arms:
            after += self.part(arm.part, [End(key, arm.label, "except") for key in tried])
        return after

    def _loop(self, loop: Loop, ends: Ends) -> Ends:
        head = self.gate("choice", loop.label, ends) if loop.exits else ends
        first = len(self.nodes) - loop.exits
        self._breaks.append([])
        self._rounds.append([])
        inside = [End(head[0].key, "next")] if loop.exits else head
        again = [*self.part(loop.part, inside), *self._rounds.pop()]
        target = self.nodes[first].key if first < len(self.nodes) else None
        if target is not None:
            self.edges += [Edge(source=end.key, target=target, label="again", kind="back") for end in again]
        breaks = self._breaks.pop()
        return [*(self.part(loop.otherwise, [End(head[0].key, "done")]) if loop.exits else []), *breaks]

    def _block(self, part: Part, ends: Ends) -> Ends:
        """A fork to all that is begun, and to what runs in the block itself."""
        parts = part.parts if isinstance(part, Chain) else (part,)
        branches = [each for each in parts if is_begun(each)]
        own = Chain(tuple(each for each in parts if not is_begun(each)))
        branches += [own] if own != NOTHING else []
        if len(branches) <= 1 and not any(isinstance(each, Each) for each in branches):
            return self.part(part, ends)
        fork = self.gate("fork", "all of", ends)
        after = [end for each in branches for end in self._branch(each, fork)]
        return self.gate("join", "then", after) if after else []

    def _branch(self, part: Part, fork: Ends) -> Ends:
        """A branch, which comes to the join once."""
        ends = self.part(part, fork)
        return self.gate("merge", "or", ends) if len(ends) > 1 else ends

    def _leave(self, leave: Leave, ends: Ends) -> Ends:
        match leave.how:
            case "return":
                self.returns[-1] += ends
            case "raise":
                self.gate("raise", f"raise {leave.label}".strip(), ends)
            case "break":
                self._breaks[-1] += ends
            case _:  # continue
                self._rounds[-1] += ends
        return []


def _merged(edges: Iterable[Edge]) -> Iterable[Edge]:
    """One edge for each pair of nodes and direction, with the labels of all."""
    found: dict[tuple[str, str, bool], Edge] = {}
    for edge in edges:
        place = (edge.source, edge.target, edge.kind == "back")
        known = found.get(place)
        if known is None:
            found[place] = edge
        elif edge.label != known.label:
            label = " or ".join(filter(None, (known.label, edge.label)))
            found[place] = Edge(source=edge.source, target=edge.target, label=label, kind=known.kind)
    return found.values()
