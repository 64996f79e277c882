"""A picture as data: nodes, edges between them, and the undo lane. All formats are drawn from it.

Invariant: each key stands for one node, edges join nodes of the picture, and each compensation serves one of them.
"""

from collections.abc import Mapping
from typing import Literal, TypeGuard, get_args

import attrs

from sagas.diagram.labels import printable

Kind = Literal[
    "start",
    "end",
    "raise",
    "step",
    "pivot",
    "retriable",
    "lookup",
    "child",
    "sleep",
    "callback",
    "choice",
    "fork",
    "join",
    "merge",
    "unreadable",
    "compensation",
]
ACTIVITIES: frozenset[Kind] = frozenset({"step", "pivot", "retriable", "lookup", "child", "sleep", "callback"})
"""Kinds that a run may reach; the others are there to say how the flow goes."""
GATES: frozenset[Kind] = frozenset({"choice", "fork", "join", "merge"})

State = Literal[
    "",
    "unreached",
    "pending",
    "running",
    "succeeded",
    "rejected",
    "failed",
    "unknown",
    "skipped",
    "compensated",
    "compensation_failed",
]
"""What became of a node in a run; empty in the picture of a definition."""
TIMES = "\u00d7"
"""As in three times."""
SIGNS: Mapping[State, str] = {
    "": "",
    "unreached": "",
    "pending": "○",
    "running": "▶",
    "succeeded": "✓",
    "rejected": "⊘",
    "failed": "✗",
    "unknown": "?",
    "skipped": "»",
    "compensated": "↩",
    "compensation_failed": "!",
}
"""One sign for each state, so that no picture needs its colours."""
WORDS: Mapping[State, str] = {
    "": "",
    "unreached": "not reached",
    "compensated": "undone",
    "compensation_failed": "undo failed",
}
"""States in the words of a picture, where they differ."""
SHADES: Mapping[State, tuple[str, str]] = {
    "pending": ("#f0f2f5", "#8a94a3"),
    "running": ("#dbeafe", "#2563eb"),
    "succeeded": ("#dcfce7", "#15803d"),
    "rejected": ("#fee2e2", "#c81e1e"),
    "failed": ("#fee2e2", "#c81e1e"),
    "unknown": ("#f3e8ff", "#7e22ce"),
    "skipped": ("#f0f2f5", "#64748b"),
    "compensated": ("#fef3c7", "#b45309"),
    "compensation_failed": ("#fee2e2", "#c81e1e"),
}
"""Fill and outline, in the formats that know no dark mode."""


@attrs.frozen(kw_only=True)
class Counts:
    """How often runs came to a node: ``reached`` counts runs, whatever followed."""

    reached: int = 0
    failed: int = 0
    undone: int = 0


@attrs.frozen(kw_only=True)
class Mark:
    """A node of a picture."""

    key: str
    """Unique in the picture; of a step, its step key."""
    label: str = attrs.field(converter=printable)
    kind: Kind
    state: State = ""
    attempts: int = 0
    """Of the step in a run; 0 where it was not reached."""
    duration_s: float | None = None
    times: int = 1
    """How many steps of the run stand here, where a loop or a map repeats it."""
    repeats: bool = False
    """A map: once for each item, side by side."""
    note: str = attrs.field(converter=printable, default="")
    serves: str = ""
    """Of a compensation, the key of the node that it undoes."""
    scope: str = ""
    """What the step keys of a run begin with here: the savepoint, the branch."""
    counts: Counts | None = None
    """In a picture of many runs."""


@attrs.frozen(kw_only=True)
class Edge:
    """What comes after what."""

    source: str
    target: str
    label: str = attrs.field(converter=printable, default="")
    kind: Literal["flow", "when", "except", "back"] = "flow"
    """``when``: the target is skipped where the source's result is not true; ``back``: to the next round of a loop."""
    count: int | None = None
    """How many runs took it, in a picture of many runs."""
    faded: bool = False
    """The run did not take it."""


@attrs.frozen(kw_only=True)
class Frame:
    """A savepoint around some of the nodes."""

    label: str = attrs.field(converter=printable)
    members: frozenset[str]


@attrs.frozen(kw_only=True)
class Picture:
    """One saga, or what became of it."""

    title: str = attrs.field(converter=printable)
    subtitle: str = attrs.field(converter=printable, default="")
    nodes: tuple[Mark, ...]
    """Without the undo lane."""
    edges: tuple[Edge, ...]
    undos: tuple[Mark, ...] = ()
    """The undo lane: at most one for a node."""
    frames: tuple[Frame, ...] = ()
    joins_all: bool = False
    """A node with several edges to it waits for all of them, as in a graph; else for the one that is taken."""

    def undo_of(self) -> dict[str, Mark]:
        """The compensations by the key of the node that they undo."""
        return {undo.serves: undo for undo in self.undos}


def described(node: Mark) -> str:
    """The facts beside a node's name: ``x3 · 1.2 s``."""
    facts = [node.note]
    counts = node.counts
    if counts is not None and counts.reached:
        facts.append(f"{counts.reached} reached" if node.kind != "compensation" else f"{counts.reached} begun")
        facts += [f"{counts.failed} failed"] if counts.failed else []
        facts += [f"{counts.undone} undone"] if counts.undone and node.kind != "compensation" else []
    facts.append(WORDS.get(node.state, node.state.replace("_", " ")))
    facts += [f"{node.times} times"] if node.times > 1 else []
    facts += [f"{TIMES}{node.attempts}"] if node.attempts > 1 else []
    facts += [length(node.duration_s)] if node.duration_s is not None else []
    return " · ".join(fact for fact in facts if fact)


MS = 1000
MINUTE = 60
EXACT = 10
"""Seconds up to which a tenth is shown."""
UNITS = ((86400, "d", 3600, "h"), (3600, "h", MINUTE, "min"), (MINUTE, "min", 1, "s"))


def length(seconds: float) -> str:
    """A duration for people, in two figures at most: ``12 ms``, ``1.2 s``, ``3 min 20 s``, ``2 d 4 h``."""
    if round(seconds * MS) < MS:
        return f"{max(round(seconds * MS), 0)} ms"
    if round(seconds, 1) < MINUTE:
        shown = f"{seconds:.1f}" if round(seconds, 1) < EXACT else f"{seconds:.0f}"
        return "1 min" if shown == str(MINUTE) else f"{shown.removesuffix('.0')} s"
    whole = round(seconds)
    size, unit, part, small = next(each for each in UNITS if whole >= each[0])
    rest = whole % size // part
    return f"{whole // size} {unit}" + (f" {rest} {small}" if rest else "")


def is_state(status: str) -> TypeGuard[State]:
    """Whether a step's status is a state of a picture."""
    return status in get_args(State)


def kind_or_step(kind: str) -> Kind:
    """The kind of a run's step as a kind of node; a step's, where a picture has none for it."""
    known: Mapping[str, Kind] = {each: each for each in ACTIVITIES}
    return known.get(kind, "step")
