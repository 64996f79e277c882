"""The plan of a saga as a small text: what it runs, in which order. Kept in a folder, it shows when that has changed.

A graph's plan is exact. Of a saga that is written as code it has the steps that its body names, in the order of the
text, and the fingerprint of the body. Invariant: the same saga gives the same text, wherever its code stands; types of
other modules are named with their modules.
"""

from collections.abc import Iterator, Sequence
from difflib import unified_diff
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

import attrs

from sagas.check.fingerprint import fingerprint
from sagas.check.graph import lines_of, traits
from sagas.check.scan import Scan, scan
from sagas.model.definition import SagaDef
from sagas.model.graph import GraphDef

LONGEST_FILE = 200
"""Characters of a file's name that are taken from the saga's: file systems take 255 in all."""
HEAD = "# Written by `sagas plan`. `sagas check --plans` fails where a plan changes and its version does not.\n"


@attrs.frozen
class SagaPlan:
    """The plan of one version of a saga."""

    saga: str
    version: int
    text: str

    @property
    def file(self) -> str:
        """The name of its file: no two sagas or versions share one, whatever their names are made of."""
        name = quote(self.saga, safe=" ")
        if len(name) > LONGEST_FILE:
            name = f"{name[: LONGEST_FILE - 17]}~{blake2b(self.saga.encode(), digest_size=8).hexdigest()}"
        return f"{name}.v{self.version}.plan"

    def changes(self, kept: str) -> list[str]:
        """The lines in which it differs from a text that was kept, as ``-`` and ``+``; empty if in none."""
        lines = unified_diff(_lines(kept), _lines(self.text), n=0, lineterm="")
        return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


def plan_of(definition: SagaDef[..., Any], found: Scan) -> SagaPlan:
    """The plan of a saga.

    Args:
        definition: the saga.
        found: what its scan has found.
    """
    if isinstance(definition, GraphDef):
        body = [*lines_of(definition), *sorted(_children(definition, found))]
    else:
        body = list(_coded(definition, found))
    policy = [] if definition.on_failure == "rollback" else [f"on failure {definition.on_failure}"]
    lines = [f"saga {definition.name}", f"version {definition.version}", *policy, *body]
    return SagaPlan(definition.name, definition.version, HEAD + "".join(f"{line}\n" for line in lines))


def _children(graph: GraphDef[...], found: Scan) -> Iterator[str]:
    """The bodies that a graph runs, near and far; the fingerprint of a coded saga has them in it."""
    for child in {use.what for use in found.uses if isinstance(use.what, SagaDef)} - {graph}:
        yield f"where {child.name} version {child.version} is {fingerprint(child, scan(child))}"


def _coded(definition: SagaDef[..., Any], found: Scan) -> Iterator[str]:
    yield f"body {fingerprint(definition, found)}"
    for use in found.uses:
        if use.owner is definition:
            kind = "child" if isinstance(use.what, SagaDef) else use.what.kind
            yield " ".join([f"{kind} {use.what.name}", *traits(use.what)])


def _lines(text: str) -> Sequence[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]
