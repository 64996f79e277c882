"""Writes the tables of docs/reference/operators.md: `python -m tools.operators_page`.

Invariant: the same verbs give the same text, so that a test can tell whether the page is current.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from sagas.model.phases import SagaStatus
from sagas.model.verbs import VERBS, Verb

PAGE = Path(__file__).parents[1] / "docs/reference/operators.md"
ACTS, HARMLESS, REFUSED = "✓", "=", ""


def render() -> str:
    """Both tables: which verb acts in which status, and what each does."""
    return "\n".join([*_by_status(), "", *_by_verb()]) + "\n"


def rewritten(page: str) -> str:
    """The page with the current tables."""
    return re.sub(
        r"^\| Status \|(?:[^\n]*\|\n)+\n\| Verb \|(?:[^\n]*\|\n)+", lambda _: render(), page, flags=re.MULTILINE
    )


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
        step = " or ".join(f"`{status}`" for status in sorted(verb.steps))
        yield _row([f"`{name}`", verb.does, step, "refused" if verb.undoes else ""])


def _row(cells: Sequence[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
