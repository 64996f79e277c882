"""The tables of docs/reference/operators.md, made from the one that the verbs are judged by.

``python -m sagas.cli.tables`` prints them. Invariant: the same verbs give the same text, so that a test can tell
whether the page is the current one.
"""

import sys
from collections.abc import Iterator, Sequence

from sagas.model.info import SagaStatus
from sagas.model.verbs import VERBS, Verb

ACTS, HARMLESS, REFUSED = "✓", "=", ""


def render() -> str:
    """Both tables: which verb acts in which status, and what each does."""
    return "\n".join([*_by_status(), "", *_by_verb()]) + "\n"


def cell(verb: Verb, status: SagaStatus) -> str:
    """What a verb comes to where a saga stands so."""
    if status in verb.repeated:
        return HARMLESS
    return ACTS if status in verb.accepted else REFUSED


def _by_status() -> Iterator[str]:
    yield _row(["Status", *(f"`{name}`" for name in VERBS)])
    yield _row(["---", *(":-:" for _ in VERBS)])
    for status in SagaStatus:
        yield _row([f"`{status}`", *(cell(verb, status) for verb in VERBS.values())])


def _by_verb() -> Iterator[str]:
    yield _row(["Verb", "What it does", "Its step must be", "After the pivot"])
    yield _row(["---"] * 4)
    for name, verb in VERBS.items():
        step = "" if verb.step is None else f"`{verb.step}`"
        yield _row([f"`{name}`", verb.does, step, "refused" if verb.undoes else ""])


def _row(cells: Sequence[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


if __name__ == "__main__":
    sys.stdout.write(render())
